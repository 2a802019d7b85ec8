"""Flows offered to the kernel: when, for how long, and what is made of what it tells.

The kernel's part is played here: a frame of an open flow is counted, and the director never sees
it.  That its programs send what the director would is ``drivers.programs.test_offload``'s matter.
"""

import pytest

from pylvs.control import listing
from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.network.surroundings import Heard
from pylvs.forwarding.offload import AFTER
from pylvs.jit import entrance
from pylvs.tables.connections import flows
from pylvs.tables.layouts import FLAG_OFFLOADED
from pylvs.tables.layouts.shared import OPEN_FLOW, SHUT, VACANT, WARMING
from pylvs.tables.sizes import FLOWS_PER_BUCKET
from pylvs.wire.text import address_of
from tests.packets import tcp_frame, udp_frame
from tests.world import CLIENT, VIP, World

SERVER, PORT = "10.0.0.11", 40_000
RULES = [
    *(f"-A -{letter} {VIP}:80 -s rr" for letter in "tu"),
    *(f"-a -{letter} {VIP}:80 -r {SERVER}:8080 -m" for letter in "tu"),
]
open_warm = entrance(flows.open_warm)
bucket_of = entrance(flows.bucket_of)
ends_of = entrance(flows.ends_of)


NEAR_SERVERS = bytes.fromhex("0200000002fe")  # the director's MAC there


def reply(port=PORT, flags="A", make=tcp_frame):
    """Return a server's frame."""
    words = (flags,) if make is tcp_frame else ()
    return NEAR_SERVERS + make(SERVER, CLIENT, 8080, port, *words)[6:]


class Offloading(World):
    """A director whose host has programs for flows: they count, here, and that is all."""

    def __init__(self, rules=RULES):
        super().__init__(rules)
        self.tables.director[0]["offloads"] = 1
        self.tables.ports["interface"][:2] = 1

    def drain(self, times=2):
        for _ in range(times):
            open_warm(self.tables.all[0], True, self.now_ms)

    def establish(self, port=PORT, requests=AFTER, replies=True):
        self.send(tcp_frame(CLIENT, VIP, port, 80))
        for flags in ["SA", *["A"] * requests]:
            if flags == "A":
                self.send(tcp_frame(CLIENT, VIP, port, 80, "A"))
            if replies:
                self.send(reply(port, flags), 1)

    def flows(self):
        """Return the rows in use: requests' first."""
        rows = self.tables.flows[: flows.GENERATION_ROW]
        used = [rows[row] for row in range(len(rows)) if rows[row]["state"] != VACANT]
        return sorted(used, key=lambda flow: int(flow["is_reply"]))

    def rows(self):
        return (self.tables.flows["state"] != VACANT).nonzero()[0].tolist()

    def states(self):
        return [int(flow["state"]) for flow in self.flows()]

    def forward(self, flow, packets, size=1_000):
        """Do as a program does."""
        assert flow["state"] == OPEN_FLOW
        flow["packets"] += packets
        flow["octets"] += packets * size
        flow["used_ns"] = self.now_ms * 1_000_000

    def settle(self):
        self.manager.settle()


def test_a_connection_is_offered_when_it_has_lasted():
    world = Offloading()
    world.establish(requests=AFTER - 2)
    assert world.states() == []
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "A"))
    assert world.states() == [WARMING]
    world.send(reply(), 1)
    assert world.states() == [WARMING, WARMING]
    assert int(world.tables.connections[0]["conn_flags"]) & FLAG_OFFLOADED


def test_nothing_is_offered_without_programs():
    world = Offloading()
    world.tables.director[0]["offloads"] = 0
    world.establish(requests=2 * AFTER)
    assert world.states() == []


def test_a_flow_opens_when_none_of_its_packets_is_on_its_way():
    world = Offloading()
    world.establish(replies=False)
    world.drain(1)
    assert world.states() == [OPEN_FLOW]


def test_a_flow_that_is_still_in_the_rings_waits():
    world = Offloading()
    world.establish(replies=False)
    flow = world.flows()[0]
    for _ in range(5):
        flow["passed"] += 1  # another one came up
        world.drain(1)
        assert world.states() == [WARMING]
    world.drain(1)
    assert world.states() == [OPEN_FLOW]


