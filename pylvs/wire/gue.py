"""Generic UDP encapsulation (draft-ietf-intarea-gue), as IPVS uses it: a UDP header, then

+---+-+---------+---------------+-------------------------------+
|Ver|C|  Hlen   |   Protocol    |             Flags             |
+---+-+---------+---------------+-------------------------------+
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire import ipv4, transport
from pylvs.wire.memory import load_u8, store_u16

HEADER_SIZE: Final = 4
SIZE: Final = transport.UDP_HEADER_SIZE + HEADER_SIZE
_LENGTH: Final = 0x1F  # of what follows these four bytes, in words


@compiled
def is_ipv4(memory, udp):
    """Whether the UDP datagram holds data, not control, of version 0, carrying IPv4."""
    at = udp + transport.UDP_HEADER_SIZE
    return load_u8(memory, at) >> 5 == 0 and load_u8(memory, at + 1) == ipv4.IPIP


@compiled
def size_of(memory, udp):
    """Return the bytes from the UDP header to the packet inside."""
    return SIZE + ((load_u8(memory, udp + transport.UDP_HEADER_SIZE) & _LENGTH) << 2)


@compiled
def write(memory, udp, source_port, port, protocol, size):
    """Write both headers, without a checksum, in front of ``size`` bytes of ``protocol``."""
    store_u16(memory, udp + transport.SOURCE_PORT, source_port)
    store_u16(memory, udp + transport.DESTINATION_PORT, port)
    store_u16(memory, udp + transport.UDP_LENGTH, SIZE + size)
    store_u16(memory, udp + transport.UDP_CHECKSUM, 0)
    store_u16(memory, udp + transport.UDP_HEADER_SIZE, protocol)
    store_u16(memory, udp + transport.UDP_HEADER_SIZE + 2, 0)
