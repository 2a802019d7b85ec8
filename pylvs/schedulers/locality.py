"""For caches: the server a destination address was sent to before (lblc), or a set of them (lblcr).

    cache_buckets[hash(service, destination)] -> entry -> entry -> NONE
    entry.server -> member -> member -> NONE                              lblcr

Each service's entries are looked through once a minute: every half hour those unused for
``lblc_expiration`` go, and in between those unused for six minutes if there are too many.
(ip_vs_lblc.c, ip_vs_lblcr.c)
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.schedulers.least_connection import is_more_loaded, is_usable, pick_least_weighted
from pylvs.tables import chains
from pylvs.tables.addresses import address_of, destination_of, is_at, set_address
from pylvs.tables.sizes import CACHE_BUCKETS
from pylvs.wire import ip

CLEAN_MS: Final = 60_000
_FULL_CLEANING: Final = 30  # each how-many-th looks for old entries
_ENTRIES_LIMIT: Final = 16_384  # of a service
_UNUSED_MS: Final = 360_000


@compiled
def _bucket_of(service_row, address):
    mixed = (ip.fold(address) * 0x61C8_8647 + service_row * 0x9E37) & 0xFFFF_FFFF
    return (mixed ^ (mixed >> 15)) % CACHE_BUCKETS


@compiled
def _find(tables, service_row, address):
    row = int64(tables.cache_buckets[_bucket_of(service_row, address)])
    while row != NONE:
        entry = tables.cache[row]
        if entry.service == service_row and is_at(entry, address):
            return row
        row = int64(entry.next)
    return NONE


@compiled
def _remember(tables, service_row, address, now_ms):
    """Return a new entry; ``NONE`` when there is no room, and the pick is not remembered."""
    service = tables.services[service_row]
    if service.cached >= 2 * _ENTRIES_LIMIT:
        return NONE
    start = _bucket_of(service_row, address)
    for step in range(tables.cache.size):
        row = (start + step) % tables.cache.size
        entry = tables.cache[row]
        if not entry.used:
            bucket = _bucket_of(service_row, address)
            entry.used = 1
            entry.service = service_row
            set_address(entry, address)
            entry.server = NONE
            entry.members = 0
            entry.used_ms = now_ms
            entry.changed_ms = now_ms
            chains.link(tables.cache_buckets, bucket, tables.cache, row)
            service.cached += 1
            return row
    return NONE


@compiled
def _refer(tables, entry, server_row):
    """Let an entry of lblc name another server, or none."""
    if entry.server != NONE:
        tables.servers[entry.server].cached -= 1
    if server_row != NONE:
        tables.servers[server_row].cached += 1
    entry.server = server_row


@compiled
def _drop(tables, row):
    entry = tables.cache[row]
    if entry.members == 0:
        _refer(tables, entry, NONE)
    else:
        member = int64(entry.server)
        while member != NONE:
            tables.servers[tables.members[member].server].cached -= 1
            tables.members[member].used = 0
            member = int64(tables.members[member].next)
    bucket = _bucket_of(int64(entry.service), address_of(entry))
    chains.unlink(tables.cache_buckets, bucket, tables.cache, row)
    tables.services[entry.service].cached -= 1
    entry.used = 0


@compiled
def _is_crowded(tables, service_row, server):
    """Whether a server is beyond its weight while another one is below half of its own."""
    if server.active <= server.weight:
        return False
    at = int64(tables.services[service_row].head)
    while at != NONE:
        other = tables.servers[at]
        if int64(other.active) * 2 < int64(other.weight):
            return True
        at = int64(other.next)
    return False


@apart
def pick_cached(tables, service_row, flow, now_ms):
    """Return the destination's server, or wlc's pick from now on, or ``NONE`` (lblc)."""
    destination = destination_of(flow)
    row = _find(tables, service_row, destination)
    if row != NONE:
        entry = tables.cache[row]
        entry.used_ms = now_ms
        server = tables.servers[entry.server]
        if server.available and server.weight > 0 and not _is_crowded(tables, service_row, server):
            return int64(entry.server)
    picked = pick_least_weighted(tables, service_row)
    if picked == NONE:
        return NONE
    if row == NONE:
        row = _remember(tables, service_row, destination, now_ms)
    if row != NONE:
        _refer(tables, tables.cache[row], picked)
    return picked


@apart
def pick_from_set(tables, service_row, flow, now_ms):
    """Return the least loaded server of the destination's set, which grows when all are (lblcr)."""
    destination = destination_of(flow)
    row = _find(tables, service_row, destination)
    if row != NONE:
        entry = tables.cache[row]
        entry.used_ms = now_ms
        least = _least_of_set(tables, entry)
        expiration_ms = tables.director[0].lblcr_expiration * 1_000
        if entry.members > 1 and now_ms > entry.changed_ms + expiration_ms:
            _leave_out_most_loaded(tables, entry, now_ms)
        if least != NONE and not _is_crowded(tables, service_row, tables.servers[least]):
            return least
    picked = pick_least_weighted(tables, service_row)
    if picked == NONE:
        return NONE
    if row == NONE:
        row = _remember(tables, service_row, destination, now_ms)
    if row != NONE:
        _join(tables, tables.cache[row], picked, now_ms)
    return picked


