"""The reset that a closed TCP port answers with (RFC 9293, section 3.10.7.1).

As Linux sends it: identification 0, DF, TTL 64, the TOS of what it answers, window 0, no TCP
options.
"""

from typing import Final

from pylvs.forwarding import born
from pylvs.forwarding.transmit import discard
from pylvs.frames import NONE, Reason
from pylvs.host import limits, options
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.wire import ethernet, ipv4, transport
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
    if not paths.may_be_source(tables, frame.destination, frame.mark):
        return NONE
    if not limits.allows(tables, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return NONE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + _SIZE_MAX)
    if row == NONE:
        return NONE
    reset = frames[row]
    reset.reason = Reason.RESET_SENT
    ip = reset.offset + ethernet.HEADER_SIZE
    source = load_u32(memory, frame.ip + ipv4.DESTINATION)
    optional = options.echo(tables, memory, frame, ip + ipv4.HEADER_SIZE, source, now_ms)
    if optional == options.IMPOSSIBLE:
        discard(reset, Reason.RATE_LIMITED)
        return NONE
    tos = load_u8(memory, frame.ip + ipv4.TOS) & ~_ECN
    destination = frame.source
    fragment = ipv4.DONT_FRAGMENT
    tcp = ip + ipv4.HEADER_SIZE + optional
    ipv4.write(memory, ip, tos, _SIZE, 0, fragment, ipv4.TTL_DEFAULT, ipv4.TCP, source, destination)
    if optional:
        ipv4.add_options(memory, ip, optional)
    _write_tcp(memory, ip, tcp, frame)
    reset.ip = ip
    reset.transport = tcp
    reset.packet_size = _SIZE + optional
    reset.length = ethernet.HEADER_SIZE + reset.packet_size
    reset.protocol = ipv4.TCP
    reset.source = source
    reset.destination = destination
    reset.source_port = frame.destination_port
    reset.destination_port = frame.source_port
    reset.signal = load_u8(memory, tcp + transport.FLAGS)
    return row


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