def test_a_flow_that_never_ceases_is_opened_all_the_same():
    world = Offloading()
    world.establish(replies=False)
    open_warm(world.tables.all[0], False, world.now_ms + flows.WARM_MS - 1)
    assert world.states() == [WARMING]
    open_warm(world.tables.all[0], False, world.now_ms + flows.WARM_MS)
    assert world.states() == [OPEN_FLOW]


def test_what_the_kernel_forwards_is_counted_as_if_it_had_come():
    world = Offloading()
    world.establish()
    world.drain()
    before = listing.totals(world.manager)
    request, reply = world.flows()
    world.forward(request, 5, 100)
    world.forward(reply, 7, 1_000)
    counted = listing.totals(world.manager)
    assert counted.in_packets - before.in_packets == 5
    assert counted.in_bytes - before.in_bytes == 500
    assert counted.out_packets - before.out_packets == 7
    assert counted.out_bytes - before.out_bytes == 7_000
    rows = listing.read(world.manager)
    assert [row.counters.in_packets for row in rows] == [counted.in_packets, 0]
    assert int(world.tables.connections[0]["in_packets"]) == counted.in_packets
    assert listing.totals(world.manager) == counted  # once


def test_counters_begin_anew_when_they_are_zeroed():
    world = Offloading()
    world.establish()
    world.drain()
    world.forward(world.flows()[0], 5)
    world.manager.apply(parse_line(["-Z"]))
    assert listing.totals(world.manager).in_packets == 0


def test_a_connection_lives_as_long_as_the_kernel_forwards_and_its_timeout():
    world = Offloading()
    world.establish()
    world.drain()
    world.after(899)
    world.forward(world.flows()[1], 1)
    world.after(899).send_all([])
    assert len(world.connections()) == 1
    world.after(1).send_all([])
    assert world.connections() == []
    assert world.states() == []


def test_a_timeout_that_is_made_shorter_holds_for_it_too():
    world = Offloading()
    world.establish()
    world.drain()
    world.manager.apply(parse_line(["--set", "60", "0", "0"]))
    world.after(10)
    world.forward(world.flows()[0], 1)
    world.settle()
    world.after(59.9).send_all([])
    assert len(world.connections()) == 1
    world.after(0.1).send_all([])
    assert world.connections() == []


def test_what_a_removed_server_had_is_counted():
    world = Offloading()
    world.establish()
    world.drain()
    before = listing.totals(world.manager).in_packets
    world.forward(world.flows()[0], 200)
    world.rule(f"-d -t {VIP}:80 -r {SERVER}:8080")
    assert listing.totals(world.manager).in_packets == before + 200


def test_a_row_that_a_program_shut_too_late_is_nobodys():
    """It saw the flow open, and the director took it back before it wrote."""
    world = Offloading()
    world.establish()
    world.drain()
    row = world.rows()[0]
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "R"))
    world.establish(PORT + 1)
    world.tables.flows[row]["state"] = SHUT  # what the exchange in ``decide`` prevents
    world.after((flows.IDLE_MS + 1) / 1_000)
    world.settle()
    assert int(world.tables.director[0]["flow_count"]) == 0


def test_a_lookup_knows_what_the_kernel_has_forwarded():
    world = Offloading()
    world.establish()
    world.drain()
    world.after(600)
    world.forward(world.flows()[0], 1)
    world.after(600)
    assert world.send(reply(), 1)  # due, but for that


@pytest.mark.parametrize(("flags", "port"), [("FA", 0), ("R", 0), ("FA", 1), ("RA", 1)])
def test_an_end_takes_both_ways_back(flags, port):
    world = Offloading()
    world.establish()
    world.drain()
    world.forward(world.flows()[0], 3)
    world.send(reply(flags=flags) if port else tcp_frame(CLIENT, VIP, PORT, 80, flags), port)
    assert world.states() == []
    assert int(world.tables.servers[0]["in_packets"]) == 3 + 1 + AFTER + (not port)


def test_a_flow_that_a_program_shut_is_offered_anew():
    world = Offloading()
    world.establish(replies=False)
    world.drain()
    world.flows()[0]["state"] = SHUT
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "A"))
    assert world.states() == [WARMING]


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.rule(f"-d -t {VIP}:80 -r {SERVER}:8080"),
        lambda world: world.rule(f"-D -t {VIP}:80"),
        lambda world: world.manager.around.hear(
            [Heard(1, address_of(SERVER), 0x02_00_00_00_02_99)]
        ),
        lambda world: world.manager.around.hear([Heard(1, address_of(SERVER), 0)]),
        lambda world: world.manager.around.set_routes(world._routes((), (1500, 1400))),
        lambda world: world.manager.around.set_mark_rules([]),
    ],
)
def test_a_change_has_packets_come_up_again(change):
    world = Offloading()
    world.establish(replies=False)
    world.drain()
    generation = world.flows()[0]["generation"]
    change(world)
    assert world.tables.flows[flows.GENERATION_ROW]["generation"] != generation


