"""Stage four: every frame as it leaves, and what its sender is told when it cannot.

request -> TTL, size -> masquerade | route | tunnel -> next hop
reply   ->              masquerade backwards        -> next hop      the router's part came before
others  ->              an answer, or plain forwarding, where no host stack sees them
"""

from numpy import int64

from pylvs.engine.late_errors import tell_unreachable
from pylvs.forwarding import (
    fullnat,
    l3dsr,
    masquerade,
    offload,
    proxy,
    related,
    segments,
    tunnel,
)
from pylvs.forwarding.transmit import discard, send, send_to
from pylvs.frames import DELIVERY_MASK, LOCAL_DELIVERY, NO_ECHO, NONE, Reason, Verdict
from pylvs.helpers import ftp
from pylvs.host import answers, discovery, fragments, routing
from pylvs.host.errors import send_error
from pylvs.jit import apart, compiled
from pylvs.tables import connections, paths, servers
from pylvs.tables.addresses import address_of, set_ends, source_of
from pylvs.tables.layouts import (
    FLAG_HELPED,
    FLAG_LOCAL,
    FLAG_ONE_PACKET,
    FORWARDING_MASK,
    L3DSR,
    MASQUERADE,
    TUNNEL,
    UNROUTED,
)
from pylvs.tables.layouts.network import UNICAST
from pylvs.wire import ethernet, icmp, ip, ipv4, ipv6
from pylvs.wire.memory import load_u16


@compiled
def forward(tables, memory, frames, count, row, now_ms):
    """Rewrite a frame that leaves, and list it and those it gave birth to as the next that do."""
    director = tables.director[0]
    frame = frames[row]
    reason = frame.reason
    if reason == Reason.FORWARDED or reason == Reason.RELATED or reason == Reason.BYPASSED:
        _forward_request(tables, memory, frames, count, frame, now_ms)
    elif reason == Reason.REPLIED or reason == Reason.RELATED_REPLY:
        _forward_reply(tables, memory, frames, count, frame, now_ms)
    elif director.hosted or reason != Reason.NOT_OURS:
        _forward_other(tables, memory, frames, count, frame, now_ms)
    elif _is_left_in_pieces(tables, memory, frame):
        frame.reason = Reason.ROUTED
        _route(tables, memory, frames, count, frame, now_ms)
    elif answers.is_ping_to_own(tables, memory, frame):
        _answer(tables, memory, frames, count, frame, now_ms)
    if director.offloads and frame.verdict == Verdict.TRANSMIT and frame.connection != NONE:
        offload.offer(tables, memory, frame, now_ms)
    _leave(tables, frames, row)
    if director.listed < director.born:
        leave_born(tables, frames, count)


@apart
def _is_left_in_pieces(tables, memory, frame):
    """Whether a packet is nobody's whose fragments the host has not seen: it has to go on."""
    if frame.family != 6 or frame.fragment_max == 0:
        return False
    return not is_local_outside(tables, memory, frame)


@compiled
def _leave(tables, frames, row):
    """Count a frame by what became of it, and list it if it leaves."""
    frame, director = frames[row], tables.director[0]
    tables.reasons[frame.reason] += 1
    if frame.verdict == Verdict.TRANSMIT:
        frames[director.leaving].leaves = row
        director.leaving += 1


@compiled
def leave_born(tables, frames, count):
    """List the frames born since this was done last."""
    director = tables.director[0]
    while director.listed < director.born:
        _leave(tables, frames, count + director.listed)
        director.listed += 1


