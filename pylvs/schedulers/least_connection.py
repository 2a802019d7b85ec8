"""Least connection (lc), and least connection by weight (wlc, ipvsadm's default).

An active connection counts for 256 inactive ones (ip_vs_dest_conn_overhead).  On a tie the server
that stands first in the list, the one added last, keeps the pick.
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled


@compiled
def overhead(server):
    return (int64(server.active) << 8) + int64(server.inactive)


@compiled
def pick_least(tables, service_row):
    """Return the server with the least overhead among those of weight above 0, or ``NONE``."""
    least = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if server.weight > 0 and (
            least == NONE or overhead(server) < overhead(tables.servers[least])
        ):
            least = at
        at = int64(server.next)
    return least


@compiled
def pick_least_weighted(tables, service_row):
    """Return the server with the least overhead a weight, by cross product, or ``NONE``."""
    least = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if server.weight > 0 and (
            least == NONE
            or overhead(tables.servers[least]) * int64(server.weight)
            > overhead(server) * int64(tables.servers[least].weight)
        ):
            least = at
        at = int64(server.next)
    return least
