"""Keys: what a persistence engine read in a packet, and which template was made for it.

    key_buckets[hash(engine, key)] -> row -> row -> NONE

The key of the packet that is being scheduled lies in ``tables.key``.  Its template is an ordinary
one, at whose row ``tables.details`` names the key.
"""

from numpy import int64, uint64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import chains
from pylvs.tables.layouts import FLAG_KEYED
from pylvs.tables.sizes import KEY_LIMIT


@compiled
def put(tables, memory, at, size):
    """Have ``memory[at : at + size]`` be the packet's key; ``size`` is at most 255."""
    for place in range(size):
        tables.key[place] = memory[at + place]
    tables.director[0].key_size = size


@compiled
def _bucket_of(tables, engine, octets, size):
    """Hash a key: each octet is added and the sum multiplied by a random odd number and stirred."""
    director = tables.director[0]
    factor = uint64(director.seed_1 | 1)
    total = uint64(director.seed_0 + engine)
    for place in range(size):
        total = (total + uint64(octets[place]) + uint64(1)) * factor
        total ^= total >> uint64(32)
    return int64(total >> uint64(8)) % KEY_LIMIT


@compiled
def first(tables, engine):
    """Return the row where the chain begins that the packet's key would be in, or ``NONE``."""
    return int64(tables.key_buckets[_bucket_of(tables, engine, tables.key, _size(tables))])


@compiled
def _size(tables):
    return tables.director[0].key_size


@compiled
def is_in(tables, row, engine):
    """Whether a row holds the packet's key."""
    key = tables.keys[row]
    if key.length != _size(tables) or key.engine != engine:
        return False
    same = True
    for place in range(_size(tables)):
        same = same and key.octets[place] == tables.key[place]
    return same


@compiled
def have_room(tables):
    director = tables.director[0]
    return director.free_key != NONE or director.keys_seen < KEY_LIMIT


@apart
def add(tables, template_row, engine):
    """Keep the packet's key for a template; there is room for it.

    In the place of a client's port the template has what spreads a client's keys over the buckets
    of connections.
    """
    director = tables.director[0]
    row = director.free_key
    if row != NONE:
        director.free_key = tables.keys[row].next
    else:
        row = director.keys_seen
        director.keys_seen += 1
    key = tables.keys[row]
    key.template = template_row
    key.engine = engine
    key.length = _size(tables)
    for place in range(_size(tables)):
        key.octets[place] = tables.key[place]
    bucket = _bucket_of(tables, engine, tables.key, _size(tables))
    chains.link(tables.key_buckets, bucket, tables.keys, row)
    tables.details[template_row] = row
    template = tables.connections[template_row]
    template.client_port = 1 + row % 65_535
    template.conn_flags = int64(template.conn_flags) | FLAG_KEYED


@apart
def remove(tables, template_row):
    """Give back the key of a template that goes."""
    row = int64(tables.details[template_row])
    key = tables.keys[row]
    bucket = _bucket_of(tables, int64(key.engine), key.octets, int64(key.length))
    chains.unlink(tables.key_buckets, bucket, tables.keys, row)
    director = tables.director[0]
    key.next = director.free_key
    director.free_key = row
