"""What a host says to packets nobody on it waits for (net/ipv4: icmp.c, tcp_ipv4.c, udp.c).

    ping -> reply        timestamp request -> reply        closed TCP port -> reset
    closed UDP port -> ICMP 3/3, ICMPv6 1/4        a protocol nobody speaks -> 3/2, 4/1

A wrong checksum, or anything else to be wary of, gets silence.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import NONE, Reason
from pylvs.host import extensions, options
from pylvs.host.errors import compose_from_own
from pylvs.host.resets import new_reset
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.wire import checksum, ethernet, icmp, ip, ipv4, ipv6, transport
from pylvs.wire.memory import copy, load_u8, load_u16, load_u32, store_u32

_OPTIONS_MAX: Final = 40
SILENT: Final = NONE


@apart
def answer(tables, memory, frames, count, frame, now_ms):
    """Answer a packet addressed to the director itself; return the row of a refusal, to be sent.

    A reset or an ICMP error, that is; any other answer has been sent.
    """
    if frame.family == 6 and frame.transport - frame.ip > ipv6.HEADER_SIZE:
        bad, code = extensions.accept(memory, frame)
        if bad != extensions.WELL_FORMED:
            discard(frame, Reason.BAD_OPTIONS)
            if bad == extensions.DROPPED:
                return SILENT
            kind = icmp.PARAMETER_PROBLEM
            return int64(
                compose_from_own(tables, memory, frames, count, frame, kind, code, bad, now_ms)
            )
        _, _, fragment = ipv6.find_transport(memory, frame.ip, frame.transport)
        if fragment:  # a first one that lacks some of its transport header: RFC 8200, 4.5
            discard(frame, Reason.TRUNCATED)
            kind, code = icmp.PARAMETER_PROBLEM, icmp.V6_INCOMPLETE
            return int64(
                compose_from_own(tables, memory, frames, count, frame, kind, code, 0, now_ms)
            )
    protocol = _protocol_of(memory, frame)
    if protocol == ipv4.ICMP and frame.family == 4:
        _answer_icmp(tables, memory, frames, count, frame, now_ms)
        return SILENT
    if protocol == ipv6.ICMP and frame.family == 6:
        _answer_icmp_ipv6(tables, memory, frames, count, frame, now_ms)
        return SILENT
    if protocol == (ipv4.IGMP if frame.family == 4 else ipv6.NO_NEXT):
        discard(frame, Reason.DISCARDED)
        return SILENT
    code = icmp.PROTOCOL_UNREACHABLE
    if protocol == ipv4.TCP or protocol == ipv4.UDP:
        if not is_sound(memory, frame, protocol):
            discard(frame, Reason.BAD_CHECKSUM)
            return SILENT
        code = icmp.PORT_UNREACHABLE
    discard(frame, Reason.CLOSED)
    if protocol == ipv4.TCP:
        return int64(new_reset(tables, memory, frames, count, frame, now_ms))
    type_, detail = icmp.UNREACHABLE, icmp.NO_DETAIL
    if frame.family == 6 and code == icmp.PROTOCOL_UNREACHABLE:
        detail = _place_of_protocol(memory, frame)
    return int64(
        compose_from_own(tables, memory, frames, count, frame, type_, code, detail, now_ms)
    )


@compiled
def _protocol_of(memory, frame):
    """Return what the packet itself carries, whatever it quotes."""
    if frame.family == 4:
        return load_u8(memory, frame.ip + ipv4.PROTOCOL)
    protocol, _, _ = ipv6.find_transport(memory, frame.ip, frame.ip + frame.packet_size)
    return protocol


@compiled
def _place_of_protocol(memory, frame):
    """Return where in an IPv6 packet the byte stands that names its protocol."""
    at, tells = ipv6.find_fragmentable(memory, frame.ip, frame.ip + frame.packet_size)
    while tells < frame.transport and at < frame.transport:
        tells = at
        at += (load_u8(memory, at + 1) + 1) << 3
    return tells - frame.ip


@compiled
def is_sound(memory, frame, protocol):
    """Whether checksum and length are right, as far as its sender's hardware was to see to them."""
    size = frame.packet_size - (frame.transport - frame.ip)
    if size < transport.header_size_min(protocol):
        return False
    if protocol == ipv4.UDP:
        claimed = load_u16(memory, frame.transport + transport.UDP_LENGTH)
        if claimed < transport.UDP_HEADER_SIZE or claimed > size:
            return False
        size = claimed
        if load_u16(memory, frame.transport + transport.UDP_CHECKSUM) == 0:
            return frame.family == 4  # IPv6 asks for one (RFC 8200, section 8.1)
    if protocol == ipv4.TCP:
        header = transport.tcp_header_size(memory, frame.transport)
        if header < transport.TCP_HEADER_SIZE or header > size:
            return False
    if frame.checksum_start:
        return True
    total = transport.pseudo_header(memory, frame.ip, protocol, size)
    return checksum.fold(checksum.add(memory, frame.transport, size, total)) == 0xFFFF


@compiled
def _answer_icmp(tables, memory, frames, count, frame, now_ms):
    size = frame.packet_size - (frame.transport - frame.ip)
    discard(frame, Reason.DISCARDED)
    if size < icmp.HEADER_SIZE:
        return
    if checksum.fold(checksum.add(memory, frame.transport, size, 0)) != 0xFFFF:
        discard(frame, Reason.BAD_CHECKSUM)
        return
    type_ = load_u8(memory, frame.transport + icmp.TYPE)
    if type_ == icmp.ECHO:
        _reply(tables, memory, frames, count, frame, icmp.ECHO_REPLY, Reason.ECHO, now_ms)
    elif type_ == icmp.UNREACHABLE:
        _learn_mtu(tables, memory, frame, size, now_ms)
    elif type_ == icmp.TIMESTAMP and size >= icmp.TIMESTAMP_SIZE:
        time = options.time_of_day(tables, now_ms)
        store_u32(memory, frame.transport + 12, time)
        store_u32(memory, frame.transport + 16, time)
        type_ = icmp.TIMESTAMP_REPLY
        _reply(tables, memory, frames, count, frame, type_, Reason.TIMESTAMP, now_ms)


