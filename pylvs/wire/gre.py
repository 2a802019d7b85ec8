"""Generic routing encapsulation (RFC 2784): flags and protocol, then a checksum if flagged.

+-+-----------------------------+-------------------------------+
|C|          0                  |           Protocol            |
+-+-----------------------------+-------------------------------+
|     Checksum (optional)       |              0                |
+---------------------------------------------------------------+
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire import checksum, ethernet
from pylvs.wire.memory import load_u16, store_u16, store_u32

SIZE: Final = 4
CHECKSUM_SIZE: Final = 4  # how much longer it makes the header
_CHECKSUM_PRESENT: Final = 0x8000


@compiled
def is_ipv4(memory, at):
    """Whether it carries IPv4 and flags nothing but a checksum."""
    flags = load_u16(memory, at)
    return flags & ~_CHECKSUM_PRESENT == 0 and load_u16(memory, at + 2) == ethernet.IPV4


@compiled
def size_of(memory, at):
    """Return the header's size."""
    return SIZE + CHECKSUM_SIZE if load_u16(memory, at) & _CHECKSUM_PRESENT else SIZE


@compiled
def write(memory, at, ethertype, with_checksum, size):
    """Write the header in front of ``size`` bytes of what ``ethertype`` says."""
    store_u16(memory, at, _CHECKSUM_PRESENT if with_checksum else 0)
    store_u16(memory, at + 2, ethertype)
    if with_checksum:
        store_u32(memory, at + 4, 0)
        total = checksum.add(memory, at, SIZE + CHECKSUM_SIZE + size, 0)
        store_u16(memory, at + 4, ~checksum.fold(total) & 0xFFFF)
