"""Stage one: what each frame is.

    memory -> frame.{family, protocol, source, destination, ports, ip, transport, packet_size}

After this stage every frame has a verdict: MATCH for whole packets that a connection may own, and
the final word for everything else.  Checks come in Linux's order (net/ipv4/ip_input.c,
net/ipv6/ip6_input.c): header, route, options, reassembly.
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
from pylvs.host import arp, discovery, extensions, fragments, marks, options
from pylvs.jit import apart, compiled, prefetch
from pylvs.tables import connections, paths, servers, services
from pylvs.tables.addresses import destination_of, set_ends, source_of
from pylvs.tables.services import spans
from pylvs.wire import checksum, ethernet, icmp, ip, ipv4, ipv6, transport
from pylvs.wire.memory import load_u8, load_u16, load_u32, load_u48

_LOOPBACK: Final = 127
_MULTICAST_BEGIN: Final = 224
_CLASS_E_BEGIN: Final = 240
_LIMITED_BROADCAST: Final = 0xFFFF_FFFF
_MULTICAST_IPV6: Final = 0xFF
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
        if ethertype == ethernet.IPV6 and discovery.is_multicast_mac(destination):
            _parse_multicast(tables, memory, frame, now_ms)
    elif ethertype == ethernet.IPV4:
        _parse_ipv4(tables, memory, frame, now_ms)
    elif ethertype == ethernet.IPV6:
        _parse_ipv6(tables, memory, frame, False, now_ms)
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
    at = frame.offset + ethernet.HEADER_SIZE
    room = frame.length - ethernet.HEADER_SIZE
    if room < ipv4.HEADER_SIZE:
        _drop(frame, Reason.TRUNCATED)
        return
    header = ipv4.header_size(memory, at)
    size = load_u16(memory, at + ipv4.TOTAL_LENGTH)
    if load_u8(memory, at) >> 4 != 4 or header < ipv4.HEADER_SIZE or size < header:
        _drop(frame, Reason.BAD_HEADER)
        return
    if size > room:
        _drop(frame, Reason.TRUNCATED)
        return
    if not checksum.is_header_sound(memory, at, header):
        _drop(frame, Reason.BAD_HEADER)
        return
    frame.family = 4
    frame.ip = at
    frame.transport = at + header
    frame.packet_size = size
    frame.length = ethernet.HEADER_SIZE + size  # without the link's padding
    frame.protocol = load_u8(memory, at + ipv4.PROTOCOL)
    frame.source = load_u32(memory, at + ipv4.SOURCE)
    frame.destination = load_u32(memory, at + ipv4.DESTINATION)
    if not _may_send(frame.source) or _is_from_here(tables, frame):
        _drop(frame, Reason.MARTIAN)
        return
    is_fragment = ipv4.is_fragment(memory, at)
    if (
        header > ipv4.HEADER_SIZE or is_fragment or tables.director[0].mark_rule_count
    ) and not _parse_unusual(tables, memory, frame, header > ipv4.HEADER_SIZE, is_fragment, now_ms):
        return
    if frame.protocol == ipv4.ICMP:
        _parse_icmp(tables, memory, frame)
    else:
        _parse_transport(tables, memory, frame)


@compiled
def _is_from_here(tables, frame):
    """Whether the source is the director's own, where it plays the host."""
    if not tables.director[0].hosted:
        return False
    return paths.delivery_of(tables, source_of(frame), 0) == LOCAL_DELIVERY


@apart
def _parse_multicast(tables, memory, frame, now_ms):
    _parse_ipv6(tables, memory, frame, True, now_ms)


@compiled
def _parse_ipv6(tables, memory, frame, is_multicast, now_ms):
    """Read an IPv6 packet; of those to many stations only neighbour discovery is for us."""
    at = frame.offset + ethernet.HEADER_SIZE
    room = frame.length - ethernet.HEADER_SIZE
    if room < ipv6.HEADER_SIZE:
        _drop(frame, Reason.TRUNCATED)
        return
    if not ip.is_version_6(memory, at):
        _drop(frame, Reason.BAD_HEADER)
        return
    size = ipv6.size_of(memory, at)
    if size > room:
        _drop(frame, Reason.TRUNCATED)
        return
    frame.family = 6
    frame.ip = at
    frame.packet_size = size
    frame.length = ethernet.HEADER_SIZE + size
    destination = ip.destination_of(memory, at)
    if ip.is_ipv4(destination):  # what looks like IPv4 would be taken for it
        _drop(frame, Reason.MARTIAN)
        return
    set_ends(tables, frame, ip.source_of(memory, at), destination)
    frame.protocol, frame.transport, fragment = ipv6.find_transport(memory, at, at + size)
    if frame.protocol == ipv6.ICMP and fragment == 0 and discovery.receive(tables, memory, frame):
        return
    if is_multicast or (destination[0] >> 56) & 0xFF == _MULTICAST_IPV6:
        frame.reason = Reason.OTHER_HOST
        return
    if not _may_send_ipv6(source_of(frame)):  # the director's own may be: Linux does not mind
        _drop(frame, Reason.MARTIAN)
        return
    if fragment:
        found = frame.transport
        frame.transport = fragment + ipv6.FRAGMENT_SIZE
        if fragments.is_truncated(memory, frame):
            frame.transport = found
            fragment = 0
    has_options = load_u8(memory, at + ipv6.NEXT_HEADER) == ipv6.HOP_BY_HOP
    if (has_options or fragment or tables.director[0].mark_rule_count) and not _parse_unusual(
        tables, memory, frame, has_options, fragment != 0, now_ms
    ):
        return
    if frame.protocol == ipv6.ICMP:
        _parse_icmp(tables, memory, frame)
    else:
        _parse_transport(tables, memory, frame)


