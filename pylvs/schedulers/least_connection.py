"""Those who have least to do: lc, wlc (ipvsadm's default), sed and nq.

lc and wlc count an active connection like 256 inactive ones (ip_vs_dest_conn_overhead); sed and nq
count the active ones and the one to come.  On a tie the server that stands first in the list, the
one added last, keeps the pick.  (ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c, ip_vs_nq.c)
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled


@compiled
def overhead(server):
    return (int64(server.active) << 8) + int64(server.inactive)


@compiled
def is_usable(server):
    """Whether a scheduler may pick the server for a new connection."""
    return server.weight > 0 and not server.overloaded


@compiled
def is_more_loaded(one, other):
    """Whether ``one`` has more overhead a weight than ``other``, by cross product."""
    return overhead(one) * int64(other.weight) > overhead(other) * int64(one.weight)


@compiled
def pick_least(tables, service_row):
    """Return the usable server with the least overhead, or ``NONE``."""
    least = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server) and (
            least == NONE or overhead(server) < overhead(tables.servers[least])
        ):
            least = at
        at = int64(server.next)
    return least


@compiled
def pick_least_weighted(tables, service_row):
    """Return the usable server with the least overhead a weight, or ``NONE``."""
    least = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server) and (least == NONE or is_more_loaded(tables.servers[least], server)):
            least = at
        at = int64(server.next)
    return least


@compiled
def _waits_longer(one, other):
    """Whether a connection more would wait longer at ``one`` than at ``other``."""
    return (int64(one.active) + 1) * int64(other.weight) > (int64(other.active) + 1) * int64(
        one.weight
    )


@compiled
def pick_shortest_delay(tables, service_row):
    """Return the usable server with the shortest expected delay (sed), or ``NONE``."""
    least = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server) and (least == NONE or _waits_longer(tables.servers[least], server)):
            least = at
        at = int64(server.next)
    return least


@compiled
def pick_never_queue(tables, service_row):
    """Return the first usable server without an active connection, else sed's pick (nq)."""
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server) and server.active == 0:
            return at
        at = int64(server.next)
    return pick_shortest_delay(tables, service_row)
