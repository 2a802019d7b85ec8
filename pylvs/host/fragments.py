"""Fragments on the way in, put together again (RFC 791, RFC 5722, RFC 8200 section 4.5).

(net/ipv4/ip_fragment.c, net/ipv6/netfilter/nf_conntrack_reasm.c)

    slot | HEADROOM | Ethernet | header of the first | payload, each fragment at its place ... |

A packet whose fragments overlap is dropped whole; one that repeats what has come is ignored.  A
complete packet stays in its slot until the batch is over.  How large its largest fragment was goes
with it: it leaves in fragments no larger than that.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.frames import HEADROOM, NONE, ON_THE_WAY, Reason, Verdict
from pylvs.host.errors import send_error
from pylvs.jit import apart, compiled
from pylvs.tables import connections, services
from pylvs.tables.addresses import destination_of, set_ends, source_of
from pylvs.tables.layouts.network import COMPLETE, FREE, OPEN
from pylvs.tables.sizes import REASSEMBLY_SLOT, RUNS_LIMIT, TOKEN_BUCKETS
from pylvs.wire import ethernet, icmp, ip, ipv4, ipv6, transport
from pylvs.wire.memory import copy, load_u8, load_u16, store_u16

_HEADER_MAX: Final = 256  # IPv4's is 60, IPv6's has extensions
_IPV6_TIME_MS: Final = 60_000  # net.netfilter.nf_conntrack_frag6_timeout
_DISTANCE_MAX: Final = 64  # net.ipv4.ipfrag_max_dist
_CE, _NOT_ECT = 8, 1  # 1 << ECN
# 16 bits, one for each set of ECN fields: not-ECT beside any other is a mix that nobody sends
_BAD_ECN: Final = 0b1010_1010_1010_1000

_KEPT, _WHOLE, _BAD, _IGNORED = range(4)


@compiled
def _payload_of(director, row):
    """Return where the packet's payload lies in memory."""
    slot = director.reassembly_begin + row * REASSEMBLY_SLOT
    return slot + HEADROOM + ethernet.HEADER_SIZE + _HEADER_MAX


@compiled
def begin_batch(tables):
    """Free the slots of the packets that the last batch completed."""
    director = tables.director[0]
    if director.reassembled == 0:
        return
    for row in range(tables.reassembly.size):
        if tables.reassembly[row].state == COMPLETE:
            tables.reassembly[row].state = FREE
    director.reassembled = 0


@apart
def receive(tables, memory, frame, now_ms):
    """Keep a fragment; return whether the frame is now the whole packet.

    If it is not, it has its verdict.
    """
    frame.verdict = Verdict.DROP
    row = _find(tables, memory, frame, now_ms)
    if row == NONE:
        frame.reason = Reason.FRAGMENTS_FULL
        return False
    outcome = _keep(tables, memory, frame, row)
    if outcome == _WHOLE:
        outcome = _complete(tables, memory, frame, row)
        if outcome == _WHOLE:
            return True
    frame.reason = Reason.FRAGMENT
    if outcome == _KEPT:
        frame.verdict = Verdict.HOLD
    elif outcome == _BAD:
        _forget(tables, row)
        frame.reason = Reason.FRAGMENTS_BAD
    return False


@compiled
def _forget(tables, row):
    tables.reassembly[row].state = FREE
    tables.director[0].reassembly_count -= 1


@compiled
def _find(tables, memory, frame, now_ms):
    """Return the row of the frame's packet, made if need be; ``NONE`` when all are in use."""
    source, destination = source_of(frame), destination_of(frame)
    if frame.family == 6:
        fragment = frame.transport - ipv6.FRAGMENT_SIZE
        identification, protocol = ipv6.identification_of(memory, fragment), 0
    else:
        identification = load_u16(memory, frame.ip + ipv4.IDENTIFICATION)
        protocol = frame.protocol
    forwarded = 1 if frame.delivery == ON_THE_WAY else 0
    free = NONE
    for row in range(tables.reassembly.size):
        packet = tables.reassembly[row]
        if packet.state == FREE:
            free = row
        elif (
            packet.state == OPEN
            and packet.source_low == source[1]
            and packet.source_high == source[0]
            and packet.destination_low == destination[1]
            and packet.destination_high == destination[0]
            and packet.identification == identification
            and packet.protocol == protocol
            and packet.forwarded == forwarded
        ):
            if frame.family == 4:
                _check_distance(tables, packet, now_ms)
            return row
    if free != NONE:
        packet = tables.reassembly[free]
        packet.source_high, packet.source_low = source
        packet.destination_high, packet.destination_low = destination
        packet.identification = identification
        packet.protocol = protocol
        packet.forwarded = forwarded
        tables.director[0].reassembly_count += 1
        _begin(tables, packet, now_ms)
        if frame.family == 6:
            packet.expires_ms = now_ms + _IPV6_TIME_MS
    return free


