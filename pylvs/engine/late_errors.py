"""ICMP errors about packets that were finished before it turned out that they cannot go on.

    a packet of    its error goes to     where it is found as one about   and becomes
    NAT request    the client            a server's packet                the VIP's, about the VIP
    full NAT's     the director itself   a server's packet to a local end the same, to the client
    DR request     the client            a server's packet                no other
    tunnel         the director itself   a tunnel of ours                 nothing: it is counted
    NAT reply      the VIP               a client's packet                the server's, about itself

Linux's errors pass the hooks that every packet of its host's passes: IPVS meets its own there.
"""

from numpy import int64

from pylvs.forwarding import fullnat, related
from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import LOCAL_DELIVERY, NO_ECHO, NONE, ON_THE_WAY, Reason
from pylvs.host import routing
from pylvs.host.errors import compose, compose_from_own
from pylvs.jit import apart, compiled
from pylvs.tables import connections, paths, servers
from pylvs.tables.layouts import FLAG_LOCAL, FORWARDING_MASK, MASQUERADE
from pylvs.wire import ethernet, icmp, ip, ipv4, ipv6


@apart
def tell_unreachable(tables, memory, frames, count, offset, code, detail, now_ms):
    """Tell the sender of the finished frame at ``offset`` that it cannot go on."""
    about = frames[frames.size - 1]  # a row no batch reaches
    about.ip = offset + ethernet.HEADER_SIZE
    about.packet_size = ip.size_of(memory, about.ip)
    if ip.is_version_6(memory, about.ip):
        about.family = 6
        end = about.ip + about.packet_size
        _, about.transport, _ = ipv6.find_transport(memory, about.ip, end)
    else:
        about.family = 4
        about.transport = about.ip + ipv4.header_size(memory, about.ip)
    about.delivery = ON_THE_WAY | NO_ECHO
    about.mark = 0
    sender = ip.source_of(memory, about.ip)
    returns = paths.delivery_of(tables, sender, 0) == LOCAL_DELIVERY
    kind = icmp.UNREACHABLE
    if returns:
        row = int64(
            compose(tables, memory, frames, count, about, kind, code, detail, sender, now_ms)
        )
    else:
        row = int64(
            compose_from_own(tables, memory, frames, count, about, kind, code, detail, now_ms)
        )
    if row == NONE:
        return
    error = frames[row]
    error.delivery = LOCAL_DELIVERY if returns else ON_THE_WAY
    is_known = related.read_quote(tables, memory, error) == related.FLOW
    if is_known:
        connections.foresee(tables, error)
    if returns and is_known and _tell_client(tables, memory, frames, count, error, now_ms):
        return
    if returns:
        _take_in(tables, memory, frames, count, error, is_known, now_ms)
        return
    if is_known:
        _mind(tables, memory, error, connections.live_reply(tables, error, now_ms))
    send_to(tables, memory, frames, count, error, sender, now_ms)


@compiled
def _tell_client(tables, memory, frames, count, error, now_ms):
    """Send an error about a request that left from a local end to its client; return whether."""
    row = fullnat.find(tables, error, now_ms) if tables.director[0].pool_count else NONE
    if row == NONE:
        return False
    error.server = NONE
    fullnat.readdress(tables, memory, error, row)
    _mind(tables, memory, error, row)
    client = connections.client_of(tables, row)
    send_to(tables, memory, frames, count, error, client, now_ms)
    return True


@compiled
def _mind(tables, memory, error, row):
    """Treat an error on its way to a connection's client as a packet of the server's."""
    if row == NONE:
        return
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE:
        servers.charge_reply(tables, int64(entry.server), error.packet_size)
        error.connection = row
        related.translate_out(tables, memory, error, entry)
    else:
        connections.charge_error(tables, row, error.packet_size)


@compiled
def _take_in(tables, memory, frames, count, error, is_known, now_ms):
    """Treat an error to the director itself as a packet of the client's."""
    in_tunnel = error.server == related.TUNNELED
    error.server = NONE
    row = connections.live_request(tables, error, now_ms) if is_known else NONE
    discard(error, Reason.DISCARDED)
    if row == NONE:
        return
    entry = tables.connections[row]
    if in_tunnel:
        connections.charge_error(tables, row, error.ip + error.packet_size - error.quotes)
    elif int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE:
        entry.in_packets += 1
        servers.charge_request(tables, int64(entry.server), error.packet_size)
        error.connection = row
        related.translate_in(tables, memory, error, entry)
        if int64(entry.conn_flags) & FLAG_LOCAL:
            fullnat.send_from_local(tables, memory, error, row)
        routing.take_hop(memory, error)
        error.reason = Reason.ERROR_SENT
        server = connections.server_of(tables, row)
        send_to(tables, memory, frames, count, error, server, now_ms)