@apart
def _forward_other(tables, memory, frames, count, frame, now_ms):
    reason = frame.reason
    if reason == Reason.TUNNEL_ERROR:
        _tell_client(tables, memory, frames, count, frame, now_ms)
    elif reason == Reason.ROUTED:
        _route(tables, memory, frames, count, frame, now_ms)
    elif reason == Reason.OBSERVED:
        if frame.verdict == Verdict.TRANSMIT:
            _send_on(tables, memory, frames, count, frame, now_ms)
    elif reason == Reason.STRAY:
        _answer(tables, memory, frames, count, frame, now_ms)
        frame.reason = Reason.STRAY
    elif reason == Reason.ARP:
        if frame.family == 6:
            discovery.answer(tables, memory, frames, count, frame)
    elif reason == Reason.NOT_OURS:
        if frame.family:
            _play_host(tables, memory, frames, count, frame, now_ms)
    elif frame.verdict == Verdict.DROP:
        _tell_sender(tables, memory, frames, count, frame, now_ms)


@apart
def _tell_sender(tables, memory, frames, count, frame, now_ms):
    """Send the ICMP error that a frame's earlier fate asks for."""
    reason = frame.reason
    type_, code, detail = icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, icmp.NO_DETAIL
    if reason == Reason.TIME_EXCEEDED:
        type_, code = icmp.TIME_EXCEEDED, icmp.IN_TRANSIT
    elif reason == Reason.TOO_BIG:
        code = icmp.FRAGMENTATION_NEEDED
        destination = ip.destination_of(memory, frame.ip)
        path_row = paths.find_marked(tables, destination, frame.mark)
        detail = paths.router_mtu(tables, path_row, destination, now_ms)
    elif reason == Reason.NO_ROUTE:
        code = icmp.NET_UNREACHABLE
    elif reason == Reason.BAD_OPTIONS:
        if frame.server < 0:
            return
        frame.delivery |= NO_ECHO
        type_, code, detail = icmp.PARAMETER_PROBLEM, 0, frame.server << 24
        if frame.family == 6:
            code, detail = icmp.V6_UNKNOWN_OPTION, int64(frame.server)
    elif reason != Reason.NO_SERVER and reason != Reason.NOT_OF_A_SERVER:
        return
    error = count + tables.director[0].born
    if not send_error(tables, memory, frames, count, frame, type_, code, detail, now_ms):
        return
    if frame.connection != NONE:
        connections.charge_error(tables, frame.connection, frames[error].packet_size)
    elif reason == Reason.BAD_OPTIONS and frame.family == 6:  # IPv4's is about no connection
        size = int64(frames[error].packet_size)
        fragments.charge_connection(tables, memory, frame, size, now_ms)


@compiled
def _forward_request(tables, memory, frames, count, frame, now_ms):
    if frame.server == NONE:
        _bypass(tables, memory, frames, count, frame, now_ms)
        return
    server = tables.servers[frame.server]
    entry = tables.connections[frame.connection]
    method = int64(entry.conn_flags) & FORWARDING_MASK
    path_row = int64(server.path)
    if path_row == NONE:
        _lose(tables, memory, frames, count, frame, server, method, now_ms)
        return
    path = tables.paths[path_row]
    mtu = int64(path.mtu)
    if tables.director[0].exception_count:
        mtu = _known_mtu(tables, server, mtu, now_ms)
    elif server.exception == UNROUTED:
        server.exception = NONE
    room = mtu
    if int64(entry.conn_flags) & FLAG_LOCAL:
        room -= proxy.growth(tables, memory, frame, frame.connection)
    if not _may_leave(tables, memory, frames, count, frame, server, method, room, now_ms):
        return
    if routing.may_have_options(frame):
        routing.finish_options(memory, frame, 0)
    if method == TUNNEL:
        _tunnel(tables, memory, frames, count, frame, server, mtu, now_ms)
        return
    if method == MASQUERADE:
        if frame.quotes:
            related.translate_in(tables, memory, frame, entry)
        elif masquerade.is_impossible(frame):
            discard(frame, Reason.TRUNCATED)
            return
        else:
            if int64(entry.conn_flags) & FLAG_HELPED:
                if not answers.is_sound(memory, frame, ipv4.TCP):
                    discard(frame, Reason.BAD_CHECKSUM)
                    return
                ftp.follow_request(tables, memory, frame, now_ms)
            masquerade.translate_request(tables, memory, frame, entry)
        if int64(entry.conn_flags) & FLAG_LOCAL and not fullnat.send_from_local(
            tables, memory, frame, frame.connection
        ):
            discard(frame, Reason.OUT_OF_TURN)
            return
    elif method == L3DSR:
        if frame.quotes == 0 and masquerade.is_impossible(frame):
            discard(frame, Reason.TRUNCATED)
            return
        l3dsr.readdress(tables, memory, frame, entry, int64(server.dscp))
    hop = int64(server.neighbour)
    send(tables, memory, frames, count, frame, path_row, hop, mtu, now_ms)