@compiled
def _least_of_set(tables, entry):
    least = NONE
    member = int64(entry.server)
    while member != NONE:
        row = int64(tables.members[member].server)
        server = tables.servers[row]
        if (
            server.available
            and is_usable(server)
            and (least == NONE or is_more_loaded(tables.servers[least], server))
        ):
            least = row
        member = int64(tables.members[member].next)
    return least


@compiled
def _leave_out_most_loaded(tables, entry, now_ms):
    most = NONE
    member = int64(entry.server)
    while member != NONE:
        row = int64(tables.members[member].server)
        server = tables.servers[row]
        if server.weight > 0 and (most == NONE or is_more_loaded(server, tables.servers[most])):
            most = row
        member = int64(tables.members[member].next)
    if most != NONE:
        _leave(tables, entry, most, now_ms)


@compiled
def _join(tables, entry, server_row, now_ms):
    """Put a server at the head of the set, unless it is a member."""
    member = int64(entry.server)
    while member != NONE:
        if tables.members[member].server == server_row:
            return
        member = int64(tables.members[member].next)
    for row in range(tables.members.size):
        if not tables.members[row].used:
            tables.members[row].used = 1
            tables.members[row].server = server_row
            tables.members[row].next = entry.server
            tables.servers[server_row].cached += 1
            entry.server = row
            entry.members += 1
            entry.changed_ms = now_ms
            return


@compiled
def _leave(tables, entry, server_row, now_ms):
    before = NONE
    member = int64(entry.server)
    while member != NONE:
        following = int64(tables.members[member].next)
        if tables.members[member].server == server_row:
            if before == NONE:
                entry.server = following
            else:
                tables.members[before].next = following
            tables.members[member].used = 0
            tables.servers[server_row].cached -= 1
            entry.members -= 1
            entry.changed_ms = now_ms
            return
        before = member
        member = following


@apart
def forget(tables, service_row):
    """Drop all entries of a service."""
    for row in range(tables.cache.size):
        if tables.cache[row].used and tables.cache[row].service == service_row:
            _drop(tables, row)


@compiled
def start(tables, service_row, now_ms):
    """Let the service's entries be looked through from a minute from now on."""
    service = tables.services[service_row]
    service.cleanings = 1
    service.clean_ms = now_ms + CLEAN_MS
    tables.director[0].chores_ms = min(tables.director[0].chores_ms, service.clean_ms)


@apart
def clean(tables, service_row, expiration, now_ms):
    """Drop entries of a service that are too old, or too many; ``expiration`` is in seconds."""
    service = tables.services[service_row]
    while service.clean_ms <= now_ms:
        service.clean_ms += CLEAN_MS
        if service.cleanings % _FULL_CLEANING == 0:
            service.cleanings = 1
            _drop_unused(tables, service_row, expiration * 1_000, now_ms, service.cached)
        elif service.cached <= _ENTRIES_LIMIT:
            service.cleanings += 1
        else:
            goal = min((service.cached - _ENTRIES_LIMIT) * 4 // 3, _ENTRIES_LIMIT // 2)
            _drop_unused(tables, service_row, _UNUSED_MS, now_ms, goal)


@compiled
def _drop_unused(tables, service_row, unused_ms, now_ms, goal):
    for row in range(tables.cache.size):
        if goal <= 0:
            return
        entry = tables.cache[row]
        if entry.used and entry.service == service_row and now_ms > entry.used_ms + unused_ms:
            _drop(tables, row)
            goal -= 1
