"""Frames born in the director: a row behind the received ones, and bytes in scratch.

frames   | 0 .. count | count .. count + director.born |
scratch  | HEADROOM frame | HEADROOM frame | ...          used afresh with each batch
"""

from pylvs.frames import HEADROOM, NONE, UNDECIDED, Reason, Verdict
from pylvs.jit import compiled


@compiled
def _step(size):
    return (HEADROOM + size + 7) & ~7


@compiled
def has_room(tables, frames, count, pieces, size):
    """Whether ``pieces`` more frames of up to ``size`` bytes can be born in this batch."""
    director = tables.director[0]
    if count + director.born + pieces >= frames.size:  # the last row is nobody's
        return False
    return director.scratch_used + pieces * _step(size) <= director.scratch_size


@compiled
def new_row(tables, count):
    """Return the next row; the caller has made sure that there is one."""
    director = tables.director[0]
    director.born += 1
    return count + director.born - 1


@compiled
def clear(frame, family):
    """Make the row a frame that leaves, without a connection, offloads or a story."""
    frame.port_in = NONE
    frame.slot = NONE
    frame.checksum_start = 0
    frame.checksum_field = 0
    frame.segment_kind = 0
    frame.segment_size = 0
    frame.segment_header = 0
    frame.family = family
    frame.connection = NONE
    frame.mark = 0
    frame.delivery = UNDECIDED
    frame.fragment_max = 0
    frame.path = NONE
    frame.quotes = 0
    frame.service = NONE
    frame.server = NONE
    frame.verdict = Verdict.TRANSMIT
    frame.reason = Reason.FORWARDED


@compiled
def new(tables, frames, count, size, family):
    """Return the row of a new frame of ``size`` bytes, or ``NONE`` when there is no room."""
    if not has_room(tables, frames, count, 1, size):
        tables.reasons[Reason.SCRATCH_FULL] += 1
        return NONE
    director = tables.director[0]
    row = new_row(tables, count)
    frame = frames[row]
    clear(frame, family)
    frame.offset = director.scratch_begin + director.scratch_used + HEADROOM
    frame.length = size
    director.scratch_used += _step(size)
    return row
