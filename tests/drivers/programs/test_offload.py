"""The programs that forward flows, run by the kernel on frames of ours, beside the director."""

import os
import struct
import sys

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from pylvs.control.network.system import NEEDED_FOR_BPF, keep_capabilities
from pylvs.drivers.programs import bpf, offload
from pylvs.drivers.programs.decide import Maps
from pylvs.drivers.programs.decide import assemble as decide
from pylvs.drivers.programs.filter import Filter, assemble
from pylvs.engine.mailbox import distrust, settle
from pylvs.errors import HostError
from pylvs.forwarding.offload import AFTER
from pylvs.jit import entrance
from pylvs.tables.connections import flows
from pylvs.tables.layouts.shared import OPEN_FLOW, SHUT, VACANT, WARMING
from tests import programs
from tests.conftest import examples
from tests.packets import ethernet, internet_checksum, ipv4, ipv6, number, tcp, udp
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

LOOPBACK_MAC = bytes(6)
"""So that the kernel takes frames for its own that have no interface but lo."""
ROUTER_MAC = bytes.fromhex("020000000101")
SERVERS = {4: "10.0.0.11", 6: "2001:db8:2::11"}
CLIENTS, VIPS = {4: CLIENT, 6: CLIENT6}, {4: VIP, 6: VIP6}
open_warm = entrance(flows.open_warm)


class Offloaded:
    """A world whose flows the kernel's programs see, and those programs.

    ``way``: ``tcx``, behind packet sockets, or ``xdp``.  ``tunnel`` is the version of IP that all
    is carried in, unless it is each packet's own.
    """

    def __init__(self, method="-m", way="tcx", tunnel=0):
        port = 8080 if method == "-m" else 80
        self.is_nat = method == "-m"
        self.kind = f"{method}{tunnel or ''}"
        rules = []
        for letter in "tu":
            for family in (4, 6):
                vip, server = VIPS[family], SERVERS[tunnel or family]
                vip, server = (f"[{one}]" if ":" in one else one for one in (vip, server))
                rules.append(f"-A -{letter} {vip}:80 -s rr")
                rules.append(f"-a -{letter} {vip}:80 -r {server}:{port} {method}")
        self.server_port = port
        self.rules = rules
        self.filter = Filter(xdp=False, offloads=True)
        self.begin_anew()
        self.way = way
        self.sockets = bpf.Map(bpf.SOCKETS, 4, 4, 1)
        self.loaded = [bpf.load(*one) for one in self.assemble()]

    def assemble(self):
        """Return the programs, and of which kind they are."""
        kernel, claimed = self.filter.offload, self.filter._map.descriptor
        if self.way == "xdp":
            return [(assemble(0, claimed, self.sockets.descriptor, kernel), bpf.TYPE_XDP)]
        # As a packet socket's the kernel would run it on frames without their Ethernet header.
        acts = assemble(0, claimed, None, kernel)
        return [(kernel.decide(0, None), bpf.TYPE_TC), (acts, bpf.TYPE_TC)]

    def begin_anew(self):
        """Have a world in which nothing has happened yet; its seeds are the last one's."""
        self.world = World(self.rules)
        self.tables = self.world.tables
        for row in range(2):
            self.tables.ports[row]["mac"] = 0
            self.tables.ports[row]["interface"] = 1
            self.tables.ports[row]["redirects"] = os.cpu_count()
        self.filter.offload.share(self.tables)
        self.tables.flows.view("u1")[:] = 0
        self.tables.flow_counts[:] = 0

    def close(self):
        for one in self.loaded:
            os.close(one)
        self.sockets.close()
        self.filter.close()

    def request(self, body, family=4, protocol=6, **fields):
        return self.packet(CLIENTS[family], VIPS[family], body, family, protocol, **fields)

    def reply(self, body, family=4, protocol=6, **fields):
        return self.packet(SERVERS[family], CLIENTS[family], body, family, protocol, **fields)

    def packet(self, source, destination, body, family, protocol, **fields):
        make = ipv6 if family == 6 else ipv4
        packet = make(source, destination, protocol, body, **fields)
        return ethernet(packet, LOOPBACK_MAC, ROUTER_MAC, 0x86DD if family == 6 else 0x800)

    def body(self, is_reply, family=4, protocol=6, flags="A", payload=b"", port=40_000, **fields):
        source, destination, ports = CLIENTS[family], VIPS[family], (port, 80)
        if is_reply:
            source, destination, ports = SERVERS[family], CLIENTS[family], (self.server_port, port)
        if protocol == 17:
            return udp(source, destination, *ports, payload or bytes(12), **fields)
        return tcp(source, destination, *ports, flags, payload, **fields)

    def frame(self, is_reply, family=4, protocol=6, **fields):
        names = ("ttl", "hops", "tos", "traffic", "fragment")
        header = {name: fields.pop(name) for name in names if name in fields}
        body = self.body(is_reply, family, protocol, **fields)
        make = self.reply if is_reply else self.request
        return make(body, family, protocol, **header)

    def establish(self, family=4, protocol=6, replies=True, **fields):
        """Open a connection, have it last, and its flows be open."""
        kinds = ["S", "A"] if protocol == 6 else ["A"]
        for flags in (*kinds, *["A"] * AFTER):
            self.world.send(self.frame(False, family, protocol, flags=flags, **fields))
            if replies:
                answer = "SA" if flags == "S" else "A"
                self.world.send(self.frame(True, family, protocol, flags=answer, **fields), 1)
        self.open()

    def open(self):
        for _ in range(2):
            open_warm(self.tables.all[0], True, self.world.now_ms)

    def states(self):
        rows = self.tables.flows[: flows.GENERATION_ROW]
        return sorted(int(one) for one in rows["state"] if one != VACANT)

    def run(self, frame):
        """Return what becomes of a frame: nothing, if the director has it."""
        before = self.tables.flows["used_ns"].copy()
        taken = self.way == "tcx" and programs.run(self.loaded[0], frame)[0] != 0
        answer, made = programs.run(self.loaded[-1], frame)
        if taken or (self.way == "xdp" and answer == bpf.XDP_PASS):
            assert answer == (bpf.TC_NEXT if taken else bpf.XDP_PASS)
            assert made == frame
            return None
        assert answer == (bpf.TC_REDIRECT if self.way == "tcx" else bpf.XDP_REDIRECT)
        used = self.tables.flows["used_ns"]
        used[used != before] = self.world.now_ms * 1_000_000  # by the world's own clock
        return made


