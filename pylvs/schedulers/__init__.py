"""Schedulers: pick(tables, service_row, flow) -> server row, ``NONE``, or ``ASK_PYTHON``.

One idea a file.  The compiled ones are dispatched here by number; a plug-in in plain Python is
asked through the door (see ``plugin.py``).  ``flow`` is the frame that opens the connection.
"""

from typing import Final

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers import (
    choices,
    hashing,
    least_connection,
    locality,
    maglev,
    overflow,
    round_robin,
)

BUILT_IN: Final = (
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
)  # fmt: skip
RR, WRR, LC, WLC, LBLC, LBLCR, DH, SH, SED, NQ, FO, OVF, MH, TWOS = range(len(BUILT_IN))

PLUGIN_BASE: Final = 1_000  # numbers from here on are plug-ins, in the order they were loaded
NO_SCHEDULER: Final = 999
ASK_PYTHON: Final = -2
FAILED: Final = -3
"""What Python answers when the plug-in raised or named no server of the service."""


@compiled
def pick(tables, service_row, flow, now_ms):
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
    return _pick_rarely_used(tables, service_row, scheduler, flow, now_ms)


@compiled
def _pick_rarely_used(tables, service_row, scheduler, flow, now_ms):
    if scheduler == SED:
        return least_connection.pick_shortest_delay(tables, service_row)
    if scheduler == NQ:
        return least_connection.pick_never_queue(tables, service_row)
    if scheduler == SH:
        return hashing.pick_by_source(tables, service_row, flow)
    if scheduler == DH:
        return hashing.pick_by_destination(tables, service_row, flow)
    if scheduler == MH:
        return maglev.pick(tables, service_row, flow)
    if scheduler == FO:
        return overflow.pick_highest(tables, service_row)
    if scheduler == OVF:
        return overflow.pick_not_full(tables, service_row)
    if scheduler == TWOS:
        return choices.pick_of_two(tables, service_row)
    if scheduler == LBLC:
        return locality.pick_cached(tables, service_row, flow, now_ms)
    if scheduler == LBLCR:
        return locality.pick_from_set(tables, service_row, flow, now_ms)
    if scheduler == NO_SCHEDULER:
        return NONE
    return ASK_PYTHON


@compiled
def bind(tables, service_row, scheduler, now_ms):
    """Give the service a scheduler that starts afresh; return whether there was room for it."""
    unbind(tables, service_row)
    service = tables.services[service_row]
    service.scheduler = scheduler
    service.current = NONE
    round_robin.weigh(tables, service_row)
    service.current_weight = service.max_weight
    if scheduler == SH or scheduler == DH:
        if not hashing.take_slots(tables, service_row, hashing.SLOTS):
            return False
    elif scheduler == MH and not hashing.take_slots(tables, service_row, maglev.SLOTS):
        return False
    elif scheduler == LBLC or scheduler == LBLCR:
        locality.start(tables, service_row, now_ms)
    changed(tables, service_row, False)
    return True


@compiled
def unbind(tables, service_row):
    """Give back what the service's scheduler holds."""
    hashing.give_slots(tables, service_row)
    if tables.services[service_row].cached:
        locality.forget(tables, service_row)
    tables.services[service_row].scheduler = NO_SCHEDULER


@compiled
def changed(tables, service_row, only_edited):
    """Tell the service's scheduler that a server came, went or was edited."""
    scheduler = tables.services[service_row].scheduler
    if scheduler == WRR:
        round_robin.changed(tables, service_row)
    elif scheduler == SH:
        hashing.fill_by_weight(tables, service_row)
    elif scheduler == DH and not only_edited:
        hashing.fill_evenly(tables, service_row)
    elif scheduler == MH:
        maglev.fill(tables, service_row)
