"""Persistence, thresholds, marks, one-packet scheduling, defences: what captures do not reach."""

import pytest

from pylvs.control import at_once, settings
from pylvs.control.model import MarkRule
from pylvs.errors import UsageError
from tests.packets import number, tcp_frame, udp_frame
from tests.world import CLIENT, VIP, World

TWO = [f"-a -t {VIP}:80 -r 10.0.0.{n}:80 -g" for n in (11, 12)]


def went_to(sent):
    ((_, frame),) = sent
    return frame[5]


class TestPersistence:
    def world(self, terms="-p 100"):
        return World([f"-A -t {VIP}:80 -s rr {terms}", *TWO])

    def test_a_client_keeps_its_server_and_others_go_in_turn(self):
        world = self.world()
        first = went_to(world.send(tcp_frame(CLIENT, VIP, 40_000, 80)))
        for port in range(40_001, 40_005):
            assert went_to(world.send(tcp_frame(CLIENT, VIP, port, 80))) == first
        assert went_to(world.send(tcp_frame("203.0.113.9", VIP, 40_000, 80))) != first

    def test_a_mask_makes_a_network_one_client(self):
        world = self.world("-p 100 -M 255.255.255.0")
        servers = {
            went_to(world.send(tcp_frame(f"198.51.100.{n}", VIP, 40_000, 80))) for n in range(9)
        }
        assert len(servers) == 1

    def test_a_template_in_use_lingers_and_then_goes(self):
        world = self.world("-p 3")
        world.send(tcp_frame(CLIENT, VIP, 40_000, 80))  # SYN_RECV, 60 s
        assert len(world.connections()) == 2
        world.after(10).send_all([])
        assert len(world.connections()) == 2
        world.after(51).send_all([])
        assert len(world.connections()) == 1  # the template, which looks once a minute
        world.after(3).send_all([])
        assert world.connections() == []
        assert not world.tables.servers["persistent"].any()

    def test_batches_are_invisible_to_templates(self):
        frames = [
            (0, tcp_frame(f"198.51.100.{n % 3}", VIP, 40_000 + n % 7, 80, "SAFR"[n % 4]))
            for n in range(120)
        ]
        one, many = self.world(), self.world()
        assert [out for frame in frames for out in one.send_all([frame])] == many.send_all(frames)
        assert one.connections() == many.connections()


def test_one_packet_scheduling_leaves_nothing_behind():
    world = World([f"-A -u {VIP}:53 -s rr -o", f"-a -u {VIP}:53 -r 10.0.0.11 -g -x 1"])
    for _ in range(5):
        assert world.send(udp_frame(CLIENT, VIP, 40_000, 53))
    assert world.connections() == []
    assert int(world.tables.servers[0]["inactive"]) == 0
    assert int(world.tables.servers[0]["connections"]) == 5


def test_a_full_server_is_used_again_below_its_lower_threshold():
    world = World([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11 -g -x 4 -y 2"])
    for port in range(40_000, 40_004):
        assert went_to(world.send(tcp_frame(CLIENT, VIP, port, 80))) == 11
    assert world.send(tcp_frame(CLIENT, VIP, 40_009, 80))[0][1][23] == 1  # ICMP
    for port in range(40_000, 40_003):
        world.send(tcp_frame(CLIENT, VIP, port, 80, "A"))
        world.send(tcp_frame(CLIENT, VIP, port, 80, "R"))
    world.after(11).send_all([])
    assert went_to(world.send(tcp_frame(CLIENT, VIP, 40_010, 80))) == 11


class TestMarks:
    def world(self):
        world = World(["-A -f 5 -s rr", "-a -f 5 -r 10.0.0.11:0 -g"])
        net = number("203.0.113.0")
        world.manager.around.set_mark_rules(
            [
                MarkRule(5, 6, destination=net, destination_prefix=24, ports=(80, 89)),
                MarkRule(6, 6, destination=net, destination_prefix=24, ports=(85, 85)),
            ]
        )
        return world

    @pytest.mark.parametrize(("port", "taken"), [(80, True), (89, True), (90, False), (85, False)])
    def test_the_last_rule_that_matches_counts(self, port, taken):
        sent = self.world().send(tcp_frame(CLIENT, "203.0.113.77", 40_000, port))
        assert bool(sent) == taken

    def test_too_many_rules_are_refused(self):
        with pytest.raises(UsageError, match="more than"):
            self.world().manager.around.set_mark_rules([MarkRule(1)] * 2_000)


class TestDefences:
    def test_a_full_table_of_half_open_connections_is_thinned(self):
        world = World([f"-A -t {VIP}:80 -s rr", *TWO])
        for port in range(2_000):
            world.send(tcp_frame(CLIENT, VIP, 10_000 + port, 80))
        world.send(tcp_frame(CLIENT, VIP, 9_999, 80))
        world.send(tcp_frame(CLIENT, VIP, 9_999, 80, "A"))
        settings.apply(world.tables.director[0], "drop_entry", 3)
        for _ in range(30):
            world.after(1).send_all([])
        left = world.connections()
        assert 200 < len(left) < 1_600  # one in 32 of the chains a second
        assert any(one[0] == 9_999 for one in left)  # established: not idle for a minute yet

    def test_new_connections_are_refused_at_a_rate(self):
        world = World([f"-A -t {VIP}:80 -s rr", *TWO])
        settings.apply(world.tables.director[0], "net.ipv4.vs.am_droprate", 3)
        settings.apply(world.tables.director[0], "drop_packet", 3)
        sent = [
            bool(world.send(tcp_frame(CLIENT, VIP, port, 80))) for port in range(40_000, 40_009)
        ]
        assert sent == [False, True, True] * 3
        assert world.reason("defended") == 3

    def test_automatic_modes_follow_the_free_memory(self):
        state = World().tables.director[0]
        for name in ("drop_entry", "drop_packet", "secure_tcp"):
            settings.apply(state, name, 1)
        settings.defend(state, free_pages=10_000)
        assert (state["secure_tcp"], state["guarded"], state["drop_rate"]) == (1, 0, 0)
        settings.defend(state, free_pages=512)
        assert (state["secure_tcp"], state["guarded"], state["drop_rate"]) == (2, 1, 2)
        settings.defend(state, free_pages=10_000)
        assert (state["drop_entry"], state["guarded"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nothing", 1, "is unknown"),
        ("conn_reuse_mode", 4, "is 0 to 3"),
        ("sloppy_tcp", -1, "0 to 1"),
        ("net.ipv4.vs.sync_ports", 1, "no synchronisation daemon"),
        ("conntrack", 1, "nothing to act on"),
    ],
)
def test_settings_are_checked(name, value, said):
    with pytest.raises(UsageError, match=said):
        settings.apply(World().tables.director[0], name, value)


def test_rates_stand_still_without_estimation():
    world = World([f"-A -u {VIP}:53 -s rr", f"-a -u {VIP}:53 -r 10.0.0.11 -g"])
    world.send(udp_frame(CLIENT, VIP, 40_000, 53))
    settings.apply(world.tables.director[0], "run_estimation", 0)
    world.manager.estimator.tick(at_once)
    assert not any(world.manager.estimator.total())
    settings.apply(world.tables.director[0], "run_estimation", 1)
    world.manager.estimator.tick(at_once)
    assert any(world.manager.estimator.total())
