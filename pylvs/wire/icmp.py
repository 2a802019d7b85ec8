"""ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): eight bytes, then what the message is about.

+---------------+---------------+-------------------------------+
|     Type      |     Code      |           Checksum            |
+---------------+---------------+-------------------------------+
|       Identifier, or 0        |   Sequence, or next-hop MTU   |
+---------------------------------------------------------------+

What went wrong is told in ICMP's words throughout; ``to_ipv6`` finds ICMPv6's.
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire import checksum, ipv6, transport
from pylvs.wire.memory import store_u16

TYPE: Final = 0
CODE: Final = 1
CHECKSUM: Final = 2
REST: Final = 4
HEADER_SIZE: Final = 8

ECHO_REPLY: Final = 0
UNREACHABLE: Final = 3
SOURCE_QUENCH: Final = 4
REDIRECT: Final = 5
ECHO: Final = 8
TIME_EXCEEDED: Final = 11
PARAMETER_PROBLEM: Final = 12
TIMESTAMP: Final = 13
TIMESTAMP_REPLY: Final = 14
TIMESTAMP_SIZE: Final = 20

NET_UNREACHABLE: Final = 0
HOST_UNREACHABLE: Final = 1
PROTOCOL_UNREACHABLE: Final = 2
PORT_UNREACHABLE: Final = 3
FRAGMENTATION_NEEDED: Final = 4
IN_TRANSIT: Final = 0
REASSEMBLY_TIME: Final = 1
NO_DETAIL: Final = 0

ERROR_SIZE_MAX: Final = 576  # of the whole IPv4 packet (RFC 1812, section 4.3.2.3)

V6_UNREACHABLE: Final = 1
V6_TOO_BIG: Final = 2
V6_TIME_EXCEEDED: Final = 3
V6_PARAMETER_PROBLEM: Final = 4
V6_INFORMATION_BEGIN: Final = 128  # types from here on are no errors
V6_ECHO: Final = 128
V6_ECHO_REPLY: Final = 129
V6_SOLICITATION: Final = 135  # neighbour discovery
V6_ADVERTISEMENT: Final = 136

V6_NO_ROUTE: Final = 0
V6_ADDRESS_UNREACHABLE: Final = 3
V6_PORT_UNREACHABLE: Final = 4
V6_UNKNOWN_HEADER: Final = 1
V6_UNKNOWN_OPTION: Final = 2
V6_INCOMPLETE: Final = 3


@compiled
def is_error(type_):
    """Whether this type tells of an error: none is sent about such a message."""
    return is_relatable(type_) or type_ == REDIRECT or type_ == PARAMETER_PROBLEM


@compiled
def is_relatable(type_):
    """Whether IPVS relates this type to the connection it quotes."""
    return type_ == UNREACHABLE or type_ == SOURCE_QUENCH or type_ == TIME_EXCEEDED


@compiled
def to_ipv6(type_, code):
    """Return ICMPv6's (type, code) for what ICMP's mean."""
    if type_ == TIME_EXCEEDED:
        return V6_TIME_EXCEEDED, code
    if type_ == PARAMETER_PROBLEM:
        return V6_PARAMETER_PROBLEM, code
    if code == FRAGMENTATION_NEEDED:
        return V6_TOO_BIG, 0
    if code == PORT_UNREACHABLE:
        return V6_UNREACHABLE, V6_PORT_UNREACHABLE
    if code == HOST_UNREACHABLE:
        return V6_UNREACHABLE, V6_ADDRESS_UNREACHABLE
    if code == PROTOCOL_UNREACHABLE:
        return V6_PARAMETER_PROBLEM, V6_UNKNOWN_HEADER
    return V6_UNREACHABLE, V6_NO_ROUTE


@compiled
def mend_ipv6(memory, ip, at, size):
    """Compute the checksum of an ICMPv6 message of ``size`` bytes in the packet at ``ip``."""
    store_u16(memory, at + CHECKSUM, 0)
    result = transport.full_checksum(memory, ip, at, ipv6.ICMP, size)
    store_u16(memory, at + CHECKSUM, result)


@compiled
def write_ipv6(memory, ip, at, type_, code, rest, size):
    """Write the header of an ICMPv6 message whose body, and IPv6 header, are in place."""
    memory[at + TYPE] = type_
    memory[at + CODE] = code
    store_u16(memory, at + REST, rest >> 16)
    store_u16(memory, at + REST + 2, rest & 0xFFFF)
    mend_ipv6(memory, ip, at, size)


@compiled
def write(memory, at, type_, code, rest, size):
    """Write the header of a message of ``size`` bytes whose body is in place, checksum included."""
    memory[at + TYPE] = type_
    memory[at + CODE] = code
    store_u16(memory, at + CHECKSUM, 0)
    store_u16(memory, at + REST, rest >> 16)
    store_u16(memory, at + REST + 2, rest & 0xFFFF)
    total = checksum.add(memory, at, size, 0)
    store_u16(memory, at + CHECKSUM, ~checksum.fold(total) & 0xFFFF)
