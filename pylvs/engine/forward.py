"""Stage four: every frame as it leaves, and what its sender is told when it cannot.

request -> TTL, size -> masquerade | route | tunnel -> next hop
reply   -> TTL, size -> masquerade backwards        -> next hop
"""

from numpy import int64

from pylvs.forwarding import masquerade, segments, tunnel
from pylvs.forwarding.transmit import discard, send, send_to
from pylvs.frames import NONE, OUTPUT, Reason, Verdict
from pylvs.host import resets, routing
from pylvs.host.errors import OWN, send_error
from pylvs.jit import compiled
from pylvs.tables import paths, services
from pylvs.tables.layouts import FORWARDING_MASK, MASQUERADE, TUNNEL, UNICAST
from pylvs.wire import ethernet, icmp, ipv4


@compiled
def forward(tables, memory, frames, count, now_ms):
    """Rewrite every frame that leaves, and list them in the order in which they do."""
    director = tables.director[0]
    for row in range(count):
        frame = frames[row]
        already_born = director.born
        if frame.reason == Reason.FORWARDED:
            _forward_request(tables, memory, frames, count, frame, now_ms)
        elif frame.reason == Reason.REPLIED:
            _forward_reply(tables, memory, frames, count, frame, now_ms)
        elif frame.reason == Reason.ROUTED:
            _route(tables, memory, frames, count, frame, now_ms)
        elif frame.reason == Reason.STRAY:
            resets.send_reset(tables, memory, frames, count, frame, now_ms)
        elif frame.reason == Reason.NO_SERVER:
            _unreachable(tables, memory, frames, count, frame, icmp.PORT_UNREACHABLE, now_ms)
        _leave(director, frames, row)
        leave_born(tables, frames, count, already_born)


@compiled
def _leave(director, frames, row):
    if frames[row].verdict == Verdict.TRANSMIT:
        frames[director.leaving].leaves = row
        director.leaving += 1


@compiled
def leave_born(tables, frames, count, first):
    """List the frames born since there were ``first`` of them."""
    director = tables.director[0]
    for row in range(count + first, count + director.born):
        _leave(director, frames, row)


@compiled
def _unreachable(tables, memory, frames, count, frame, code, now_ms):
    vip = frame.destination
    send_error(
        tables, memory, frames, count, frame, icmp.UNREACHABLE, code, icmp.NO_DETAIL, vip, now_ms
    )


@compiled
def _forward_request(tables, memory, frames, count, frame, now_ms):
    entry = tables.connections[frame.connection]
    server = tables.servers[entry.server]
    method = int64(entry.conn_flags) & FORWARDING_MASK
    path_row = int64(server.path)
    if path_row == NONE:
        _unreachable(tables, memory, frames, count, frame, icmp.HOST_UNREACHABLE, now_ms)
        discard(frame, Reason.NO_ROUTE)
        return
    path = tables.paths[path_row]
    if not _may_leave(tables, memory, frames, count, frame, method, int64(path.mtu), now_ms):
        return
    if method == TUNNEL:
        _tunnel(tables, memory, frames, count, frame, server, int64(path.source), now_ms)
        return
    if method == MASQUERADE:
        masquerade.translate_request(memory, frame, entry)
    send(tables, memory, frame, path_row, int64(server.neighbour), now_ms)


@compiled
def _may_leave(tables, memory, frames, count, frame, method, mtu, now_ms):
    """Take one from the TTL and see whether the packet fits; if not, the client was told.

    Linux's out handler sees the error it sends for a DR or TUN connection go by, as related to
    it, and counts it as a reply.
    """
    vip = frame.destination
    error = count + tables.director[0].born
    allowed = routing.outlives(tables, memory, frames, count, frame, vip, now_ms)
    if allowed:
        ipv4.decrement_ttl(memory, frame.ip)
        if method == TUNNEL:
            mtu -= tunnel.OVERHEAD
        allowed = routing.fits(tables, memory, frames, count, frame, mtu, vip, now_ms)
    if method != MASQUERADE and count + tables.director[0].born > error:
        server = int64(tables.connections[frame.connection].server)
        services.charge_reply(tables, server, frames[error].length - ethernet.HEADER_SIZE)
    return allowed


@compiled
def _tunnel(tables, memory, frames, count, frame, server, source, now_ms):
    """Encapsulate the packet, or each packet of a GSO frame."""
    destination = int64(server.address)
    path_row, neighbour = int64(server.path), int64(server.neighbour)
    if frame.segment_kind == segments.GSO_NONE:
        segments.finish_checksum(memory, frame)
        tunnel.encapsulate(tables, memory, frame, source, destination)
        send(tables, memory, frame, path_row, neighbour, now_ms)
        return
    if not segments.can_cut(memory, frame):
        discard(frame, Reason.UNFRAGMENTED)
        return
    first = count + tables.director[0].born
    if not segments.cut(tables, memory, frames, count, frame):
        discard(frame, Reason.SCRATCH_FULL)
        return
    discard(frame, Reason.FORWARDED)  # its segments leave in its place
    for row in range(first, count + tables.director[0].born):
        tunnel.encapsulate(tables, memory, frames[row], source, destination)
        send(tables, memory, frames[row], path_row, neighbour, now_ms)


@compiled
def _forward_reply(tables, memory, frames, count, frame, now_ms):
    """Do what the router does to a reply, then translate it (Linux: FORWARD hook, order 100)."""
    client = frame.destination
    path_row = paths.find(tables, client)
    if path_row == NONE or tables.paths[path_row].kind != UNICAST:
        discard(frame, Reason.NO_ROUTE)
        return
    mtu = int64(tables.paths[path_row].mtu)
    if not routing.outlives(tables, memory, frames, count, frame, OWN, now_ms):
        return
    if not routing.fits(tables, memory, frames, count, frame, mtu, OWN, now_ms):
        return
    ipv4.decrement_ttl(memory, frame.ip)
    masquerade.translate_reply(memory, frame, tables.connections[frame.connection])
    send_to(tables, memory, frame, client, now_ms)


@compiled
def _route(tables, memory, frames, count, frame, now_ms):
    """Forward a server's packet that no connection translates, where the host would."""
    path_row = paths.find(tables, frame.destination)
    if (
        frame.direction != OUTPUT
        or not tables.director[0].forwards
        or path_row == NONE
        or tables.paths[path_row].kind != UNICAST
    ):
        frame.reason = Reason.NOT_OURS
        return
    frame.verdict = Verdict.TRANSMIT
    mtu = int64(tables.paths[path_row].mtu)
    routing.route(tables, memory, frames, count, frame, mtu, now_ms)