@apart
def _known_mtu(tables, server, mtu, now_ms):
    """Return the MTU of the server's route, which looks for what errors told as it is used."""
    server.exception = paths.exception_to(tables, address_of(server), now_ms)
    if server.exception == NONE:
        return mtu
    return min(mtu, int64(tables.exceptions[server.exception].mtu))


@apart
def _lose(tables, memory, frames, count, frame, server, method, now_ms):
    """There is no way to the real server: it is the director itself, or cannot be reached."""
    if not server.local:
        type_, code, detail = icmp.UNREACHABLE, icmp.HOST_UNREACHABLE, icmp.NO_DETAIL
        send_error(tables, memory, frames, count, frame, type_, code, detail, now_ms)
        discard(frame, Reason.NO_ROUTE)
    elif frame.quotes:
        discard(frame, Reason.DISCARDED)
    else:
        entry = tables.connections[frame.connection]
        if method == MASQUERADE:
            masquerade.translate_request(tables, memory, frame, entry)
            if frame.family == 4:
                ipv4.mend_checksum(memory, frame.ip)  # options may have been written
            set_ends(tables, frame, source_of(frame), address_of(server))
            frame.destination_port = int64(entry.server_port)
        row = answers.answer(tables, memory, frames, count, frame, now_ms)
        if row != NONE:
            _take_back(tables, memory, frames[row], frame.connection, method)
            _send_answer(tables, memory, frames, count, row, now_ms)


@compiled
def _take_back(tables, memory, answer, row, method):
    """Treat what the director as a real server refuses with as a server's answer."""
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FLAG_ONE_PACKET:
        return
    servers.charge_reply(tables, int64(entry.server), answer.packet_size)
    answer.connection = row
    if answer.protocol == ipv4.ICMP or answer.protocol == ipv6.ICMP:
        if method == MASQUERADE:
            answer.quotes = answer.transport + icmp.HEADER_SIZE
            related.translate_out(tables, memory, answer, entry)
    elif method == MASQUERADE:
        masquerade.translate_reply(tables, memory, answer, entry)


@compiled
def _may_leave(tables, memory, frames, count, frame, server, method, mtu, now_ms):
    """Take one from the TTL and see whether the packet fits; if not, the client was told."""
    if routing.outlives(tables, memory, frames, count, frame, now_ms):
        routing.take_hop(memory, frame)
        if method == TUNNEL:
            mtu -= server.overhead
            if mtu < tunnel.mtu_min(server):
                discard(frame, Reason.NO_ROUTE)
                return False
            if frame.family == 4 and not tables.director[0].pmtu_disc:
                return True
        if frame.quotes and frame.family == 4:
            return True  # an error's size Linux does not look at
        if routing.fits(tables, memory, frames, count, frame, mtu, now_ms):
            return True
    director = tables.director[0]
    if director.listed < director.born:
        error = frames[count + director.listed]
        connections.charge_error(tables, frame.connection, error.packet_size)
    return False


