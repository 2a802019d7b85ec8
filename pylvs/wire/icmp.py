"""ICMP (RFC 792, RFC 1191): eight bytes, then what the message is about.

+---------------+---------------+-------------------------------+
|     Type      |     Code      |           Checksum            |
+---------------+---------------+-------------------------------+
|       Identifier, or 0        |   Sequence, or next-hop MTU   |
+---------------------------------------------------------------+
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire import checksum
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


@compiled
def is_error(type_):
    """Whether this type tells of an error: none is sent about such a message."""
    return is_relatable(type_) or type_ == REDIRECT or type_ == PARAMETER_PROBLEM


@compiled
def is_relatable(type_):
    """Whether IPVS relates this type to the connection it quotes."""
    return type_ == UNREACHABLE or type_ == SOURCE_QUENCH or type_ == TIME_EXCEEDED


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