def test_news_that_change_nothing_leave_flows_alone():
    world = Offloading()
    world.establish(replies=False)
    world.drain()
    world.manager.around.hear([Heard(1, address_of(SERVER), 0x02_00_00_00_02_0B)])
    world.manager.want_servers()
    world.manager.around.hear([Heard(1, address_of("10.0.0.99"), 0x02_00_00_00_02_63)])
    world.rule(f"-e -t {VIP}:80 -r {SERVER}:8080 -m -w 5")
    world.rule(f"-a -t {VIP}:80 -r 10.0.0.12:8080 -m")
    world.rule(f"-E -t {VIP}:80 -s wlc")
    current = world.tables.flows[flows.GENERATION_ROW]["generation"]
    assert world.flows()[0]["generation"] == current


def test_a_moved_server_is_sent_to_where_it_is_now():
    world = Offloading()
    world.establish(replies=False)
    world.drain()
    world.manager.around.hear([Heard(1, address_of(SERVER), 0x02_00_00_00_02_99)])
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "A"))
    assert bytes(world.flows()[0]["link"])[:6].hex() == "020000000299"


def test_a_new_connection_takes_its_replies_from_an_old_one():
    """Two services, one server: its replies to a client's port are the newest connection's."""
    world = Offloading(
        [*RULES, "-A -u 192.0.2.11:80 -s rr", f"-a -u 192.0.2.11:80 -r {SERVER}:8080 -m"]
    )
    for _ in range(AFTER + 1):
        world.send(udp_frame(CLIENT, VIP, PORT, 80))
        world.send(reply(make=udp_frame), 1)
    world.drain()
    assert world.states() == [OPEN_FLOW, OPEN_FLOW]
    world.send(udp_frame(CLIENT, "192.0.2.11", PORT, 80))
    assert world.states() == []


def test_a_flow_that_has_ceased_makes_room():
    world = Offloading()
    world.establish()
    world.drain()
    world.after((flows.IDLE_MS + 1) / 1_000)
    world.settle()
    assert world.states() == []
    assert len(world.connections()) == 1


def test_a_fifth_flow_of_a_bucket_stays_with_the_director():
    world = Offloading()
    director, vip = world.tables.all[0], (0, address_of(VIP))
    seen = {}
    for port in range(1_024, 65_536):
        ends = ends_of(port, 80, 6, 4)
        bucket = bucket_of(director, (0, address_of(CLIENT)), vip, ends)
        seen.setdefault(int(bucket), []).append(port)
    ports = next(ports for ports in seen.values() if len(ports) > FLOWS_PER_BUCKET)
    for port in ports[: FLOWS_PER_BUCKET + 1]:
        world.establish(port, replies=False)
    assert world.states() == [WARMING] * FLOWS_PER_BUCKET
    assert world.send(tcp_frame(CLIENT, VIP, ports[FLOWS_PER_BUCKET], 80, "A"))
    assert int(world.tables.flow_counts.max()) == FLOWS_PER_BUCKET
    for port in ports[:FLOWS_PER_BUCKET]:
        world.send(tcp_frame(CLIENT, VIP, port, 80, "R"))
    assert not world.tables.flow_counts.any()


def test_a_row_rests_before_it_is_another_flows():
    """A program may still look at it."""
    world = Offloading()
    world.establish(replies=False)
    first = world.rows()
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "R"))
    world.establish(replies=False)
    assert world.rows() != first
    world.send(tcp_frame(CLIENT, VIP, PORT, 80, "R"))
    world.after(2).send_all([])
    world.establish(replies=False)
    assert world.rows() == first


@pytest.mark.parametrize("method", ["-i --tun-type gre", "--l3dsr 10"])
def test_other_methods_are_not_offered(method):
    world = Offloading([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVER}:80 {method}"])
    world.establish(replies=False, requests=2 * AFTER)
    assert world.states() == []
