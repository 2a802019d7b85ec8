"""Round robin: servers in turn (rr), and in turn by weight (wrr).

``current`` is the server picked last; ``NONE`` stands for the head of the list itself.
Behaviour: Linux ip_vs_rr.c, ip_vs_wrr.c.  The first wrr round is an even one, because servers
are added one by one and the mark starts at the first one's weight step.
"""

import math
from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers.least_connection import is_usable

_NOBODY: Final = -2


@compiled
def pick_in_turn(tables, service_row):
    """Return the next usable server, or ``NONE``."""
    service = tables.services[service_row]
    at = int64(service.current)
    for _ in range(service.server_count + 1):
        at = int64(service.head) if at == NONE else int64(tables.servers[at].next)
        if at != NONE and is_usable(tables.servers[at]):
            service.current = at
            return at
    return NONE


@compiled
def pick_by_weight(tables, service_row):
    """Return the next server whose weight reaches the falling mark, or ``NONE``.

    The mark starts at the greatest weight and falls by the weights' greatest common divisor each
    time the list has been walked through.
    """
    service = tables.services[service_row]
    if service.max_weight == 0:
        return NONE
    last = int64(service.current)
    stop = _NOBODY
    last_pass = restarted = False
    at = last
    while True:
        at = int64(service.head) if at == NONE else int64(tables.servers[at].next)
        if at != NONE:
            server = tables.servers[at]
            if server.weight >= service.current_weight and not server.overloaded:
                service.current = at
                return at
            if at == stop:
                service.current = at
                return NONE
            continue
        service.current_weight -= service.weight_step
        if service.current_weight <= 0:
            service.current_weight = service.max_weight
            if last_pass or last == NONE:
                service.current = NONE
                return NONE
            restarted = True
        last_pass = service.current_weight <= service.weight_step
        if last_pass and restarted and last != NONE:
            stop = last


@compiled
def changed(tables, service_row):
    """Begin at the head again, with the mark where the new weights allow it (wrr)."""
    service = tables.services[service_row]
    service.current = NONE
    weigh(tables, service_row)
    if service.current_weight > service.max_weight or service.current_weight == 0:
        service.current_weight = service.max_weight
    elif service.weight_step > 1:
        step = int64(service.weight_step)
        service.current_weight = int64(service.current_weight) // step * step + 1


@compiled
def weigh(tables, service_row):
    """Set ``weight_step``, the gcd of all weights above 0, and ``max_weight`` less step - 1."""
    service = tables.services[service_row]
    step = 0
    top = 0
    at = int64(service.head)
    while at != NONE:
        weight = int64(tables.servers[at].weight)
        step = math.gcd(step, weight)
        top = max(top, weight)
        at = int64(tables.servers[at].next)
    step = max(step, 1)
    service.weight_step = step
    service.max_weight = max(top - (step - 1), 0)
