"""What the director does against floods (ip_vs_conn.c, ip_vs_random_dropentry).

drop_packet refuses each so-many-th new connection; drop_entry, once a second, looks at one in 32 of
the hash chains and removes connections that never got far.
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import connections, dice, states
from pylvs.tables.layouts import FLAG_TEMPLATE, ONE_PACKET
from pylvs.tables.sizes import HASH_BITS
from pylvs.wire import ipv4

SECOND_MS: Final = 1_000
_SHARE: Final = 32
_IDLE_MS: Final = 60_000
_PACKETS_MAX: Final = 8
_KEEP, _DROP, _WEIGH = range(3)


@compiled
def refuses(director):
    """Whether drop_packet refuses the next new connection; counts it."""
    if director.drop_rate == 0:
        return False
    director.drop_counter -= 1
    if director.drop_counter > 0:
        return False
    director.drop_counter = director.drop_rate
    return True


@apart
def drop_entries(tables, now_ms):
    """Look at one in 32 of the chains, chosen at random, and drop what may be dropped."""
    director = tables.director[0]
    chains = 1 << (HASH_BITS - director.hash_shift)
    for _ in range(max(1, chains // _SHARE)):
        row = int64(tables.buckets[dice.draw(director, chains)])
        while row != NONE:
            following = int64(tables.connections[row].next)
            if _may_drop(tables, row, now_ms):
                following = _drop_with_template(tables, row, following)
            row = following


@compiled
def _may_drop(tables, row, now_ms):
    entry = tables.connections[row]
    if entry.controls or entry.expires_ms == 0:
        return False
    fate = _fate(tables, entry)
    return fate == _DROP or (fate == _WEIGH and _is_its_turn(tables, entry, now_ms))


@compiled
def _fate(tables, entry):
    state = entry.state
    if int64(entry.conn_flags) & FLAG_TEMPLATE:
        if entry.server != NONE:
            service = tables.services[tables.servers[entry.server].service]
            if service.service_flags & ONE_PACKET:
                return _WEIGH
        return _KEEP if state == states.TEMPLATE_ASSURED else _DROP
    if entry.protocol == ipv4.TCP:
        if state == states.SR or state == states.SA:
            return _DROP
        return _WEIGH if state == states.ES else _KEEP
    if entry.protocol == ipv4.SCTP:
        if state == states.SCTP_INIT1 or state == states.SCTP_INIT:
            return _DROP
        return _WEIGH if state == states.SCTP_ESTABLISHED else _KEEP
    return _WEIGH


@compiled
def _is_its_turn(tables, entry, now_ms):
    """Of idle connections with few packets, the more packets the fewer are dropped."""
    if now_ms + int64(entry.timeout_ms) < entry.expires_ms + _IDLE_MS:
        return False
    packets = int64(entry.in_packets)
    if packets == 0 or packets > _PACKETS_MAX:
        return False
    tables.drop_counters[packets] -= 1
    if tables.drop_counters[packets] > 0:
        return False
    tables.drop_counters[packets] = packets
    return True


@compiled
def _drop_with_template(tables, row, following):
    """Drop a connection, and its template if it was the last; return where the chain goes on."""
    template = int64(tables.connections[row].control)
    connections.remove(tables, row)
    if template == NONE:
        return following
    entry = tables.connections[template]
    if int64(entry.conn_flags) & FLAG_TEMPLATE == 0:
        return following  # what speaks of data connections stays
    if entry.controls == 0 and entry.state != states.TEMPLATE_ASSURED:
        if template == following:
            following = int64(entry.next)
        connections.remove(tables, template)
    return following
