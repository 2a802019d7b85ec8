"""IPv4 header (RFC 791, section 3.1).

 0                   1                   2                   3
+-------+-------+---------------+-------------------------------+
|Version|  IHL  |      TOS      |          Total length         |
+-------+-------+---------------+-----+-------------------------+
|        Identification         |Flags|     Fragment offset     |
+---------------+---------------+-----+-------------------------+
|      TTL      |   Protocol    |        Header checksum        |
+---------------+---------------+-------------------------------+
|                        Source address                         |
+---------------------------------------------------------------+
|                      Destination address                      |
+---------------------------------------------------------------+
"""

from typing import Final

from numpy import uint64

from pylvs.jit import compiled
from pylvs.wire import checksum
from pylvs.wire.memory import load_u8, load_u16, store_u16, store_u32

VERSION_IHL: Final = 0
TOS: Final = 1
TOTAL_LENGTH: Final = 2
IDENTIFICATION: Final = 4
FRAGMENT: Final = 6  # flags:3, offset:13
TTL: Final = 8
PROTOCOL: Final = 9
CHECKSUM: Final = 10
SOURCE: Final = 12
DESTINATION: Final = 16
HEADER_SIZE: Final = 20
SIZE_MAX: Final = 65535
MTU_MIN: Final = 68

ICMP: Final = 1
IGMP: Final = 2
IPIP: Final = 4
TCP: Final = 6
UDP: Final = 17
GRE: Final = 47
SCTP: Final = 132

DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
FRAGMENT_OFFSET: Final = 0x1FFF

OPTION_END: Final = 0
OPTION_NOP: Final = 1
OPTION_RECORD_ROUTE: Final = 7
OPTION_TIMESTAMP: Final = 68
OPTION_LOOSE_ROUTE: Final = 131
OPTION_ROUTER_ALERT: Final = 148
OPTION_STRICT_ROUTE: Final = 137
OPTION_COPIED: Final = 0x80  # to every fragment

TTL_DEFAULT: Final = 64
VERSION_IHL_PLAIN: Final = 0x45


@compiled
def header_size(memory, ip):
    """Return the header's size with options, in bytes; the version is the caller's to check."""
    return (load_u8(memory, ip + VERSION_IHL) & 0xF) << 2


@compiled
def is_fragment(memory, ip):
    return load_u16(memory, ip + FRAGMENT) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0


@compiled
def decrement_ttl(memory, ip):
    """Take one from the TTL and mend the header checksum (RFC 1141: add what the data lost)."""
    memory[uint64(ip + TTL)] -= 1
    sum_ = load_u16(memory, ip + CHECKSUM) + 0x100
    store_u16(memory, ip + CHECKSUM, sum_ + (sum_ >= 0xFFFF))


@compiled
def mend_checksum(memory, ip):
    """Compute the header checksum anew."""
    store_u16(memory, ip + CHECKSUM, 0)
    store_u16(memory, ip + CHECKSUM, checksum.of_header(memory, ip, header_size(memory, ip)))


@compiled
def add_options(memory, ip, size):
    """Make room in a written header for options of ``size`` bytes that lie right behind it."""
    memory[ip + VERSION_IHL] = VERSION_IHL_PLAIN + (size >> 2)
    total = load_u16(memory, ip + TOTAL_LENGTH)
    store_u16(memory, ip + TOTAL_LENGTH, total + size)
    mend_checksum(memory, ip)


@compiled
def write(memory, ip, tos, size, identification, fragment, ttl, protocol, source, destination):
    """Write a header without options, checksum included; ``size`` is the whole packet's."""
    memory[ip + VERSION_IHL] = VERSION_IHL_PLAIN
    memory[ip + TOS] = tos
    store_u16(memory, ip + TOTAL_LENGTH, size)
    store_u16(memory, ip + IDENTIFICATION, identification)
    store_u16(memory, ip + FRAGMENT, fragment)
    memory[ip + TTL] = ttl
    memory[ip + PROTOCOL] = protocol
    store_u16(memory, ip + CHECKSUM, 0)
    store_u32(memory, ip + SOURCE, source)
    store_u32(memory, ip + DESTINATION, destination)
    store_u16(memory, ip + CHECKSUM, checksum.of_header(memory, ip, HEADER_SIZE))
