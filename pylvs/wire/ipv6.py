"""IPv6 header (RFC 8200, section 3) and the headers that may stand behind it (section 4).

 0                   1                   2                   3
+-------+---------------+---------------------------------------+
|Version| Traffic class |              Flow label               |
+-------+---------------+-------+---------------+---------------+
|        Payload length         |  Next header  |   Hop limit   |
+-------------------------------+---------------+---------------+
|                        Source address, 16 bytes               |
+---------------------------------------------------------------+
|                     Destination address, 16 bytes             |
+---------------------------------------------------------------+

An extension header begins with what follows it and, but for the fragment header, its size.
"""

from typing import Final

from numpy import uint64

from pylvs.jit import apart, compiled
from pylvs.wire.memory import load_u8, load_u16, load_u32, store_u16, store_u32, store_u64

PAYLOAD_LENGTH: Final = 4
NEXT_HEADER: Final = 6
HOP_LIMIT: Final = 7
SOURCE: Final = 8
DESTINATION: Final = 24
HEADER_SIZE: Final = 40
MTU_MIN: Final = 1_280

HOP_BY_HOP: Final = 0
IPV6: Final = 41  # as the protocol of what an outer header carries
ROUTING: Final = 43
FRAGMENT: Final = 44
AUTHENTICATION: Final = 51
ICMP: Final = 58
NO_NEXT: Final = 59
DESTINATION_OPTIONS: Final = 60

HOPS_DEFAULT: Final = 64
HEADERS_LIMIT: Final = 8  # extension headers that are looked behind

FRAGMENT_SIZE: Final = 8
FRAGMENT_FIELD: Final = 2  # of the fragment header: offset:13, reserved:2, more:1
FRAGMENT_IDENTIFICATION: Final = 4
MORE_FRAGMENTS: Final = 1
FRAGMENT_OFFSET: Final = 0xFFF8

PAD_1: Final = 0
PAD_N: Final = 1


@compiled
def traffic_class(memory, ip):
    return (load_u16(memory, ip) >> 4) & 0xFF


@compiled
def size_of(memory, ip):
    """Return the packet's size, as its header says."""
    return HEADER_SIZE + load_u16(memory, ip + PAYLOAD_LENGTH)


@compiled
def _is_extension(kind):
    return (
        kind == HOP_BY_HOP
        or kind == ROUTING
        or kind == DESTINATION_OPTIONS
        or kind == AUTHENTICATION
        or kind == FRAGMENT
    )


@compiled
def _extension_size(memory, at, kind):
    if kind == FRAGMENT:
        return FRAGMENT_SIZE
    size = load_u8(memory, at + 1)
    return (size + 2) << 2 if kind == AUTHENTICATION else (size + 1) << 3


@compiled
def find_transport(memory, ip, end):
    """Return (protocol, where it begins, where the fragment header lies or 0).

    Behind the first header that is no extension, or is cut off by ``end``: then what it would be.
    A packet with a later fragment's payload, or with more extensions than are looked behind, has
    protocol ``NO_NEXT``.
    """
    kind = load_u8(memory, ip + NEXT_HEADER)
    at = ip + HEADER_SIZE
    if not _is_extension(kind):
        return kind, at, 0
    return _walk(memory, kind, at, end)


@apart
def _walk(memory, kind, at, end):
    fragment = 0
    for _ in range(HEADERS_LIMIT):
        if not _is_extension(kind):
            return kind, at, fragment
        if at + 8 > end:
            return NO_NEXT, at, fragment
        size = _extension_size(memory, at, kind)
        if kind == FRAGMENT:
            fragment = at
            if load_u16(memory, at + FRAGMENT_FIELD) & FRAGMENT_OFFSET:
                return NO_NEXT, at + size, fragment
        kind = load_u8(memory, at)
        at += size
        if at > end:
            return NO_NEXT, at, fragment
    return NO_NEXT, at, fragment


@apart
def find_fragmentable(memory, ip, end):
    """Return where the part begins that fragments carry, and the byte that says what it is.

    What routers on the way look at stays in front: hop-by-hop options, a routing header, and
    destination options before that (section 4.5; ip6_find_1stfragopt).
    """
    tells = ip + NEXT_HEADER
    at = ip + HEADER_SIZE
    routed = False
    for _ in range(HEADERS_LIMIT):
        kind = load_u8(memory, tells)
        stays = kind == HOP_BY_HOP or kind == ROUTING
        if kind == DESTINATION_OPTIONS:
            stays = not routed
        if not stays or at + 8 > end:
            break
        following = at + _extension_size(memory, at, kind)
        if following > end:
            break
        routed = routed or kind == ROUTING
        tells, at = at, following
    return at, tells


@compiled
def decrement_hops(memory, ip):
    memory[uint64(ip + HOP_LIMIT)] -= 1


@apart
def find_fragment_name(memory, ip, end):
    """Return where the byte stands that says that a fragment header follows."""
    tells = ip + NEXT_HEADER
    at = ip + HEADER_SIZE
    for _ in range(HEADERS_LIMIT):
        kind = load_u8(memory, tells)
        if kind == FRAGMENT or at + 8 > end:
            break
        tells, at = at, at + _extension_size(memory, at, kind)
    return tells


@compiled
def write(memory, ip, traffic, size, protocol, hops, source, destination):
    """Write a header with flow label 0; ``size`` is the whole packet's, addresses are pairs."""
    store_u32(memory, ip, 0x6000_0000 | traffic << 20)
    store_u16(memory, ip + PAYLOAD_LENGTH, size - HEADER_SIZE)
    memory[ip + NEXT_HEADER] = protocol
    memory[ip + HOP_LIMIT] = hops
    store_u64(memory, ip + SOURCE, source[0])
    store_u64(memory, ip + SOURCE + 8, source[1])
    store_u64(memory, ip + DESTINATION, destination[0])
    store_u64(memory, ip + DESTINATION + 8, destination[1])


@compiled
def write_fragment(memory, at, kind, field, identification):
    """Write a fragment header; ``kind`` is what follows it."""
    memory[at] = kind
    memory[at + 1] = 0
    store_u16(memory, at + FRAGMENT_FIELD, field)
    store_u32(memory, at + FRAGMENT_IDENTIFICATION, identification)


@compiled
def identification_of(memory, fragment):
    return load_u32(memory, fragment + FRAGMENT_IDENTIFICATION)
