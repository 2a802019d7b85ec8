"""Everything compiled before the first frame comes: each door entered once, with nothing to do."""

import numpy as np

from pylvs.drivers import linux, packet_ring, rings, xdp
from pylvs.engine import mailbox
from pylvs.engine.director import NEW_BATCH, Director, announce
from pylvs.engine.loop import LOOP, breathe_on_rings
from pylvs.frames import FRAME
from pylvs.jit import mark_compiled, records
from pylvs.tables.sizes import Limits

SMALL = Limits(connections=16)


def warm(live: bool = True) -> None:
    """Compile what a director calls, or load it from the cache; ``live`` with interfaces' loop."""
    director = Director(SMALL)
    tables, memory, frames = director.tables, director.memory, director.frames
    director.direct(0, 0)
    director.expire(0)
    announce(tables.all, memory, frames)
    mailbox.carry_out(tables, kind=mailbox.FAIL_NEIGHBOUR)
    mailbox.aim_all(tables.all)
    mailbox.forget(tables.all, 0, True, 0, 0)
    if not live:
        mark_compiled("core")
        return
    loop = records(LOOP, 1)
    loop[0]["doorbell"] = 1
    loop[0]["row"] = NEW_BATCH
    nothing = records(packet_ring.RING, 0), records(xdp.SOCKET, 0), records(xdp.UMEM, 1)
    pollfds = records(linux.POLLFD, 1)
    clock = np.zeros(2, np.int64)
    breathe_on_rings(tables.all, memory, frames, *nothing, pollfds, clock, loop)
    rings.transmit(memory, 0, *nothing, records(FRAME, 1), 0)
    mark_compiled("core")
    mark_compiled("rings")


if __name__ == "__main__":
    warm()
