"""The control socket: who may speak, what is said to nonsense, and the client's side."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylvs.control import client, listing
from pylvs.control.api import server as api
from pylvs.control.api.events import Events
from pylvs.control.api.resources import Resources
from pylvs.control.api.server import Api
from pylvs.control.changes import Changer
from pylvs.control.ipvsadm.executor import Executor, Result
from tests.world import VIP, World


def made(path):
    manager = World().manager
    return Api(path, Executor(manager), Resources(manager), Events())


class Served:
    """A director's control socket, answering in a thread of its own."""

    def __init__(self, folder):
        self.world = World()
        self.path = folder / "control"
        manager = self.world.manager
        events = Events()
        changer = Changer(manager, tell=events.tell)
        executor = Executor(manager, changer=changer)
        self.api = Api(self.path, executor, Resources(manager, changer=changer), events)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        self.loop.run_until_complete(self.api.serve())

    def close(self):
        self.api.stop()
        self.thread.join(10)
        self.api.close()

    def post(self, body, path="/ipvsadm"):
        """Send any bytes as a request's body; return the status and what was answered."""
        connection = client._Connection(self.path)
        connection.timeout = 10
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def served():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        one = Served(pathlib.Path(folder))
        yield one
        one.close()


def ipvsadm(served, line, stdin=""):
    """Call the client as a script would; return its status, output and complaints."""
    output, complaints = io.StringIO(), io.StringIO()
    kept = sys.stdin
    with tempfile.TemporaryFile("w+") as sys.stdin:
        sys.stdin.write(stdin)
        sys.stdin.seek(0)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaints):
                status = client.main(["--control", str(served.path), *line.split()])
        finally:
            sys.stdin = kept
    return status, output.getvalue(), complaints.getvalue()


