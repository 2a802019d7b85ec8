"""What a packet does to its connection: counts, state, timer."""

from numpy import int64

from pylvs.frames import (
    DELIVERY_MASK,
    LOCAL_DELIVERY,
    NONE,
    SHORT,
    UNDECIDED,
    Reason,
    Verdict,
)
from pylvs.jit import compiled
from pylvs.tables import connections, expiry, paths, servers, services, states
from pylvs.tables.addresses import destination_of
from pylvs.tables.connections import flows
from pylvs.tables.layouts import (
    FLAG_NO_OUTPUT,
    FLAG_OFFLOADED,
    FLAG_ONE_PACKET,
    FLAG_TEMPLATE,
)
from pylvs.wire import ipv4


@compiled
def is_local(tables, frame):
    """Whether the packet is addressed to the director; where a host stack is, marks decide too.

    So does a service for a network that it is for.
    """
    if frame.delivery & DELIVERY_MASK == UNDECIDED:
        frame.delivery |= paths.delivery_of(tables, destination_of(frame), frame.mark)
    if frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY:
        return True
    director = tables.director[0]
    if frame.mark != 0 and director.mark_count != 0 and not director.hosted:
        return True
    return director.span_count != 0 and services.find_spanning(tables, frame) != NONE


@compiled
def leave_to_host(frame):
    frame.verdict = Verdict.PASS
    frame.reason = Reason.NOT_OURS


@compiled
def count_request(tables, frame, row, now_ms):
    """Charge a client's packet to its connection, server and service, and run the state machine.

    Before it is forwarded, as in Linux: a packet that then cannot leave has been counted.
    """
    entry = tables.connections[row]
    server_row = int64(entry.server)
    only_input = int64(entry.conn_flags) & FLAG_NO_OUTPUT
    entry.in_packets += 1
    servers.charge_request(tables, server_row, frame.packet_size)
    track(tables, frame, row, states.SEES_INPUT_ONLY if only_input else states.SEES_INPUT, now_ms)
    frame.connection = row
    frame.server = server_row
    frame.verdict = Verdict.TRANSMIT
    frame.reason = Reason.BYPASSED if server_row == NONE else Reason.FORWARDED


@compiled
def count_unanswered(tables, frame, row):
    """Charge an ICMP error about a connection likewise; its state and timer stay as they are."""
    entry = tables.connections[row]
    frame.connection = row
    frame.verdict = Verdict.TRANSMIT
    frame.reason = Reason.RELATED
    frame.server = entry.server
    servers.charge_request(tables, int64(entry.server), frame.packet_size)
    entry.in_packets += 1


@compiled
def track(tables, frame, row, view, now_ms):
    """Run the state machine and start the timer anew with the state's timeout."""
    entry = tables.connections[row]
    protocol, signal = frame.protocol, frame.signal
    if protocol == ipv4.UDP:
        _track_datagram(tables, row, view, now_ms)
        return
    timeout = int64(entry.timeout_ms)
    if signal != SHORT:
        guarded = tables.director[0].guarded
        state = states.next_state(protocol, signal, int64(entry.state), view, guarded)
        timeout = states.timeout_ms(tables.timeouts, protocol, state)
        if state != entry.state:
            _enter_state(tables, row, protocol, state)
        if entry.control != NONE and states.is_established(protocol, state):
            _assure(tables, entry)
    expiry.restart(tables, row, timeout, now_ms)


@compiled
def _enter_state(tables, row, protocol, state):
    entry = tables.connections[row]
    entry.state = state
    if int64(entry.conn_flags) & FLAG_OFFLOADED and not states.is_established(protocol, state):
        flows.withdraw(tables, row)
    connections.set_active(tables, row, states.is_active(protocol, state))


@compiled
def _track_datagram(tables, row, view, now_ms):
    entry = tables.connections[row]
    if entry.control != NONE and view == states.SEES_OUTPUT:
        _assure(tables, entry)
    if int64(entry.conn_flags) & FLAG_ONE_PACKET == 0:
        expiry.restart(tables, row, states.timeout_ms(tables.timeouts, ipv4.UDP, 0), now_ms)


@compiled
def _assure(tables, entry):
    """The client has shown that it is there: so does the template it came by."""
    template = tables.connections[entry.control]
    if int64(template.conn_flags) & FLAG_TEMPLATE:
        template.state = states.TEMPLATE_ASSURED