@pytest.fixture(autouse=True, scope="module")
def _one_processor():
    """The cell between two programs is a processor's own."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


METHODS = [("-m", 0), ("-g", 0), ("-i", 0), ("-i", 6)]
KINDS = [(*method, way) for method in METHODS for way in ("tcx", "xdp")]
TUNNELS = [("-i", 0, way) for way in ("tcx", "xdp")]


def name_of(kind):
    return f"{kind[0][1:]}{kind[1] or ''}-{kind[2]}" if isinstance(kind, tuple) else None


@pytest.fixture(params=KINDS, ids=name_of)
def offloaded(request):
    if os.geteuid():
        pytest.skip("only root may load programs")
    method, tunnel, way = request.param
    try:
        made = Offloaded(method, way, tunnel)
    except PermissionError as error:
        pytest.skip(f"no bpf here: {error}")
    yield made
    made.close()


PROTOCOLS = [(family, protocol) for family in (4, 6) for protocol in (6, 17)]


@pytest.mark.parametrize(("family", "protocol"), PROTOCOLS)
@examples(60)
@given(data=st.data())
def test_the_kernel_sends_what_the_director_would(offloaded, family, protocol, data):
    is_nat = offloaded.is_nat
    port = data.draw(st.integers(1_024, 65_535))
    if offloaded.run(offloaded.frame(False, family, protocol, port=port)) is None:
        offloaded.establish(family, protocol, is_nat, port=port)
    is_reply = data.draw(st.booleans()) if is_nat else False
    payload = data.draw(st.binary(min_size=12, max_size=200))
    hops = data.draw(st.integers(2, 255))
    tos = data.draw(st.integers(0, 255))
    header = {"hops": hops, "traffic": tos} if family == 6 else {"ttl": hops, "tos": tos}
    frame = offloaded.frame(is_reply, family, protocol, payload=payload, port=port, **header)
    padded = frame + bytes(data.draw(st.integers(0, 9)))
    made = offloaded.run(padded)
    sent = offloaded.world.send(padded, int(is_reply))
    assert [(int(not is_reply), made)] == sent


@pytest.mark.parametrize("flags", ["S", "SA", "FA", "R", "", "P", "RA"])
@pytest.mark.parametrize("family", [4, 6])
def test_what_changes_a_connection_is_the_directors_with_all_that_follows(offloaded, family, flags):
    offloaded.establish(family, replies=offloaded.is_nat)
    assert offloaded.run(offloaded.frame(False, family)) is not None
    assert offloaded.run(offloaded.frame(False, family, flags=flags)) is None
    assert offloaded.run(offloaded.frame(False, family)) is None
    assert SHUT in offloaded.states()


def test_odd_packets_are_the_directors(offloaded):
    replies = offloaded.is_nat
    for family in (4, 6):
        offloaded.establish(family, 6, replies)
        offloaded.establish(family, 17, replies)
    body = offloaded.body(False)
    overhead = {"-i": 20, "-i6": 40}.get(offloaded.kind, 0)
    overhead6 = 40 if overhead else 0
    fits = offloaded.frame(False, payload=bytes(1460 - overhead))
    wrong = bytearray(fits)
    wrong[24] ^= 1
    other_host = bytearray(fits)
    other_host[0] = 2
    odd = {
        "its last hop": offloaded.frame(False, ttl=1),
        "its last hop, IPv6": offloaded.frame(False, 6, hops=1),
        "too large": offloaded.frame(False, payload=bytes(1461 - overhead)),
        "too large, IPv6": offloaded.frame(False, 6, payload=bytes(1441 - overhead6)),
        "a fragment": offloaded.request(body, fragment=0x2000),
        "a later fragment": offloaded.request(body, fragment=0x0003),
        "with options": offloaded.request(body, options=bytes([1, 1, 1, 0])),
        "a wrong header checksum": bytes(wrong),
        "another station's": bytes(other_host),
        "cut short": fits[:-1],
        "another protocol": offloaded.request(body, protocol=132),
        "another port": offloaded.frame(False, port=40_001),
    }
    if replies:
        odd["without a checksum"] = offloaded.frame(False, 4, 17, checksum=False)
    for name, frame in odd.items():
        assert offloaded.run(frame) is None, name
    assert offloaded.run(fits) is not None
    assert offloaded.run(offloaded.frame(False, 4, 17)) is not None
    fits = offloaded.frame(False, 6, payload=bytes(1440 - overhead6))
    assert offloaded.run(fits) is not None


@pytest.mark.parametrize(("family", "protocol"), PROTOCOLS)
def test_a_checksum_that_its_sender_left_unfinished(offloaded, family, protocol):
    """Is mended by tcx as it is; XDP leaves it to that, and into a tunnel goes no such packet.

    A right one may look the same, so the flow stays open.
    """
    offloaded.establish(family, protocol, offloaded.is_nat)
    whole = bytearray(offloaded.frame(False, family, protocol))
    at = 14 + (20 if family == 4 else 40)
    begin, size = (26, 8) if family == 4 else (22, 32)
    pseudo = bytes(whole[begin : begin + size]) + struct.pack("!HH", protocol, len(whole) - at)
    field = at + (16 if protocol == 6 else 6)
    whole[field : field + 2] = struct.pack("!H", internet_checksum(pseudo) ^ 0xFFFF)
    made = offloaded.run(bytes(whole))
    if offloaded.way == "xdp" or offloaded.kind.startswith("-i"):
        assert made is None
    else:
        assert made[-1] == whole[-1]
    assert SHUT not in offloaded.states()
    assert offloaded.run(offloaded.frame(False, family, protocol)) is not None


@pytest.mark.parametrize("offloaded", TUNNELS, indirect=True, ids=name_of)
def test_tunnels_that_count_what_they_send_are_the_directors(offloaded):
    for _ in range(AFTER + 3):
        offloaded.world.send(offloaded.frame(False, 4, 17, fragment=0))
    offloaded.open()
    assert offloaded.states() == []
    offloaded.establish(4, 17, replies=False)
    assert offloaded.run(offloaded.frame(False, 4, 17)) is not None
    assert offloaded.run(offloaded.frame(False, 4, 17, fragment=0)) is None
    assert offloaded.run(offloaded.frame(False, 4, 17)) is None
    offloaded.world.send(offloaded.frame(False, 4, 17))
    offloaded.open()
    assert offloaded.states() == [SHUT]  # more such packets will come


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.manager.set_settings({"pmtu_disc": 0}),
        lambda world: world.manager.around.override_source(number("10.0.0.253")),
        lambda world: world.rule(f"-e -u {VIP}:80 -r {SERVERS[4]}:80 -i --tun-type gre"),
    ],
)
@pytest.mark.parametrize("offloaded", TUNNELS, indirect=True, ids=name_of)
def test_another_tunnel_is_none_that_was_offered(offloaded, change):
    offloaded.establish(4, 17, replies=False)
    assert offloaded.run(offloaded.frame(False, 4, 17)) is not None
    change(offloaded.world)
    assert offloaded.run(offloaded.frame(False, 4, 17)) is None


@pytest.mark.parametrize("offloaded", [("-m", 0, "xdp"), ("-i", 0, "xdp")], indirect=True)
def test_what_an_interface_does_not_take_from_xdp_goes_on_to_tcx(offloaded):
    here = min(os.sched_getaffinity(0))  # the only one
    for processors, is_sent in ((here + 1, True), (here, False)):
        offloaded.begin_anew()
        offloaded.tables.ports["redirects"][:2] = processors
        offloaded.establish(4, 17, offloaded.is_nat)
        assert (offloaded.run(offloaded.frame(False, 4, 17)) is not None) == is_sent
    offloaded.establish(4, 6, offloaded.is_nat)
    for flags in "AFR":  # the socket's program decides, behind those that went on before
        assert offloaded.run(offloaded.frame(False, 4, 6, flags=flags)) is None
    assert set(offloaded.states()) == {OPEN_FLOW}


def test_programs_load_with_the_capabilities_that_a_director_keeps(offloaded):
    """The verifier looks closer at those of who may not look into the kernel."""
    programs_of = offloaded.assemble()

    def load_all():
        keep_capabilities(NEEDED_FOR_BPF)
        for program, kind in programs_of:
            os.close(bpf.load(program, kind))

    child = os.fork()
    if child == 0:
        try:
            load_all()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_warming_flow_is_the_directors_and_counted(offloaded):
    offloaded.establish(replies=False)
    row = int(offloaded.tables.details[0])
    offloaded.tables.flows[row]["state"] = WARMING
    passed = int(offloaded.tables.flows[row]["passed"])
    assert offloaded.run(offloaded.frame(False)) is None
    assert int(offloaded.tables.flows[row]["passed"]) == passed + 1


def test_no_flow_outlives_its_generation(offloaded):
    offloaded.establish(replies=False)
    assert offloaded.run(offloaded.frame(False)) is not None
    distrust(offloaded.tables.all)
    assert offloaded.run(offloaded.frame(False)) is None
    offloaded.world.send(offloaded.frame(False))  # which offers it again
    offloaded.open()
    assert offloaded.run(offloaded.frame(False)) is not None


def test_sockets_take_frames_of_their_length_alone():
    """Both of an interface's sockets see each frame; no frame is nobody's or both's."""
    if os.geteuid():
        pytest.skip("only root may load programs")
    shared = [bpf.Map(bpf.ARRAY, 4, size, 16, shared=True) for size in (1_024, 8_192)]
    maps = [*shared, bpf.Map(bpf.ARRAY_A_CPU, 4, 4, 1)]
    flows_at, counts, cell = (one.descriptor for one in maps)
    seeds = tuple(0x1234_5678_9ABC_DEF1 * one % 2**64 for one in (1, 3, 5, 7, 9))
    places = Maps(flows_at, counts, seeds)
    small = bpf.load(decide(places, cell, 0, 100), bpf.TYPE_TC)
    large = bpf.load(decide(places, cell, 100, None), bpf.TYPE_TC)
    for size, takes in ((60, (-1, 0)), (100, (-1, 0)), (101, (0, -1)), (900, (0, -1))):
        answers = [programs.run(one, bytes(size))[0] for one in (small, large)]
        assert tuple(answers) == takes
    for one in (small, large):
        os.close(one)
    for one in maps:
        one.close()


