"""Stage one: what each frame is.

    memory -> frame.{family, protocol, source, destination, ports, ip, transport, packet_size}

After this stage every frame has a verdict: MATCH for whole IPv4 packets that a connection may own,
and the final word for everything else.  Checks come in Linux's order (net/ipv4/ip_input.c): header,
route, options, reassembly.
"""

from typing import Final

from pylvs.forwarding import related
from pylvs.frames import (
    FORWARDED_IN_PIECES,
    LOCAL_DELIVERY,
    NONE,
    ON_THE_WAY,
    SHORT,
    UNDECIDED,
    Reason,
    Verdict,
)
from pylvs.host import arp, fragments, options
from pylvs.jit import apart, compiled, prefetch
from pylvs.tables import connections, marks, paths, servers
from pylvs.wire import checksum, ethernet, icmp, ipv4, transport
from pylvs.wire.memory import load_u8, load_u16, load_u32, load_u48

_LOOPBACK: Final = 127
_MULTICAST_BEGIN: Final = 224
_CLASS_E_BEGIN: Final = 240
_LIMITED_BROADCAST: Final = 0xFFFF_FFFF
_NO_PORT: Final = -1
_AHEAD: Final = 4  # frames; memory is this far away while one is parsed


@compiled
def parse(tables, memory, frames, begin, end, now_ms):
    """Read the headers of some frames, and look ahead for their connections."""
    row = begin
    while row < end:
        frame = frames[row]
        row += 1
        prefetch(memory, frames[row + _AHEAD].offset)
        frame.connection = NONE
        frame.service = NONE
        frame.server = NONE
        frame.family = 0
        frame.mark = 0
        frame.delivery = UNDECIDED
        frame.fragment_max = 0
        frame.path = NONE
        frame.quotes = 0
        frame.verdict = Verdict.PASS
        _parse_frame(tables, memory, frame, now_ms)
        if frame.verdict == Verdict.MATCH:
            connections.foresee(tables, frame)
    for at in range(begin, end):
        if frames[at].verdict == Verdict.MATCH:
            connections.approach(tables, frames[at])


@compiled
def _parse_frame(tables, memory, frame, now_ms):
    if frame.length < ethernet.HEADER_SIZE:
        _drop(frame, Reason.TRUNCATED)
        return
    if frame.tagged:
        frame.reason = Reason.TAGGED
        return
    port = tables.ports[frame.port_in]
    destination = load_u48(memory, frame.offset + ethernet.DESTINATION)
    ethertype = load_u16(memory, frame.offset + ethernet.TYPE)
    if ethertype == ethernet.ARP:
        if destination == port.mac or destination == ethernet.BROADCAST:
            arp.receive(tables, memory, frame)
        else:
            frame.reason = Reason.OTHER_HOST
    elif destination != port.mac and not port.raw_ip:
        frame.reason = Reason.OTHER_HOST
    elif ethertype == ethernet.IPV4:
        _parse_ipv4(tables, memory, frame, now_ms)
    elif ethertype == ethernet.VLAN or ethertype == ethernet.VLAN_SERVICE:
        frame.reason = Reason.TAGGED
    else:
        frame.reason = Reason.NOT_IP


@compiled
def _drop(frame, reason):
    frame.verdict = Verdict.DROP
    frame.reason = reason


@compiled
def _parse_ipv4(tables, memory, frame, now_ms):
    ip = frame.offset + ethernet.HEADER_SIZE
    room = frame.length - ethernet.HEADER_SIZE
    if room < ipv4.HEADER_SIZE:
        _drop(frame, Reason.TRUNCATED)
        return
    header = ipv4.header_size(memory, ip)
    size = load_u16(memory, ip + ipv4.TOTAL_LENGTH)
    if load_u8(memory, ip) >> 4 != 4 or header < ipv4.HEADER_SIZE or size < header:
        _drop(frame, Reason.BAD_HEADER)
        return
    if size > room:
        _drop(frame, Reason.TRUNCATED)
        return
    if not checksum.is_header_sound(memory, ip, header):
        _drop(frame, Reason.BAD_HEADER)
        return
    frame.family = 4
    frame.ip = ip
    frame.transport = ip + header
    frame.packet_size = size
    frame.length = ethernet.HEADER_SIZE + size  # without the link's padding
    frame.protocol = load_u8(memory, ip + ipv4.PROTOCOL)
    frame.source = load_u32(memory, ip + ipv4.SOURCE)
    frame.destination = load_u32(memory, ip + ipv4.DESTINATION)
    if not _may_send(frame.source) or (
        tables.director[0].hosted and paths.delivery_of(tables, frame.source, 0) == LOCAL_DELIVERY
    ):
        _drop(frame, Reason.MARTIAN)
        return
    is_fragment = ipv4.is_fragment(memory, ip)
    if (
        header > ipv4.HEADER_SIZE or is_fragment or tables.director[0].mark_rule_count
    ) and not _parse_unusual(tables, memory, frame, is_fragment, now_ms):
        return
    if frame.protocol == ipv4.ICMP:
        _parse_icmp(tables, memory, frame)
    else:
        _parse_transport(tables, memory, frame)


