"""Random services, servers, packets and time: the director decides as the slow reference does."""

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.packets import number, tcp_frame, udp_frame
from tests.reference.ipvs import STATES, Ipvs
from tests.world import VIP, World

SCHEDULERS = ("rr", "wrr", "lc", "wlc")
METHODS = ("-m", "-g", "-i")
FLAGS = ("S", "A", "FA", "R", "SA", "", "SF", "SR", "PA", "F")
CLIENTS = ("198.51.100.7", "203.0.113.9")

servers = st.lists(st.tuples(st.sampled_from(METHODS), st.integers(0, 5)), min_size=0, max_size=4)
packets = st.tuples(
    st.just("packet"),
    st.sampled_from(("tcp", "udp")),
    st.sampled_from(("client", "reply")),
    st.sampled_from(CLIENTS),
    st.integers(40_000, 40_003),
    st.sampled_from(FLAGS),
    st.integers(0, 3),
)
steps = st.lists(
    st.one_of(
        packets,
        packets,
        packets,
        st.tuples(st.just("wait"), st.sampled_from((1, 9, 10, 60, 121, 301, 900))),
        st.tuples(st.just("weight"), st.integers(0, 3), st.integers(0, 4)),
        st.tuples(st.just("remove"), st.integers(0, 3)),
    ),
    max_size=40,
)


class Pair:
    """The same world twice."""

    def __init__(self, scheduler, listed):
        self.world = World()
        self.reference = Ipvs()
        self.removed = set()
        for protocol, letter in (("tcp", "-t"), ("udp", "-u")):
            self.world.rule(f"-A {letter} {VIP}:80 -s {scheduler}")
            self.reference.add_service(protocol, VIP, 80, scheduler)
            for n, (method, weight) in enumerate(listed):
                address, port = f"10.0.0.{11 + n}", 8080 if method == "-m" else 80
                self.world.rule(f"-a {letter} {VIP}:80 -r {address}:{port} {method} -w {weight}")
                self.reference.add_server((protocol, VIP, 80), address, port, method, weight)

    def edit(self, verb, index, weight=0):
        for protocol, letter in (("tcp", "-t"), ("udp", "-u")):
            key = (protocol, VIP, 80)
            listed = self.reference.services[key].servers
            if index >= len(listed):
                return
            server = listed[index]
            name = f"{letter} {VIP}:80 -r {server.address}:{server.port}"
            if verb == "weight":
                self.world.rule(f"-e {name} {server.method} -w {weight}")
                self.reference.edit_server(key, index, weight)
            else:
                self.world.rule(f"-d {name}")
                self.reference.remove_server(key, index)

    def packet(self, protocol, side, client, port, flags, index):
        source, destination = (client, port), (VIP, 80)
        inner = 0
        if side == "reply":
            listed = self.reference.services[protocol, VIP, 80].servers
            if index >= len(listed):
                return
            server = listed[index]
            end = (server.address, server.port) if server.method == "-m" else (VIP, 80)
            source, destination, inner = end, (client, port), 1
        build = tcp_frame if protocol == "tcp" else udp_frame
        extra = {"flags": flags} if protocol == "tcp" else {}
        frame = build(source[0], destination[0], source[1], destination[1], **extra)
        if inner:
            frame = bytes.fromhex("0200000002fe") + frame[6:]
        want = self.reference.packet(protocol, source, destination, flags)
        sent = self.world.send(frame, inner)
        self.compare(want, sent, frame)
        assert self.world.connections() == self.expected_connections()

    def compare(self, want, sent, frame):
        if want[0] in ("drop", "pass"):
            # A masqueraded server's packet without connection is routed on, untranslated.
            assert all(out[26:34] == frame[26:34] for _, out in sent)
            return
        assert len(sent) == 1, want
        out = sent[0][1]
        if want[0] == "reset":
            assert out[23] == 6
            assert out[47] & 4
        elif want[0] == "unreachable":
            assert (out[23], out[34], out[35]) == (1, 3, 3)
        elif want[0] == "reply":
            assert out[26:30] == bytes(map(int, VIP.split(".")))
            assert int.from_bytes(out[34:36], "big") == 80
        else:
            server = want[1].server
            destination = VIP if server.method == "-g" else server.address
            assert out[30:34] == bytes(map(int, destination.split(".")))
            assert out[5] == int(server.address.rsplit(".", 1)[1])
            assert (out[23] == 4) == (server.method == "-i")

    def expected_connections(self):
        names = STATES.split()
        return sorted(
            (
                one.client[1],
                0 if one.protocol == "udp" else names.index(one.state),
                number(one.server.address),
            )
            for one in self.reference.connections
        )


@examples(120)
@given(st.sampled_from(SCHEDULERS), servers, steps)
def test_every_packet_is_decided_as_the_reference_decides_it(scheduler, listed, taken):
    pair = Pair(scheduler, listed)
    for step in taken:
        if step[0] == "packet":
            pair.packet(*step[1:])
        elif step[0] == "wait":
            pair.world.after(step[1])
            pair.reference.now += step[1]
            pair.reference.expire()
        else:
            pair.edit(*step)
    pair.world.send_all([])
    assert pair.world.connections() == pair.expected_connections()


@examples(150)
@given(
    st.sampled_from(SCHEDULERS),
    servers.filter(bool),
    st.lists(st.tuples(st.sampled_from((40_000, 40_001)), st.sampled_from(FLAGS)), max_size=40),
    st.integers(2, 40),
)
def test_batches_are_invisible(scheduler, listed, taken, size):
    """Few clients and many resets, so that rows are freed while frames of theirs are under way."""
    frames = [(0, tcp_frame(CLIENTS[0], VIP, port, 80, flags)) for port, flags in taken]
    one_by_one, in_batches = Pair(scheduler, listed).world, Pair(scheduler, listed).world
    want = [out for frame in frames for out in one_by_one.send_all([frame])]
    got = []
    for at in range(0, len(frames), size):
        got += in_batches.send_all(frames[at : at + size])
    assert got == want
    assert in_batches.connections() == one_by_one.connections()
    assert (in_batches.tables.reasons == one_by_one.tables.reasons).all()
