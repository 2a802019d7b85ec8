"""Stage two: whose each frame is.  Stage three, a connection for new clients, follows at once.

Frames are taken strictly in the order of their arrival, each seeing what the one before it did to
the tables, so that a batch of 256 gives what 256 batches of one would (ip_vs_core.c, ip_vs_in_hook
and ip_vs_out_hook).
"""

from numpy import int64

from pylvs import schedulers
from pylvs.engine.schedule import (
    ASK_KEY,
    DECIDED,
    KEY_ANSWERED,
    connect,
    forget_one_packet,
    may_start,
    schedule,
    schedule_by_key,
    start_from_server,
)
from pylvs.engine.track import count_request, count_unanswered, is_local, leave_to_host, track
from pylvs.forwarding import fullnat, masquerade, related
from pylvs.frames import (
    DELIVERY_MASK,
    FORWARDED_IN_PIECES,
    LOCAL_DELIVERY,
    NONE,
    SHORT,
    Reason,
    Verdict,
)
from pylvs.helpers import expected, ftp
from pylvs.host import answers, routing
from pylvs.jit import apart, compiled
from pylvs.tables import connections, servers, services, states
from pylvs.tables.addresses import destination_of, source_of
from pylvs.tables.layouts import FLAG_HELPED, FLAG_NO_OUTPUT, FORWARDING_MASK, MASQUERADE
from pylvs.tables.services import spans
from pylvs.wire import ip, ipv4, transport


@compiled
def match(tables, memory, frame, now_ms):
    """Decide the frame, or leave it with verdict ASK and return False.

    ``server`` says whether its service's scheduler is asked, or its persistence engine; the frame
    is then entered again with the answer there.
    """
    director = tables.director[0]
    server = DECIDED
    if frame.verdict == Verdict.ASK:
        server = int64(frame.server)
        if server == KEY_ANSWERED:
            server = schedule_by_key(tables, frame, now_ms)
    elif frame.verdict == Verdict.MATCH and _asks_for_connection(tables, memory, frame, now_ms):
        server = schedule(tables, memory, frame, now_ms)
    if server == schedulers.ASK_PYTHON or server == ASK_KEY:
        frame.verdict = Verdict.ASK
        frame.server = server
        return False
    if server != DECIDED:
        connect(tables, frame, server, now_ms)
    if director.doomed != NONE:  # it has counted for the scheduler up to here
        _part_with_doomed(tables, memory, frame, now_ms)
    if director.serves_itself and frame.reason == Reason.FORWARDED:
        _hear_own_reset(tables, memory, frame, now_ms)
    return True


@apart
def _hear_own_reset(tables, memory, frame, now_ms):
    """The director itself, as the real server, refuses the segment: a reply like any other.

    It is charged when it is sent.
    """
    entry = tables.connections[frame.connection]
    if entry.server != NONE and tables.servers[entry.server].local and _is_reset(memory, frame):
        _track_own_reset(tables, frame, frame.connection, now_ms)


@compiled
def _is_reset(memory, frame):
    """Whether a host answers the segment with a reset."""
    if frame.protocol != ipv4.TCP or frame.signal == SHORT or frame.signal & transport.RST:
        return False
    return answers.is_sound(memory, frame, ipv4.TCP)


@compiled
def _track_own_reset(tables, frame, row, now_ms):
    entry = tables.connections[row]
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_NO_OUTPUT
    asked = frame.signal
    frame.signal = transport.RST
    track(tables, frame, row, states.SEES_OUTPUT, now_ms)
    frame.signal = asked


@apart
def _part_with_doomed(tables, memory, frame, now_ms):
    """Remove the connection that made place for this packet's.

    Unless there was none for it and the host resets it: that reset Linux takes for the old
    connection's reply, where replies come from the VIP, and starts its timer again.
    """
    director = tables.director[0]
    row = director.doomed
    director.doomed = NONE
    masqueraded = int64(tables.connections[row].conn_flags) & FORWARDING_MASK == MASQUERADE
    by_host = frame.reason == Reason.STRAY or (director.hosted and frame.verdict == Verdict.PASS)
    if by_host and not masqueraded and _is_reset(memory, frame):
        _track_own_reset(tables, frame, row, now_ms)
    elif tables.connections[row].controls == 0:  # else it stays, behind the new one
        connections.remove(tables, row)


