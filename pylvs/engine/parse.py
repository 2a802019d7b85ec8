"""Stage one: what each frame is.

    memory -> frame.{family, protocol, source, destination, ports, ip, transport, packet_size}

After this stage every frame has a verdict: MATCH for whole IPv4 TCP and UDP, and the final word for
everything else.
"""

from typing import Final

from pylvs.frames import INPUT, NONE, Reason, Verdict
from pylvs.host import arp, echo
from pylvs.jit import compiled
from pylvs.wire import checksum, ethernet, icmp, ipv4, transport
from pylvs.wire.memory import load_u8, load_u16, load_u32, load_u48

_LOOPBACK: Final = 127
_MULTICAST_BEGIN: Final = 224
_CLASS_E_BEGIN: Final = 240
_LIMITED_BROADCAST: Final = 0xFFFF_FFFF


@compiled
def parse(tables, memory, frames, count, now_ms):
    """Read every frame's headers."""
    for row in range(count):
        frame = frames[row]
        frame.connection = NONE
        frame.service = NONE
        frame.server = NONE
        frame.direction = INPUT
        frame.family = 0
        frame.verdict = Verdict.PASS
        _parse_frame(tables, memory, frame, now_ms)


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
    if checksum.of_header(memory, ip, header) != 0:
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
    if not _may_send(frame.source):
        _drop(frame, Reason.MARTIAN)
    elif header > ipv4.HEADER_SIZE and ipv4.is_source_routed(memory, ip):
        _drop(frame, Reason.OPTIONS)
    elif ipv4.is_fragment(memory, ip):
        frame.reason = Reason.FRAGMENT
        if arp.own_row(tables, frame.destination) != NONE:
            frame.verdict = Verdict.DROP
    elif frame.protocol == ipv4.ICMP:
        _parse_icmp(tables, memory, frame, now_ms)
    else:
        _parse_transport(memory, frame)


@compiled
def _may_send(source):
    """Whether an address can be a sender's (RFC 1812, section 5.3.7; net/ipv4/route.c)."""
    network = source >> 24
    if network == 0 or network == _LOOPBACK or source == _LIMITED_BROADCAST:
        return False
    return network < _MULTICAST_BEGIN or network >= _CLASS_E_BEGIN


@compiled
def _parse_icmp(tables, memory, frame, now_ms):
    """Answer a ping to a VIP of our own; other ICMP is the host's, but for errors to VIPs."""
    frame.reason = Reason.NOT_OURS
    row = arp.own_row(tables, frame.destination)
    if row == NONE:
        return
    if echo.is_echo(memory, frame):
        if tables.own[row].answers_ping:
            echo.answer(tables, memory, frame, now_ms)
    elif frame.packet_size >= frame.transport - frame.ip + icmp.HEADER_SIZE and icmp.is_error(
        load_u8(memory, frame.transport + icmp.TYPE)
    ):
        _drop(frame, Reason.ICMP_ERROR)


@compiled
def _parse_transport(memory, frame):
    size = frame.packet_size - (frame.transport - frame.ip)
    least = transport.header_size_min(frame.protocol)
    if least == transport.UNTRACKED:
        frame.reason = Reason.NOT_OURS
        return
    if size < least:
        _drop(frame, Reason.TRUNCATED)
        return
    frame.source_port = load_u16(memory, frame.transport + transport.SOURCE_PORT)
    frame.destination_port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
    frame.tcp_flags = 0
    if frame.protocol == ipv4.TCP:
        frame.tcp_flags = load_u8(memory, frame.transport + transport.FLAGS)
        if transport.tcp_header_size(memory, frame.transport) > size:
            _drop(frame, Reason.TRUNCATED)
            return
    frame.verdict = Verdict.MATCH
