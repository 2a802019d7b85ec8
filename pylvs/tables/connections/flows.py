"""Flows that the kernel forwards by itself: found, opened, counted, taken back.

    VACANT -> WARMING -> OPEN_FLOW -> SHUT -> VACANT
               the director still has them      the director's again, ten seconds
               while it empties its rings       or more: a SYN, FIN or RST was seen

The director offers one way of a connection that has shown to last.  Programs of BPF read the table
and count in it (``drivers.programs.offload``); all else is written by the director.  It is a bucket
of four for each hash, so that a program needs one look, and a fifth flow stays where it was.

Nothing is decided there that was not decided here: a flow holds for one generation of the table,
which ends with whatever could send its packets elsewhere, and with it its packets come up again.
"""

from typing import Final

from numpy import int64, uint64

from pylvs.frames import NONE, Reason
from pylvs.jit import apart, compiled
from pylvs.tables import expiry, servers, states
from pylvs.tables.layouts import FLAG_OFFLOADED
from pylvs.tables.layouts.shared import OPEN_FLOW, VACANT, WARMING
from pylvs.tables.sizes import FLOW_BITS, FLOWS_LIMIT, FLOWS_PER_BUCKET, HASH_BITS, WARMING_LIMIT

GENERATION_ROW: Final = FLOWS_LIMIT
GENERATION_MASK: Final = 0xFFFF_FFFF
WARM_MS: Final = 50  # after which a flow is opened though the rings were never seen empty
IDLE_MS: Final = 10_000  # a flow without packets makes room for others
REST_TICKS: Final = 16  # a second until a row is used again: no program still looks at it
_NS_PER_MS: Final = 1_000_000


@compiled
def ends_of(source_port, destination_port, protocol, family):
    """Return what of a flow is not its addresses, in one word."""
    return source_port << 32 | destination_port << 16 | protocol << 8 | family


@compiled
def hash_of(tables, source, destination, ends):
    """Hash a flow to 64 bits: as connections are, over five words; programs do the same."""
    director = tables.director[0]
    total = director.seed_0 * source[1] + director.seed_1 * destination[1]
    total += director.seed_2 * source[0] + director.seed_3 * destination[0]
    return total + director.seed_4 * ends


@compiled
def bucket_of(tables, source, destination, ends):
    total = hash_of(tables, source, destination, ends)
    return int64(uint64(total) >> uint64(HASH_BITS - FLOW_BITS))


@compiled
def find(tables, source, destination, ends):
    """Return the row of a flow, or ``NONE``; its addresses are pairs."""
    begin = bucket_of(tables, source, destination, ends) * FLOWS_PER_BUCKET
    for row in range(begin, begin + FLOWS_PER_BUCKET):
        flow = tables.flows[row]
        if (
            flow.state != VACANT
            and flow.ends == ends
            and flow.source_low == source[1]
            and flow.destination_low == destination[1]
            and flow.source_high == source[0]
            and flow.destination_high == destination[0]
        ):
            return row
    return NONE


@compiled
def allocate(tables, source, destination, ends):
    """Return a vacant row for a flow, its addresses and ends in place, or ``NONE``."""
    if tables.director[0].warming_count == WARMING_LIMIT:
        return NONE
    begin = bucket_of(tables, source, destination, ends) * FLOWS_PER_BUCKET
    for row in range(begin, begin + FLOWS_PER_BUCKET):
        flow = tables.flows[row]
        if flow.state == VACANT and flow.rests_until <= tables.director[0].tick:
            flow.source_high, flow.source_low = source
            flow.destination_high, flow.destination_low = destination
            flow.ends = ends
            flow.hash = (hash_of(tables, source, destination, ends) >> 32) & 0xFFFF_FFFF
            return row
    return NONE


