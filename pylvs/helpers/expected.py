"""Connections that are expected: made before their first packet, under the one that spoke of them.

passive: the client will come from a port nobody knows yet (``FLAG_NO_PORT``)
active:  the real server will come to a port that the client has named
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart
from pylvs.tables import connections, expiry, states
from pylvs.tables.addresses import destination_of, source_of
from pylvs.tables.layouts import FLAG_NO_PORT, FLAG_WIDE, FORWARDING_MASK
from pylvs.wire import ipv4


@apart
def expect(tables, control, client_port, virtual_port, server_port, now_ms):
    """Have a connection of the same client and server ready, in state LISTEN.

    ``control`` is the row of the one that spoke of it, ``client_port`` 0 if it is yet unknown.
    A full table has no room for it: then its packets find nothing.
    """
    client = connections.client_of(tables, control)
    virtual = connections.virtual_of(tables, control)
    speaker = tables.connections[control]
    kind = int64(speaker.conn_flags) & FLAG_WIDE
    if client_port == 0:
        kind |= FLAG_NO_PORT
    row = connections.find(tables, ipv4.TCP, client, client_port, virtual, virtual_port, kind)
    row = connections.live(tables, row, now_ms)
    if row == NONE or tables.connections[row].server != speaker.server:
        row = connections.allocate(tables)  # in front of another server's: the newest is found
        if row == NONE:
            return
        connections.set_ends(tables, row, client, virtual, kind & FLAG_WIDE)
        entry = tables.connections[row]
        entry.client_port = client_port
        entry.virtual_port = virtual_port
        entry.server_address = speaker.server_address
        entry.server_port = server_port
        entry.server = speaker.server
        entry.protocol = ipv4.TCP
        entry.in_packets = 0
        entry.controls = 0
        entry.control = control
        entry.conn_flags = int64(speaker.conn_flags) & FORWARDING_MASK | kind
        entry.timeout_ms = 0
        connections.insert(tables, row, now_ms)
        if client_port == 0:
            tables.director[0].awaited_count += 1
    tables.connections[row].state = states.LI
    connections.set_active(tables, row, False)
    timeout = states.timeout_ms(tables.timeouts, ipv4.TCP, states.LI)
    expiry.restart(tables, row, timeout, now_ms)


@apart
def claim(tables, frame, now_ms):
    """Return the connection that waits for this client's packet, or ``NONE``; it waits no more."""
    kind = connections.kind_of(frame) | FLAG_NO_PORT
    found = connections.find(
        tables,
        frame.protocol,
        source_of(frame),
        0,
        destination_of(frame),
        frame.destination_port,
        kind,
    )
    row = connections.live(tables, found, now_ms)
    if row != NONE:
        connections.fill_port(tables, row, frame.source_port)
    return row
