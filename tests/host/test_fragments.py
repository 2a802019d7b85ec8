"""Fragments: whatever order they come in, the same packet; limits; and never an early word."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.packets import ethernet, ipv4, udp
from tests.world import CLIENT, VIP, World

RULES = [f"-A -u {VIP}:53 -s rr", f"-a -u {VIP}:53 -r 10.0.0.11:5353 -m"]
BODY = bytes(range(256)) * 8


def pieces(step, ident=7, body=BODY):
    datagram = udp(CLIENT, VIP, 40_000, 53, body)
    frames = []
    for begin in range(0, len(datagram), step):
        more = 0x2000 if begin + step < len(datagram) else 0
        part = datagram[begin : begin + step]
        packet = ipv4(CLIENT, VIP, 17, part, ident=ident, fragment=more | begin >> 3)
        frames.append(ethernet(packet))
    return frames


def payload(sent):
    """Return the UDP datagram that the fragments sent make up."""
    parts = sorted((int.from_bytes(frame[20:22], "big") & 0x1FFF, frame[34:]) for _, frame in sent)
    return b"".join(part for _, part in parts)


@examples(60)
@given(st.integers(1, 90).map(lambda n: n * 8), st.randoms(use_true_random=False))
def test_in_any_order_the_same_packet_comes_out(step, chance):
    frames = pieces(step)
    if len(frames) > 100:
        return
    chance.shuffle(frames)
    world = World(RULES)
    sent = [out for frame in frames for out in world.send(frame)]
    whole = payload(sent)
    assert whole[8:] == BODY
    assert int.from_bytes(whole[2:4], "big") == 5353
    assert all(len(frame) - 14 <= step + 20 for _, frame in sent)


def test_nothing_leaves_before_all_have_come_and_duplicates_are_ignored():
    world = World(RULES)
    frames = pieces(600)
    for frame in frames[1:]:
        assert world.send(frame) == []
        assert world.send(frame) == []
    assert payload(world.send(frames[0]))[8:] == BODY
    assert world.reason("fragments_bad") == 0


def test_an_overlap_kills_the_packet():
    world = World(RULES)
    frames = pieces(600)
    other = ethernet(ipv4(CLIENT, VIP, 17, bytes(64), ident=7, fragment=0x2000 | 70))
    world.send(frames[0])
    assert world.send(other) == []
    assert world.reason("fragments_bad") == 1
    for frame in frames[1:]:
        assert world.send(frame) == []


def test_what_never_gets_complete_is_told_after_half_a_minute():
    world = World(RULES)
    world.send(pieces(600)[0])
    assert world.after(29).send_all([]) == []
    ((port, error),) = world.after(1).send_all([])
    assert (port, error[34], error[35]) == (0, 11, 1)
    assert int(world.tables.director[0]["reassembly_count"]) == 0


def test_there_is_a_limit_and_room_comes_back():
    world = World(RULES)
    for ident in range(70):
        world.send(pieces(600, ident)[0])
    assert world.reason("fragments_full") == 6
    world.after(31).send_all([])
    assert world.send_all([(0, frame) for frame in pieces(600, 99)])


@pytest.mark.parametrize("size", [2, 7, 40])
def test_batches_are_invisible_to_fragments(size):
    chance = random.Random(size)
    frames = [(0, frame) for ident in range(6) for frame in pieces(304, ident)]
    chance.shuffle(frames)
    one, many = World(RULES), World(RULES)
    want = [out for frame in frames for out in one.send_all([frame])]
    got = []
    for at in range(0, len(frames), size):
        got += many.send_all(frames[at : at + size])
    assert got == want
    assert len(want) > 40
