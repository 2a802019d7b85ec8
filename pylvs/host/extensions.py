"""Extension headers of IPv6, looked into (RFC 8200, section 4; net/ipv6/exthdrs.c).

    type | length | data ...        the first two bits of a type say what to do if it is not known

Hop-by-hop options are checked on the way in, before anybody else sees the packet; the headers
behind them by whom the packet is for in the end, where the director plays that.
"""

from typing import Final

from pylvs.host.options import WELL_FORMED
from pylvs.jit import apart, compiled
from pylvs.wire import icmp, ipv6
from pylvs.wire.memory import load_u8

DROPPED: Final = -2
_ROUTER_ALERT: Final = 5
_RPL, _SEGMENTS = 3, 4  # types of routing header
_PADDING_MAX: Final = 7
_UNKNOWN_MAX: Final = 8  # net.ipv6.max_hbh_opts_number
_SKIP, _DROP = 0, 1  # the first two bits; 2 and 3: tell the sender


@compiled
def receive(memory, frame):
    """Check hop-by-hop options: ``WELL_FORMED``, ``DROPPED``, or where the one to blame is."""
    return _check(memory, frame, frame.ip + ipv6.HEADER_SIZE)


@apart
def accept(memory, frame):
    """Check the headers behind hop-by-hop options, as the packet's destination.

    Returns likewise what is wrong and where, and the code of the ICMPv6 error that says so.
    """
    tells = frame.ip + ipv6.NEXT_HEADER
    kind, at = load_u8(memory, tells), frame.ip + ipv6.HEADER_SIZE
    for _ in range(ipv6.HEADERS_LIMIT):
        if at + 8 > frame.transport:
            break
        if kind == ipv6.DESTINATION_OPTIONS:
            result = _check(memory, frame, at)
            if result != WELL_FORMED:
                return result, icmp.V6_UNKNOWN_OPTION
        elif kind == ipv6.ROUTING:
            if _is_refused(load_u8(memory, at + 2)):
                return DROPPED, 0  # seg6_enabled=0, rpl_seg_enabled=0
            if load_u8(memory, at + 3):
                return DROPPED, 0
        elif kind == ipv6.HOP_BY_HOP and at != frame.ip + ipv6.HEADER_SIZE:
            return tells - frame.ip, icmp.V6_UNKNOWN_HEADER  # it may only come first
        tells = at
        kind = load_u8(memory, at)
        at += (load_u8(memory, at + 1) + 1) << 3
    return WELL_FORMED, 0


@compiled
def _is_refused(routing):
    """Whether a kind of routing header is refused whatever it says."""
    return routing == _RPL or routing == _SEGMENTS


@apart
def _check(memory, frame, at):
    """Look at a header of options."""
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
