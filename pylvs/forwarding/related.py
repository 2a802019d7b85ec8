"""ICMP errors about connections (ip_vs_core.c, ip_vs_in_icmp, ip_vs_out_icmp, ip_vs_nat_icmp).

    | IP router -> VIP | ICMP | IP VIP -> client | vport, cport ... |        from the client's side
    | IP server -> client | ICMP | IP client -> RIP | cport, rport ... |     from the server's side

Of ICMPv6 all errors are related, and those about a tunnel of ours are not looked for (measured).

What is quoted went the other way, so a frame's flow is read from the quote with its ends swapped:
then the error is looked up like any packet.
"""

from typing import Final

from numpy import int64

from pylvs.frames import LOCAL_DELIVERY, NONE, RECORDS_ROUTE, STAMPED
from pylvs.jit import apart, compiled
from pylvs.tables import connections, servers
from pylvs.tables.addresses import set_ends
from pylvs.tables.layouts import GRE, GUE, IPIP
from pylvs.wire import checksum, gre, gue, icmp, ip, ipv4, ipv6, transport
from pylvs.wire.memory import load_u8, load_u16, store_u16

TUNNELED: Final = -2
"""In ``FRAME.server``: the quote is of a packet in a tunnel of ours, and not swapped."""

NOBODYS, PORTLESS, FLOW = range(3)


@apart
def read_quote(tables, memory, frame):
    """Fill the frame's flow from what it quotes; return FLOW, PORTLESS or NOBODYS."""
    quote = frame.transport + icmp.HEADER_SIZE
    end = frame.ip + frame.packet_size
    if frame.family == 6:
        return _read_quote_ipv6(tables, memory, frame, quote, end)
    if not _is_header(memory, quote, end):
        return NOBODYS
    if frame.delivery & LOCAL_DELIVERY:
        inner = _in_tunnel(tables, memory, quote, end)
        if inner != NONE:
            if not _is_header(memory, inner, end):
                return NOBODYS
            frame.server = TUNNELED
            quote = inner
    if not _may_have_ports(memory, quote):
        return NOBODYS
    if quote + ipv4.header_size(memory, quote) + transport.PORTS_SIZE > end:
        return PORTLESS
    frame.protocol = load_u8(memory, quote + ipv4.PROTOCOL)
    _take_flow(tables, memory, frame, quote, quote + ipv4.header_size(memory, quote))
    return FLOW


@compiled
def _take_flow(tables, memory, frame, quote, ports):
    """Fill the frame's flow from a quoted packet with ports, its ends swapped or not."""
    source, destination = ip.source_of(memory, quote), ip.destination_of(memory, quote)
    source_port = load_u16(memory, ports)
    destination_port = load_u16(memory, ports + 2)
    if frame.server == TUNNELED:
        set_ends(tables, frame, source, destination)
        frame.source_port, frame.destination_port = source_port, destination_port
    else:
        set_ends(tables, frame, destination, source)
        frame.source_port, frame.destination_port = destination_port, source_port
    frame.signal = 0
    frame.quotes = quote


@compiled
def _read_quote_ipv6(tables, memory, frame, quote, end):
    if quote + ipv6.HEADER_SIZE > end or not ip.is_version_6(memory, quote):
        return NOBODYS
    protocol, ports, _ = ipv6.find_transport(memory, quote, end)
    if transport.header_size_min(protocol) == transport.UNTRACKED:
        return NOBODYS
    if ports + transport.PORTS_SIZE > end:
        return PORTLESS
    frame.protocol = protocol
    _take_flow(tables, memory, frame, quote, ports)
    return FLOW


@compiled
def _is_header(memory, at, end):
    """Whether an IPv4 header lies here, with its options or not all of them."""
    if at + ipv4.HEADER_SIZE > end or load_u8(memory, at) >> 4 != 4:
        return False
    return ipv4.header_size(memory, at) >= ipv4.HEADER_SIZE


