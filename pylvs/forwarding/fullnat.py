"""FullNAT: NAT that also sends from an address of the director's own, and so gets the replies.

    client:cport -> VIP:vport   ->   local:lport -> RIP:rport
    VIP:vport -> client:cport   <-   RIP:rport -> local:lport

Servers need neither gateway nor tunnel.  Between its ends a connection is a masqueraded one: a
request gets its local end behind everything else, a reply loses it in front of everything else.
What a server cannot see any more, who its client is, PROXY's header may tell it (``proxy``).
"""

from numpy import int64

from pylvs.forwarding import masquerade, proxy, related
from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import connections, paths
from pylvs.tables.addresses import destination_of, set_ends, source_of
from pylvs.tables.connections import local_ends
from pylvs.wire import ip, ipv4, ipv6, transport


@apart
def is_to_pool(tables, frame):
    """Whether a packet is addressed to where only replies belong."""
    row = paths.own_row(tables, destination_of(frame))
    return row != NONE and tables.own[row].in_pool != 0


@apart
def find(tables, frame, now_ms):
    """Return the row whose server sent this packet to its local end, or ``NONE``."""
    local, server = destination_of(frame), source_of(frame)
    port, server_port = int64(frame.destination_port), int64(frame.source_port)
    family, protocol = frame.family, frame.protocol
    row = local_ends.find(tables, family, protocol, local, port, server, server_port)
    return connections.live(tables, row, now_ms) if row != NONE else row


@apart
def readdress(tables, memory, frame, row):
    """Address a server's packet to the client; the error it may be is about a sound packet."""
    client, port = connections.client_of(tables, row), int64(tables.connections[row].client_port)
    if frame.quotes:
        ip.set_destination(memory, frame.ip, client)
        ip.set_source(memory, frame.quotes, client)
        related.mend(memory, frame, transport.SOURCE_PORT, port)
    else:
        _write_destination(memory, frame, client, port)
        if frame.protocol == ipv4.TCP:
            proxy.follow_reply(memory, frame, local_ends.of(tables, row))
    set_ends(tables, frame, source_of(frame), client)
    frame.destination_port = port
    frame.delivery = 0  # it is not the director's any more


@apart
def undo(tables, memory, frame, row):
    """Address a server's packet to the local end again: the server will know what it is told of."""
    if frame.quotes == 0:
        local, port = local_ends.address_at(tables, row), int64(local_ends.of(tables, row).port)
        _write_destination(memory, frame, local, port)
        set_ends(tables, frame, source_of(frame), local)
        frame.destination_port = port


@apart
def send_from_local(tables, memory, frame, row):
    """Let a translated request leave from its local end; return whether it may."""
    local, port = local_ends.address_at(tables, row), int64(local_ends.of(tables, row).port)
    if frame.quotes:
        ip.set_destination(memory, frame.quotes, local)
        related.mend(memory, frame, transport.DESTINATION_PORT, port)
        return True
    difference = _replace(memory, frame, ipv4.SOURCE, ipv6.SOURCE, local)
    masquerade.replace_port(memory, frame, transport.SOURCE_PORT, port, difference)
    return frame.protocol != ipv4.TCP or proxy.follow_request(tables, memory, frame, row)


@compiled
def _write_destination(memory, frame, address, port):
    difference = _replace(memory, frame, ipv4.DESTINATION, ipv6.DESTINATION, address)
    masquerade.replace_port(memory, frame, transport.DESTINATION_PORT, port, difference)


@compiled
def _replace(memory, frame, field_4, field_6, address):
    if frame.family == 4:
        return masquerade.replace_ipv4(memory, frame.ip, field_4, address[1])
    return masquerade.replace_ipv6(memory, frame.ip + field_6, address)