@compiled
def _tunnel(tables, memory, frames, count, frame, server, mtu, now_ms):
    """Encapsulate the packet, or each packet of a GSO frame."""
    path_row, hop = int64(server.path), int64(server.neighbour)
    source = paths.source_of(tables, path_row)
    if frame.segment_kind == segments.GSO_NONE:
        segments.finish_checksum(memory, frame)
        tunnel.encapsulate(tables, memory, frame, server, source)
        send(tables, memory, frames, count, frame, path_row, hop, mtu, now_ms)
        return
    if not segments.can_cut(memory, frame):
        discard(frame, Reason.UNCUT)
        return
    first = count + tables.director[0].born
    if not segments.cut(tables, memory, frames, count, frame):
        discard(frame, Reason.SCRATCH_FULL)
        return
    discard(frame, Reason.FORWARDED)  # its segments leave in its place
    for row in range(first, count + tables.director[0].born):
        tunnel.encapsulate(tables, memory, frames[row], server, source)
        send(tables, memory, frames, count, frames[row], path_row, hop, mtu, now_ms)


@apart
def _bypass(tables, memory, frames, count, frame, now_ms):
    """Send a packet without a server on to where it was addressed."""
    destination = ip.destination_of(memory, frame.ip)
    path_row = paths.find(tables, destination)
    if path_row == NONE or tables.paths[path_row].kind != UNICAST:
        discard(frame, Reason.NO_ROUTE)
        return
    if not routing.outlives(tables, memory, frames, count, frame, now_ms):
        return
    routing.take_hop(memory, frame)
    mtu = paths.mtu_to(tables, path_row, destination, now_ms)
    if routing.fits(tables, memory, frames, count, frame, mtu, now_ms):
        send_to(tables, memory, frames, count, frame, destination, now_ms)


@compiled
def _forward_reply(tables, memory, frames, count, frame, now_ms):
    """Translate a reply that the router let pass, and send it to its client."""
    entry = tables.connections[frame.connection]
    path_row = frame.path
    client = ip.destination_of(memory, frame.ip)
    mtu = paths.router_mtu(tables, path_row, client, now_ms)
    if frame.fragment_max and _forbids_fragments(memory, frame, mtu):
        _refuse_reply(tables, memory, frames, count, frame, entry, mtu, now_ms)
        return
    if frame.quotes:
        related.translate_out(tables, memory, frame, entry)
    else:
        masquerade.translate_reply(tables, memory, frame, entry)
    if routing.may_have_options(frame):
        routing.finish_options(memory, frame, int64(entry.virtual_address))
    hop = paths.next_hop(tables, path_row, client)
    send(tables, memory, frames, count, frame, path_row, hop, mtu, now_ms)


@compiled
def _forbids_fragments(memory, frame, mtu):
    """Whether a packet put together from fragments may not leave in fragments again."""
    if frame.family == 6:
        return frame.fragment_max > mtu
    return load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT != 0


@apart
def _refuse_reply(tables, memory, frames, count, frame, entry, mtu, now_ms):
    """A reply came in fragments that forbid it: the router cannot send it on, whatever its size.

    It was translated by then, so the error is found to be about the connection and taken to the
    server; Linux counts it as a packet of the client's.
    """
    masquerade.translate_reply(tables, memory, frame, entry)
    discard(frame, Reason.TOO_BIG)
    offset, code = frame.ip - ethernet.HEADER_SIZE, icmp.FRAGMENTATION_NEEDED
    tell_unreachable(tables, memory, frames, count, offset, code, mtu, now_ms)


@apart
def _send_on(tables, memory, frames, count, frame, now_ms):
    """Send a packet on that the router let pass and nobody translates."""
    path_row = frame.path
    destination = ip.destination_of(memory, frame.ip)
    mtu = paths.router_mtu(tables, path_row, destination, now_ms)
    if frame.fragment_max and _forbids_fragments(memory, frame, mtu):
        discard(frame, Reason.TOO_BIG)
        _tell_sender(tables, memory, frames, count, frame, now_ms)
        return
    if routing.may_have_options(frame):
        routing.finish_options(memory, frame, tables.paths[path_row].source_low)
    hop = paths.next_hop(tables, path_row, destination)
    send(tables, memory, frames, count, frame, path_row, hop, mtu, now_ms)


