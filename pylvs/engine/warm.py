"""Everything compiled before the first frame comes: each door entered once, with nothing to do."""

import numpy as np

from pylvs.drivers import linux, live
from pylvs.engine import mailbox
from pylvs.engine.director import NEW_BATCH, Director, announce
from pylvs.engine.loop import LOOP, breathe_live
from pylvs.frames import FRAME
from pylvs.jit import mark_compiled, records
from pylvs.tables.sizes import Limits

SMALL = Limits(connections=16)


def warm(moves: bool = True) -> None:
    """Compile what a director calls, or load it from the cache; ``moves``: frames as well."""
    director = Director(SMALL)
    tables, memory, frames = director.tables, director.memory, director.frames
    director.direct(0, 0)
    director.expire(0)
    announce(tables.all, memory, frames)
    mailbox.carry_out(tables, kind=mailbox.FAIL_NEIGHBOUR)
    mailbox.aim_all(tables.all)
    mailbox.distrust(tables.all)
    mailbox.settle(tables.all, 0, 0, 0)
    mailbox.forget(tables.all, 0, True, 0, 0)
    if not moves:
        mark_compiled("core")
        return
    loop = records(LOOP, 1)
    loop[0]["doorbell"] = 1
    loop[0]["row"] = NEW_BATCH
    nothing = live.Live(0).places
    pollfds = records(linux.POLLFD, 1)
    clock = np.zeros(2, np.int64)
    breathe_live(tables.all, memory, frames, *nothing, pollfds, clock, loop)
    live.transmit(memory, 0, *nothing, records(FRAME, 1), 0)
    mark_compiled("core")
    mark_compiled("all")


if __name__ == "__main__":
    warm()