@compiled
def _asks_for_connection(tables, memory, frame, now_ms):
    """Find the frame's connection; return whether it has none and is for us."""
    director = tables.director[0]
    if not services.has_any(
        tables, frame.family
    ):  # Linux's hooks are gone, its connections are not
        leave_to_host(frame)
        return False
    if frame.quotes:
        return _asks_by_an_error(tables, memory, frame, now_ms)
    if director.pool_count and fullnat.is_to_pool(tables, frame):
        if not _match_local_end(tables, memory, frame, now_ms):
            frame.verdict = Verdict.DROP
            frame.reason = Reason.STRAY
        return False
    if not director.hosted or is_local(tables, frame):
        row = connections.live_request(tables, frame, now_ms)
        if row == NONE and director.awaited_count and _may_open_anew(frame):
            row = expected.claim(tables, frame, now_ms)
        if row != NONE:
            row = _still_valid(tables, frame, row)
            if frame.verdict == Verdict.DROP:
                return False
            if row != NONE:
                count_request(tables, frame, row, now_ms)
                return False
            return True
    row = connections.live_reply(tables, frame, now_ms)
    if row != NONE:
        _match_reply(tables, memory, frame, row, now_ms)
        return False
    if is_local(tables, frame):
        return True
    _match_on_the_way(tables, memory, frame, now_ms)
    return False


@compiled
def _still_valid(tables, frame, row):
    """Return the row, or ``NONE`` when its connection must make place for a new one."""
    director = tables.director[0]
    entry = tables.connections[row]
    if entry.server == NONE:
        return row
    server = tables.servers[entry.server]
    if _may_open_anew(frame):
        gone = director.expire_nodest_conn and server.weight == 0
        if gone or _may_reuse(director.conn_reuse_mode, entry):
            director.doomed = row
            frame.connection = row  # Linux still finds it when it tells the client of a refusal
            return NONE
    if not server.available:
        if director.expire_nodest_conn:
            director.doomed = row
            return NONE
        frame.verdict = Verdict.DROP
        frame.reason = Reason.SERVER_GONE
    return row


@compiled
def _may_open_anew(frame):
    """Whether the packet asks for a new connection: SYN, or an SCTP INIT."""
    if frame.protocol == ipv4.TCP:
        return frame.signal != SHORT and frame.signal & transport.SYN != 0
    return frame.protocol == ipv4.SCTP and frame.signal == transport.SCTP_INIT


@compiled
def _may_reuse(mode, entry):
    """Whether such a packet may open one in the place of this connection (conn_reuse_mode)."""
    if mode == 0 or entry.control != NONE:
        return False
    if entry.protocol == ipv4.SCTP:
        return entry.state == states.SCTP_CLOSED
    if entry.state == states.TW or entry.state == states.CL:
        return True
    flags = int64(entry.conn_flags)
    return mode & 2 != 0 and entry.state == states.FW and flags & FLAG_NO_OUTPUT != 0


@compiled
def _match_reply(tables, memory, frame, row, now_ms):
    """Handle a real server's reply, once the router that IPVS comes after lets it pass."""
    entry = tables.connections[row]
    masqueraded = int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE
    forwards = masqueraded or tables.director[0].hosted
    if forwards and not routing.lets_pass(tables, memory, frame, now_ms):
        return
    _follow_reply(tables, memory, frame, row, forwards, now_ms)


@apart
def _match_local_end(tables, memory, frame, now_ms):
    """Handle a reply, or an error about a request, to a local end; return whether it is one."""
    row = fullnat.find(tables, frame, now_ms)
    if row == NONE:
        return False
    frame.verdict = Verdict.DROP
    if frame.quotes and not related.is_sound(memory, frame):
        frame.reason = Reason.BAD_CHECKSUM
        return True
    if frame.quotes == 0 and masquerade.is_impossible(frame):
        frame.reason = Reason.TRUNCATED
        return True
    fullnat.readdress(tables, memory, frame, row)
    if frame.quotes:
        _match_related_reply(tables, memory, frame, row, False, now_ms)
    else:
        _match_reply(tables, memory, frame, row, now_ms)
    if frame.verdict == Verdict.DROP:
        fullnat.undo(tables, memory, frame, row)
    return True


@compiled
def _follow_reply(tables, memory, frame, row, forwards, now_ms):
    entry = tables.connections[row]
    masqueraded = int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE
    if masqueraded and masquerade.is_impossible(frame):
        frame.verdict = Verdict.DROP
        frame.reason = Reason.TRUNCATED
        return
    frame.connection = row
    helped = int64(entry.conn_flags) & FLAG_HELPED != 0
    if helped and not _follow_talk(tables, memory, frame, now_ms):
        return
    servers.charge_reply(tables, int64(entry.server), frame.packet_size)
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_NO_OUTPUT
    track(tables, frame, row, states.SEES_OUTPUT, now_ms)
    frame.verdict = Verdict.TRANSMIT if forwards else Verdict.PASS
    frame.reason = Reason.REPLIED if masqueraded else Reason.OBSERVED


