"""The last step of every frame that leaves: its Ethernet header, or a wait for one.

path -> too large: in fragments -> next hop -> MAC known:    TRANSMIT
                                            -> MAC unknown:  HOLD, and somebody asks for it
"""

from pylvs.forwarding import pieces, segments
from pylvs.frames import HEADROOM, NONE, Reason, Verdict
from pylvs.jit import apart, compiled
from pylvs.tables import neighbours, paths
from pylvs.tables.layouts.network import KNOWN, UNICAST
from pylvs.tables.sizes import HELD_PER_HOP, HELD_SLOT
from pylvs.wire import ethernet, ipv6
from pylvs.wire.memory import copy


@compiled
def discard(frame, reason):
    frame.verdict = Verdict.DROP
    frame.reason = reason


@compiled
def send(tables, memory, frames, count, frame, path_row, neighbour_row, mtu, now_ms):
    """Address a finished packet to its next hop, in fragments if it does not fit ``mtu``.

    Its reason is kept unless it cannot leave, or leaves in pieces.
    """
    if path_row == NONE or neighbour_row == NONE:
        discard(frame, Reason.NO_ROUTE)
        return
    neighbour = tables.neighbours[neighbour_row]
    port = tables.ports[neighbour.port]
    frame.port_out = neighbour.port
    ethertype = ethernet.IPV4 if frame.family == 4 else ethernet.IPV6
    ethernet.write(memory, frame.offset, neighbour.mac, port.mac, ethertype)
    frame.verdict = Verdict.TRANSMIT
    may_be_cut = frame.segment_kind == 0 and (frame.packet_size > mtu or frame.fragment_max)
    if may_be_cut and _send_pieces(
        tables, memory, frames, count, frame, neighbour_row, mtu, now_ms
    ):
        return
    if neighbour.state != KNOWN and not port.raw_ip:
        hold(tables, memory, frame, neighbour_row, now_ms)


@apart
def _send_pieces(tables, memory, frames, count, frame, neighbour_row, mtu, now_ms):
    """Let fragments of the frame leave in its place; return False if it fits as it is.

    A packet that came in fragments leaves in fragments no larger than those, but for IPv6's least
    MTU.
    """
    limit = min(frame.fragment_max, mtu) if frame.fragment_max else mtu
    if frame.packet_size <= limit:
        return False
    if frame.fragment_max and frame.family == 6:
        limit = max(limit, ipv6.MTU_MIN)
    segments.finish_checksum(memory, frame)
    first = count + tables.director[0].born
    if not pieces.cut(tables, memory, frames, count, frame, limit):
        discard(frame, Reason.SCRATCH_FULL)
        return True
    discard(frame, Reason.FRAGMENTED)
    neighbour = tables.neighbours[neighbour_row]
    if neighbour.state != KNOWN and not tables.ports[neighbour.port].raw_ip:
        for row in range(first, count + tables.director[0].born):
            hold(tables, memory, frames[row], neighbour_row, now_ms)
    return True


@apart
def send_to(tables, memory, frames, count, frame, address, now_ms):
    """Route a finished packet to ``address``, a pair, and send it there."""
    path_row = paths.find(tables, address)
    if path_row == NONE or tables.paths[path_row].kind != UNICAST:
        discard(frame, Reason.NO_ROUTE)
        return
    path = tables.paths[path_row]
    if path.port == NONE:
        discard(frame, Reason.NO_ROUTE)
        return
    hop = paths.next_hop(tables, path_row, address)
    mtu = paths.mtu_to(tables, path_row, address, now_ms)
    send(tables, memory, frames, count, frame, path_row, hop, mtu, now_ms)


@apart
def hold(tables, memory, frame, neighbour_row, now_ms):
    """Copy the frame out until its next hop's MAC is known."""
    neighbours.want(tables, neighbour_row, now_ms)
    director = tables.director[0]
    neighbour = tables.neighbours[neighbour_row]
    no_room = director.held_count == tables.held.size or neighbour.waiting == HELD_PER_HOP
    if no_room or frame.length + HEADROOM > HELD_SLOT:
        discard(frame, Reason.WAIT_FULL)
        return
    for row in range(tables.held.size):
        held = tables.held[row]
        if held.neighbour != NONE:
            continue
        held.neighbour = neighbour_row
        held.port_out = frame.port_out
        held.offset = director.held_begin + row * HELD_SLOT + HEADROOM
        held.length = frame.length
        held.checksum_start = frame.checksum_start
        held.checksum_field = frame.checksum_field
        held.segment_kind = frame.segment_kind
        held.segment_size = frame.segment_size
        held.segment_header = frame.segment_header
        held.since_ms = now_ms
        held.lost = 0
        copy(memory, held.offset, frame.offset, frame.length)
        neighbour.waiting += 1
        director.held_count += 1
        frame.verdict = Verdict.HOLD
        frame.reason = Reason.WAITING
        return
