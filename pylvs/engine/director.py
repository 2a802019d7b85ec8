"""The door: one call into compiled code takes a batch from frames received to frames leaving.

    parse -> match (and schedule) -> forward -> frames[0 .. leaving].leaves

A few frames are parsed ahead, then each is matched and forwarded before the next one is.
No socket and no clock: memory, tables and ``now_ms`` come in, so the same code serves a live
interface, a TAP device, a replayed capture and a property test.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy import int64

from pylvs.engine.chores import do_chores
from pylvs.engine.forward import forward, leave_born
from pylvs.engine.match import match
from pylvs.engine.parse import parse
from pylvs.engine.schedule import ASK_KEY, KEY_ANSWERED, NO_KEY
from pylvs.engine.waiting import release
from pylvs.frames import BATCH_SIZE, BORN_LIMIT, FRAME
from pylvs.host import fragments, neighbourhood
from pylvs.jit import compiled, door, pointer_to, records
from pylvs.persistence.plugin import Engines
from pylvs.schedulers import FAILED
from pylvs.schedulers.plugin import Schedulers
from pylvs.tables import Tables, connections, new_tables, states
from pylvs.tables.layouts import SEEDS
from pylvs.tables.sizes import (
    HASH_BITS,
    HELD_LIMIT,
    HELD_SLOT,
    REASSEMBLY_LIMIT,
    REASSEMBLY_SLOT,
    Limits,
)

SCRATCH_SIZE: Final = BORN_LIMIT * 2_048
SWEEP_LIMIT: Final = 1_024  # rows a breath looks at; about 50 us
NEW_BATCH: Final = -1
RUN: Final = 16
"""Frames that are parsed ahead: few enough to be found in the first-level cache again."""
PLUGIN_ERRORS_LIMIT: Final = 16
OWN_MEMORY: Final = SCRATCH_SIZE + HELD_LIMIT * HELD_SLOT + REASSEMBLY_LIMIT * REASSEMBLY_SLOT
"""Bytes of memory the director itself needs: scratch, frames on hold, packets in fragments."""


@compiled
def begin_batch(tables):
    """Forget the last batch: its scratch may be used again."""
    fragments.begin_batch(tables)
    director = tables.director[0]
    director.born = 0
    director.listed = 0
    director.leaving = 0
    director.parsed = 0
    director.scratch_used = 0


@door
def direct(world, memory, frames, count, start, now_ms):
    """Run one batch when ``start`` is ``NEW_BATCH``, else the rest of one from that frame on.

    ``world`` is TABLES[1], ``memory`` uint8[...], ``frames`` FRAME[>= count + BORN_LIMIT],
    ``now_ms`` monotonic.
    Returns ``count`` when all frames have their verdict, else the row of a frame to ASK about: set
    its ``server`` and call again with that ``start``.
    """
    tables = world[0]
    if start == NEW_BATCH:
        start = 0
        begin_batch(tables)
        do_chores(tables, now_ms)
        if tables.director[0].reassembly_count:
            fragments.expire(tables, memory, frames, count, now_ms)
            leave_born(tables, frames, count)
    director = tables.director[0]
    row = start
    while row < count:
        if row == director.parsed:
            director.parsed = min(count, row + RUN)
            parse(tables, memory, frames, row, director.parsed, now_ms)
        end = int64(director.parsed)
        while row < end:
            if not match(tables, memory, frames[row], now_ms):
                return row
            forward(tables, memory, frames, count, row, now_ms)
            row += 1
    neighbourhood.solicit(tables, memory, frames, count, now_ms)
    release(tables, memory, frames, count, now_ms)
    leave_born(tables, frames, count)
    return count


@door
def announce(world, memory, frames):
    """Give birth to announcements of own addresses, as a batch; return whether they are all."""
    tables = world[0]
    begin_batch(tables)
    complete = neighbourhood.announce(tables, memory, frames, 0)
    leave_born(tables, frames, 0)
    return complete


@door
def sweep(world, now_ms, exact):
    """Remove connections that are due; return whether none is left.  See ``connections.sweep``."""
    return connections.sweep(world[0], now_ms, SWEEP_LIMIT, exact)


class Director:
    """Tables, memory and the door to them, for callers in Python.

    ``memory`` may be given by drivers that map their rings into it; it then has to hold
    ``OWN_MEMORY`` bytes of the director's own from ``own_begin`` on.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        *,
        memory: Any = None,
        own_begin: int = 0,
        seed: Sequence[int] | None = None,
    ) -> None:
        if seed is None:
            half = 1 << HASH_BITS - 1
            seed = [secrets.randbits(HASH_BITS) - half for _ in range(SEEDS)]
        self.tables: Tables = new_tables(limits, seed)
        states.set_timeouts(self.tables.timeouts)
        self.memory = np.zeros(OWN_MEMORY, np.uint8) if memory is None else memory
        self.frames = records(FRAME, BATCH_SIZE + BORN_LIMIT)
        self.schedulers = Schedulers()
        self.engines = Engines()
        self.plugin_errors: list[str] = []
        state = self.tables.director[0]
        self.scratch = state["scratch_begin"] = own_begin
        state["scratch_size"] = SCRATCH_SIZE
        state["held_begin"] = own_begin + SCRATCH_SIZE
        state["reassembly_begin"] = own_begin + SCRATCH_SIZE + HELD_LIMIT * HELD_SLOT

    def pointer(self) -> int:
        """Return where the machine code of ``direct`` is, for compiled code that calls it."""
        return pointer_to(direct, self.tables.all, self.memory, self.frames, 0, 0, 0)

    def direct(self, count: int, now_ms: int) -> None:
        """Run the batch in ``frames[0 .. count]``, asking plug-in schedulers on the way."""
        start = NEW_BATCH
        while True:
            start = int(direct(self.tables.all, self.memory, self.frames, count, start, now_ms))
            if start == count:
                return
            self.ask(start)

    def ask(self, row: int, frames: Any = None) -> None:
        """Let the plug-in answer that one frame asks for; one that raises loses that connection.

        The frame is one of ``frames``, the director's own unless others are given.
        """
        frame = (self.frames if frames is None else frames)[row]
        try:
            if frame["server"] == ASK_KEY:
                if not self.engines.answer(self.tables, self.memory, frame):
                    self.tables.director[0]["key_size"] = NO_KEY
                frame["server"] = KEY_ANSWERED
            else:
                frame["server"] = self.schedulers.answer(self.tables, frame)
        except Exception as error:  # a stranger's code: counted, told once, and never the director
            frame["server"] = FAILED
            self._note(error)

    def tell_plugin(self, service_row: int) -> None:
        """Let a service's plug-in scheduler know that its servers changed."""
        try:
            self.schedulers.changed(self.tables, service_row)
        except Exception as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if text not in self.plugin_errors and len(self.plugin_errors) < PLUGIN_ERRORS_LIMIT:
            self.plugin_errors.append(text)

    def expire(self, now_ms: int) -> None:
        """Remove every connection that is due at ``now_ms``, however long it takes."""
        while not sweep(self.tables.all, now_ms, True):
            pass

    def leaving(self) -> list[int]:
        """Return the rows that leave, in order."""
        count = int(self.tables.director[0]["leaving"])
        return [int(row) for row in self.frames["leaves"][:count]]
