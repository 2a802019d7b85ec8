"""The Internet checksum: computed (RFC 1071), and updated in place (RFC 1624)."""

import sys
from typing import Final

import numpy as np
from numpy import int64

from pylvs.jit import compiled
from pylvs.wire.memory import load_u32

LITTLE_ENDIAN: Final = sys.byteorder == "little"


@compiled
def fold(total):
    """Fold a one's complement sum below 2**48 to 16 bits."""
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@compiled
def replace_u16(checksum, old, new):
    """Return ``checksum`` after one 16-bit word of its data went from ``old`` to ``new``.

    RFC 1624, equation 3: HC' = ~(~HC + ~m + m').  Equation 2 of RFC 1141 is shorter and
    wrong when the result is all ones.
    """
    return ~fold((~checksum & 0xFFFF) + (~old & 0xFFFF) + new) & 0xFFFF


@compiled
def replace_u32(checksum, old, new):
    """Return ``checksum`` after an aligned 32-bit word went from ``old`` to ``new``."""
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + (~(old >> 16) & 0xFFFF)
    return ~fold(total + (new & 0xFFFF) + (new >> 16)) & 0xFFFF


@compiled
def replace_partial(partial, old, new):
    """Return an unfinished checksum after an address of its pseudo-header changed.

    An unfinished field holds the sum itself, not its complement; ports are not in it yet.
    """
    return ~replace_u32(~partial & 0xFFFF, old, new) & 0xFFFF


@compiled
def add(memory, at, size, total):
    """Return ``total`` plus the 16-bit words of ``size`` bytes at ``at``, an odd last byte padded.

    Words are summed in the machine's own order and swapped once at the end (RFC 1071, section
    2B), so the loop vectorizes: 64 KB in 1.6 us instead of 40.
    """
    words = memory[at : at + (size & ~1)].view(np.uint16)
    native = 0
    for i in range(words.size):
        native += int64(words[i])
    native = fold(native)
    if LITTLE_ENDIAN:
        native = ((native & 0xFF) << 8) | (native >> 8)
    if size & 1:
        native += int64(memory[at + size - 1]) << 8
    return total + native


@compiled
def of_header(memory, at, size):
    """Return the checksum an IPv4 header should carry, its own field counted as it stands.

    ``size`` is a multiple of four, as every IPv4 header's.
    """
    total = load_u32(memory, at) + load_u32(memory, at + 4) + load_u32(memory, at + 8)
    total += load_u32(memory, at + 12) + load_u32(memory, at + 16)
    for option in range(at + 20, at + size, 4):
        total += load_u32(memory, option)
    return ~fold(total) & 0xFFFF
