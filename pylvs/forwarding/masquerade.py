"""NAT (``-m``): requests leave for the server's address and port, replies from the VIP's.

Checksums are mended by what changed (RFC 1624), so a wrong one stays wrong by the same amount and
nothing is verified, as in Linux.  A UDP datagram without a checksum is given one.  SCTP's covers no
addresses: only a new port has it computed anew.  An unfinished checksum holds the sum of its
pseudo-header alone: addresses change it, ports do not.
"""

from numpy import int64

from pylvs.frames import SHORT
from pylvs.jit import apart, compiled
from pylvs.tables import connections
from pylvs.wire import checksum, ip, ipv4, ipv6, transport
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
def translate_request(tables, memory, frame, entry):
    """Rewrite VIP:vport to RIP:rport."""
    redirect_to(tables, memory, frame, entry, int64(entry.server_port))


@compiled
def redirect_to(tables, memory, frame, entry, port):
    """Rewrite VIP to RIP, and the port to another."""
    difference = redirect(tables, memory, frame, entry)
    replace_port(memory, frame, transport.DESTINATION_PORT, port, difference)


@compiled
def redirect(tables, memory, frame, entry):
    """Rewrite VIP to RIP in the IP header; return the difference it makes to checksums."""
    if frame.family == 4:
        return replace_ipv4(memory, frame.ip, ipv4.DESTINATION, int64(entry.server_address))
    wide = connections.server_of(tables, frame.connection)
    return replace_ipv6(memory, frame.ip + ipv6.DESTINATION, wide)


@compiled
def translate_reply(tables, memory, frame, entry):
    """Rewrite RIP:rport to VIP:vport."""
    port_field, port = transport.SOURCE_PORT, int64(entry.virtual_port)
    if frame.family == 4:
        address = int64(entry.virtual_address)
        difference = replace_ipv4(memory, frame.ip, ipv4.SOURCE, address)
    else:
        wide = connections.virtual_of(tables, frame.connection)
        difference = replace_ipv6(memory, frame.ip + ipv6.SOURCE, wide)
    replace_port(memory, frame, port_field, port, difference)


@compiled
def replace_ipv4(memory, header, field, address):
    """Write an address into an IPv4 header; return the difference it makes to checksums."""
    difference = difference_u32(load_u32(memory, header + field), address)
    store_u32(memory, header + field, address)
    header_sum = load_u16(memory, header + ipv4.CHECKSUM)
    store_u16(memory, header + ipv4.CHECKSUM, adjust(header_sum, difference))
    return difference


@compiled
def replace_ipv6(memory, at, address):
    """Write an address into an IPv6 header likewise."""
    difference = ip.difference(ip.load_wide(memory, at), address)
    ip.store_wide(memory, at, address)
    return difference


@compiled
def replace_port(memory, frame, port_field, port, difference):
    """Write a port, and mend the checksum for it and for the address."""
    header = frame.transport
    old_port = load_u16(memory, header + port_field)
    store_u16(memory, header + port_field, port)
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
    crc = ~checksum.add_crc32c(memory, header, size, checksum.CRC32C_BEGIN) & 0xFFFF_FFFF
    for i in range(4):
        memory[header + transport.SCTP_CHECKSUM + i] = (crc >> 8 * i) & 0xFF
