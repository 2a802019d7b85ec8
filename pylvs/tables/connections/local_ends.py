"""Local ends: what a FullNAT connection's server sees in the place of its client.

    local_buckets[hash(local end, server's end, protocol)] -> row + 1 -> row + 1 -> 0

The server answers to an address and port of the director's, so its replies do not tell the client:
they are looked up by both their ends.  A local end may serve many connections, each to another
server.  Ports are taken in turn, so that one is used again as late as can be; if that one is taken,
by lot.
"""

from typing import Final

from numpy import int64, uint64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import dice
from pylvs.tables.addresses import address_of, is_at, key_of
from pylvs.tables.layouts import FLAG_WIDE, UNANNOUNCED
from pylvs.tables.sizes import HASH_BITS, LOCAL_BITS, LOCAL_ENDS_LIMIT

_TRIES: Final = 64
"""Ends that are tried for a connection: with nine in ten taken, one of a thousand finds none."""
_SHIFT: Final = HASH_BITS - LOCAL_BITS


@compiled
def of(tables, connection):
    """Return the local end of a connection that has one."""
    return tables.local_ends[tables.details[connection]]


@compiled
def address_at(tables, connection):
    """Return its address."""
    return address_of(tables.pool[of(tables, connection).pool])


@apart
def find(tables, family, protocol, local, port, server, server_port):
    """Return the row of the connection between a local end and a server's, or ``NONE``."""
    bucket = _bucket_of(tables, protocol, local, port, server, server_port)
    row = int64(tables.local_buckets[bucket])
    while row:
        end = tables.local_ends[row - 1]
        entry = tables.connections[end.connection]
        if (
            end.port == port
            and entry.server_port == server_port
            and entry.protocol == protocol
            and (int64(entry.conn_flags) & FLAG_WIDE != 0) == (family == 6)
            and is_at(tables.pool[end.pool], local)
            and is_at(tables.servers[entry.server], server)
        ):
            return int64(end.connection)
        row = int64(end.next)
    return NONE


@apart
def choose(tables, family, protocol, server_row, server_port):
    """Return a local end that is free towards a server's, as one number, or ``NONE``."""
    server = address_of(tables.servers[server_row])
    director = tables.director[0]
    if director.free_local_end == NONE and director.local_ends_seen == LOCAL_ENDS_LIMIT:
        return NONE
    begin, count = 0, director.ipv4_pool_count
    if family == 6:
        begin, count = count, director.pool_count - count
    if count == 0:
        return NONE
    place = begin + director.pool_rover % count
    director.pool_rover += 1
    first, last = int64(tables.pool[place].first_port), int64(tables.pool[place].last_port)
    port = int64(tables.pool[place].next_port)
    tables.pool[place].next_port = port + 1 if port < last else first
    for _ in range(_TRIES):
        local = address_of(tables.pool[place])
        if find(tables, family, protocol, local, port, server, server_port) == NONE:
            return place << 16 | port
        # Those in turn were taken in one go: look elsewhere.
        place, port = (
            begin + dice.draw(director, count),
            first + dice.draw(director, last - first + 1),
        )
    return NONE


@apart
def bind(tables, connection, choice):
    """Give a connection, which has its server's end and protocol, a local end that was chosen."""
    director = tables.director[0]
    row = director.free_local_end
    if row != NONE:
        director.free_local_end = tables.local_ends[row].next
    else:
        row = director.local_ends_seen
        director.local_ends_seen += 1
    end = tables.local_ends[row]
    end.connection = connection
    end.pool = choice >> 16
    end.port = choice & 0xFFFF
    end.stage = UNANNOUNCED
    tables.details[connection] = row
    bucket = _own_bucket(tables, connection)
    end.next = tables.local_buckets[bucket]
    tables.local_buckets[bucket] = row + 1


@apart
def release(tables, connection):
    """Take a connection's local end back."""
    row = int64(tables.details[connection])
    bucket = _own_bucket(tables, connection)
    at = int64(tables.local_buckets[bucket]) - 1
    if at == row:
        tables.local_buckets[bucket] = tables.local_ends[row].next
    else:
        while tables.local_ends[at].next != row + 1:
            at = int64(tables.local_ends[at].next) - 1
        tables.local_ends[at].next = tables.local_ends[row].next
    tables.local_ends[row].next = tables.director[0].free_local_end
    tables.director[0].free_local_end = row


@compiled
def _own_bucket(tables, connection):
    end, entry = of(tables, connection), tables.connections[connection]
    server, server_port = address_of(tables.servers[entry.server]), int64(entry.server_port)
    local, protocol = address_at(tables, connection), int64(entry.protocol)
    return _bucket_of(tables, protocol, local, int64(end.port), server, server_port)


@compiled
def _bucket_of(tables, protocol, local, port, server, server_port):
    """Hash both ends, as ``connections.bucket_of`` does a client's."""
    director = tables.director[0]
    total = director.seed_0 * key_of(tables, local) + director.seed_1 * (port << 8 | protocol)
    total += director.seed_2 * key_of(tables, server) + director.seed_3 * server_port
    return int64(uint64(total) >> uint64(_SHIFT))
