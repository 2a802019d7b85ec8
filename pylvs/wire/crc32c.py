"""CRC-32C (Castagnoli), SCTP's checksum (RFC 9260, appendix A): a byte at a time, by table."""

from typing import Final

import numpy as np
from numpy import int64

from pylvs.jit import compiled
from pylvs.wire.memory import load_u8

_POLYNOMIAL: Final = 0x82F6_3B78  # 0x1EDC6F41 with its bits in reverse


def _remainder(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE: Final = np.array([_remainder(byte) for byte in range(256)], np.int64)


BEGIN: Final = 0xFFFF_FFFF


@compiled
def add(memory, at, size, crc):
    """Return ``crc``, at first ``BEGIN``, after ``size`` bytes; its complement is the checksum."""
    for i in range(size):
        crc = int64(_TABLE[(crc ^ load_u8(memory, at + i)) & 0xFF]) ^ (crc >> 8)
    return crc
