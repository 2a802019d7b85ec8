"""Plain forwarding of what the director has claimed and IPVS leaves to the router around it.

A masqueraded server may also talk from its service's port to somebody who is no client of the
director: the host does not see that packet any more, so the director forwards it, untranslated.
"""

from pylvs.forwarding.segments import largest_packet
from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import Reason
from pylvs.host.errors import OWN, send_error
from pylvs.jit import compiled
from pylvs.wire import icmp, ipv4
from pylvs.wire.memory import load_u8, load_u16


@compiled
def outlives(tables, memory, frames, count, frame, source, now_ms):
    """Whether the frame's TTL lets it go one hop further; if not, its sender is told.

    ``source`` is the address the error comes from, ``OWN`` for the director's.
    """
    if load_u8(memory, frame.ip + ipv4.TTL) > 1:
        return True
    type_, code = icmp.TIME_EXCEEDED, icmp.IN_TRANSIT
    detail = icmp.NO_DETAIL
    send_error(tables, memory, frames, count, frame, type_, code, detail, source, now_ms)
    discard(frame, Reason.TIME_EXCEEDED)
    return False


@compiled
def fits(tables, memory, frames, count, frame, mtu, source, now_ms):
    """Whether every packet the frame stands for fits ``mtu``; if not, its sender is told."""
    if largest_packet(memory, frame) <= mtu:
        return True
    if load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT:
        type_, code = icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED
        send_error(tables, memory, frames, count, frame, type_, code, mtu, source, now_ms)
        discard(frame, Reason.TOO_BIG)
    else:
        discard(frame, Reason.UNFRAGMENTED)
    return False


@compiled
def route(tables, memory, frames, count, frame, mtu, now_ms):
    """Forward the frame as a router does, by its own destination."""
    if not outlives(tables, memory, frames, count, frame, OWN, now_ms):
        return
    if fits(tables, memory, frames, count, frame, mtu, OWN, now_ms):
        ipv4.decrement_ttl(memory, frame.ip)
        send_to(tables, memory, frame, frame.destination, now_ms)
