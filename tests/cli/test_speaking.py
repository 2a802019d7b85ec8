"""Commands that ask a running director, or tell it something: what they print and how they exit."""

import json
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pylvs.cli import changes, config, drain, inspect, main
from pylvs.errors import HostError
from tests.control.api.test_resources import NAME, SERVER, Spoken
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP


@pytest.fixture
def spoken(monkeypatch):
    one = Spoken(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVER} -m")

    def speak(method, where, body="", control=None):
        parts = urlsplit(where)
        return one(method, unquote(parts.path), body.encode(), **dict(parse_qsl(parts.query)))

    for module in (changes, config, drain, inspect):
        monkeypatch.setattr(module, "speak", speak)
    return one


def pylvs(capsys, *words):
    """Run the command line; return its exit status, output and complaints."""
    try:
        main.main([str(word) for word in words])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    told = capsys.readouterr()
    return status, told.out, told.err


def test_services_are_shown_as_a_table_and_as_json(spoken, capsys):
    spoken.world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    status, shown, _ = pylvs(capsys, "service")
    assert status == 0
    assert [line.split()[0] for line in shown.splitlines()] == ["Service", NAME, SERVER]
    assert shown.splitlines()[2].split()[1:6] == ["nat", "1", "1", "0", "1"]
    _, one, _ = pylvs(capsys, "service", NAME, "--json")
    assert json.loads(one)["servers"][0]["active"] == 1
    assert pylvs(capsys, "service", NAME, "--rates")[0] == 0


def test_connections_go_on_where_they_ended(spoken, capsys):
    for port in range(3):
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
    _, shown, more = pylvs(capsys, "connection", "--limit", 2)
    assert len(shown.splitlines()) == 3
    after = more.split()[-1]
    _, rest, _ = pylvs(capsys, "connection", "--after", after, "--service", NAME, "--json")
    (one,) = json.loads(rest)["connections"]
    assert one["client"] == f"{CLIENT}:40002"


def test_totals_and_settings_are_shown(spoken, capsys):
    assert "Reason" in pylvs(capsys, "stats")[1]
    assert json.loads(pylvs(capsys, "stats", "--json")[1])["connections"] == 0
    _, shown, _ = pylvs(capsys, "settings", "sloppy_tcp=1")
    assert "net.ipv4.vs.sloppy_tcp = 1" in shown.splitlines()
    assert json.loads(pylvs(capsys, "settings", "--json")[1])["net.ipv4.vs.sloppy_tcp"] == 1
    assert pylvs(capsys, "settings", "sloppy_tcp")[0] == 2
    assert pylvs(capsys, "settings", f"sloppy_tcp={'9' * 5_000}")[0] == 2


def test_a_table_is_restored_as_a_difference(spoken, capsys, tmp_path):
    rules = tmp_path / "rules"
    rules.write_text(f"-A -t {VIP}:80 -s wlc\n-a -t {VIP}:80 -r {SERVER} -m -w 5\n")
    lines = [f"-E -t {VIP}:80 -s wlc", f"-e -t {VIP}:80 -r {SERVER} -m -w 5"]
    _, shown, told = pylvs(capsys, "restore", rules, "--dry-run")
    assert (shown.splitlines(), told) == (lines, "2 changes would be made\n")
    assert json.loads(pylvs(capsys, "restore", rules, "--json")[1]) == {"changes": lines}
    assert pylvs(capsys, "restore", rules)[2] == "0 changes made\n"
    rules.write_text("-A\n-B\n")
    status, _, told = pylvs(capsys, "restore", rules)
    assert (status, told.count("rules:")) == (2, 2)
    assert pylvs(capsys, "restore", tmp_path / "missing")[0] == 2


def test_a_file_is_checked_compared_shown_and_converted(spoken, capsys, tmp_path):
    path = tmp_path / "pylvs.toml"
    _, shown, _ = pylvs(capsys, "config", "show")
    path.write_text(f'[director]\ninterfaces = ["eth0"]\n{shown}')
    assert pylvs(capsys, "config", "check", path)[1] == f"{path}: 1 services, 1 servers, no fault\n"
    assert pylvs(capsys, "config", "diff", path)[2] == "0 changes would be made\n"
    _, rules, _ = pylvs(capsys, "config", "convert", path, "--to", "ipvsadm")
    assert rules.splitlines() == [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVER} -m -w 1"]
    (tmp_path / "rules").write_text(f"{rules}--set 1 0 0\n")
    _, again, _ = pylvs(capsys, "config", "convert", tmp_path / "rules", "--to", "toml")
    assert again.startswith("[timeouts]\ntcp = 1\n")
    assert 'scheduler = "rr"' in again
    path.write_text("[[services]]\nscheduler = 4\n")
    status, _, told = pylvs(capsys, "config", "check", path)
    assert status == 2
    assert len(told.splitlines()) == 3
    assert json.loads(pylvs(capsys, "config", "show", "--json")[1])["services"]


class TestDraining:
    def test_a_server_with_nothing_is_drained_at_once(self, spoken, capsys):
        assert pylvs(capsys, "drain", NAME, SERVER)[0] == 0
        (service,) = spoken("GET", "/services")
        assert service["servers"][0]["weight"] == 0

    def test_what_is_left_at_the_deadline_stays_or_goes(self, spoken, capsys):
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
        status, shown, told = pylvs(capsys, "drain", NAME, SERVER, "--deadline", "0s", "--json")
        assert (status, json.loads(shown)["left"]) == (1, 1)
        assert "1 connections left" in told
        status, _, told = pylvs(capsys, "drain", NAME, SERVER, "--deadline=0", "--then=reset")
        assert status == 0
        assert "1 active, 0 inactive" in told
        assert spoken.world.connections() == []

    def test_a_marks_server_has_no_port(self, spoken, capsys):
        for rule in ("-A -f 5 -s rr", "-a -f 5 -r 10.0.0.12:0 -m"):
            spoken.world.rule(rule)
        assert pylvs(capsys, "drain", "mark:5", "10.0.0.12")[0] == 0

    @pytest.mark.parametrize(
        "words", [(NAME, "1.1.1.1"), (f"udp:{VIP}:1", SERVER), (NAME, SERVER, "--deadline=soon")]
    )
    def test_nonsense_is_refused(self, spoken, capsys, words):
        assert pylvs(capsys, "drain", *words)[0] == 2


def test_where_no_director_runs_it_is_said(capsys, tmp_path):
    status, _, told = pylvs(capsys, "service", "--control", tmp_path / "none")
    assert status == 1
    assert "no director runs" in told
    with pytest.raises(HostError, match="cannot be reached"):
        inspect.speak("GET", "/services", "", str(tmp_path / ("x" * 200)))
