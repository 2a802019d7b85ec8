"""What a packet became is what the next ones of its flow become: offered to the kernel.

    as it came    source, destination, ports, protocol                         -> the flow's key
    as it leaves  MACs, addresses, ports; by which interface, of which MTU     -> what becomes of it

Only what a program can repeat to the byte is offered: whole packets without options, of TCP that is
established or UDP, by NAT, direct routing or IPIP.  The rest of IPVS is in what is *not* offered,
and in what a program leaves to the director: SYN, FIN, RST, the last hop's TTL, what does not fit.
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE, Reason
from pylvs.jit import apart, compiled
from pylvs.tables import paths, states
from pylvs.tables.addresses import destination_of, source_of
from pylvs.tables.connections import flows
from pylvs.tables.layouts import (
    FLAG_HELPED,
    FLAG_LOCAL,
    FLAG_ONE_PACKET,
    FORWARDING_MASK,
    IPIP,
    MASQUERADE,
    ROUTE,
    TUNNEL,
)
from pylvs.tables.layouts.shared import SHUT
from pylvs.wire import checksum, ethernet, ip, ipv4, ipv6, transport
from pylvs.wire.checksum import difference_u16
from pylvs.wire.memory import copy_out, load_u16

AFTER: Final = 8
"""Requests of a connection before it is offered: most connections are over by then."""
_EXCLUDES: Final = FLAG_HELPED | FLAG_LOCAL | FLAG_ONE_PACKET
_SPECIAL: Final = transport.SYN | transport.FIN | transport.RST | transport.ACK


@apart
def offer(tables, memory, frame, now_ms):
    """Have the kernel forward what follows a frame that leaves, if it can."""
    is_reply = frame.reason == Reason.REPLIED
    if not is_reply and frame.reason != Reason.FORWARDED:
        return
    row = int64(frame.connection)
    entry = tables.connections[row]
    if entry.in_packets < AFTER or not _lasts(entry, frame):
        return
    server = tables.servers[entry.server]
    is_inside = not is_reply and int64(entry.conn_flags) & FORWARDING_MASK == TUNNEL
    inner = frame.ip + (int64(server.overhead) if is_inside else 0)
    family = 6 if ip.is_version_6(memory, inner) else 4
    if not _is_plain(frame, inner, family):
        return
    if is_inside and not _is_repeatable(tables, memory, server, inner, family):
        return
    if tables.ports[frame.port_out].interface == 0 or _is_narrow(tables, memory, frame, now_ms):
        return
    protocol = int64(frame.protocol)
    ports = int64(frame.source_port), int64(frame.destination_port)
    source, destination = source_of(frame), destination_of(frame)
    if is_inside:  # what the frame has of them is read as by the outer packet's version
        source, destination = ip.source_of(memory, inner), ip.destination_of(memory, inner)
    ends = flows.ends_of(ports[0], ports[1], protocol, family)
    found = flows.find(tables, source, destination, ends)
    if found != NONE:
        flow = tables.flows[found]
        is_trusted = flow.generation == flows.generation(tables)
        # A tunnel's is shut as well by frames that stand for many, and more of those will come.
        stays = flow.state != SHUT or flow.outer
        if flow.connection == row and is_trusted and stays:
            return
        flows.withdraw(tables, int64(flow.connection))
    at = flows.allocate(tables, source, destination, ends)
    if at == NONE:
        return
    flow = tables.flows[at]
    path = frame.path if is_reply else server.path
    flow.mtu = tables.paths[path].mtu - (inner - frame.ip)
    flow.interface = tables.ports[frame.port_out].interface
    flow.redirects = tables.ports[frame.port_out].redirects
    _describe(memory, frame, flow, family)
    if is_inside:
        flow.outer, flow.rewrites = frame.family, 0
    else:
        flow.outer = 0
        _compare(memory, frame, flow, source, destination)
    flows.enter(tables, at, row, is_reply, now_ms)


@compiled
def _lasts(entry, frame):
    """Whether the next packets of a connection are likely to be treated as this one was."""
    kind = int64(entry.conn_flags)
    method = kind & FORWARDING_MASK
    if kind & _EXCLUDES or (method != MASQUERADE and method != ROUTE and method != TUNNEL):
        return False
    if frame.protocol == ipv4.TCP:
        return entry.state == states.ES and frame.signal & _SPECIAL == transport.ACK
    return frame.protocol == ipv4.UDP


@compiled
def _is_plain(frame, inner, family):
    header = ipv4.HEADER_SIZE if family == 4 else ipv6.HEADER_SIZE
    return frame.quotes == 0 and frame.fragment_max == 0 and frame.transport - inner == header


@compiled
def _is_repeatable(tables, memory, server, inner, family):
    """Whether a tunnel's next headers follow from what is in it: an identification does not."""
    if server.tunnel_type != IPIP:
        return False
    if server.outer_size == ipv6.HEADER_SIZE:
        return True
    if family == 6 or not tables.director[0].pmtu_disc:
        return False
    return load_u16(memory, inner + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT != 0


@compiled
def _is_narrow(tables, memory, frame, now_ms):
    """Whether the path takes less than its interface does, by what an ICMP error told."""
    if tables.director[0].exception_count == 0:
        return False
    return paths.exception_to(tables, ip.destination_of(memory, frame.ip), now_ms) != NONE


@compiled
def _describe(memory, frame, flow, family):
    """Write what a frame has become; ``family`` is that of the packet that came."""
    header = ipv4.HEADER_SIZE if family == 4 else ipv6.HEADER_SIZE
    flow.checksum_at = ethernet.HEADER_SIZE + header + transport.checksum_field(frame.protocol)
    copy_out(memory, flow.link, frame.ip - ethernet.HEADER_SIZE, ethernet.TYPE)
    copy_out(memory, flow.ports, frame.transport, transport.PORTS_SIZE)
    size = 8 if frame.family == 4 else 32
    begin = ipv4.SOURCE if frame.family == 4 else ipv6.SOURCE
    copy_out(memory, flow.addresses, frame.ip + begin, size)


@compiled
def _compare(memory, frame, flow, source, destination):
    """Note what new addresses and ports have made of the checksums."""
    new_source = ip.source_of(memory, frame.ip)
    new_destination = ip.destination_of(memory, frame.ip)
    addresses = ip.difference(source, new_source) + ip.difference(destination, new_destination)
    old_port, new_port = frame.source_port, load_u16(memory, frame.transport)
    ports = difference_u16(old_port, new_port)
    moved = old_port != new_port
    old_port = frame.destination_port
    new_port = load_u16(memory, frame.transport + transport.DESTINATION_PORT)
    ports += difference_u16(old_port, new_port)
    moved = moved or old_port != new_port
    is_same = ip.is_same(source, new_source) and ip.is_same(destination, new_destination)
    flow.rewrites = 0 if is_same and not moved else 1
    flow.header_difference = checksum.fold_wide(addresses)
    flow.address_difference = checksum.to_native(checksum.fold_wide(addresses))
    flow.port_difference = checksum.to_native(checksum.fold(ports))