@compiled
def _may_have_ports(memory, at):
    if load_u16(memory, at + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET:
        return False
    protocol = load_u8(memory, at + ipv4.PROTOCOL)
    return transport.header_size_min(protocol) != transport.UNTRACKED


@compiled
def _in_tunnel(tables, memory, outer, end):
    """Return where the packet begins that a quoted tunnel of ours carries, or ``NONE``."""
    protocol = load_u8(memory, outer + ipv4.PROTOCOL)
    destination = ip.destination_of(memory, outer)
    body = outer + ipv4.header_size(memory, outer)
    if protocol == ipv4.IPIP:
        row = servers.find_tunnel(tables, destination, 0)
        return body if row != NONE and tables.servers[row].tunnel_type == IPIP else NONE
    if load_u16(memory, outer + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET:
        return NONE
    if protocol == ipv4.UDP and body + gue.SIZE <= end:
        port = load_u16(memory, body + transport.DESTINATION_PORT)
        row = servers.find_tunnel(tables, destination, port)
        if row != NONE and tables.servers[row].tunnel_type == GUE and gue.is_ipv4(memory, body):
            return body + gue.size_of(memory, body)
    elif protocol == ipv4.GRE and body + gre.SIZE <= end:
        row = servers.find_tunnel(tables, destination, 0)
        if row != NONE and tables.servers[row].tunnel_type == GRE and gre.is_ipv4(memory, body):
            return body + gre.size_of(memory, body)
    return NONE


@compiled
def is_sound(memory, frame):
    """Whether the ICMP message's checksum is right, and the packet's header as it was sent.

    Linux does not translate an error into whose options it has just written.
    """
    size = frame.packet_size - (frame.transport - frame.ip)
    if frame.family == 6:
        total = transport.pseudo_header(memory, frame.ip, ipv6.ICMP, size)
        return checksum.fold(checksum.add(memory, frame.transport, size, total)) == 0xFFFF
    if frame.delivery & (RECORDS_ROUTE | STAMPED):
        return False
    return checksum.fold(checksum.add(memory, frame.transport, size, 0)) == 0xFFFF


@compiled
def translate_in(tables, memory, frame, entry):
    """Send a client's side's error to the real server, as being about the server's own packet."""
    address = connections.server_of(tables, frame.connection)
    ip.set_destination(memory, frame.ip, address)
    ip.set_source(memory, frame.quotes, address)
    mend(memory, frame, 0, int64(entry.server_port))


@compiled
def translate_out(tables, memory, frame, entry):
    """Send a server's side's error to the client, as coming from and being about the VIP."""
    address = connections.virtual_of(tables, frame.connection)
    ip.set_source(memory, frame.ip, address)
    ip.set_destination(memory, frame.quotes, address)
    mend(memory, frame, 2, int64(entry.virtual_port))


@compiled
def mend(memory, frame, port_field, port):
    """Write the quoted port, and make every checksum right but the quoted transport's."""
    size = frame.packet_size - (frame.transport - frame.ip)
    if frame.family == 6:
        _, ports, _ = ipv6.find_transport(memory, frame.quotes, frame.ip + frame.packet_size)
        if (
            ports + transport.PORTS_SIZE <= frame.ip + frame.packet_size
        ):  # else the quote ends first
            store_u16(memory, ports + port_field, port)
        icmp.mend_ipv6(memory, frame.ip, frame.transport, size)
        return
    ipv4.mend_checksum(memory, frame.ip)
    ipv4.mend_checksum(memory, frame.quotes)
    ports = frame.quotes + ipv4.header_size(memory, frame.quotes)
    store_u16(memory, ports + port_field, port)
    store_u16(memory, frame.transport + icmp.CHECKSUM, 0)
    total = checksum.add(memory, frame.transport, size, 0)
    store_u16(memory, frame.transport + icmp.CHECKSUM, ~checksum.fold(total) & 0xFFFF)
