"""Tunneling (``-i``): the packet leaves inside another.

    | Ethernet | IPv4 director -> server             | IPv4 client -> VIP | ...    IPIP  RFC 2003
    | Ethernet | IPv4 director -> server | UDP | GUE | IPv4 client -> VIP | ...    GUE
    | Ethernet | IPv4 director -> server | GRE       | IPv4 client -> VIP | ...    GRE   RFC 2784

The outer header as Linux makes it: TTL of the inner after its decrement, DSCP and ECN of the inner
but for "congestion experienced", which leaves as ECT(0) (RFC 3168, section 9.1.1), DF copied, and
an identification of 0 when DF is set.
"""

from typing import Final

from numpy import int64

from pylvs.frames import HEADROOM
from pylvs.jit import compiled
from pylvs.tables.layouts import GRE, GUE, TUNNEL_CHECKSUM, TUNNEL_REMOTE_CHECKSUM
from pylvs.wire import ethernet, gre, gue, ipv4, transport
from pylvs.wire.memory import load_u8, load_u16, store_u16

OVERHEAD_MAX: Final = ipv4.HEADER_SIZE + gue.SIZE
assert OVERHEAD_MAX <= HEADROOM

_CONGESTION_EXPERIENCED: Final = 3
_ECT_0: Final = 2
_PORTS_BEGIN: Final = 32_768  # net.ipv4.ip_local_port_range
_PORTS_END: Final = 60_999


@compiled
def outer_tos(tos):
    if tos & 3 == _CONGESTION_EXPERIENCED:
        return (tos & ~3) | _ECT_0
    return tos


@compiled
def overhead(server):
    """Return the bytes that the server's kind of tunnel puts in front of a packet."""
    if server.tunnel_type == GUE:
        return ipv4.HEADER_SIZE + gue.SIZE
    if server.tunnel_type == GRE:
        checked = server.tunnel_flags & TUNNEL_CHECKSUM
        return ipv4.HEADER_SIZE + gre.SIZE + (gre.CHECKSUM_SIZE if checked else 0)
    return ipv4.HEADER_SIZE


@compiled
def encapsulate(tables, memory, frame, server, source):
    """Put the frame's packet into a tunnel to the server, in the headroom in front of it."""
    inner, size = frame.ip, frame.packet_size
    added = overhead(server)
    outer = inner - added
    protocol = ipv4.IPIP
    if server.tunnel_type == GUE:
        protocol = ipv4.UDP
        gue.write(memory, outer + ipv4.HEADER_SIZE, _flow_port(frame), server.tunnel_port, size)
    elif server.tunnel_type == GRE:
        protocol = ipv4.GRE
        checked = server.tunnel_flags & TUNNEL_CHECKSUM
        gre.write(memory, outer + ipv4.HEADER_SIZE, checked, size)
    _write_outer(tables, memory, inner, outer, size + added, protocol, source, server)
    if server.tunnel_type == GUE and server.tunnel_flags & (
        TUNNEL_CHECKSUM | TUNNEL_REMOTE_CHECKSUM
    ):
        udp = outer + ipv4.HEADER_SIZE
        whole = transport.full_checksum(memory, outer, udp, ipv4.UDP, gue.SIZE + size)
        store_u16(memory, udp + transport.UDP_CHECKSUM, whole)
    frame.ip = outer
    frame.packet_size = size + added
    frame.offset = outer - ethernet.HEADER_SIZE
    frame.length = frame.packet_size + ethernet.HEADER_SIZE


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
def _write_outer(tables, memory, inner, outer, size, protocol, source, server):
    director = tables.director[0]
    fragment = load_u16(memory, inner + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT
    if not director.pmtu_disc:
        fragment = 0
    identification = 0
    if not fragment:
        director.identification += 1
        identification = director.identification & 0xFFFF
    ipv4.write(
        memory,
        outer,
        outer_tos(load_u8(memory, inner + ipv4.TOS)),
        size,
        identification,
        fragment,
        load_u8(memory, inner + ipv4.TTL),
        protocol,
        source,
        int64(server.address),
    )
