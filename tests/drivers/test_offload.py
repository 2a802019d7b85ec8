"""The programs that forward flows, run by the kernel on frames of ours, beside the director."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pylvs.drivers import bpf
from pylvs.drivers.filter import Filter, assemble
from pylvs.drivers.offload import decide
from pylvs.engine import mailbox
from pylvs.forwarding.offload import AFTER
from pylvs.jit import entrance
from pylvs.tables import flows
from pylvs.tables.layouts import OPEN_FLOW, SHUT, VACANT, WARMING
from tests import programs
from tests.packets import ethernet, ipv4, ipv6, tcp, udp
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

LOOPBACK_MAC = bytes(6)
"""So that the kernel takes frames for its own that have no interface but lo."""
ROUTER_MAC = bytes.fromhex("020000000101")
SERVERS = {4: "10.0.0.11", 6: "2001:db8:2::11"}
CLIENTS, VIPS = {4: CLIENT, 6: CLIENT6}, {4: VIP, 6: VIP6}
SPECIAL = (0, bpf.TC_NEXT)
open_warm = entrance(flows.open_warm)


class Offloaded:
    """A world whose flows the kernel's programs see, and those programs."""

    def __init__(self, method="-m"):
        port = 8080 if method == "-m" else 80
        rules = []
        for letter in "tu":
            for family in (4, 6):
                vip, server = VIPS[family], SERVERS[family]
                if family == 6:
                    vip, server = f"[{vip}]", f"[{server}]"
                rules.append(f"-A -{letter} {vip}:80 -s rr")
                rules.append(f"-a -{letter} {vip}:80 -r {server}:{port} {method}")
        self.server_port = port
        self.world = World(rules)
        self.tables = self.world.tables
        for row in range(2):
            self.tables.ports[row]["mac"] = 0
            self.tables.ports[row]["interface"] = 1
        self.filter = Filter(xdp=False, offloads=True)
        offload = self.filter.offload
        offload.share(self.tables)
        maps = offload.flows.descriptor, offload._cell.descriptor
        # As a packet socket's the kernel would run it on frames without their Ethernet header.
        self.decides = bpf.load(decide(*maps, offload._seeds, 0, None), bpf.TYPE_TC)
        program = assemble(0, self.filter._map.descriptor, None, offload)
        self.acts = bpf.load(program, bpf.TYPE_TC)

    def close(self):
        os.close(self.decides)
        os.close(self.acts)
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
        header = {name: fields.pop(name) for name in ("ttl", "hops") if name in fields}
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
        taken, _ = programs.run(self.decides, frame)
        answer, made = programs.run(self.acts, frame)
        if taken:
            assert answer == bpf.TC_NEXT
            assert made == frame
            return None
        assert answer == bpf.TC_REDIRECT
        return made


@pytest.fixture(autouse=True, scope="module")
def _one_processor():
    """The cell between two programs is a processor's own."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(params=["-m", "-g"])
def offloaded(request):
    if os.geteuid():
        pytest.skip("only root may load programs")
    try:
        made = Offloaded(request.param)
    except PermissionError as error:
        pytest.skip(f"no bpf here: {error}")
    yield made
    made.close()


KINDS = [(family, protocol) for family in (4, 6) for protocol in (6, 17)]


@pytest.mark.parametrize(("family", "protocol"), KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_kernel_sends_what_the_director_would(offloaded, family, protocol, data):
    is_nat = offloaded.server_port == 8080
    port = data.draw(st.integers(1, 65_535))
    if offloaded.run(offloaded.frame(False, family, protocol, port=port)) is None:
        offloaded.establish(family, protocol, is_nat, port=port)
    is_reply = data.draw(st.booleans()) if is_nat else False
    payload = data.draw(st.binary(min_size=12, max_size=200))
    hops = data.draw(st.integers(2, 255))
    header = {"hops" if family == 6 else "ttl": hops}
    frame = offloaded.frame(is_reply, family, protocol, payload=payload, port=port, **header)
    made = offloaded.run(frame)
    sent = offloaded.world.send(frame, int(is_reply))
    assert [(int(not is_reply), made)] == sent
