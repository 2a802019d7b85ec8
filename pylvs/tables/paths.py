"""Routes: which port, next hop, source address and MTU lead to a destination.

The table is short and sorted, longest prefix first, so a linear scan is the lookup: ten routes
cost ten compares on one or two cache lines.
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.tables import neighbours


@compiled
def find(tables, address):
    """Return the row of the best route to ``address``, or ``NONE``."""
    paths = tables.paths
    for row in range(tables.director[0].path_count):
        if address & int64(paths[row].mask) == paths[row].network:
            return row
    return NONE


@compiled
def next_hop(tables, row, address):
    """Return the neighbour row for a packet to ``address`` by this path; ``NONE`` when full."""
    path = tables.paths[row]
    gateway = int64(path.gateway)
    return neighbours.find_or_add(tables, int64(path.port), gateway if gateway else address)
