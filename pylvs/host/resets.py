"""The reset that a closed TCP port answers with (RFC 9293, section 3.10.7.1).

As Linux sends it: identification 0, DF, TTL or hop limit 64, the TOS or traffic class of what it
answers less ECN, window 0, no TCP options.
"""

from typing import Final

from pylvs.forwarding import born
from pylvs.forwarding.transmit import discard
from pylvs.frames import NONE, Reason
from pylvs.host import limits, options
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.tables.addresses import set_ends
from pylvs.wire import ethernet, ip, ipv4, ipv6, transport
from pylvs.wire.memory import load_u8, load_u32, store_u16, store_u32

_DATA_OFFSET_FLAGS: Final = 0x5000
_SIZE: Final = ipv4.HEADER_SIZE + transport.TCP_HEADER_SIZE
_SIZE_MAX: Final = _SIZE + 40  # of options
_ECN: Final = 3


@apart
def new_reset(tables, memory, frames, count, frame, now_ms):
    """Return the row of a reset that refuses the frame's segment, or ``NONE``.

    A reset itself is never answered.  The caller sends it.
    """
    if frame.signal & transport.RST:
        return NONE
    source, destination = ip.destination_of(memory, frame.ip), ip.source_of(memory, frame.ip)
    if not paths.may_be_source(tables, source, frame.mark):
        return NONE
    if not limits.allows(tables, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return NONE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + _SIZE_MAX, frame.family)
    if row == NONE:
        return NONE
    reset = frames[row]
    reset.reason = Reason.RESET_SENT
    reset.ip = reset.offset + ethernet.HEADER_SIZE
    tos = ip.traffic_class(memory, frame.ip) & ~_ECN
    header = ipv6.HEADER_SIZE
    if frame.family == 6:
        size, hops = header + transport.TCP_HEADER_SIZE, ipv6.HOPS_DEFAULT
        ipv6.write(memory, reset.ip, tos, size, ipv4.TCP, hops, source, destination)
    else:
        header = _write_ipv4(
            tables, memory, frame, reset.ip, tos, source[1], destination[1], now_ms
        )
    if header == options.IMPOSSIBLE:
        discard(reset, Reason.RATE_LIMITED)
        return NONE
    reset.transport = reset.ip + header
    _write_tcp(memory, reset.ip, reset.transport, frame)
    reset.packet_size = header + transport.TCP_HEADER_SIZE
    reset.length = ethernet.HEADER_SIZE + reset.packet_size
    reset.protocol = ipv4.TCP
    set_ends(tables, reset, source, destination)
    reset.source_port = frame.destination_port
    reset.destination_port = frame.source_port
    reset.signal = load_u8(memory, reset.transport + transport.FLAGS)
    return row


@compiled
def _write_ipv4(tables, memory, frame, at, tos, source, destination, now_ms):
    """Write the header; return its size, or ``IMPOSSIBLE``: its options would not fit."""
    optional = options.echo(tables, memory, frame, at + ipv4.HEADER_SIZE, source, now_ms)
    if optional == options.IMPOSSIBLE:
        return options.IMPOSSIBLE
    df, ttl = ipv4.DONT_FRAGMENT, ipv4.TTL_DEFAULT
    ipv4.write(memory, at, tos, _SIZE, 0, df, ttl, ipv4.TCP, source, destination)
    if optional:
        ipv4.add_options(memory, at, optional)
    return ipv4.HEADER_SIZE + optional


@compiled
def _write_tcp(memory, ip, tcp, frame):
    store_u16(memory, tcp + transport.SOURCE_PORT, frame.destination_port)
    store_u16(memory, tcp + transport.DESTINATION_PORT, frame.source_port)
    if frame.signal & transport.ACK:
        sequence = load_u32(memory, frame.transport + transport.ACKNOWLEDGMENT)
        acknowledgment = 0
        flags = transport.RST
    else:
        sequence = 0
        acknowledgment = _end_of(memory, frame)
        flags = transport.RST | transport.ACK
    store_u32(memory, tcp + transport.SEQUENCE, sequence)
    store_u32(memory, tcp + transport.ACKNOWLEDGMENT, acknowledgment)
    store_u16(memory, tcp + transport.DATA_OFFSET, _DATA_OFFSET_FLAGS | flags)
    store_u16(memory, tcp + transport.WINDOW, 0)
    store_u32(memory, tcp + transport.TCP_CHECKSUM, 0)  # the urgent pointer too
    result = transport.full_checksum(memory, ip, tcp, ipv4.TCP, transport.TCP_HEADER_SIZE)
    store_u16(memory, tcp + transport.TCP_CHECKSUM, result)


@compiled
def _end_of(memory, frame):
    """Return the sequence number after the segment; SYN and FIN each count as one byte."""
    header = transport.tcp_header_size(memory, frame.transport)
    size = frame.packet_size - (frame.transport - frame.ip) - header
    if frame.signal & transport.SYN:
        size += 1
    if frame.signal & transport.FIN:
        size += 1
    return (load_u32(memory, frame.transport + transport.SEQUENCE) + size) & 0xFFFF_FFFF
