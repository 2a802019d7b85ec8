"""Templates, by which persistent clients come back to their servers: looked up.

A template is a row of the connection table without a client port; the client's address is masked.
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import connections
from pylvs.tables.addresses import key_of
from pylvs.tables.connections import keys
from pylvs.tables.layouts import FLAG_KEYED, FLAG_SPAN, FLAG_TEMPLATE, FLAG_WIDE
from pylvs.wire import ip


@compiled
def find(tables, protocol, client, address, port, kind, span):
    """Return the template of a masked client at a virtual address, or ``NONE``.

    ``kind`` is ``FLAG_WIDE`` for those of IPv6, else 0; ``span`` the service's number, if it has
    one.
    """
    row = int64(tables.buckets[connections.bucket_of(tables, key_of(tables, client), 0, protocol)])
    for _ in range(connections.CHAIN_LIMIT):
        if row == NONE or _is_template(tables, row, protocol, client, address, port, kind, span):
            return row
        row = int64(tables.connections[row].next)
    return NONE


@apart
def find_keyed(tables, engine, protocol, client, address, port, kind, span):
    """Return likewise the template that an engine's key, the packet's, was kept for."""
    row = keys.first(tables, engine)
    while row != NONE:
        template = int64(tables.keys[row].template)
        if keys.is_in(tables, row, engine) and _is_template(
            tables, template, protocol, client, address, port, kind | FLAG_KEYED, span
        ):
            return template
        row = int64(tables.keys[row].next)
    return NONE


@apart
def _is_template(tables, row, protocol, client, address, port, kind, span):
    entry = tables.connections[row]
    flags = int64(entry.conn_flags) & (FLAG_TEMPLATE | FLAG_KEYED | FLAG_WIDE | FLAG_SPAN)
    kind |= FLAG_TEMPLATE | (FLAG_SPAN if span else 0)
    return (
        flags == kind
        and (span == 0 or tables.servers[entry.server].virtual_span == span)
        and entry.virtual_port == port
        and entry.protocol == protocol
        and ip.is_same(connections.client_of(tables, row), client)
        and ip.is_same(connections.virtual_of(tables, row), address)
    )
