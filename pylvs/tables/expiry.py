"""The timing wheel: which connections may be due when.

    wheel[tick % WHEEL_SIZE] -> row <-> row <-> row        one slot every TICK_MS

A packet only moves ``expires_ms``.  The row stays in its slot until that comes up, and is then
placed again if its time has moved on: a busy connection costs the wheel one step per timeout, not
one per packet.  Only when the deadline moves *before* the slot (ESTABLISHED to CLOSE) is the row
moved at once.  (Varghese and Lauck's hashed wheel, made lazy.)
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.tables import sizes

TICK_MS: Final = sizes.TICK_MS
WHEEL_SIZE: Final = sizes.WHEEL_SIZE


@compiled
def link(tables, row, tick):
    """Put a row that stands nowhere into the slot of ``tick``."""
    entry = tables.connections[row]
    slot = tick % WHEEL_SIZE
    first = int64(tables.wheel[slot])
    entry.wheel_slot = slot
    entry.wheel_previous = NONE
    entry.wheel_next = first
    if first != NONE:
        tables.connections[first].wheel_previous = row
    tables.wheel[slot] = row


@compiled
def unlink(tables, row):
    entry = tables.connections[row]
    before, after = int64(entry.wheel_previous), int64(entry.wheel_next)
    if before == NONE:
        tables.wheel[entry.wheel_slot] = after
    else:
        tables.connections[before].wheel_next = after
    if after != NONE:
        tables.connections[after].wheel_previous = before


@compiled
def tick_of(tables, row):
    """Return the tick at which the row should be looked at: its own, or the wheel's horizon.

    The horizon is counted from where the sweep stands: further on lies the slot under the broom.
    """
    tick = tables.director[0].tick
    due = max(int64(tables.connections[row].expires_ms) // TICK_MS, tick + 1)
    return min(due, tick + WHEEL_SIZE)


@compiled
def place(tables, row):
    """Move a row to where its deadline belongs."""
    unlink(tables, row)
    link(tables, row, tick_of(tables, row))


@compiled
def restart(tables, row, timeout_ms, now_ms):
    """Start the connection's timer anew."""
    entry = tables.connections[row]
    is_later = timeout_ms >= entry.timeout_ms
    entry.timeout_ms = timeout_ms
    entry.expires_ms = now_ms + timeout_ms
    if is_later:
        return
    begin = tables.director[0].tick + 1
    ahead = (int64(entry.wheel_slot) - begin) % WHEEL_SIZE
    if (now_ms + timeout_ms) // TICK_MS < begin + ahead:
        place(tables, row)


@compiled
def pass_empty(wheel, tick, last):
    """Return the tick before the next slot that has rows, or before ``last``.

    Of what it is given, not of the tables: uncompiled those take a hundred times as long to ask.
    """
    while tick + 1 < last and wheel[(tick + 1) % WHEEL_SIZE] == NONE:
        tick += 1
    return tick
