"""What a director is asked and told by HTTP: its table, services, connections, settings."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.control.api.handling import Asked, NotFoundError
from pylvs.control.api.openapi import describe
from pylvs.control.api.resources import Resources
from pylvs.control.ipvsadm import render
from pylvs.errors import UsageError
from tests.conftest import examples
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP, World

NAME = f"tcp:{VIP}:80"
SERVER = "10.0.0.11:8080"


class Spoken:
    """A world, and who speaks about it."""

    def __init__(self, *rules):
        self.world = World(rules)
        self.operations = {
            (one.method, one.path): one for one in Resources(self.world.manager).operations()
        }

    def __call__(self, method, where, body=None, **query):
        """Ask as the server would, ``where`` as in /services/NAME/servers/NAME."""
        steps = where.strip("/").split("/")
        path = dict(zip(("service", "server"), steps[1:4:2], strict=False))
        names = "/{service}" * (len(steps) > 1) + "/servers/{server}" * (len(steps) > 3)
        known = f"/{steps[0]}{names}" + "".join(f"/{step}" for step in steps[4:])
        said = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body)
        said = said if isinstance(said, bytes) else said.encode()
        operation = self.operations[method, known]
        answer = operation.handler(Asked(path, query, said))
        msgspec.convert(answer, operation.answer)  # what was promised, and no more
        return answer


@pytest.fixture
def spoken():
    return Spoken(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVER} -m -w 2")


def test_the_table_is_read_and_put_back(spoken):
    document = spoken("GET", "/table")
    assert document["services"] == [
        {
            "service": NAME,
            "scheduler": "rr",
            "servers": [{"server": SERVER, "method": "nat", "weight": 2}],
        }
    ]
    assert spoken("PUT", "/table", document) == {"changes": []}
    document["services"][0]["scheduler"] = "wlc"
    document["timeouts"]["udp"] = 30
    told = {"changes": [f"-E -t {VIP}:80 -s wlc", "--set 900 120 30"]}
    assert spoken("PUT", "/table", document, dry_run="1") == told
    assert spoken("PUT", "/table", document, dry_run="0") == told
    assert spoken("PUT", "/table", document) == {"changes": []}
    assert spoken("PUT", "/table", {"rules": f"-A -t {VIP}:80\n--set 0 0 9"}, dry_run="1") == {
        "changes": [f"-d -t {VIP}:80 -r {SERVER}", "--set 900 120 9"]
    }
    assert spoken("PUT", "/table", {"rules": f"-A -u {VIP}:53"}) == {
        "changes": [f"-D -t {VIP}:80", f"-A -u {VIP}:53 -s wlc"]
    }


def test_a_service_is_shown_with_its_counters(spoken):
    spoken.world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    (one,) = spoken("GET", "/services")
    assert one == spoken("GET", f"/services/{NAME}")
    assert one["counters"]["connections"] == one["counters"]["in_packets"] == 1
    (server,) = one["servers"]
    assert (server["server"], server["active"], server["inactive"]) == (SERVER, 1, 0)
    assert server["counters"] == one["counters"]
    with pytest.raises(NotFoundError, match="no service"):
        spoken("GET", f"/services/udp:{VIP}:80")
    with pytest.raises(UsageError, match="give tcp:IP:PORT"):
        spoken("GET", "/services/http")


def test_services_and_servers_are_put_and_deleted(spoken):
    put = spoken("PUT", f"/services/udp:{VIP}:53", {"scheduler": "sh", "one_packet": True})
    assert put == {"changes": [f"-A -u {VIP}:53 -s sh -o"]}
    one = {"method": "tun", "weight": 0}
    where = f"/services/udp:{VIP}:53/servers/10.0.0.9"
    assert spoken("PUT", where, one) == {
        "changes": [f"-a -u {VIP}:53 -r 10.0.0.9:53 -i -w 0 --tun-type ipip"]
    }
    assert spoken("PUT", where, one) == {"changes": []}
    assert spoken("DELETE", where) == {"changes": [f"-d -u {VIP}:53 -r 10.0.0.9:53"]}
    with pytest.raises(NotFoundError, match="no server"):
        spoken("DELETE", where)
    assert spoken("DELETE", f"/services/udp:{VIP}:53") == {"changes": [f"-D -u {VIP}:53"]}
    missing = "/servers/1.1.1.1"
    for method, place in (("DELETE", ""), ("PUT", missing), ("DELETE", missing)):
        with pytest.raises(NotFoundError, match="no service"):
            spoken(method, f"/services/udp:{VIP}:53{place}", {})


@pytest.mark.parametrize(
    ("where", "body", "told"),
    [
        ("/table", b"{", "not JSON"),
        ("/table", b"[]", "not a JSON object"),
        ("/table", b"", "not JSON"),
        ("/table", {}, "services: it is missing"),
        (f"/services/{NAME}", b"", "not JSON"),
        ("/table", b"[" * 100_000, "not JSON"),
        ("/table", {"services": [{"service": "x"}]}, r"services\[0\].service"),
        ("/table", {"rules": "-A -t 1.2.3.4:80\n-A nonsense"}, "rules:2"),
        ("/table", {"services": [{"service": NAME, "scheduler": "none.such:X"}]}, "none"),
        (f"/services/{NAME}", {"weight": 1}, "no such field"),
        (f"/services/{NAME}", {"flags": ["sh-port"]}, "flag"),
        (f"/services/{NAME}/servers/{SERVER}", {"lower": 2}, "above upper"),
        (f"/services/{NAME}/servers/nowhere", {}, "not an IP address"),
        ("/settings", {"sloppy_tcp": 2, "drop_entry": "x"}, "drop_entry: give a number"),
    ],
)
def test_what_is_wrong_is_named_and_changes_nothing(spoken, where, body, told):
    before = spoken("GET", "/table"), spoken("GET", "/settings")
    with pytest.raises(UsageError, match=told):
        spoken("PUT", where, body)
    assert (spoken("GET", "/table"), spoken("GET", "/settings")) == before


def test_what_ipvsadm_may_state_is_a_document_that_may_be_given_back(spoken):
    spoken.world.rule("-A -u 192.0.2.77:5060 -s rr --pe sip")
    told = spoken("GET", "/table")
    assert "sip" in [one["engine"] for one in told["services"] if "engine" in one]
    assert spoken("PUT", "/table", told)["changes"] == []


def test_connections_are_filtered_and_paged(spoken):
    for port in range(5):
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
    answer = spoken("GET", "/connections", limit="2")
    assert len(answer["connections"]) == 2
    rest = spoken("GET", "/connections", after=str(answer["next"]))
    assert len(rest["connections"]) == 3
    assert "next" not in rest
    (one,) = spoken("GET", "/connections", client=f"{CLIENT}:40003")["connections"]
    assert (one["virtual"], one["server"], one["state"]) == (f"{VIP}:80", SERVER, "SYN_RECV")
    for query, count in (
        ({"client": CLIENT}, 5),
        ({"client": "9.9.9.9"}, 0),
        ({"client": "[2001:0DB8::1]"}, 0),
        ({"server": SERVER, "service": NAME}, 5),
        ({"service": f"udp:{VIP}:80"}, 0),
        ({"state": "ESTABLISHED"}, 0),
        ({"state": "SYN_RECV"}, 5),
    ):
        assert len(spoken("GET", "/connections", **query)["connections"]) == count
    with pytest.raises(UsageError, match="give IP or IP:PORT"):
        spoken("GET", "/connections", client="nobody:x:y]")
    with pytest.raises(UsageError, match="limit is a number"):
        spoken("GET", "/connections", limit="many")


def test_totals_and_reasons_are_told(spoken):
    spoken.world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    told = spoken("GET", "/stats")
    assert told["connections"] == told["counters"]["connections"] == 1
    assert told["reasons"]["forwarded"] == 1
    assert set(told["rates"]) == set(told["counters"])


def test_settings_are_changed_all_or_none(spoken):
    told = spoken("PUT", "/settings", {"sloppy_tcp": 1, "net.ipv4.vs.conn_reuse_mode": 0})
    assert told["net.ipv4.vs.sloppy_tcp"] == 1
    assert told["net.ipv4.vs.conn_reuse_mode"] == 0
    with pytest.raises(UsageError):
        spoken("PUT", "/settings", {"sloppy_tcp": 0, "nonsense": 1})
    assert spoken("GET", "/settings") == told


class TestForgetting:
    def test_a_servers_connections_are_forgotten_and_no_others(self, spoken):
        spoken.world.rule(f"-a -t {VIP}:80 -r 10.0.0.12:8080 -m")
        for port in range(6):
            spoken.world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
        place = f"/services/{NAME}/servers/{SERVER}"
        assert spoken("POST", f"{place}/forget", what="connections") == {"forgotten": 3}
        (service,) = spoken("GET", "/services")
        assert sorted(one["active"] for one in service["servers"]) == [0, 3]
        assert spoken("POST", f"{place}/forget", what="connections") == {"forgotten": 0}

    def test_a_client_whose_template_is_forgotten_is_scheduled_anew(self):
        rules = (f"-A -t {VIP}:80 -s rr -p 600", f"-a -t {VIP}:80 -r {SERVER} -m")
        spoken = Spoken(*rules)
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
        spoken.world.rule(f"-e -t {VIP}:80 -r {SERVER} -m -w 0")
        spoken.world.rule(f"-a -t {VIP}:80 -r 10.0.0.12:8080 -m")
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_001, 80))
        ends = [one["server"] for one in spoken("GET", "/connections")["connections"]]
        assert ends.count("10.0.0.12:8080") == 0  # as in Linux, whatever its weight
        place = f"/services/{NAME}/servers/{SERVER}"
        assert spoken("POST", f"{place}/forget", what="templates") == {"forgotten": 1}
        assert spoken("POST", f"{place}/forget", what="templates") == {"forgotten": 0}
        spoken.world.send(tcp_frame(CLIENT, VIP, 40_002, 80))
        ends = [one["server"] for one in spoken("GET", "/connections")["connections"]]
        assert ends.count("10.0.0.12:8080") >= 1

    def test_nonsense_is_refused(self, spoken):
        with pytest.raises(UsageError, match="what is connections"):
            spoken("POST", f"/services/{NAME}/servers/{SERVER}/forget")
        with pytest.raises(NotFoundError, match="no server"):
            spoken("POST", f"/services/{NAME}/servers/1.1.1.1/forget", what="templates")


def test_without_a_file_there_is_nothing_to_read_again(spoken):
    with pytest.raises(UsageError, match="no configuration file"):
        spoken("POST", "/reload")


texts = st.sampled_from([NAME, SERVER, "x", ""])
scalar = st.none() | st.booleans() | st.integers(-5, 70_000) | texts
word = st.sampled_from(["services", "service", "servers", "server", "weight", "flags", "rules"])
body = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=4),
    max_leaves=12,
)


@examples(150)
@given(st.sampled_from(["/table", f"/services/{NAME}", "/settings"]), body)
def test_a_body_is_taken_whole_or_not_at_all(where, said):
    spoken = Spoken(f"-A -t {VIP}:80 -s rr")
    before = spoken("GET", "/table")
    try:
        told = spoken("PUT", where, said)
    except UsageError:
        assert spoken("GET", "/table") == before
    else:
        if where != "/settings":
            assert bool(told["changes"]) == (spoken("GET", "/table") != before)


def test_what_is_told_as_a_command_line_is_one(spoken):
    from pylvs.control.ipvsadm.rules import parse_line
    from pylvs.control.model import Command

    for line in (f"-D -t {VIP}:80", "-C", "--set 1 2 3"):
        assert render.command(parse_line(line.split())) == line
    assert render.command(Command("C")) == "-C"


def test_the_description_names_every_operation_and_type(spoken):
    told = describe(spoken.operations.values())
    assert set(told["paths"]) == {path for _, path in spoken.operations}
    service = told["paths"]["/services/{service}"]
    assert set(service) == {"get", "put", "delete"}
    assert service["get"]["parameters"][0]["name"] == "service"
    body = service["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"anyOf": [{"$ref": "#/components/schemas/Service"}]}
    body = told["paths"]["/table"]["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/Rules"} in body["anyOf"]
    assert "weight" in told["components"]["schemas"]["Server"]["properties"]
    json.dumps(told)
