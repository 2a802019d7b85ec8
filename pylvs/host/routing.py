"""What a router does to packets on their way (RFC 1812; net/ipv4/ip_forward.c).

IPVS looks at a real server's replies after the router has: so do we.  And what the director has
claimed, or no host stack is there for, it forwards itself, by the packet's own destination.
"""

from pylvs.forwarding.segments import largest_packet
from pylvs.forwarding.transmit import discard
from pylvs.frames import (
    DELIVERY_MASK,
    FORWARDED_IN_PIECES,
    NONE,
    RECORDS_ROUTE,
    Reason,
    Verdict,
)
from pylvs.host import options
from pylvs.host.errors import send_error
from pylvs.jit import compiled
from pylvs.tables import paths
from pylvs.tables.layouts.network import UNICAST
from pylvs.wire import icmp, ip, ipv4, ipv6
from pylvs.wire.memory import load_u8, load_u16


@compiled
def hops_left(memory, frame):
    """Return the packet's TTL, or hop limit."""
    if frame.family == 4:
        return load_u8(memory, frame.ip + ipv4.TTL)
    return load_u8(memory, frame.ip + ipv6.HOP_LIMIT)


@compiled
def take_hop(memory, frame):
    """Take one from it."""
    if frame.family == 4:
        ipv4.decrement_ttl(memory, frame.ip)
    else:
        ipv6.decrement_hops(memory, frame.ip)


@compiled
def outlives(tables, memory, frames, count, frame, now_ms):
    """Whether the frame's TTL lets it go one hop further; if not, its sender is told."""
    if hops_left(memory, frame) > 1:
        return True
    type_, code, detail = icmp.TIME_EXCEEDED, icmp.IN_TRANSIT, icmp.NO_DETAIL
    send_error(tables, memory, frames, count, frame, type_, code, detail, now_ms)
    discard(frame, Reason.TIME_EXCEEDED)
    return False


@compiled
def fits(tables, memory, frames, count, frame, mtu, now_ms):
    """Whether the packets the frame stands for may go by a path of this MTU.

    A larger one may, in fragments, unless it forbids them: then its sender is told.
    """
    if frame.packet_size <= mtu or largest_packet(memory, frame) <= mtu:
        return True
    if may_be_cut(memory, frame, mtu):
        return True
    type_, code = icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED
    send_error(tables, memory, frames, count, frame, type_, code, mtu, now_ms)
    discard(frame, Reason.TOO_BIG)
    return False


@compiled
def may_be_cut(memory, frame, mtu):
    """Whether a packet may leave in fragments: IPv6's only as small as it came."""
    if frame.family == 6:
        return frame.fragment_max != 0 and frame.fragment_max <= mtu
    return load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT == 0


@compiled
def is_router(tables, frame):
    """Whether the host forwards packets of the frame's family at all."""
    director = tables.director[0]
    return (director.ip_forward if frame.family == 4 else director.forwarding) != 0


@compiled
def lets_pass(tables, memory, frame, now_ms):
    """Do to a packet for somebody else what comes before IPVS sees it; return whether it lives.

    Route, TTL and size; a packet put together from fragments has been through the last two.  What
    does not live has its verdict; its sender is told later.  Sets ``frame.path``.
    """
    frame.verdict = Verdict.DROP
    if tables.director[0].hosted and not is_router(tables, frame):
        frame.reason = Reason.DISCARDED
        return False
    destination = ip.destination_of(memory, frame.ip)
    row = paths.find_marked(tables, destination, frame.mark)
    if row == NONE or tables.paths[row].kind != UNICAST or tables.paths[row].port == NONE:
        frame.reason = Reason.NO_ROUTE
        return False
    frame.path = row
    if frame.delivery & DELIVERY_MASK == FORWARDED_IN_PIECES:
        return True
    if hops_left(memory, frame) <= 1:
        frame.reason = Reason.TIME_EXCEEDED
        return False
    mtu = paths.router_mtu(tables, row, destination, now_ms)
    if (
        frame.packet_size > mtu
        and not may_be_cut(memory, frame, mtu)
        and largest_packet(memory, frame) > mtu
    ):
        frame.reason = Reason.TOO_BIG
        return False
    take_hop(memory, frame)
    return True


@compiled
def may_have_options(frame):
    """Whether the packet may have IPv4 options; one of IPv6 may well seem to."""
    return frame.transport - frame.ip > ipv4.HEADER_SIZE


@compiled
def finish_options(memory, frame, address):
    """Write what a router records into IPv4 options; ``address`` is where the packet leaves."""
    if frame.family == 6:
        return
    if frame.delivery & RECORDS_ROUTE == 0:
        address = 0
    options.leave(memory, frame, address)