def test_lines_take_effect_as_they_come_and_a_wrong_one_is_the_end(served):
    command = [sys.executable, "-m", "pylvs.control.client", "--control", str(served.path), "-R"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as restore:
        for number in (1, 2):
            restore.stdin.write(f"-A -t {VIP}:{number} -s rr\n")
            restore.stdin.flush()
            deadline = time.monotonic() + 30
            while len(served.world.manager.table.services) < number:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        restore.stdin.write(f"-A -t {VIP}:1 -s rr\n-A -t {VIP}:3 -s rr\n-A -z\n")
        restore.stdin.flush()
        assert restore.wait(30) == 255
        assert restore.stderr.read() == "Service already exists\n-z: unknown option\n"
    assert len(served.world.manager.table.services) == 3
    ipvsadm(served, "-C")


def test_wrong_words_are_told_once_and_nothing_is_read(served):
    text = f"-A -t {VIP}:1 -s rr\n" * 4_000
    assert ipvsadm(served, "-R foo", text) == (2, "", "unexpected argument foo\n")
    assert not served.world.manager.table.services


def test_blank_lines_at_the_end_do_not_hide_a_refusal(served):
    text = f"-A -t {VIP}:1 -s rr\n-A -t {VIP}:1 -s rr\n" + "\n" * 70_000
    assert ipvsadm(served, "-R", text) == (255, "", "Service already exists\n")
    ipvsadm(served, "-C")


def test_a_table_is_built_listed_saved_and_restored(served):
    assert ipvsadm(served, f"-A -t {VIP}:80 -s rr") == (0, "", "")
    assert ipvsadm(served, f"-a -t {VIP}:80 -r 10.0.0.11 -m") == (0, "", "")
    _, saved, _ = ipvsadm(served, "-Sn")
    assert saved.splitlines() == [
        f"-A -t {VIP}:80 -s rr",
        f"-a -t {VIP}:80 -r 10.0.0.11:80 -m -w 1",
    ]
    assert ipvsadm(served, "-C") == (0, "", "")
    assert ipvsadm(served, "-R", saved) == (0, "", "")
    assert ipvsadm(served, "-Sn")[1] == saved
    assert ipvsadm(served, "-C")[0] == 0


def test_refusals_come_back_with_their_status(served):
    assert ipvsadm(served, f"-D -t {VIP}:99") == (255, "", "No such service\n")
    assert ipvsadm(served, f"-A -t {VIP}:80 -w 1")[0] == 2
    status, _, complaint = ipvsadm(served, f"-A -t {VIP}:80 -s no.such.module:Class")
    assert status == 255
    assert "no.such.module" in complaint


def test_help_needs_no_director(capsys):
    assert client.main(["-h"]) == 0
    assert "Examples" in capsys.readouterr().out


def test_the_option_is_taken_both_ways(served):
    assert client.main([f"--control={served.path}", "-Ln"]) == 0


def test_where_no_director_is_the_client_says_so(tmp_path, capsys):
    assert client.main(["--control", str(tmp_path / "none"), "-Ln"]) == 2
    assert "no director runs" in capsys.readouterr().err
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    assert client.main(["--control", str(tmp_path / "stale"), "-Ln"]) == 2


def test_only_a_stale_socket_makes_place(tmp_path):
    path = tmp_path / "control"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    listening = api._listen(path)
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    with pytest.raises(api.HostError, match="cannot listen"):
        api._listen(path)  # somebody listens there
    listening.close()
    with pytest.raises(api.HostError, match="cannot listen"):
        api._listen(tmp_path / "missing" / "control")
    rules = tmp_path / "rules"
    rules.write_text("-A -t 192.0.2.10:80")
    with pytest.raises(api.HostError, match="cannot listen"):
        api._listen(rules)
    assert rules.read_text() == "-A -t 192.0.2.10:80"


def test_a_socket_that_was_replaced_is_left_to_the_other(tmp_path):
    path = tmp_path / "control"
    one = made(path)
    path.unlink()
    other = made(path)
    one.close()
    assert path.exists()
    other.close()
    assert not path.exists()


def test_words_in_no_encoding_come_back_as_they_were(served):
    status, answer = served.post(json.dumps({"words": ["-A", "-t", "\udcff"]}).encode())
    assert (status, json.loads(answer)["status"]) == (200, 2)


def test_so_many_commands_at_a_time_and_no_more(served, monkeypatch):
    going = threading.Event()
    monkeypatch.setattr(served.api._executor, "run", lambda *_: going.wait(10) and Result())
    answers: list[int] = []

    def ask():
        answers.append(served.post(b'{"words": []}')[0])

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(answers) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert answers == [503] * 8
    going.set()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [200] * 32 + [503] * 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_only_root_and_the_directors_user_are_listened_to(served):
    served.path.chmod(0o666)
    script = (
        "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.connect({str(served.path)!r}); print(s.recv(100))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr
    assert ipvsadm(served, "-Ln")[0] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"words": 5}',
        b'{"words": "-Ln"}',
        b'{"words": [1]}',
        b'{"words": [], "text": 7}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_nonsense_is_told_what_to_give(served, body):
    status, answer = served.post(body)
    assert status == 400
    assert "words" in json.loads(answer)["error"]


def test_other_paths_are_not_there(served):
    assert served.post(b"{}", "/nothing")[0] == 404


def test_too_long_a_text_is_refused(served, monkeypatch):
    monkeypatch.setattr(api, "TEXT_LIMIT", 1_000)
    status, answer = served.post(json.dumps({"words": ["-R"], "text": "#" * 2_000}).encode())
    assert status == 413
    assert "1000 bytes" in json.loads(answer)["error"]


def test_whoever_connects_and_says_nothing_is_hung_up_on(served, monkeypatch):
    monkeypatch.setattr(api, "_SILENCE_S", 0.1)
    idle = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for one in idle:
        one.settimeout(10)
        one.connect(str(served.path))
    idle[0].sendall(b"POST /ipvs")  # half a request is none
    assert [one.recv(1) for one in idle] == [b""] * 20
    assert ipvsadm(served, "-Ln")[0] == 0


def test_a_flood_is_cut_off_and_the_director_still_listens(served, monkeypatch):
    monkeypatch.setattr(api, "_CONNECTIONS_LIMIT", 5)
    flood = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for one in flood:
        one.settimeout(10)
        one.connect(str(served.path))
    time.sleep(0.3)
    assert sum(_is_closed(one) for one in flood) >= 30
    for one in flood:
        one.close()
    time.sleep(0.3)
    assert ipvsadm(served, "-Ln")[0] == 0


def _is_closed(one):
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


TYPED = """
-A -E -D -a -e -d -C -Z -L -S -R -Ln -lnc --set -t -u -f -r -s -p -M -m -g -i -w -x -y -b --pe -o -6
--tun-type --tun-port --stats --rate --timeout --start-daemon rr wlc lblc sh 0 1 80 65536 -1 gue
192.0.2.10:80 192.0.2.10:0 10.0.0.11 10.0.0.11:8080 [2001:db8::1]:80 master 5 300 255.255.255.0
sh-port,sh-fallback
"""
WORDS = st.lists(st.sampled_from(TYPED.split()) | st.text(max_size=8), max_size=10)


@settings(deadline=None)
@given(lines=st.lists(WORDS, max_size=6))
def test_any_words_are_carried_out_or_refused_and_never_half(lines):
    """Whatever is typed, the stated table and the director's stay the same."""
    world = World()
    executor = Executor(world.manager)
    for words in lines:
        result = executor.run(words, "\n".join(" ".join(line) for line in lines))
        assert 0 <= result.status <= 255
        stated = {
            (key, server): (one.method, one.weight)
            for key, service in world.manager.table.services.items()
            for server, one in service.servers.items()
        }
        held = {
            (service.key, one.key): (one.method, one.weight)
            for service in listing.read(world.manager)
            for one in service.servers
        }
        assert stated == held


def test_a_command_that_hangs_does_not_keep_the_director_from_stopping(tmp_path):
    one = Served(tmp_path)
    hung = threading.Event()
    one.api._executor.run = lambda *_: hung.wait(30) and Result()
    asking = threading.Thread(target=lambda: one.post(b'{"words": []}'), daemon=True)
    asking.start()
    time.sleep(0.2)
    one.close()
    assert not one.thread.is_alive()
    hung.set()


TOKEN = {"now": "s3cret" * 6}


@pytest.fixture
def remote(tmp_path):
    """A director that answers at a TCP address as well; the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = made(tmp_path / "control")
    one.listen("127.0.0.1", port, lambda: TOKEN["now"])
    thread = threading.Thread(target=asyncio.run, args=(one.serve(),), daemon=True)
    thread.start()
    yield port
    one.stop()
    thread.join(10)
    one.close()


def ask_remote(port, **headers):
    for _ in range(100):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(ConnectionRefusedError):
            connection.request("GET", "/table", headers=headers)
            return connection.getresponse()
        time.sleep(0.05)
    raise AssertionError("nobody listens")


def test_at_an_address_only_who_has_the_token_is_answered(remote):
    right = "s3cret" * 6
    assert ask_remote(remote, Authorization=f"Bearer {right}").status == 200
    for wrong in (
        "",
        "Bearer ",
        f"Bearer {right}x",
        f"Basic {right}",
        right,
        f"Bearer {right[:-1]}",
    ):
        refused = ask_remote(remote, Authorization=wrong)
        assert refused.status == 401
        assert refused.getheader("WWW-Authenticate") == "Bearer"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TOKEN, "now", "another" * 6)
        assert ask_remote(remote, Authorization=f"Bearer {right}").status == 401
        assert ask_remote(remote, Authorization=f"Bearer {TOKEN['now']}").status == 200
    forwarded = {"X-Forwarded-For": "", "X-Forwarded-Proto": "unix"}
    assert ask_remote(remote, **forwarded).status == 401


def test_an_address_that_is_taken_is_named(remote, tmp_path):
    other = made(tmp_path / "other")
    with pytest.raises(api.HostError, match=f"cannot listen on 127.0.0.1:{remote}"):
        other.listen("127.0.0.1", remote, lambda: "x" * 32)
    other.close()


def test_who_listens_is_told_of_every_change_that_was_made(served):
    connection = client._Connection(served.path)
    connection.timeout = 10
    connection.request("GET", "/events")
    stream = connection.getresponse()
    assert stream.getheader("Content-Type").startswith("text/event-stream")
    assert stream.readline() == b": listening\n"
    ipvsadm(served, f"-A -t {VIP}:7 -s rr")
    ipvsadm(served, f"-A -t {VIP}:7 -s rr")  # refused: it exists
    served.post("{}", f"/services/udp:{VIP}:9")
    ipvsadm(served, "-C")
    told = [line for line in (stream.readline() for _ in range(6)) if line.startswith(b"data")]
    assert len(told) == 2
    changes = [json.loads(line.partition(b" ")[2])["changes"] for line in told]
    assert changes[0] == [f"-A -t {VIP}:7 -s rr"]
    assert ["-C"] in changes
    connection.close()


def test_who_does_not_keep_up_is_let_go(monkeypatch):
    from pylvs.control.api import events
    from pylvs.control.model import Command

    monkeypatch.setattr(events, "_WAITING_LIMIT", 3)

    async def listen():
        one = events.Events()
        stream = one.listen()
        assert await anext(stream) == ": listening\n\n"
        for _ in range(5):
            one.tell([Command("C")])
        await asyncio.sleep(0)
        return [event async for event in stream]

    assert len(asyncio.run(listen())) == 3
