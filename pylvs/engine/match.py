"""Stages two and three: whose each frame is, and a connection for those that open one.

Frames are taken strictly in the order of their arrival, each seeing what the one before it did to
the tables, so that a batch of 256 gives what 256 batches of one would (ip_vs_core.c, ip_vs_in_hook
and ip_vs_out_hook).
"""

from numpy import int64

from pylvs import schedulers
from pylvs.frames import INPUT, NONE, OUTPUT, Reason, Verdict
from pylvs.jit import compiled
from pylvs.tables import connections, expiry, services, states
from pylvs.tables.layouts import FLAG_NO_OUTPUT, FORWARDING_MASK, MASQUERADE
from pylvs.wire import ipv4, transport


@compiled
def match(tables, frames, count, start, now_ms):
    """Decide every frame from ``start`` on; return ``count``, or the row of a frame to ASK about.

    A frame asked about is entered again with ``server`` set to the answer.
    """
    for row in range(start, count):
        frame = frames[row]
        if frame.verdict == Verdict.ASK:
            _connect(tables, frame, int64(frame.server), now_ms)
        elif frame.verdict == Verdict.MATCH:
            _match_frame(tables, frame, now_ms)
        if frame.verdict == Verdict.ASK:
            return row
    return count


@compiled
def _match_frame(tables, frame, now_ms):
    row = _find_request(tables, frame, now_ms)
    if row != NONE:
        row = _still_valid(tables, frame, row)
        if frame.verdict == Verdict.DROP:
            return
        if row != NONE:
            _count_request(tables, frame, row, now_ms)
            return
    elif _match_reply(tables, frame, now_ms):
        return
    _schedule(tables, frame, now_ms)


@compiled
def _find_request(tables, frame, now_ms):
    bucket = connections.bucket_of(tables, frame.source, frame.source_port, frame.protocol)
    row = connections.find_request(tables, bucket, frame)
    if row != NONE and connections.is_due(tables, row, now_ms):
        connections.remove(tables, row)
        return NONE
    return row


@compiled
def _still_valid(tables, frame, row):
    """Return the row, or ``NONE`` when its connection must make place for a new one."""
    director = tables.director[0]
    entry = tables.connections[row]
    server = tables.servers[entry.server]
    if frame.protocol == ipv4.TCP and frame.tcp_flags & transport.SYN:
        gone = director.expire_gone and server.weight == 0
        if gone or _may_reuse(director.reuse_mode, int64(entry.state), int64(entry.conn_flags)):
            connections.remove(tables, row)
            return NONE
    if not server.available:
        if director.expire_gone:
            connections.remove(tables, row)
            return NONE
        frame.verdict = Verdict.DROP
        frame.reason = Reason.SERVER_GONE
    return row


@compiled
def _may_reuse(mode, state, flags):
    """Whether a SYN may open a new connection in the place of this one (conn_reuse_mode)."""
    if mode == 0:
        return False
    if state == states.TW or state == states.CL:
        return True
    return mode & 2 != 0 and state == states.FW and flags & FLAG_NO_OUTPUT != 0


@compiled
def _match_reply(tables, frame, now_ms):
    """Handle a real server's reply, if it is one; return whether it was."""
    bucket = connections.bucket_of(
        tables, frame.destination, frame.destination_port, frame.protocol
    )
    row = connections.find_reply(tables, bucket, frame)
    if row == NONE:
        return False
    if connections.is_due(tables, row, now_ms):
        connections.remove(tables, row)
        return False
    entry = tables.connections[row]
    frame.connection = row
    frame.direction = OUTPUT
    server = tables.servers[entry.server]
    if server.available:
        services.charge_reply(tables, int64(entry.server), frame.packet_size)
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_NO_OUTPUT
    _advance(tables, frame, row, states.SEES_OUTPUT, now_ms)
    if int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE:
        frame.verdict = Verdict.TRANSMIT
        frame.reason = Reason.REPLIED
    else:
        frame.verdict = Verdict.PASS
        frame.reason = Reason.OBSERVED
    return True


