"""What a host says to packets nobody on it waits for (net/ipv4: icmp.c, tcp_ipv4.c, udp.c).

    ping -> reply        timestamp request -> reply        closed TCP port -> reset
    closed UDP port -> ICMP 3/3        a protocol nobody speaks -> ICMP 3/2

A wrong checksum, or anything else to be wary of, gets silence.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import NONE, Reason
from pylvs.host import options
from pylvs.host.errors import compose_from_own
from pylvs.host.resets import new_reset
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.wire import checksum, ethernet, icmp, ipv4, transport
from pylvs.wire.memory import copy, load_u8, load_u16, load_u32, store_u32

_OPTIONS_MAX: Final = 40
SILENT: Final = NONE


@apart
def answer(tables, memory, frames, count, frame, now_ms):
    """Answer a packet addressed to the director itself; return the row of a refusal, to be sent.

    A reset or an ICMP error, that is; any other answer has been sent.
    """
    protocol = load_u8(memory, frame.ip + ipv4.PROTOCOL)
    if protocol == ipv4.ICMP:
        _answer_icmp(tables, memory, frames, count, frame, now_ms)
        return SILENT
    if protocol == ipv4.IGMP:
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
    return int64(
        compose_from_own(tables, memory, frames, count, frame, type_, code, detail, now_ms)
    )


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
            return True
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
        paths.learn_mtu(tables, load_u32(memory, quote + ipv4.DESTINATION), mtu, now_ms)


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
    send_to(tables, memory, frames, count, frame, sender, now_ms)


@compiled
def is_ping_to_own(tables, memory, frame):
    """Whether the director answers though there is a host stack: a ping to its own VIP."""
    row = paths.own_row(tables, frame.destination)
    if row == NONE or not tables.own[row].answers_ping:
        return False
    if load_u8(memory, frame.ip + ipv4.PROTOCOL) != ipv4.ICMP:
        return False
    size = frame.packet_size - (frame.transport - frame.ip)
    return size >= icmp.HEADER_SIZE and load_u8(memory, frame.transport + icmp.TYPE) == icmp.ECHO
