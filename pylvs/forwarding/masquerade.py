"""NAT (``-m``): requests leave for the server's address and port, replies from the VIP's.

Checksums are mended by what changed (RFC 1624), so a wrong one stays wrong by the same amount and
nothing is verified, as in Linux.  A UDP datagram without a checksum is given one.  SCTP's covers no
addresses: only a new port has it computed anew.  An unfinished checksum holds the sum of its
pseudo-header alone: addresses change it, ports do not.
"""

from numpy import int64

from pylvs.frames import SHORT
from pylvs.jit import apart, compiled
from pylvs.wire import crc32c, ipv4, transport
from pylvs.wire.checksum import adjust, adjust_partial, difference_u16, difference_u32
from pylvs.wire.memory import load_u16, load_u32, store_u16, store_u32


@compiled
def is_impossible(frame):
    """Whether there is not enough of a transport header to translate."""
    if frame.signal != SHORT:
        return False
    size = frame.packet_size - (frame.transport - frame.ip)
    return frame.protocol != ipv4.SCTP or size < transport.SCTP_HEADER_SIZE


@compiled
def translate_request(memory, frame, entry):
    """Rewrite VIP:vport to RIP:rport."""
    _translate(
        memory,
        frame,
        ipv4.DESTINATION,
        transport.DESTINATION_PORT,
        int64(entry.server_address),
        int64(entry.server_port),
    )


@compiled
def translate_reply(memory, frame, entry):
    """Rewrite RIP:rport to VIP:vport."""
    _translate(
        memory,
        frame,
        ipv4.SOURCE,
        transport.SOURCE_PORT,
        int64(entry.virtual_address),
        int64(entry.virtual_port),
    )


@compiled
def _translate(memory, frame, address_field, port_field, address, port):
    ip, header = frame.ip, frame.transport
    old_address = load_u32(memory, ip + address_field)
    old_port = load_u16(memory, header + port_field)
    store_u32(memory, ip + address_field, address)
    store_u16(memory, header + port_field, port)
    header_sum = load_u16(memory, ip + ipv4.CHECKSUM)
    difference = difference_u32(old_address, address)
    store_u16(memory, ip + ipv4.CHECKSUM, adjust(header_sum, difference))

    protocol = frame.protocol
    if protocol == ipv4.SCTP:
        if port != old_port:
            _mend_sctp(memory, frame)
        return
    field = header + transport.checksum_field(protocol)
    old = load_u16(memory, field)
    if frame.checksum_start:
        new = adjust_partial(old, difference)
    else:
        new = adjust(old, difference + difference_u16(old_port, port))
        if protocol == ipv4.UDP:
            new = _mend_udp(memory, frame, old, new)
    store_u16(memory, field, new)


@compiled
def _mend_udp(memory, frame, old, new):
    """Return the checksum a datagram is to have: zero would mean that there is none."""
    if old == 0:
        size = frame.packet_size - (frame.transport - frame.ip)
        new = transport.full_checksum(memory, frame.ip, frame.transport, ipv4.UDP, size)
    return new if new else 0xFFFF


@apart
def _mend_sctp(memory, frame):
    """Compute the CRC of the whole SCTP packet anew; it stands in the packet low byte first."""
    header = frame.transport
    store_u32(memory, header + transport.SCTP_CHECKSUM, 0)
    size = frame.packet_size - (header - frame.ip)
    crc = ~crc32c.add(memory, header, size, crc32c.BEGIN) & 0xFFFF_FFFF
    for i in range(4):
        memory[header + transport.SCTP_CHECKSUM + i] = (crc >> 8 * i) & 0xFF
