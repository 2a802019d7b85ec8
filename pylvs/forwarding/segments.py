"""What offloads left undone and a tunnel must do: finish a checksum, cut a GSO frame.

A sender's TCP hands its driver one frame of up to 64 KB and lets the hardware cut it and fill in
the checksums.  On veth and virtio that frame reaches the director uncut.  NAT and DR hand it on as
it is; inside a tunnel the hardware could not find the headers, so the director does the work.
"""

from typing import Final

from pylvs.forwarding import born
from pylvs.frames import Reason
from pylvs.jit import compiled
from pylvs.wire import ethernet, ip, ipv4, transport
from pylvs.wire.checksum import add, fold
from pylvs.wire.memory import copy, load_u8, load_u16, load_u32, store_u16, store_u32

GSO_NONE: Final = 0  # linux/virtio_net.h, VIRTIO_NET_HDR_GSO_*
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80


@compiled
def finish_checksum(memory, frame):
    """Compute what the sender left to its hardware: everything from ``checksum_start`` on."""
    if not frame.checksum_start:
        return
    start = frame.offset + frame.checksum_start
    size = frame.ip + frame.packet_size - start
    result = ~fold(add(memory, start, size, 0)) & 0xFFFF
    if result == 0 and frame.protocol == ipv4.UDP:
        result = 0xFFFF
    store_u16(memory, start + frame.checksum_field, result)
    frame.checksum_start = 0


@compiled
def headers_size(memory, frame):
    """Return the bytes of Ethernet, IP and transport headers in front of the payload."""
    if frame.protocol == ipv4.TCP:
        size = transport.tcp_header_size(memory, frame.transport)
    else:
        size = transport.UDP_HEADER_SIZE
    return frame.transport - frame.offset + size


@compiled
def largest_packet(memory, frame):
    """Return the size of the largest IP packet the frame stands for."""
    if frame.segment_kind == GSO_NONE:
        return frame.packet_size
    whole = headers_size(memory, frame) - (frame.ip - frame.offset) + frame.segment_size
    return min(whole, frame.packet_size)


@compiled
def can_cut(memory, frame):
    kind = frame.segment_kind & ~GSO_ECN
    if frame.segment_size <= 0 or headers_size(memory, frame) >= frame.length:
        return False
    if frame.protocol == ipv4.TCP:
        return kind == (GSO_TCPV4 if frame.family == 4 else GSO_TCPV6)
    return kind == GSO_UDP_L4


@compiled
def cut(tables, memory, frames, count, frame):
    """Cut a GSO frame into whole packets, born in scratch; return whether there was room for all.

    The segments follow ``frames[count + director.born]`` in order.  They have no Ethernet addresses
    yet, and ``HEADROOM`` in front for a tunnel's header.
    """
    header = headers_size(memory, frame)
    payload = frame.length - header
    pieces = (payload + frame.segment_size - 1) // frame.segment_size
    if not born.has_room(tables, frames, count, pieces, header + frame.segment_size):
        return False
    for piece in range(pieces):
        size = min(frame.segment_size, payload - piece * frame.segment_size)
        row = born.new(tables, frames, count, header + size, frame.family)
        segment = frames[row]
        body = frame.offset + header + piece * frame.segment_size
        copy(memory, segment.offset, frame.offset, header)
        copy(memory, segment.offset + header, body, size)
        segment.port_in = frame.port_in
        segment.connection = frame.connection
        segment.protocol = frame.protocol
        segment.ip = segment.offset + (frame.ip - frame.offset)
        segment.transport = segment.offset + (frame.transport - frame.offset)
        segment.packet_size = segment.length - ethernet.HEADER_SIZE
        segment.reason = Reason.SEGMENTED
        _write_headers(memory, segment, piece, piece * frame.segment_size, piece == pieces - 1)
    return True


@compiled
def _write_headers(memory, segment, piece, sent, is_last):
    """Make the copied headers those of one segment, as a network card would."""
    header = segment.transport
    ip.set_size(memory, segment.ip, segment.packet_size)
    if segment.family == 4:
        identification = load_u16(memory, segment.ip + ipv4.IDENTIFICATION) + piece
        store_u16(memory, segment.ip + ipv4.IDENTIFICATION, identification & 0xFFFF)
        ipv4.mend_checksum(memory, segment.ip)
    size = segment.packet_size - (header - segment.ip)
    if segment.protocol == ipv4.TCP:
        sequence = load_u32(memory, header + transport.SEQUENCE) + sent
        store_u32(memory, header + transport.SEQUENCE, sequence & 0xFFFF_FFFF)
        flags = load_u8(memory, header + transport.FLAGS)
        if piece:
            flags &= ~transport.CWR
        if not is_last:
            flags &= ~(transport.FIN | transport.PSH)
        memory[header + transport.FLAGS] = flags & 0xFF
    else:
        store_u16(memory, header + transport.UDP_LENGTH, size)
    field = header + transport.checksum_field(segment.protocol)
    store_u16(memory, field, 0)
    result = transport.full_checksum(memory, segment.ip, header, segment.protocol, size)
    store_u16(memory, field, result)
