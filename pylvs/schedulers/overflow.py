"""The heaviest first: fo as long as it is there, ovf until it is full (ip_vs_fo.c, ip_vs_ovf.c)."""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers.least_connection import is_usable


@compiled
def pick_highest(tables, service_row):
    """Return the usable server of the highest weight (weighted failover), or ``NONE``."""
    return _heaviest(tables, service_row, False)


@compiled
def pick_not_full(tables, service_row):
    """Return likewise, but none with more active connections than its weight, or ``NONE``."""
    return _heaviest(tables, service_row, True)


@compiled
def _heaviest(tables, service_row, only_not_full):
    highest = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        full = only_not_full and server.active > server.weight
        if (
            is_usable(server)
            and not full
            and (highest == NONE or server.weight > tables.servers[highest].weight)
        ):
            highest = at
        at = int64(server.next)
    return highest