@apart
def _answer_icmp_ipv6(tables, memory, frames, count, frame, now_ms):
    size = frame.packet_size - (frame.transport - frame.ip)
    discard(frame, Reason.DISCARDED)
    if size < icmp.HEADER_SIZE:
        return
    total = transport.pseudo_header(memory, frame.ip, ipv6.ICMP, size)
    if checksum.fold(checksum.add(memory, frame.transport, size, total)) != 0xFFFF:
        discard(frame, Reason.BAD_CHECKSUM)
        return
    if load_u8(memory, frame.transport + icmp.TYPE) != icmp.V6_ECHO:
        return
    traffic = ip.traffic_class(memory, frame.ip)
    sender, source = ip.source_of(memory, frame.ip), ip.destination_of(memory, frame.ip)
    frame.ip = frame.transport - ipv6.HEADER_SIZE
    frame.offset = frame.ip - ethernet.HEADER_SIZE
    frame.packet_size = ipv6.HEADER_SIZE + size
    frame.length = ethernet.HEADER_SIZE + frame.packet_size
    hops = ipv6.HOPS_DEFAULT
    ipv6.write(memory, frame.ip, traffic, frame.packet_size, ipv6.ICMP, hops, source, sender)
    rest = load_u32(memory, frame.transport + icmp.REST)
    icmp.write_ipv6(memory, frame.ip, frame.transport, icmp.V6_ECHO_REPLY, 0, rest, size)
    frame.fragment_max = 0
    frame.checksum_start = 0
    frame.reason = Reason.ECHO
    send_to(tables, memory, frames, count, frame, sender, now_ms)


@compiled
def _learn_mtu(tables, memory, frame, size, now_ms):
    """Note the path MTU that an error about a UDP or ICMP packet of the director's own tells.

    Linux asks TCP for a connection first; for UDP it does not need one (measured).
    """
    code = load_u8(memory, frame.transport + icmp.CODE)
    quote = frame.transport + icmp.HEADER_SIZE
    if code != icmp.FRAGMENTATION_NEEDED or size < icmp.HEADER_SIZE + ipv4.HEADER_SIZE + 8:
        return
    protocol = load_u8(memory, quote + ipv4.PROTOCOL)
    if protocol == ipv4.UDP or protocol == ipv4.ICMP:
        mtu = load_u16(memory, frame.transport + icmp.REST + 2)
        paths.learn_mtu(tables, ip.destination_of(memory, quote), mtu, now_ms)


@compiled
def _reply(tables, memory, frames, count, frame, type_, reason, now_ms):
    """Turn the request into its reply and send it back; the data and the TOS are kept."""
    director = tables.director[0]
    director.identification += 1
    size = frame.packet_size - (frame.transport - frame.ip)
    rest = load_u32(memory, frame.transport + icmp.REST)
    icmp.write(memory, frame.transport, type_, 0, rest, size)
    tos = load_u8(memory, frame.ip + ipv4.TOS)
    sender, source = frame.source, frame.destination
    # The answer's options never need more room than the request's.
    optional = 0
    if frame.transport - frame.ip > ipv4.HEADER_SIZE:
        spare = director.scratch_begin + director.scratch_size - _OPTIONS_MAX
        optional = options.echo(tables, memory, frame, spare, source, now_ms)
        if optional == options.IMPOSSIBLE:
            discard(frame, Reason.DISCARDED)
            return
        copy(memory, frame.transport - optional, spare, optional)
    frame.ip = frame.transport - optional - ipv4.HEADER_SIZE
    frame.offset = frame.ip - ethernet.HEADER_SIZE
    frame.packet_size = ipv4.HEADER_SIZE + optional + size
    frame.length = ethernet.HEADER_SIZE + frame.packet_size
    identification = director.identification & 0xFFFF
    ipv4.write(
        memory,
        frame.ip,
        tos,
        frame.packet_size - optional,
        identification,
        0,
        ipv4.TTL_DEFAULT,
        ipv4.ICMP,
        source,
        sender,
    )
    if optional:
        ipv4.add_options(memory, frame.ip, optional)
    frame.fragment_max = 0
    frame.checksum_start = 0
    frame.reason = reason
    to = ip.from_ipv4(sender)
    send_to(tables, memory, frames, count, frame, to, now_ms)


@compiled
def is_ping_to_own(tables, memory, frame):
    """Whether the director answers though there is a host stack: a ping to its own VIP."""
    if frame.family == 0 or (frame.protocol != ipv4.ICMP and frame.protocol != ipv6.ICMP):
        return False
    row = paths.own_row(tables, ip.destination_of(memory, frame.ip))
    if row == NONE or not tables.own[row].answers_ping:
        return False
    size = frame.packet_size - (frame.transport - frame.ip)
    if size < icmp.HEADER_SIZE:
        return False
    type_ = load_u8(memory, frame.transport + icmp.TYPE)
    if frame.family == 6:
        return frame.protocol == ipv6.ICMP and type_ == icmp.V6_ECHO
    return frame.protocol == ipv4.ICMP and type_ == icmp.ECHO