@pytest.mark.parametrize(
    ("real_time", "clocks", "told"),
    [
        ("0", "monotonic 0 0\nboottime 0 0\n", ""),
        ("1", "monotonic 0 0\n", "real-time"),
        ("0", "monotonic 86400 0\nboottime 0 0\n", "time namespace"),
        ("0", "monotonic 0 0\nboottime 5 0\n", ""),
        (None, None, ""),
    ],
)
def test_where_the_kernel_cannot_do_it_right_it_says_why(
    tmp_path, monkeypatch, real_time, clocks, told
):
    for name, text in (("_REAL_TIME", real_time), ("_CLOCKS", clocks)):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(offload, name, path)
    assert told in offload.hindrance()
    assert bool(told) == bool(offload.hindrance())


def test_what_cannot_be_is_done_without_or_refused_if_it_must_be(tmp_path, monkeypatch):
    if os.geteuid():
        pytest.skip("only root may make maps")
    path = tmp_path / "realtime"
    path.write_text("1")
    monkeypatch.setattr(offload, "_REAL_TIME", path)
    without = Filter(xdp=False, offloads=True)
    assert without.offload is None
    without.close()
    with pytest.raises(HostError, match="real-time"):
        Filter(xdp=False, offloads=True, must_offload=True)


LASTING = [
    (flags, is_reply, number, 0.0, flags == "A")
    for number in (0, 1)
    for flags, is_reply in [("S", False), ("SA", True)] + [("A", False), ("A", True)] * (AFTER + 1)
]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["A"] * 12 + ["PA", "S", "SA", "FA", "R", "RA"]),
        st.booleans(),  # a reply
        st.integers(0, 1),  # whose
        st.sampled_from([0.0] * 6 + [0.1, 20.0, 200.0, 1_000.0]),  # seconds later
        st.booleans(),  # the director is idle then
    ),
    min_size=10,
    max_size=80,
)


