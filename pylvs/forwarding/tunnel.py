"""Tunneling (``-i``): the packet leaves inside another.

    | Ethernet | IP director -> server             | IP client -> VIP | ...    IPIP  RFC 2003, 2473
    | Ethernet | IP director -> server | UDP | GUE | IP client -> VIP | ...    GUE
    | Ethernet | IP director -> server | GRE       | IP client -> VIP | ...    GRE   RFC 2784

Either IP is of either version.  The outer header as Linux makes it: TTL of the inner after its
decrement, DSCP and ECN of the inner but for "congestion experienced", which leaves as ECT(0) (RFC
3168, section 9.1.1), DF copied from IPv4 to IPv4, and an identification of 0 when DF is set.
"""

from typing import Final

from pylvs.frames import HEADROOM
from pylvs.jit import compiled
from pylvs.tables.addresses import address_of
from pylvs.tables.layouts import GRE, GUE, TUNNEL_CHECKSUM, TUNNEL_REMOTE_CHECKSUM
from pylvs.wire import ethernet, gre, gue, ip, ipv4, ipv6, transport
from pylvs.wire.memory import load_u8, load_u16, store_u16

OVERHEAD_MAX: Final = ipv6.HEADER_SIZE + gue.SIZE
assert OVERHEAD_MAX <= HEADROOM

_PORTS_BEGIN: Final = 32_768  # net.ipv4.ip_local_port_range
_PORTS_END: Final = 60_999


@compiled
def outer_tos(tos):
    if tos & 3 == ip.CONGESTION_EXPERIENCED:
        return (tos & ~3) | ip.ECT_0
    return tos


@compiled
def measure(server):
    """Note how many bytes the server's kind of tunnel puts in front of a packet."""
    server.outer_size = ipv4.HEADER_SIZE if ip.is_ipv4(address_of(server)) else ipv6.HEADER_SIZE
    server.overhead = server.outer_size
    if server.tunnel_type == GUE:
        server.overhead += gue.SIZE
    elif server.tunnel_type == GRE:
        checked = server.tunnel_flags & TUNNEL_CHECKSUM
        server.overhead += gre.SIZE + (gre.CHECKSUM_SIZE if checked else 0)


@compiled
def mtu_min(server):
    """Return the MTU below which a path is of no use to a tunnel (RFC 791, RFC 8200)."""
    return ipv4.MTU_MIN if server.outer_size == ipv4.HEADER_SIZE else ipv6.MTU_MIN


@compiled
def encapsulate(tables, memory, frame, server, source):
    """Put the frame's packet into a tunnel to the server, in the headroom in front of it."""
    inner, size = frame.ip, frame.packet_size
    if frame.family == 4:
        carried, ethertype = ipv4.IPIP, ethernet.IPV4
        tos, hops = load_u8(memory, inner + ipv4.TOS), load_u8(memory, inner + ipv4.TTL)
        fragment = load_u16(memory, inner + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT
    else:
        carried, ethertype = ipv6.IPV6, ethernet.IPV6
        tos, hops = ipv6.traffic_class(memory, inner), load_u8(memory, inner + ipv6.HOP_LIMIT)
        fragment = 0
    outer = inner - server.overhead
    body = outer + server.outer_size
    protocol = carried
    if server.tunnel_type == GUE:
        protocol = ipv4.UDP
        gue.write(memory, body, _flow_port(frame), server.tunnel_port, carried, size)
    elif server.tunnel_type == GRE:
        protocol = ipv4.GRE
        gre.write(memory, body, ethertype, server.tunnel_flags & TUNNEL_CHECKSUM, size)
    size += server.overhead
    tos, to = outer_tos(tos), address_of(server)
    if server.outer_size == ipv4.HEADER_SIZE:
        frame.family = 4
        _write_ipv4(tables, memory, outer, tos, size, fragment, hops, protocol, source, to)
    else:
        frame.family = 6
        ipv6.write(memory, outer, tos, size, protocol, hops, source, to)
    if server.tunnel_type == GUE and server.tunnel_flags & (
        TUNNEL_CHECKSUM | TUNNEL_REMOTE_CHECKSUM
    ):
        whole = transport.full_checksum(memory, outer, body, ipv4.UDP, size - server.outer_size)
        store_u16(memory, body + transport.UDP_CHECKSUM, whole)
    frame.ip = outer
    frame.packet_size = size
    frame.offset = outer - ethernet.HEADER_SIZE
    frame.length = size + ethernet.HEADER_SIZE


@compiled
def _flow_port(frame):
    """Return a UDP source port that is the flow's own, so that routers spread flows."""
    mixed = (
        frame.source * 0x61C8_8647
        + frame.destination * 0x9E37
        + (frame.source_port << 16)
        + frame.destination_port
    ) & 0xFFFF_FFFF
    mixed ^= mixed >> 15
    return _PORTS_BEGIN + (mixed * (_PORTS_END - _PORTS_BEGIN) >> 32)


@compiled
def _write_ipv4(tables, memory, outer, tos, size, fragment, hops, protocol, source, to):
    director = tables.director[0]
    if not director.pmtu_disc:
        fragment = 0
    identification = 0
    if not fragment:
        director.identification += 1
        identification = director.identification & 0xFFFF
    ipv4.write(memory, outer, tos, size, identification, fragment, hops, protocol, source[1], to[1])
