"""Tunneling (``-i``): the packet leaves inside another, IPv4 in IPv4 (RFC 2003).

    | Ethernet | IPv4 director -> server, protocol 4 | IPv4 client -> VIP | TCP ...

The outer header as Linux makes it: TTL of the inner after its decrement, DSCP and ECN of the inner
but for "congestion experienced", which leaves as ECT(0) (RFC 3168, section 9.1.1), DF copied, and
an identification of 0 when DF is set.
"""

from typing import Final

from pylvs.frames import HEADROOM
from pylvs.jit import compiled
from pylvs.wire import ethernet, ipv4
from pylvs.wire.memory import load_u8, load_u16

OVERHEAD: Final = ipv4.HEADER_SIZE
assert OVERHEAD <= HEADROOM

_CONGESTION_EXPERIENCED: Final = 3
_ECT_0: Final = 2


@compiled
def outer_tos(tos):
    if tos & 3 == _CONGESTION_EXPERIENCED:
        return (tos & ~3) | _ECT_0
    return tos


@compiled
def write_outer(tables, memory, inner, source, destination):
    """Write the outer header in front of the packet at ``inner``, whose size its header names."""
    director = tables.director[0]
    fragment = load_u16(memory, inner + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT
    if not director.pmtu_disc:
        fragment = 0
    identification = 0
    if not fragment:
        director.identification += 1
        identification = director.identification & 0xFFFF
    ipv4.write(
        memory,
        inner - OVERHEAD,
        outer_tos(load_u8(memory, inner + ipv4.TOS)),
        load_u16(memory, inner + ipv4.TOTAL_LENGTH) + OVERHEAD,
        identification,
        fragment,
        load_u8(memory, inner + ipv4.TTL),
        ipv4.IPIP,
        source,
        destination,
    )


@compiled
def encapsulate(tables, memory, frame, source, destination):
    """Put the frame's packet into a tunnel, in the headroom in front of it."""
    write_outer(tables, memory, frame.ip, source, destination)
    frame.ip -= OVERHEAD
    frame.packet_size += OVERHEAD
    frame.offset = frame.ip - ethernet.HEADER_SIZE
    frame.length = frame.packet_size + ethernet.HEADER_SIZE