@compiled
def _begin(tables, packet, now_ms):
    packet.state = OPEN
    packet.expires_ms = now_ms + tables.director[0].ipfrag_time * 1_000
    packet.total = 0
    packet.received = 0
    packet.has_last = 0
    packet.header = 0
    packet.largest = 0
    packet.largest_df = 0
    packet.ecn = 0
    packet.runs = 0
    packet.last_run = 0
    packet.ticket = tables.tickets[_ticket_bucket(packet)]


@compiled
def _ticket_bucket(packet):
    folded = ip.fold((packet.source_high, packet.source_low))
    return (folded * 0x61C8_8647 & 0xFFFF_FFFF) % TOKEN_BUCKETS


@compiled
def _check_distance(tables, packet, now_ms):
    """Begin anew if its source has sent too many other fragments in between."""
    bucket = _ticket_bucket(packet)
    tables.tickets[bucket] += 1
    ticket = tables.tickets[bucket]
    if packet.runs and ticket - packet.ticket > _DISTANCE_MAX:
        _begin(tables, packet, now_ms)
    packet.ticket = ticket


@compiled
def _keep(tables, memory, frame, row):
    """Put a fragment's payload into its place."""
    packet = tables.reassembly[row]
    header = frame.transport - frame.ip
    df = False
    if frame.family == 6:
        header -= ipv6.FRAGMENT_SIZE
        field = load_u16(memory, frame.ip + header + ipv6.FRAGMENT_FIELD)
        begin, more = field & ipv6.FRAGMENT_OFFSET, field & ipv6.MORE_FRAGMENTS
        end = begin + frame.packet_size - header - ipv6.FRAGMENT_SIZE
        if header > _HEADER_MAX or (more and end & 7):
            return _BAD
    else:
        field = load_u16(memory, frame.ip + ipv4.FRAGMENT)
        begin, more = (field & ipv4.FRAGMENT_OFFSET) << 3, field & ipv4.MORE_FRAGMENTS
        end = begin + frame.packet_size - header
        df = field & ipv4.DONT_FRAGMENT != 0
    if more:
        end = begin + ((end - begin) & ~7)
        if end > packet.total:
            if packet.has_last:
                return _BAD
            packet.total = end
    else:
        if end < packet.total or (packet.has_last and end != packet.total):
            return _BAD
        packet.has_last = 1
        packet.total = end
    if end == begin or end + header > ipv4.SIZE_MAX:
        return _BAD
    outcome = _note_run(tables, row, begin, end)
    if outcome != _KEPT:
        return outcome
    payload = _payload_of(tables.director[0], row)
    copy(memory, payload + begin, frame.transport, end - begin)
    packet.received += end - begin
    packet.ecn |= 1 << (ip.traffic_class(memory, frame.ip) & 3)
    packet.largest = max(int64(packet.largest), frame.packet_size)
    if df:
        packet.largest_df = max(int64(packet.largest_df), frame.packet_size)
    if begin == 0:
        packet.header = header
        packet.first_size = end
        packet.port_in = frame.port_in
        packet.mark = frame.mark
        copy(memory, payload - header, frame.ip, header)
        if frame.family == 6:
            _leave_out_fragment(memory, frame, payload - header, header)
    if packet.header and packet.has_last and packet.received == packet.total:
        return _WHOLE
    return _KEPT


@compiled
def is_truncated(memory, frame):
    """Whether a first fragment of IPv6 lacks some of its transport header (RFC 8200, 4.5).

    Linux does not keep it: it goes on by itself.
    """
    if load_u16(memory, frame.transport - ipv6.FRAGMENT_SIZE + ipv6.FRAGMENT_FIELD) & (
        ipv6.FRAGMENT_OFFSET
    ):
        return False
    end = frame.ip + frame.packet_size
    protocol, at, _ = ipv6.find_transport(memory, frame.ip, end)
    size = 1
    if protocol == ipv4.TCP:
        size = transport.TCP_HEADER_SIZE
    elif protocol == ipv4.UDP:
        size = transport.UDP_HEADER_SIZE
    elif protocol == ipv6.ICMP:
        size = icmp.HEADER_SIZE
    return at + size > end


@compiled
def _leave_out_fragment(memory, frame, to, header):
    """Have the copied headers name what came behind the fragment header."""
    tells = ipv6.find_fragment_name(memory, frame.ip, frame.transport)
    memory[to + tells - frame.ip] = load_u8(memory, frame.ip + header)


