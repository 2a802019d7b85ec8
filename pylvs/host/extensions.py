"""Hop-by-hop options of IPv6, checked on the way in (RFC 8200, section 4.2; net/ipv6/exthdrs.c).

    type | length | data ...        the first two bits of a type say what to do if it is not known

What Linux does before anybody else sees the packet.  Other extension headers are for whom the
packet is for in the end: nobody here looks at them.
"""

from typing import Final

from pylvs.host.options import WELL_FORMED
from pylvs.jit import apart
from pylvs.wire import ipv6
from pylvs.wire.memory import load_u8

DROPPED: Final = -2
_ROUTER_ALERT: Final = 5
_PADDING_MAX: Final = 7
_UNKNOWN_MAX: Final = 8  # net.ipv6.max_hbh_opts_number
_SKIP, _DROP = 0, 1  # the first two bits; 2 and 3: tell the sender


@apart
def receive(memory, frame):
    """Return ``WELL_FORMED``, ``DROPPED``, or where in the packet the option is to blame for."""
    at = frame.ip + ipv6.HEADER_SIZE
    end = at + ((load_u8(memory, at + 1) + 1) << 3)
    if end > frame.ip + frame.packet_size:
        return DROPPED
    at += 2
    unknown = 0
    padding = 0
    while at < end:
        kind = load_u8(memory, at)
        size = 1 if kind == ipv6.PAD_1 else 2
        if size == 2:
            if at + 2 > end or at + 2 + load_u8(memory, at + 1) > end:
                return DROPPED
            size += load_u8(memory, at + 1)
        if kind == ipv6.PAD_1 or kind == ipv6.PAD_N:
            padding += size
            for byte in range(at + 2, at + size):
                if memory[byte] != 0:
                    return DROPPED
            if padding > _PADDING_MAX:
                return DROPPED
        else:
            padding = 0
            if kind != _ROUTER_ALERT:
                unknown += 1
                if unknown > _UNKNOWN_MAX or kind >> 6 == _DROP:
                    return DROPPED
                if kind >> 6 != _SKIP:
                    return at - frame.ip
        at += size
    return WELL_FORMED
