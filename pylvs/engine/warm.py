"""Everything compiled before the first frame comes: each door entered once, with nothing to do."""

import numpy as np

from pylvs.drivers import linux, live
from pylvs.engine import mailbox
from pylvs.engine.director import NEW_BATCH, Director, announce
from pylvs.engine.loop import LOOP, breathe_live
from pylvs.jit import records
from pylvs.jit.cache import mark_compiled
from pylvs.tables.sizes import Limits

SMALL = Limits(connections=16)


LIVE, CORE, TRACED = "live", "core", "traced"
"""What a director needs whose loop is compiled; one that replays, or breathes in Python; and one
that does so on real interfaces."""


def warm(part: str = LIVE) -> None:
    """Compile what a director calls, or load it from the cache: no more than it needs."""
    director = Director(SMALL)
    tables, memory, frames = director.tables, director.memory, director.frames
    announce(tables.all, memory, frames)
    mailbox.carry_out(tables, kind=mailbox.FAIL_NEIGHBOUR)
    mailbox.aim_all(tables.all)
    mailbox.distrust(tables.all)
    mailbox.settle(tables.all, 0, 0, 0)
    mailbox.forget(tables.all, 0, True, 0, 0)
    nothing = live.Live(0)
    if part == LIVE:
        loop = records(LOOP, 1)
        loop[0]["doorbell"] = 1
        loop[0]["row"] = NEW_BATCH
        loop[0]["direct"] = director.pointer()
        pollfds = records(linux.POLLFD, 1)
        clock = np.zeros(2, np.int64)
        breathe_live(tables.all, memory, frames, *nothing.places, pollfds, clock, loop)
    else:
        director.direct(0, 0)
        director.expire(0)
    if part != CORE:
        live.transmit(memory, 0, *nothing.places, frames, 0)
    if part == TRACED:
        live.receive(memory, 0, *nothing.places, frames, 0, 0)
        live.release(memory, nothing.umem, frames, 0)
    mark_compiled(part)


if __name__ == "__main__":
    for part in (LIVE, CORE, TRACED):
        warm(part)