@apart
def _route(tables, memory, frames, count, frame, now_ms):
    """Forward a packet as the router around IPVS does; its sender is told when it cannot."""
    if not tables.director[0].hosted and not routing.is_router(tables, frame):
        frame.reason = Reason.NOT_OURS
        return
    if routing.lets_pass(tables, memory, frame, now_ms):
        frame.verdict = Verdict.TRANSMIT
        _send_on(tables, memory, frames, count, frame, now_ms)
    elif frame.verdict == Verdict.DROP:
        _tell_sender(tables, memory, frames, count, frame, now_ms)


@apart
def _play_host(tables, memory, frames, count, frame, now_ms):
    """Do what the host would: there is none behind the director."""
    if is_local_outside(tables, memory, frame):
        _answer(tables, memory, frames, count, frame, now_ms)
    else:
        frame.reason = Reason.ROUTED
        _route(tables, memory, frames, count, frame, now_ms)


@compiled
def is_local_outside(tables, memory, frame):
    """Whether the packet itself, not what it may quote, is addressed to the director."""
    if frame.delivery & DELIVERY_MASK == 0:
        destination = ip.destination_of(memory, frame.ip)
        frame.delivery |= paths.delivery_of(tables, destination, frame.mark)
    return frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY


@apart
def _answer(tables, memory, frames, count, frame, now_ms):
    """Answer as a host on which nobody listens."""
    source, destination = ip.source_of(memory, frame.ip), ip.destination_of(memory, frame.ip)
    set_ends(tables, frame, source, destination)
    row = answers.answer(tables, memory, frames, count, frame, now_ms)
    if row != NONE:
        _send_answer(tables, memory, frames, count, row, now_ms)


@compiled
def _send_answer(tables, memory, frames, count, row, now_ms):
    destination = ip.destination_of(memory, frames[row].ip)
    send_to(tables, memory, frames, count, frames[row], destination, now_ms)


@apart
def _tell_client(tables, memory, frames, count, frame, now_ms):
    """Tell a client of an ICMP error about the tunnel its packet was in, as being about that."""
    entry = tables.connections[frame.connection]
    type_ = load_u16(memory, frame.transport + icmp.TYPE) >> 8
    code = load_u16(memory, frame.transport + icmp.TYPE) & 0xFF
    detail = icmp.NO_DETAIL
    if type_ == icmp.UNREACHABLE and code == icmp.FRAGMENTATION_NEEDED:
        detail = load_u16(memory, frame.transport + icmp.REST + 2)
        server = connections.server_of(tables, frame.connection)
        paths.learn_mtu(tables, server, detail, now_ms)
        if load_u16(memory, frame.quotes + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT == 0:
            return
        added = frame.quotes - (frame.transport + icmp.HEADER_SIZE)
        detail = _told_mtu(tables, entry, detail, added)
    about = frames[frames.size - 1]  # a row no batch reaches: the packet as the client sent it
    about.ip = frame.quotes
    about.transport = frame.quotes + ipv4.header_size(memory, frame.quotes)
    about.packet_size = frame.ip + frame.packet_size - frame.quotes
    about.delivery = NO_ECHO
    about.mark = 0
    first = count + tables.director[0].born
    if send_error(tables, memory, frames, count, about, type_, code, detail, now_ms):
        connections.charge_error(tables, frame.connection, about.packet_size)
        connections.charge_error(tables, frame.connection, frames[first].packet_size)


@compiled
def _told_mtu(tables, entry, mtu, added):
    """Return what the client is told: the MTU of the server's route, as the director knew it.

    ``added`` is what the tunnel's headers take of it.
    """
    if entry.server != NONE:
        server = tables.servers[entry.server]
        if server.path != NONE and server.exception != UNROUTED:
            mtu = int64(tables.paths[server.path].mtu)
            if server.exception != NONE:
                mtu = min(mtu, int64(tables.exceptions[server.exception].mtu))
    return mtu - added if mtu > ipv4.MTU_MIN + added else mtu