@compiled
def _may_send_ipv6(source):
    """Whether an IPv6 address can be a sender's: not multicast, nor of ``::/96``."""
    return (source[0] >> 56) & 0xFF != _MULTICAST_IPV6 and not ip.is_ipv4(source)


@compiled
def _may_send(source):
    """Whether an address can be a sender's (RFC 1812, section 5.3.7; net/ipv4/route.c)."""
    network = source >> 24
    if network < _MULTICAST_BEGIN:
        return network != 0 and network != _LOOPBACK
    return network >= _CLASS_E_BEGIN and source != _LIMITED_BROADCAST


@apart
def _parse_unusual(tables, memory, frame, has_options, is_fragment, now_ms):
    """Look after mark, options and fragments; return whether to go on with the frame."""
    if tables.director[0].mark_rule_count and not (is_fragment and frame.family == 6):
        _mark(tables, memory, frame)
    frame.delivery = paths.delivery_of(tables, destination_of(frame), frame.mark)
    if (has_options or is_fragment) and not _is_directors(tables, frame):
        frame.reason = Reason.NOT_OURS  # the host looks after them itself
        return False
    if has_options:
        if frame.family == 6:
            bad = extensions.receive(memory, frame)
        else:
            bad = options.receive(tables, memory, frame, now_ms)
        if bad == options.SOURCE_ROUTED:
            _drop(frame, Reason.OPTIONS)
            return False
        if bad != options.WELL_FORMED:
            _drop(frame, Reason.BAD_OPTIONS)
            frame.server = bad
            return False
    if not is_fragment:
        return True
    if frame.family == 4:
        return _gather(tables, memory, frame, now_ms)
    if not fragments.receive(tables, memory, frame, now_ms):
        return False
    if tables.director[0].mark_rule_count:  # which see the whole packet
        _mark(tables, memory, frame)
        frame.delivery = paths.delivery_of(tables, destination_of(frame), frame.mark)
    return True


@compiled
def _mark(tables, memory, frame):
    """Give the packet its firewall mark."""
    port = _NO_PORT
    later = frame.family == 4 and load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET
    if not later and frame.packet_size >= frame.transport - frame.ip + 4:
        port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
    source, destination = source_of(frame), destination_of(frame)
    frame.mark = marks.mark_of(tables, frame.family, frame.protocol, source, destination, port)


@compiled
def _is_directors(tables, frame):
    """Whether no host stack sees the frame as well: it is a VIP's, or claimed from a server."""
    director = tables.director[0]
    if director.hosted or paths.own_row(tables, destination_of(frame)) != NONE:
        return True
    if frame.mark and director.mark_count:
        return True
    if frame.family == 6 and director.mark_count and director.mark_rule_count:
        return True  # a fragment's mark is not known yet
    if spans.is_within(tables, destination_of(frame)):
        return True  # the host does not see its fragments
    return frame.delivery & LOCAL_DELIVERY == 0 and servers.is_sender(tables, source_of(frame))


@compiled
def _gather(tables, memory, frame, now_ms):
    """Return whether the frame is now a whole packet, or is to go on as a fragment."""
    if frame.delivery & LOCAL_DELIVERY or spans.is_within(tables, destination_of(frame)):
        return fragments.receive(tables, memory, frame, now_ms)
    tracked = frame.protocol == ipv4.ICMP or (
        transport.header_size_min(frame.protocol) != transport.UNTRACKED
    )
    if not tracked or not services.has_any(tables, 4):
        frame.reason = Reason.NOT_OURS
        return False
    # A router looks at each fragment before it is put together with the others.
    if load_u8(memory, frame.ip + ipv4.TTL) <= 1:
        _drop(frame, Reason.TIME_EXCEEDED)
        return False
    destination = destination_of(frame)
    path = paths.find(tables, destination)
    if path == NONE:
        _drop(frame, Reason.NO_ROUTE)
        return False
    df = load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT
    if df and frame.packet_size > paths.router_mtu(tables, path, destination, now_ms):
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
    if _is_relatable(frame.family, load_u8(memory, frame.transport + icmp.TYPE)):
        frame.delivery = frame.delivery or paths.delivery_of(
            tables, destination_of(frame), frame.mark
        )
        quoted = related.read_quote(tables, memory, frame)
        if quoted == related.FLOW:
            frame.verdict = Verdict.MATCH
        elif quoted == related.PORTLESS and _schedules_errors(tables, frame.family):
            _drop(frame, Reason.TRUNCATED)


@compiled
def _is_relatable(family, type_):
    """Whether IPVS relates this type of ICMP to the connection it quotes; of ICMPv6: any error."""
    if family == 6:
        return type_ < icmp.V6_INFORMATION_BEGIN
    return icmp.is_relatable(type_)


@compiled
def _schedules_errors(tables, family):
    """Whether an error about no connection would open one, and must be able to."""
    return tables.director[0].schedule_icmp and services.has_any(tables, family)


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
    delivery = paths.delivery_of(tables, destination_of(frame), frame.mark)
    if delivery == LOCAL_DELIVERY and services.has_any(tables, frame.family):
        _drop(frame, Reason.TRUNCATED)
    else:
        frame.reason = Reason.NOT_OURS
