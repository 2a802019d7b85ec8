"""Frames that are malformed, random or lying: counted and dropped, and nothing wrong leaves."""

from hypothesis import given
from hypothesis import strategies as st

from pylvs.lab.capture import faults
from tests.conftest import examples
from tests.packets import (
    DIRECTOR_MAC,
    MAC_A,
    arp,
    ethernet,
    fragments6,
    icmp6,
    ipv6,
    packed,
    tcp_frame,
    udp,
    udp_frame,
)
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

SOLICITATION = icmp6("2001:db8:1::1", VIP6, 135, 0, 0, packed(VIP6) + b"\1\1" + MAC_A)

RULES = [
    f"-A -t [{VIP6}]:80 -s wlc",
    f"-a -t [{VIP6}]:80 -r [2001:db8:2::b]:8080 -m",
    f"-A -u [{VIP6}]:53 -s rr",
    f"-a -u [{VIP6}]:53 -r [2001:db8:2::c]:53 -i",
    f"-A -t {VIP}:80 -s wlc",
    f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m",
    f"-A -u {VIP}:53 -s rr",
    f"-a -u {VIP}:53 -r 10.0.0.12 -i",
]
VALID = [
    tcp_frame(CLIENT, VIP, 40_000, 80),
    udp_frame(CLIENT, VIP, 40_000, 53),
    tcp_frame("10.0.0.11", CLIENT, 8080, 40_000, "SA"),
    arp(1, MAC_A, "192.0.2.1", bytes(6), VIP),
    tcp_frame(CLIENT6, VIP6, 40_000, 80),
    udp_frame(CLIENT6, VIP6, 40_000, 53),
    tcp_frame("2001:db8:2::b", CLIENT6, 8080, 40_000, "SA"),
    ethernet(ipv6(CLIENT6, VIP6, 0, bytes.fromhex("3c00050200000100") + bytes(8))),
    *map(ethernet, fragments6(CLIENT6, VIP6, 17, udp(CLIENT6, VIP6, 40_000, 53, bytes(90)), (48,))),
    ethernet(ipv6("2001:db8:1::1", VIP6, 58, SOLICITATION, hops=255)),
]


@examples(300)
@given(st.binary(max_size=200), st.sampled_from((b"\x08\x00", b"\x86\xdd\x60", b"")))
def test_random_bytes_are_never_sent_on(data, header):
    frame = DIRECTOR_MAC + MAC_A + header + data if header else data
    assert World(RULES).send(frame) == []


@examples(300)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 200),
)
def test_what_leaves_a_damaged_frame_has_a_right_ip_header(frame, damage, cut):
    broken = bytearray(frame)
    for at, value in damage:
        broken[at % len(broken)] = value
    for _, sent in World(RULES).send(bytes(broken[: len(broken) - cut % 20])):
        if sent[12:14] == b"\x08\x00":
            assert "IPv4 header" not in faults(sent[14:])
            assert len(sent) - 14 == int.from_bytes(sent[16:18], "big")
        if sent[12:14] == b"\x86\xdd":
            assert len(sent) - 54 == int.from_bytes(sent[18:20], "big")


@examples(100)
@given(st.lists(st.binary(max_size=120), max_size=256))
def test_every_frame_gets_exactly_one_reason(batch):
    world = World(RULES)
    sent = world.send_all([(0, frame) for frame in batch])
    born = int(world.tables.director[0]["born"])
    assert int(world.tables.reasons.sum()) == len(batch) + born
    assert not sent
