"""What is due now and then, whether frames come or not: one comparison a batch when nothing is."""

from numpy import int64

from pylvs.jit import apart, compiled
from pylvs.schedulers import LBLC, LBLCR, locality
from pylvs.tables import defence, neighbours, servers
from pylvs.tables.sizes import FAR_FUTURE

AUTOMATIC = 2  # a mode of drop_entry: short of memory; above it: always


@compiled
def do_chores(tables, now_ms):
    if now_ms >= tables.director[0].chores_ms:
        _do_what_is_due(tables, now_ms)


@apart
def _do_what_is_due(tables, now_ms):
    director = tables.director[0]
    upcoming = FAR_FUTURE
    if director.trash_ms:
        if director.trash_ms <= now_ms:
            servers.empty_trash(tables, now_ms)
        if director.trash_ms:
            upcoming = director.trash_ms
    if director.verify_ms:
        if director.verify_ms <= now_ms:
            neighbours.verify(tables, now_ms)
        if director.verify_ms:
            upcoming = min(upcoming, director.verify_ms)
    for row in range(director.services_seen):
        service = tables.services[row]
        if not service.used:
            continue
        if service.scheduler == LBLC:
            locality.clean(tables, row, director.lblc_expiration, now_ms)
        elif service.scheduler == LBLCR:
            locality.clean(tables, row, director.lblcr_expiration, now_ms)
        else:
            continue
        upcoming = min(upcoming, int64(service.clean_ms))
    if director.drop_entry >= AUTOMATIC:
        if director.defence_ms <= now_ms:
            defence.drop_entries(tables, now_ms)
            director.defence_ms = now_ms + defence.SECOND_MS
        upcoming = min(upcoming, director.defence_ms)
    director.chores_ms = upcoming