@compiled
def _note_run(tables, row, begin, end):
    """Note that these bytes have come: kept, ignored (all had come in one run) or bad.

    Only the run that reaches furthest grows; what comes before its end is a run of its own.
    """
    packet = tables.reassembly[row]
    runs = tables.runs
    last = packet.last_run
    if packet.runs and runs[row, last, 1] < end:
        if begin < runs[row, last, 1]:
            return _BAD
        if begin == runs[row, last, 1]:
            runs[row, last, 1] = end
            return _KEPT
        last = packet.runs
    elif packet.runs:
        for i in range(packet.runs):
            if begin >= runs[row, i, 0] and end <= runs[row, i, 1]:
                return _IGNORED
            if begin < runs[row, i, 1] and runs[row, i, 0] < end:
                return _BAD
    if packet.runs == RUNS_LIMIT:
        return _BAD
    packet.last_run = last
    runs[row, packet.runs, 0] = begin
    runs[row, packet.runs, 1] = end
    packet.runs += 1
    return _KEPT


@compiled
def _complete(tables, memory, frame, row):
    """Make the frame the whole packet, under the header of its first fragment."""
    packet = tables.reassembly[row]
    if (_BAD_ECN >> int64(packet.ecn)) & 1:
        return _BAD
    header = int64(packet.header)
    if header + packet.total > ipv4.SIZE_MAX:
        return _BAD
    payload = _payload_of(tables.director[0], row)
    at = payload - header
    ip.set_size(memory, at, header + int64(packet.total))
    experienced = packet.ecn & _CE and packet.ecn != _CE
    frame.transport = payload
    if frame.family == 6:
        if experienced:
            memory[at + 1] = load_u8(memory, at + 1) | 0x30
        end = payload + int64(packet.total)
        frame.protocol, frame.transport, _ = ipv6.find_transport(memory, at, end)
    else:
        if experienced:
            memory[at + ipv4.TOS] = load_u8(memory, at + ipv4.TOS) | 3
        all_df = packet.largest_df == packet.largest
        store_u16(memory, at + ipv4.FRAGMENT, ipv4.DONT_FRAGMENT if all_df else 0)
        ipv4.mend_checksum(memory, at)
    frame.ip = at
    frame.offset = at - ethernet.HEADER_SIZE
    frame.packet_size = header + int64(packet.total)
    frame.length = ethernet.HEADER_SIZE + frame.packet_size
    frame.fragment_max = int64(packet.largest)
    frame.mark = packet.mark
    frame.checksum_start = 0
    packet.state = COMPLETE
    tables.director[0].reassembled += 1
    tables.director[0].reassembly_count -= 1
    return _WHOLE


@apart
def expire(tables, memory, frames, count, now_ms):
    """Drop the packets whose fragments did not all come in time; tell the senders of first ones.

    The caller has made sure that there are frames to be born.
    """
    for _ in range(tables.reassembly.size):
        row = _most_overdue(tables, now_ms)
        if row == NONE:
            return
        packet = tables.reassembly[row]
        _forget(tables, row)
        tables.reasons[Reason.FRAGMENTS_LATE] += 1
        if packet.header == 0:
            continue
        about = frames[frames.size - 1]  # a row no batch reaches, to tell the sender about
        about.ip = _payload_of(tables.director[0], row) - int64(packet.header)
        born.clear(about, 6 if ip.is_version_6(memory, about.ip) else 4)
        about.transport = about.ip + int64(packet.header)
        about.packet_size = int64(packet.header) + int64(packet.first_size)
        source = packet.source_high, packet.source_low
        set_ends(tables, about, source, (packet.destination_high, packet.destination_low))
        about.protocol = int64(packet.protocol)
        if about.family == 6:
            end = about.ip + about.packet_size
            about.protocol, about.transport, _ = ipv6.find_transport(memory, about.ip, end)
        about.port_in = int64(packet.port_in)
        type_, code = icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIME
        error = count + tables.director[0].born
        if send_error(tables, memory, frames, count, about, type_, code, icmp.NO_DETAIL, now_ms):
            charge_connection(tables, memory, about, frames[error].packet_size, now_ms)


@compiled
def _most_overdue(tables, now_ms):
    found = NONE
    for row in range(tables.reassembly.size):
        packet = tables.reassembly[row]
        if packet.state != OPEN or packet.expires_ms > now_ms:
            continue
        if found == NONE or packet.expires_ms < tables.reassembly[found].expires_ms:
            found = row
    return found


@apart
def charge_connection(tables, memory, about, size, now_ms):
    """Count an error for the connection that its packet belongs to, if there is one."""
    tracked = transport.header_size_min(about.protocol) != transport.UNTRACKED
    begin = about.ip + about.packet_size - about.transport
    if not tracked or begin < transport.PORTS_SIZE or not services.has_any(tables, about.family):
        return
    about.source_port = load_u16(memory, about.transport + transport.SOURCE_PORT)
    about.destination_port = load_u16(memory, about.transport + transport.DESTINATION_PORT)
    connections.foresee(tables, about)
    row = connections.live_request(tables, about, now_ms)
    if row != NONE:
        connections.charge_error(tables, row, size)
