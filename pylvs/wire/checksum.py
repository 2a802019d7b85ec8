"""The Internet checksum: computed (RFC 1071), and updated in place (RFC 1624); SCTP's CRC."""

import sys
from typing import Final

import numpy as np
from numpy import int64, uint64

from pylvs.jit import compiled
from pylvs.wire.memory import load_u8, load_u32

LITTLE_ENDIAN: Final = sys.byteorder == "little"


@compiled
def fold(total):
    """Fold a one's complement sum below 2**32 to 16 bits."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@compiled
def fold_wide(total):
    """Fold a one's complement sum below 2**48 to 16 bits."""
    return fold((total & 0xFFFF_FFFF) + (total >> 32))


@compiled
def difference_u16(old, new):
    """Return what a checksum is to be adjusted by when a 16-bit word goes from ``old`` to ``new``.

    Differences add up.
    """
    return (~old & 0xFFFF) + new


@compiled
def difference_u32(old, new):
    """Return likewise the difference that an aligned 32-bit word makes."""
    return (~old & 0xFFFF) + (~(old >> 16) & 0xFFFF) + (new & 0xFFFF) + ((new >> 16) & 0xFFFF)


@compiled
def difference_u64(old, new):
    """Return likewise the difference that two such words make, in one integer."""
    return difference_u32(old >> 32, new >> 32) + difference_u32(old, new)


@compiled
def adjust(checksum, difference):
    """Return ``checksum`` after its data changed.

    RFC 1624, equation 3: HC' = ~(~HC + ~m + m').  Equation 2 of RFC 1141 is shorter and
    wrong when the result is all ones.
    """
    return ~fold((~checksum & 0xFFFF) + difference) & 0xFFFF


@compiled
def adjust_partial(partial, difference):
    """Return an unfinished checksum after an address of its pseudo-header changed.

    An unfinished field holds the sum itself, not its complement; ports are not in it yet.
    """
    return fold(partial + difference)


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
    native = to_native(fold(native))
    if size & 1:
        native += int64(memory[at + size - 1]) << 8
    return total + native


@compiled
def to_native(total):
    """Return a folded sum of the network's words as one of the machine's, or the other way."""
    if LITTLE_ENDIAN:
        return ((total & 0xFF) << 8) | (total >> 8)
    return total


@compiled
def of_header(memory, at, size):
    """Return the checksum that an IPv4 header of ``size`` bytes should carry; its own is zero."""
    return ~fold_wide(_sum_of_header(memory, at, size)) & 0xFFFF


@compiled
def is_header_sound(memory, at, size):
    """Whether an IPv4 header's checksum is right: its words sum up to all ones."""
    return uint64(_sum_of_header(memory, at, size)) % uint64(0xFFFF) == 0


@compiled
def _sum_of_header(memory, at, size):
    """Return the sum of a header's 32-bit words; its size is a multiple of theirs."""
    total = load_u32(memory, at) + load_u32(memory, at + 4) + load_u32(memory, at + 8)
    total += load_u32(memory, at + 12) + load_u32(memory, at + 16)
    for option in range(at + 20, at + size, 4):
        total += load_u32(memory, option)
    return total


# CRC-32C (Castagnoli), SCTP's checksum (RFC 9260, appendix A): a byte at a time, by table.
_POLYNOMIAL: Final = 0x82F6_3B78  # 0x1EDC6F41 with its bits in reverse


def _remainder(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_CRC32C: Final = np.array([_remainder(byte) for byte in range(256)], np.int64)


CRC32C_BEGIN: Final = 0xFFFF_FFFF


@compiled
def add_crc32c(memory, at, size, crc):
    """Return ``crc`` after ``size`` bytes; from ``CRC32C_BEGIN`` on, its complement is the sum."""
    for i in range(size):
        crc = int64(_CRC32C[(crc ^ load_u8(memory, at + i)) & 0xFF]) ^ (crc >> 8)
    return crc