@examples(40)
@given(steps=STEPS, protocol=st.sampled_from([6, 17]), family=st.sampled_from([4, 6]))
def test_whatever_comes_the_kernel_makes_no_difference(offloaded, steps, protocol, family):
    """Beside a director that has it all: the same frames, states, timers and counters."""
    alone = World(offloaded.rules)
    for row in range(2):
        alone.tables.ports[row]["mac"] = 0
    offloaded.begin_anew()
    by_kernel = 0
    for flags, is_reply, who, seconds, idle in [*LASTING, *steps]:
        frame = offloaded.frame(is_reply, family, protocol, flags=flags, port=40_000 + who)
        for world in (alone, offloaded.world):
            world.after(seconds)
        sent = alone.send(frame, int(is_reply))
        offloaded.world.director.expire(offloaded.world.now_ms)
        made = offloaded.run(frame)
        if made is None:
            assert offloaded.world.send(frame, int(is_reply)) == sent
        else:
            assert [(int(not is_reply), made)] == sent
            by_kernel += 1
        if idle:
            offloaded.open()
    event(f"by the kernel: {min(by_kernel, 10)} or more")
    settle(offloaded.tables.all, 0, flows.GENERATION_ROW, offloaded.world.now_ms)
    alone.director.expire(alone.now_ms)
    offloaded.world.director.expire(offloaded.world.now_ms)
    for name in ("totals", "reasons"):
        assert getattr(alone.tables, name).tolist() == getattr(offloaded.tables, name).tolist()
    assert remembered(alone) == remembered(offloaded.world)


def remembered(world):
    """Return what is known of each connection."""
    rows = world.tables.connections[: int(world.tables.director[0]["high_water"])]
    names = ["client_port", "state", "expires_ms", "timeout_ms", "in_packets"]
    return sorted(tuple(int(one[name]) for name in names) for one in rows if one["expires_ms"])