@compiled
def _schedule(tables, frame, now_ms):
    """Open a connection, or say why there is none."""
    row = services.find(tables, frame.protocol, frame.destination, frame.destination_port)
    if row == NONE:
        _leave_to_host(tables, frame)
        return
    frame.service = row
    if frame.protocol == ipv4.TCP and not _may_open(tables.director[0].sloppy_tcp, frame.tcp_flags):
        frame.verdict = Verdict.DROP
        frame.reason = Reason.STRAY
        return
    server = schedulers.pick(tables, row)
    if server == schedulers.ASK_PYTHON:
        frame.verdict = Verdict.ASK
    else:
        _connect(tables, frame, server, now_ms)


@compiled
def _may_open(sloppy, flags):
    if flags & transport.RST:
        return False
    return flags & transport.SYN != 0 or sloppy != 0


@compiled
def _leave_to_host(tables, frame):
    """No connection and no service: the host's, unless a masqueraded server sent it."""
    frame.verdict = Verdict.PASS
    frame.reason = Reason.NOT_OURS
    if services.find_sender(tables, frame.protocol, frame.source, frame.source_port) != NONE:
        frame.direction = OUTPUT
        frame.reason = Reason.ROUTED


@compiled
def _connect(tables, frame, server_row, now_ms):
    """Give the frame a new connection to the server that was picked."""
    if server_row == NONE or server_row == schedulers.FAILED:
        frame.verdict = Verdict.DROP
        frame.reason = Reason.NO_SERVER if server_row == NONE else Reason.SCHEDULER_FAILED
        return
    row = connections.allocate(tables)
    if row == NONE:
        frame.verdict = Verdict.DROP
        frame.reason = Reason.TABLE_FULL
        return
    server = tables.servers[server_row]
    entry = tables.connections[row]
    entry.client_address = frame.source
    entry.client_port = frame.source_port
    entry.virtual_address = frame.destination
    entry.virtual_port = frame.destination_port
    entry.server_address = server.address
    entry.server_port = server.port
    entry.protocol = frame.protocol
    entry.state = states.NO
    entry.server = server_row
    entry.in_packets = 0
    method = int64(server.forwarding)
    entry.conn_flags = method if method == MASQUERADE else method | FLAG_NO_OUTPUT
    entry.timeout_ms = states.NEW_TIMEOUT_MS
    entry.expires_ms = now_ms + states.NEW_TIMEOUT_MS
    connections.insert(tables, row)
    expiry.link(tables, row, expiry.tick_of(tables, row))
    services.charge_connection(tables, server_row)
    _count_request(tables, frame, row, now_ms)


@compiled
def _count_request(tables, frame, row, now_ms):
    """Charge a client's packet to its connection, server and service, and run the state machine.

    Before it is forwarded, as in Linux: a packet that then cannot leave has been counted.
    """
    entry = tables.connections[row]
    frame.connection = row
    frame.direction = INPUT
    frame.verdict = Verdict.TRANSMIT
    frame.reason = Reason.FORWARDED
    services.charge_request(tables, int64(entry.server), frame.packet_size)
    entry.in_packets += 1
    only_input = int64(entry.conn_flags) & FLAG_NO_OUTPUT
    _advance(
        tables, frame, row, states.SEES_INPUT_ONLY if only_input else states.SEES_INPUT, now_ms
    )


@compiled
def _advance(tables, frame, row, view, now_ms):
    """Run the state machine and start the timer anew with the state's timeout."""
    entry = tables.connections[row]
    state = 0
    if frame.protocol == ipv4.TCP:
        state = states.next_tcp_state(frame.tcp_flags, int64(entry.state), view)
        entry.state = state
        connections.set_active(tables, row, states.is_active(frame.protocol, state))
    timeout = states.timeout_ms(tables.timeouts, frame.protocol, state)
    expiry.restart(tables, row, timeout, now_ms)
