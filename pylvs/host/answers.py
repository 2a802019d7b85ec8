"""What a host says to packets nobody on it waits for (net/ipv4: icmp.c, tcp_ipv4.c, udp.c).

    ping -> reply        timestamp request -> reply        closed TCP port -> reset
    closed UDP port -> ICMP 3/3        a protocol nobody speaks -> ICMP 3/2

A wrong checksum, or anything else to be wary of, gets silence.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import NONE, Reason
from pylvs.host.errors import send_error
from pylvs.host.resets import new_reset
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.wire import checksum, icmp, ipv4, transport
from pylvs.wire.memory import load_u8, load_u16, load_u32, store_u32

_DAY_MS: Final = 86_400_000
SILENT: Final = NONE


@apart
def answer(tables, memory, frames, count, frame, now_ms):
    """Answer a packet addressed to the director itself; return the row of a reset, to be sent.

    Any other answer has been sent.
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
        if not _is_sound(memory, frame, protocol):
            discard(frame, Reason.BAD_CHECKSUM)
            return SILENT
        code = icmp.PORT_UNREACHABLE
    discard(frame, Reason.CLOSED)
    if protocol == ipv4.TCP:
        return int64(new_reset(tables, memory, frames, count, frame, now_ms))
    type_, detail = icmp.UNREACHABLE, icmp.NO_DETAIL
    send_error(tables, memory, frames, count, frame, type_, code, detail, now_ms)
    return SILENT


@compiled
def _is_sound(memory, frame, protocol):
    """Whether checksum and length are right, as far as its sender's hardware was to see to them."""
    size = frame.packet_size - (frame.transport - frame.ip)
    if protocol == ipv4.UDP:
        claimed = load_u16(memory, frame.transport + transport.UDP_LENGTH)
        if claimed < transport.UDP_HEADER_SIZE or claimed > size:
            return False
        size = claimed
        if load_u16(memory, frame.transport + transport.UDP_CHECKSUM) == 0:
            return True
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
    if frame.transport - frame.ip != ipv4.HEADER_SIZE:
        return
    if type_ == icmp.ECHO:
        _reply(tables, memory, frames, count, frame, icmp.ECHO_REPLY, Reason.ECHO, now_ms)
    elif type_ == icmp.TIMESTAMP and size >= icmp.TIMESTAMP_SIZE:
        time = (now_ms + tables.director[0].midnight_ms) % _DAY_MS
        store_u32(memory, frame.transport + 12, time)
        store_u32(memory, frame.transport + 16, time)
        type_ = icmp.TIMESTAMP_REPLY
        _reply(tables, memory, frames, count, frame, type_, Reason.TIMESTAMP, now_ms)


@compiled
def _reply(tables, memory, frames, count, frame, type_, reason, now_ms):
    """Turn the request into its reply and send it back; the data and the TOS are kept."""
    director = tables.director[0]
    director.identification += 1
    size = frame.packet_size - (frame.transport - frame.ip)
    rest = load_u32(memory, frame.transport + icmp.REST)
    icmp.write(memory, frame.transport, type_, 0, rest, size)
    tos = load_u8(memory, frame.ip + ipv4.TOS)
    sender = frame.source
    identification = director.identification & 0xFFFF
    ipv4.write(
        memory,
        frame.ip,
        tos,
        frame.packet_size,
        identification,
        0,
        ipv4.TTL_DEFAULT,
        ipv4.ICMP,
        frame.destination,
        sender,
    )
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
