"""The Internet checksum against RFC 1071 as written, for every length and alignment."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pylvs.jit import entrance
from pylvs.wire import checksum
from tests.conftest import examples
from tests.packets import internet_checksum

add = entrance(checksum.add)
fold = entrance(checksum.fold)
difference_u16 = entrance(checksum.difference_u16)
difference_u32 = entrance(checksum.difference_u32)
adjust = entrance(checksum.adjust)
adjust_partial = entrance(checksum.adjust_partial)


@examples(200)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_the_sum_over_any_bytes_is_the_textbooks(data, at):
    memory = np.frombuffer(bytes(at) + data + b"\xff" * 8, np.uint8).copy()
    assert ~fold(add(memory, at, len(data), 0)) & 0xFFFF == internet_checksum(data)


@examples(200)
@given(st.binary(min_size=8, max_size=40), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFF))
def test_an_updated_checksum_is_the_one_computed_afresh(data, address, port):
    data = b"\x45\x00" + data[2 : len(data) & ~1]  # no header is all zeros
    changed = data[:2] + port.to_bytes(2, "big") + address.to_bytes(4, "big") + data[8:]
    difference = difference_u32(int.from_bytes(data[4:8], "big"), address)
    difference += difference_u16(int.from_bytes(data[2:4], "big"), port)
    updated = adjust(internet_checksum(data), difference)
    # 0x0000 and 0xFFFF are the same sum; only the verdict on the packet counts.
    assert internet_checksum(changed + updated.to_bytes(2, "big")) == 0


def test_the_corner_that_broke_rfc_1141():
    """RFC 1624, section 4: an update whose result is all zeros must not come out as all ones."""
    assert adjust(0xDD2F, difference_u16(0x5555, 0x3285)) == 0x0000


@examples(100)
@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_an_unfinished_checksum_moves_the_other_way(partial, old, new):
    moved = adjust_partial(partial, difference_u32(old, new))
    want = fold(partial + (~old & 0xFFFF) + (~(old >> 16) & 0xFFFF) + (new & 0xFFFF) + (new >> 16))
    assert moved % 0xFFFF == want % 0xFFFF
