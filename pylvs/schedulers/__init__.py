"""Schedulers: pick(tables, service_row) -> server row, ``NONE``, or ``ASK_PYTHON``.

One idea a file.  The compiled ones are dispatched here by number; a plug-in in plain Python is
asked through the door (see ``plugin.py``).
"""

from typing import Final

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers import least_connection, round_robin

BUILT_IN: Final = ("rr", "wrr", "lc", "wlc")
RR, WRR, LC, WLC = range(len(BUILT_IN))

PLUGIN_BASE: Final = 1_000  # numbers from here on are plug-ins, in the order they were loaded
ASK_PYTHON: Final = -2
FAILED: Final = -3
"""What Python answers when the plug-in raised or named no server of the service."""


@compiled
def pick(tables, service_row):
    """Return the server for a new connection, ``NONE``, or ``ASK_PYTHON``."""
    scheduler = tables.services[service_row].scheduler
    if scheduler == RR:
        return round_robin.pick_in_turn(tables, service_row)
    if scheduler == WRR:
        return round_robin.pick_by_weight(tables, service_row)
    if scheduler == LC:
        return least_connection.pick_least(tables, service_row)
    if scheduler == WLC:
        return least_connection.pick_least_weighted(tables, service_row)
    return ASK_PYTHON


@compiled
def bind(tables, service_row, scheduler):
    """Give the service a scheduler that starts afresh, also when it had the same one before."""
    service = tables.services[service_row]
    service.scheduler = scheduler
    service.current = NONE
    round_robin.weigh(tables, service_row)
    service.current_weight = service.max_weight


@compiled
def changed(tables, service_row):
    """Tell the service's scheduler that a server came, went or was edited."""
    if tables.services[service_row].scheduler == WRR:
        round_robin.changed(tables, service_row)
