"""Next hops and their MAC addresses.

    neighbour_buckets[hash(port, address)] -> row -> row -> NONE

A row is made by the first packet that needs it; who resolves it depends on the port: the host's
own ARP or neighbour discovery where there is a host stack, the director's where there is none.
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import chains
from pylvs.tables.addresses import address_of, is_at, set_address
from pylvs.tables.connections import flows
from pylvs.tables.layouts.network import ASKED, FAILED, KNOWN, UNKNOWN
from pylvs.tables.sizes import NEIGHBOUR_BUCKETS
from pylvs.wire import ip

CHAIN_LIMIT: Final = 256
RECLAIM_LIMIT: Final = 64  # rows looked at for one to use again
VERIFY_MS: Final = 30_000  # neigh/*/base_reachable_time_ms


@compiled
def _bucket_of(port, address):
    mixed = (ip.fold(address) * 0x61C8_8647 + port) & 0xFFFF_FFFF
    return (mixed ^ (mixed >> 15)) % NEIGHBOUR_BUCKETS


@compiled
def find(tables, port, address):
    """Return the row of a next hop, or ``NONE``."""
    row = int64(tables.neighbour_buckets[_bucket_of(port, address)])
    for _ in range(CHAIN_LIMIT):
        if row == NONE:
            return NONE
        neighbour = tables.neighbours[row]
        if is_at(neighbour, address) and neighbour.port == port:
            return row
        row = int64(neighbour.next)
    return NONE


@compiled
def find_or_add(tables, port, address):
    """Return the row of a next hop, made if need be; ``NONE`` when the table is full."""
    row = find(tables, port, address)
    if row != NONE:
        return row
    row = _allocate(tables)
    if row == NONE:
        return NONE
    neighbour = tables.neighbours[row]
    bucket = _bucket_of(port, address)
    neighbour.used = 1
    neighbour.port = port
    set_address(neighbour, address)
    neighbour.state = UNKNOWN
    neighbour.mac = 0
    neighbour.attempts = NONE
    neighbour.asked_ms = 0
    neighbour.pinned = 0
    neighbour.waiting = 0
    chains.link(tables.neighbour_buckets, bucket, tables.neighbours, row)
    return row


@compiled
def _allocate(tables):
    """Return a row never used, or one that can make place; ``NONE`` when there is none nearby."""
    director = tables.director[0]
    if director.neighbour_count < director.neighbours_limit:
        director.neighbour_count += 1
        return director.neighbour_count - 1
    for _ in range(RECLAIM_LIMIT):
        row = director.rover
        director.rover = (row + 1) % director.neighbours_limit
        neighbour = tables.neighbours[row]
        if neighbour.pinned or neighbour.waiting or neighbour.state == ASKED:
            continue
        if neighbour.state == KNOWN:
            flows.distrust(tables)  # nobody follows its MAC any more
        _unlink(tables, row)
        return row
    return NONE


@compiled
def _unlink(tables, row):
    neighbour = tables.neighbours[row]
    bucket = _bucket_of(int64(neighbour.port), address_of(neighbour))
    chains.unlink(tables.neighbour_buckets, bucket, tables.neighbours, row)


@compiled
def learn(tables, row, mac):
    """A MAC was heard of; frames that wait for it leave with the next batch."""
    neighbour = tables.neighbours[row]
    if neighbour.state == KNOWN and neighbour.mac != mac:
        flows.distrust(tables)
    neighbour.mac = mac
    neighbour.state = KNOWN
    neighbour.attempts = NONE


@compiled
def fail(tables, row):
    """A next hop does not answer: what waits for it is lost."""
    neighbour = tables.neighbours[row]
    if neighbour.state == KNOWN:
        flows.distrust(tables)
    neighbour.state = FAILED
    neighbour.attempts = NONE
    if neighbour.waiting == 0:
        return
    for held_row in range(tables.held.size):
        if tables.held[held_row].neighbour == row:
            tables.held[held_row].lost = 1


@compiled
def want(tables, row, now_ms):
    """Note that somebody needs this next hop's MAC."""
    neighbour = tables.neighbours[row]
    if neighbour.state == UNKNOWN or neighbour.state == FAILED:
        neighbour.state = ASKED
        tables.director[0].wanted += 1
        if tables.ports[neighbour.port].own_arp:
            _ask(tables, neighbour)
            plan_verification(tables, now_ms)


@compiled
def _ask(tables, neighbour):
    neighbour.attempts = 0
    neighbour.asked_ms = 0
    tables.director[0].soliciting += 1


@compiled
def plan_verification(tables, now_ms):
    director = tables.director[0]
    if director.verify_ms == 0:
        director.verify_ms = now_ms + VERIFY_MS
        director.chores_ms = min(director.chores_ms, director.verify_ms)


@apart
def verify(tables, now_ms):
    """Have every next hop asked again whose MAC the director found out itself.

    It is used meanwhile; a station that was replaced is found, one that is gone fails.
    """
    director = tables.director[0]
    director.verify_ms = 0
    for row in range(director.neighbour_count):
        neighbour = tables.neighbours[row]
        if neighbour.state == KNOWN and tables.ports[neighbour.port].own_arp:
            _ask(tables, neighbour)
            plan_verification(tables, now_ms)