@apart
def _follow_talk(tables, memory, frame, now_ms):
    """Let the helper hear a real server; return whether the packet may go on."""
    if not answers.is_sound(memory, frame, ipv4.TCP):
        frame.verdict = Verdict.DROP
        frame.reason = Reason.BAD_CHECKSUM
        return False
    return ftp.follow_reply(tables, memory, frame, now_ms)


@compiled
def _match_on_the_way(tables, memory, frame, now_ms):
    """No connection: the host's, unless a masqueraded server sent it."""
    leave_to_host(frame)
    sender = servers.find_sender(tables, frame.protocol, source_of(frame), frame.source_port)
    if frame.delivery & DELIVERY_MASK == FORWARDED_IN_PIECES or (
        frame.fragment_max and spans.is_within(tables, destination_of(frame))
    ):
        frame.reason = Reason.ROUTED  # the host has not seen its fragments
    director = tables.director[0]
    if sender == NONE:
        if _is_claimed(tables, frame):
            frame.reason = Reason.ROUTED  # the host lets the director have all of those
        return
    frame.reason = Reason.ROUTED
    if director.starter_count and may_start(tables, memory, frame, sender):
        if routing.lets_pass(tables, memory, frame, now_ms):
            row = start_from_server(tables, frame, sender, now_ms)
            if row != NONE:
                _follow_reply(tables, memory, frame, row, True, now_ms)
                forget_one_packet(tables, row)
        return
    if not director.nat_icmp_send:
        return
    if frame.protocol == ipv4.TCP and frame.signal != SHORT and frame.signal & transport.RST:
        return
    if frame.protocol == ipv4.SCTP and frame.signal == transport.SCTP_ABORT:
        return
    if routing.lets_pass(tables, memory, frame, now_ms):
        frame.verdict = Verdict.DROP
        frame.reason = Reason.NOT_OF_A_SERVER


@compiled
def _is_claimed(tables, frame):
    """Whether it is from where a real server may send, without a service's connection."""
    source = source_of(frame)
    if servers.find_sender(tables, frame.protocol, source, 0) != NONE:
        return True
    if tables.director[0].data_sender_count == 0 or frame.protocol != ipv4.TCP:
        return False
    return servers.is_data_sender(tables, source, int64(frame.source_port))


@apart
def _asks_by_an_error(tables, memory, frame, now_ms):
    """Find the connection that an ICMP error is about; return whether it may open one."""
    in_tunnel = frame.server == related.TUNNELED
    frame.server = NONE
    local = frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY
    row = connections.live_request(tables, frame, now_ms)
    if row != NONE:
        _match_related_request(tables, memory, frame, row, in_tunnel)
        return False
    if not in_tunnel:
        row = connections.live_reply(tables, frame, now_ms)
        if row != NONE:
            _match_related_reply(tables, memory, frame, row, local, now_ms)
            return False
        if tables.director[0].pool_count and _match_local_end(tables, memory, frame, now_ms):
            return False
        if tables.director[0].schedule_icmp:
            return True
    leave_to_host(frame)
    if not local and spans.is_within(tables, ip.destination_of(memory, frame.ip)):
        frame.reason = Reason.ROUTED  # the host has not seen it
    return False


@compiled
def _match_related_request(tables, memory, frame, row, in_tunnel):
    frame.connection = row
    entry = tables.connections[row]
    masqueraded = int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE
    if (in_tunnel or masqueraded) and not related.is_sound(memory, frame):
        frame.verdict = Verdict.DROP
        frame.reason = Reason.BAD_CHECKSUM
        return
    if in_tunnel:
        frame.verdict = Verdict.DROP
        frame.reason = Reason.TUNNEL_ERROR
        return
    count_unanswered(tables, frame, row)


@compiled
def _match_related_reply(tables, memory, frame, row, local, now_ms):
    entry = tables.connections[row]
    masqueraded = int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE
    forwards = not local and (masqueraded or tables.director[0].hosted)
    if forwards and not routing.lets_pass(tables, memory, frame, now_ms):
        return
    frame.verdict = Verdict.DROP
    frame.reason = Reason.BAD_CHECKSUM
    if masqueraded and not related.is_sound(memory, frame):
        return
    frame.connection = row
    servers.charge_reply(tables, int64(entry.server), frame.packet_size)
    frame.reason = Reason.DISCARDED
    if not local:
        frame.verdict = Verdict.TRANSMIT if forwards else Verdict.PASS
        frame.reason = Reason.RELATED_REPLY if masqueraded else Reason.OBSERVED
