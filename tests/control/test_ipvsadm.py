"""ipvsadm's commands on a director: what they print, how they exit."""

import pytest

from pylvs.control.changes import TOGETHER, Changer, Guard
from pylvs.control.ipvsadm import executor
from pylvs.errors import HostError
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP, World

RULES = (
    f"-A -t {VIP}:80 -s wrr -p 120 -M 255.255.255.0",
    f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m -w 3 -x 10 -y 5",
    f"-a -t {VIP}:80 -r 10.0.0.12:80 -i --tun-type gue --tun-port 6080 --tun-nocsum",
    "-A -f 7 -s sh -b sh-fallback,sh-port",
    "-a -f 7 -r 10.0.0.13:0 -g",
)


def run(world, line, text=""):
    return executor.Executor(world.manager).run(line.split(), text)


@pytest.fixture
def world():
    return World(RULES)


def test_what_is_saved_is_restored_as_it_was(world):
    saved = run(world, "-Sn").output
    assert f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m -w 3\n" in saved  # never its thresholds
    assert "-A -f 7 -s sh -b sh-fallback,sh-port" in saved
    other = World()
    assert run(other, "-R", saved) == executor.Result()
    assert run(other, "-Sn").output == saved


def test_no_command_at_all_lists_the_table(world):
    assert executor.Executor(world.manager).run([]) == run(world, "-L")


def test_one_service_is_listed_without_a_title(world):
    listed = run(world, f"-Ln -t {VIP}:80").output
    assert listed.startswith("Prot LocalAddress:Port")
    assert "FWM" not in listed
    refused = run(world, "-Ln -t 192.0.2.99:80")
    assert refused == executor.Result(1, "", "No such service\n")


def test_times_and_daemons_and_versions_are_told(world):
    run(world, "--set 100 0 200")
    assert run(world, "-L --timeout").output == "Timeout (tcp tcpfin udp): 100 120 200\n"
    assert run(world, "-L --daemon") == executor.Result()
    assert run(world, "--version").output.startswith("ipvsadm v1.31 ")
    assert "Examples" in run(world, "-h").output


def test_no_daemon_is_started_or_stopped(world):
    started = "--start-daemon master --mcast-interface"
    assert run(world, f"{started} nosuch0") == executor.Result(255, "", "No such device\n")
    assert run(world, f"{started} lo").error == "the synchronisation daemon is not built yet\n"
    assert run(world, "--stop-daemon backup").error == "No daemon is running\n"


def test_connections_are_listed_with_their_templates(world):
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    lines = run(world, "-Lnc").output.splitlines()
    assert sorted(line.split()[2] for line in lines[2:]) == ["NONE", "SYN_RECV"]


class TestRestoring:
    def test_a_refusal_of_the_kernels_is_told_and_the_rest_goes_on(self):
        world = World()
        text = f"-A -t {VIP}:80 -s rr\n\n-A -t {VIP}:80 -s rr\n-A -t {VIP}:81 -s rr\n"
        result = run(world, "-R", text)
        assert (result.status, result.error) == (0, "Service already exists\n")
        assert len(world.manager.table.services) == 2

    def test_the_last_refusal_is_the_status(self):
        result = run(World(), "-R", f"-D -t {VIP}:80\n")
        assert (result.status, result.error) == (255, "No such service\n")

    @pytest.mark.parametrize("wrong", ["-x", "-R", f"-A -t {VIP}:80 -w"])
    def test_a_line_that_is_none_is_the_end(self, wrong):
        world = World()
        result = run(world, "-R", f"-A -t {VIP}:80 -s rr\n{wrong}\n-A -t {VIP}:81 -s rr\n")
        assert result.status != 0
        assert result.error
        assert len(world.manager.table.services) == 1


def test_clearing_and_zeroing_reach_the_director(world):
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    before = run(world, "-Ln --stats").output
    assert run(world, "-Z") == executor.Result()
    assert run(world, "-Ln --stats").output != before
    assert run(world, "-C") == executor.Result()
    assert not world.manager.table.services
    assert world.send(tcp_frame(CLIENT, VIP, 40_001, 80)) == []


class Recorder(Guard):
    """Notes what it is asked, and how many services there were then."""

    def __init__(self, world, refuses=False):
        self.world, self.refuses, self.told = world, refuses, []

    def before(self, commands):
        self.told.append(("before", len(commands), len(self.world.manager.table.services)))
        if self.refuses:
            raise HostError("nothing can be claimed")

    def after(self, _):
        self.told.append(("after", len(self.world.manager.table.services)))
        return "not all is well\n" if self.world.manager.table.services else ""


class TestGuarding:
    def test_changes_are_prepared_for_and_followed(self):
        world = World()
        guard = Recorder(world)
        one = executor.Executor(world.manager, changer=Changer(world.manager, guard=guard))
        assert one.run(f"-A -t {VIP}:80 -s rr".split()) == executor.Result(
            255, "", "not all is well\n"
        )
        assert guard.told == [("before", 1, 0), ("after", 1)]
        one.run(["-Ln"])
        assert len(guard.told) == 2
        assert one.run(["-C"]) == executor.Result()

    def test_what_cannot_be_prepared_for_is_not_done(self):
        world = World()
        one = executor.Executor(
            world.manager, changer=Changer(world.manager, guard=Recorder(world, refuses=True))
        )
        refused = executor.Result(255, "", "nothing can be claimed\n")
        assert one.run(f"-A -t {VIP}:80 -s rr".split()) == refused
        assert one.run(["-R"], f"-A -t {VIP}:80 -s rr\n") == refused
        assert not world.manager.table.services

    def test_a_long_restore_is_guarded_part_by_part(self):
        world = World()
        guard = Recorder(world)
        lines = "".join(f"-A -t {VIP}:{port} -s rr\n" for port in range(1, TOGETHER + 46))
        executor.Executor(world.manager, changer=Changer(world.manager, guard=guard)).run(
            ["-R"], lines + "-C\n"
        )
        assert guard.told == [
            ("before", TOGETHER, 0),
            ("after", TOGETHER),
            ("before", 46, TOGETHER),
            ("after", 0),
        ]


def test_a_plug_in_that_is_not_there_is_refused_when_it_is_named(world):
    refused = run(world, "-A -t 192.0.2.20:80 -s no.such:Scheduler")
    assert refused.status == 255
    assert "no.such" in refused.error
    assert run(world, "-R", "-A -t 192.0.2.20:80 -s no.such:Scheduler\n") == refused
