"""Frames on hold: they leave when their next hop's MAC is known, or their senders are told."""

from typing import Final

from numpy import int64

from pylvs.engine.late_errors import tell_unreachable
from pylvs.forwarding import born
from pylvs.frames import NONE, Reason
from pylvs.jit import compiled
from pylvs.tables.layouts.network import KNOWN
from pylvs.wire import ethernet, icmp, ip

WAIT_MS: Final = 5_000
"""The longest a frame waits, should nobody tell that its next hop does not answer: Linux gives up
after three requests a second apart (mcast_solicit, retrans_time_ms)."""


@compiled
def release(tables, memory, frames, count, now_ms):
    """Let go of what waited long enough.

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
        if held.lost or now_ms - held.since_ms >= WAIT_MS:
            tables.reasons[Reason.WAIT_TIMEOUT] += 1
            offset, code = int64(held.offset), icmp.HOST_UNREACHABLE
            tell_unreachable(tables, memory, frames, count, offset, code, icmp.NO_DETAIL, now_ms)
        elif neighbour.state == KNOWN and born.has_room(tables, frames, count, 1, 0):
            _let_go(tables, memory, frames, count, held, neighbour)
        else:
            continue
        held.neighbour = NONE
        neighbour.waiting -= 1
        director.held_count -= 1


@compiled
def _let_go(tables, memory, frames, count, held, neighbour):
    leaving = frames[born.new_row(tables, count)]
    wide = ip.is_version_6(memory, held.offset + ethernet.HEADER_SIZE)
    born.clear(leaving, 6 if wide else 4)
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
    ethertype = ethernet.IPV6 if wide else ethernet.IPV4
    ethernet.write(memory, leaving.offset, neighbour.mac, port.mac, ethertype)
