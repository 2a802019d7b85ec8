"""Frames that are malformed, random or lying: counted and dropped, and nothing wrong leaves."""

from hypothesis import given
from hypothesis import strategies as st

from pylvs.lab.capture import faults
from tests.conftest import examples
from tests.packets import DIRECTOR_MAC, MAC_A, arp, tcp_frame, udp_frame
from tests.world import CLIENT, VIP, World

RULES = [
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
]


@examples(300)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_never_sent_on(data, with_header):
    frame = DIRECTOR_MAC + MAC_A + b"\x08\x00" + data if with_header else data
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


@examples(100)
@given(st.lists(st.binary(max_size=120), max_size=256))
def test_every_frame_gets_exactly_one_reason(batch):
    world = World(RULES)
    sent = world.send_all([(0, frame) for frame in batch])
    born = int(world.tables.director[0]["born"])
    assert int(world.tables.reasons.sum()) == len(batch) + born
    assert not sent
