"""The last step of every frame that leaves: its Ethernet header, or a wait for one.

path -> too large: in fragments -> next hop -> MAC known:    TRANSMIT
                                            -> MAC unknown:  HOLD, and somebody asks for it
"""

from typing import Final

from pylvs.forwarding import born, pieces, segments
from pylvs.frames import HEADROOM, NONE, Reason, Verdict
from pylvs.jit import apart, compiled
from pylvs.tables import neighbours, paths
from pylvs.tables.layouts import HELD_SLOT, KNOWN, UNICAST
from pylvs.wire import ethernet
from pylvs.wire.memory import copy

WAIT_MS: Final = 3_000  # three ARP requests a second apart, as Linux (mcast_solicit)


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
    ethernet.write(memory, frame.offset, neighbour.mac, port.mac, ethernet.IPV4)
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

    A packet that came in fragments leaves in fragments no larger than those.
    """
    limit = min(frame.fragment_max, mtu) if frame.fragment_max else mtu
    if frame.packet_size <= limit:
        return False
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
    """Route a finished packet to ``address`` and send it there."""
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
    if director.held_count == tables.held.size or frame.length + HEADROOM > HELD_SLOT:
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
        copy(memory, held.offset, frame.offset, frame.length)
        director.held_count += 1
        frame.verdict = Verdict.HOLD
        frame.reason = Reason.WAITING
        return


@compiled
def release(tables, memory, frames, count, now_ms):
    """Let go of what waited long enough: as born frames where the MAC is known now.

    Called after everything else in a batch, since a row freed here may be filled again at once
    and its bytes are still to be sent.
    """
    director = tables.director[0]
    if director.held_count == 0:
        return
    for row in range(tables.held.size):
        held = tables.held[row]
        if held.neighbour == NONE:
            continue
        neighbour = tables.neighbours[held.neighbour]
        if neighbour.state == KNOWN and count + director.born < frames.size:
            leaving = frames[born.new_row(tables, count)]
            born.clear(leaving)
            leaving.offset = held.offset
            leaving.length = held.length
            leaving.port_out = held.port_out
            leaving.checksum_start = held.checksum_start
            leaving.checksum_field = held.checksum_field
            leaving.segment_kind = held.segment_kind
            leaving.segment_size = held.segment_size
            leaving.segment_header = held.segment_header
            leaving.reason = Reason.RELEASED
            port = tables.ports[held.port_out]
            ethernet.write(memory, leaving.offset, neighbour.mac, port.mac, ethernet.IPV4)
        elif neighbour.state != KNOWN and now_ms - held.since_ms >= WAIT_MS:
            tables.reasons[Reason.WAIT_TIMEOUT] += 1
        else:
            continue
        held.neighbour = NONE
        director.held_count -= 1