@compiled
def enter(tables, row, connection, is_reply, now_ms):
    """Have a row that was filled be a flow of a connection."""
    director = tables.director[0]
    entry = tables.connections[connection]
    flow = tables.flows[row]
    flow.connection = connection
    flow.is_reply = is_reply
    flow.twin = NONE
    if int64(entry.conn_flags) & FLAG_OFFLOADED:
        flow.twin = tables.details[connection]
    tables.details[connection] = row
    entry.conn_flags = int64(entry.conn_flags) | FLAG_OFFLOADED
    flow.seen_packets = int64(flow.packets)
    flow.seen_octets = int64(flow.octets)
    flow.seen_passed = int64(flow.passed)
    flow.since_ms = now_ms
    flow.used_ns = now_ms * _NS_PER_MS
    flow.generation = generation(tables)
    tables.flow_counts[row // FLOWS_PER_BUCKET] += 1
    flow.state = WARMING
    tables.warming[director.warming_count] = row
    director.warming_count += 1
    director.flow_count += 1


@compiled
def generation(tables):
    return int64(tables.flows[GENERATION_ROW].generation)


@compiled
def distrust(tables):
    """Have the packets of all flows come up: what becomes of them may be another thing now."""
    tables.flows[GENERATION_ROW].generation = (generation(tables) + 1) & GENERATION_MASK


@apart
def open_warm(tables, drained, now_ms):
    """Open the flows of which no packet is on its way through the director.

    ``drained``: this breath found nothing in any ring.  A packet that is still there would be
    overtaken; where they never cease to come, or other workers have rings, time has to do.
    """
    director = tables.director[0]
    at = 0
    while at < director.warming_count:
        flow = tables.flows[tables.warming[at]]
        if flow.state == WARMING and now_ms - flow.since_ms < WARM_MS:
            is_quiet = drained and flow.seen_passed == int64(flow.passed)
            if drained:
                flow.seen_passed = int64(flow.passed)
            if not is_quiet:
                at += 1
                continue
        if flow.state == WARMING:
            flow.state = OPEN_FLOW
        director.warming_count -= 1
        tables.warming[at] = tables.warming[director.warming_count]


@compiled
def settle(tables, row):
    """Do for the packets that the kernel has sent what was to be done for each: count, and time."""
    flow = tables.flows[row]
    packets = int64(flow.packets) - flow.seen_packets
    octets = int64(flow.octets) - flow.seen_octets
    if packets == 0 and octets == 0:
        return
    flow.seen_packets += packets
    flow.seen_octets += octets
    tables.director[0].offloaded += packets
    entry = tables.connections[flow.connection]
    if flow.is_reply:
        servers.charge_replies(tables, int64(entry.server), packets, octets)
        tables.reasons[Reason.REPLIED] += packets
    else:
        servers.charge_requests(tables, int64(entry.server), packets, octets)
        tables.reasons[Reason.FORWARDED] += packets
        entry.in_packets = (int64(entry.in_packets) + packets) & 0xFFFF_FFFF
    timeout = states.timeout_ms(tables.timeouts, int64(entry.protocol), int64(entry.state))
    used_ms = int64(flow.used_ns) // _NS_PER_MS
    if used_ms > entry.expires_ms - int64(entry.timeout_ms):  # when it was started last
        expiry.restart(tables, flow.connection, timeout, used_ms)


@apart
def withdraw(tables, connection):
    """Have both ways of a connection be the director's again."""
    entry = tables.connections[connection]
    director = tables.director[0]
    if int64(entry.conn_flags) & FLAG_OFFLOADED == 0:
        return
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_OFFLOADED
    row = int64(tables.details[connection])
    while row != NONE:
        flow = tables.flows[row]
        flow.state = VACANT
        tables.flow_counts[row // FLOWS_PER_BUCKET] -= 1
        settle(tables, row)
        flow.rests_until = director.tick + REST_TICKS
        director.flow_count -= 1
        row = flow.twin


@compiled
def displace(tables, source, destination, ends):
    """Have packets be the director's again that are another connection's now."""
    row = find(tables, source, destination, ends)
    if row != NONE:
        withdraw(tables, int64(tables.flows[row].connection))


@compiled
def settle_some(tables, begin, end, now_ms):
    """Settle the flows in rows ``begin`` to ``end``, and withdraw those that have ceased."""
    if tables.director[0].flow_count == 0:
        return
    for row in range(begin, end):
        flow = tables.flows[row]
        if flow.state == VACANT:
            continue
        settle(tables, row)
        if now_ms - int64(flow.used_ns) // _NS_PER_MS > IDLE_MS:
            withdraw(tables, flow.connection)