@compiled
def _may_send(source):
    """Whether an address can be a sender's (RFC 1812, section 5.3.7; net/ipv4/route.c)."""
    network = source >> 24
    if network == 0 or network == _LOOPBACK or source == _LIMITED_BROADCAST:
        return False
    return network < _MULTICAST_BEGIN or network >= _CLASS_E_BEGIN


@apart
def _parse_unusual(tables, memory, frame, is_fragment, now_ms):
    """Look after mark, options and fragments; return whether to go on with the frame."""
    port = _NO_PORT
    later = load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET
    if not later and frame.packet_size >= frame.transport - frame.ip + 4:
        port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
    if tables.director[0].mark_rule_count:
        frame.mark = marks.mark_of(tables, frame.protocol, frame.source, frame.destination, port)
    frame.delivery = paths.delivery_of(tables, frame.destination, frame.mark)
    has_options = frame.transport - frame.ip > ipv4.HEADER_SIZE
    if (has_options or is_fragment) and not _is_directors(tables, frame):
        frame.reason = Reason.NOT_OURS  # the host looks after them itself
        return False
    if has_options:
        bad = options.receive(tables, memory, frame, now_ms)
        if bad == options.SOURCE_ROUTED:
            _drop(frame, Reason.OPTIONS)
            return False
        if bad != options.WELL_FORMED:
            _drop(frame, Reason.BAD_OPTIONS)
            frame.server = bad
            return False
    return not is_fragment or _gather(tables, memory, frame, now_ms)


@compiled
def _is_directors(tables, frame):
    """Whether no host stack sees the frame as well: it is a VIP's, or claimed from a server."""
    director = tables.director[0]
    if director.hosted or paths.own_row(tables, frame.destination) != NONE:
        return True
    if frame.mark and director.mark_count:
        return True
    return frame.delivery & LOCAL_DELIVERY == 0 and servers.is_sender(tables, frame.source)


@compiled
def _gather(tables, memory, frame, now_ms):
    """Return whether the frame is now a whole packet, or is to go on as a fragment."""
    if frame.delivery & LOCAL_DELIVERY:
        return fragments.receive(tables, memory, frame, now_ms)
    tracked = frame.protocol == ipv4.ICMP or (
        transport.header_size_min(frame.protocol) != transport.UNTRACKED
    )
    if not tracked or tables.director[0].service_count == 0:
        frame.reason = Reason.NOT_OURS
        return False
    # A router looks at each fragment before it is put together with the others.
    if load_u8(memory, frame.ip + ipv4.TTL) <= 1:
        _drop(frame, Reason.TIME_EXCEEDED)
        return False
    path = paths.find(tables, frame.destination)
    if path == NONE:
        _drop(frame, Reason.NO_ROUTE)
        return False
    df = load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT
    if df and frame.packet_size > paths.router_mtu(tables, path, frame.destination, now_ms):
        _drop(frame, Reason.TOO_BIG)
        return False
    ipv4.decrement_ttl(memory, frame.ip)
    if fragments.receive(tables, memory, frame, now_ms):
        frame.delivery = frame.delivery & ~ON_THE_WAY | FORWARDED_IN_PIECES
        return True
    return False


@compiled
def _parse_icmp(tables, memory, frame):
    """An error that quotes a packet may belong to its connection; other ICMP is the host's."""
    frame.reason = Reason.NOT_OURS
    if frame.packet_size < frame.transport - frame.ip + icmp.HEADER_SIZE:
        return
    if icmp.is_relatable(load_u8(memory, frame.transport + icmp.TYPE)):
        frame.delivery = frame.delivery or paths.delivery_of(tables, frame.destination, frame.mark)
        quoted = related.read_quote(tables, memory, frame)
        if quoted == related.FLOW:
            frame.verdict = Verdict.MATCH
        elif quoted == related.PORTLESS and _schedules_errors(tables):
            _drop(frame, Reason.TRUNCATED)


@compiled
def _schedules_errors(tables):
    """Whether an error about no connection would open one, and must be able to."""
    return tables.director[0].schedule_icmp and tables.director[0].service_count


@compiled
def _parse_transport(tables, memory, frame):
    size = frame.packet_size - (frame.transport - frame.ip)
    protocol = frame.protocol
    if protocol == ipv4.TCP and size >= transport.TCP_HEADER_SIZE:  # what most packets are
        _read_ports(memory, frame)
        frame.signal = load_u8(memory, frame.transport + transport.FLAGS)
        return
    least = transport.header_size_min(protocol)
    if least == transport.UNTRACKED:
        frame.reason = Reason.NOT_OURS
        return
    if size < transport.PORTS_SIZE:
        _lose_portless(tables, frame)
        return
    _read_ports(memory, frame)
    frame.signal = 0
    if size < least:
        frame.signal = SHORT
    elif protocol == ipv4.SCTP:
        frame.signal = transport.sctp_event(memory, frame.transport, size)


@compiled
def _read_ports(memory, frame):
    frame.source_port = load_u16(memory, frame.transport + transport.SOURCE_PORT)
    frame.destination_port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
    frame.verdict = Verdict.MATCH


@apart
def _lose_portless(tables, frame):
    """A packet without even ports: nobody's, but a router sends it on."""
    delivery = paths.delivery_of(tables, frame.destination, frame.mark)
    if delivery == LOCAL_DELIVERY and tables.director[0].service_count:
        _drop(frame, Reason.TRUNCATED)
    else:
        frame.reason = Reason.NOT_OURS
