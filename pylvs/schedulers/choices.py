"""The better of two drawn at random by weight (twos; ip_vs_twos.c)."""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers.least_connection import is_more_loaded, is_usable
from pylvs.tables import dice


@compiled
def pick_of_two(tables, service_row):
    """Return the less loaded of two servers drawn by weight, or ``NONE``."""
    total = 0
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server):
            total += int64(server.weight)
        at = int64(server.next)
    if total == 0:
        return NONE
    first = _reach(tables, service_row, dice.draw(tables.director[0], total + 1))
    second = _reach(tables, service_row, dice.draw(tables.director[0], total + 1))
    return second if is_more_loaded(tables.servers[first], tables.servers[second]) else first


@compiled
def _reach(tables, service_row, distance):
    """Return the server at which the weights, summed along the list, reach ``distance``."""
    last = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server):
            last = at
            distance -= int64(server.weight)
            if distance <= 0:
                return at
        at = int64(server.next)
    return last
