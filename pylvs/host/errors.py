"""ICMP errors the director sends (RFC 792, RFC 1812 section 4.3.2; RFC 4443).

| Ethernet | IPv4, TOS c0, TTL 64, DF clear, options | ICMP | what fits 576 bytes and the path |
| Ethernet | IPv6, hop limit 64 | ICMPv6 | what fits 1280 bytes |

Callers say what is wrong in ICMP's words.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import DELIVERY_MASK, LOCAL_DELIVERY, NO_ECHO, NONE, UNDECIDED, Reason
from pylvs.host import limits, options
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.tables.layouts.network import UNICAST
from pylvs.wire import ethernet, icmp, ip, ipv4, ipv6
from pylvs.wire.memory import copy, load_u8, load_u16

INTERNETWORK_CONTROL: Final = 0xC0


@apart
def send_error(tables, memory, frames, count, frame, type_, code, rest, now_ms):
    """Tell the frame's sender, quoting its packet as it stands in memory; return whether that went.

    The error comes from the address the packet was sent to, if that is the director's, else from
    the director's towards the sender.
    """
    row = compose_from_own(tables, memory, frames, count, frame, type_, code, rest, now_ms)
    if row == NONE:
        return False
    sender = ip.source_of(memory, frame.ip)
    send_to(tables, memory, frames, count, frames[row], sender, now_ms)
    return True


@apart
def compose_from_own(tables, memory, frames, count, frame, type_, code, rest, now_ms):
    """Return the row of such an error, not sent yet, or ``NONE``."""
    source = _source_of(tables, memory, frame)
    if ip.is_none(source):
        return NONE
    return int64(compose(tables, memory, frames, count, frame, type_, code, rest, source, now_ms))


@apart
def compose(tables, memory, frames, count, frame, type_, code, rest, source, now_ms):
    """Return the row of an error from ``source`` to the frame's sender, not sent yet, or ``NONE``.

    None is sent about an ICMP error or a later fragment, nor more than the limits allow.
    """
    if ip.is_version_6(memory, frame.ip):
        return _compose_ipv6(
            tables, memory, frames, count, frame, type_, code, rest, source, now_ms
        )
    sender = ip.source_of(memory, frame.ip)
    if load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET:
        return NONE
    if load_u8(memory, frame.ip + ipv4.PROTOCOL) == ipv4.ICMP and icmp.is_error(
        load_u8(memory, frame.transport + icmp.TYPE)
    ):
        return NONE
    if not limits.allows_to(tables, sender, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return NONE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + icmp.ERROR_SIZE_MAX, 4)
    if row == NONE:
        return NONE
    error = frames[row]
    at = error.offset + ethernet.HEADER_SIZE
    optional = 0
    if frame.delivery & NO_ECHO == 0:
        optional = options.echo(tables, memory, frame, at + ipv4.HEADER_SIZE, source[1], now_ms)
    if optional == options.IMPOSSIBLE:
        discard(error, Reason.RATE_LIMITED)
        return NONE
    headers = ipv4.HEADER_SIZE + optional + icmp.HEADER_SIZE
    quote = min(frame.packet_size, _size_max(tables, sender, now_ms) - headers)
    error.reason = Reason.ERROR_SENT
    error.ip = at
    error.protocol = ipv4.ICMP
    error.transport = at + ipv4.HEADER_SIZE + optional
    error.packet_size = error.transport - at + icmp.HEADER_SIZE + quote
    error.length = ethernet.HEADER_SIZE + error.packet_size
    tos = INTERNETWORK_CONTROL | (load_u8(memory, frame.ip + ipv4.TOS) & 0x1E)
    director = tables.director[0]
    director.identification += 1
    identification = director.identification & 0xFFFF
    size = error.packet_size - optional
    ttl, protocol = ipv4.TTL_DEFAULT, ipv4.ICMP
    ipv4.write(memory, at, tos, size, identification, 0, ttl, protocol, source[1], sender[1])
    if optional:
        ipv4.add_options(memory, at, optional)
    copy(memory, error.transport + icmp.HEADER_SIZE, frame.ip, quote)
    icmp.write(memory, error.transport, type_, code, rest, icmp.HEADER_SIZE + quote)
    return row


@apart
def _compose_ipv6(tables, memory, frames, count, frame, type_, code, rest, source, now_ms):
    sender = ip.source_of(memory, frame.ip)
    end = frame.ip + frame.packet_size
    protocol, transport, _ = ipv6.find_transport(memory, frame.ip, end)
    if protocol == ipv6.ICMP and (
        transport >= end or load_u8(memory, transport) < icmp.V6_INFORMATION_BEGIN
    ):
        return NONE
    if not limits.allows_to(tables, sender, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return NONE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + ipv6.MTU_MIN, 6)
    if row == NONE:
        return NONE
    error = frames[row]
    headers = ipv6.HEADER_SIZE + icmp.HEADER_SIZE
    quote = min(frame.packet_size, ipv6.MTU_MIN - headers)
    error.reason = Reason.ERROR_SENT
    error.ip = error.offset + ethernet.HEADER_SIZE
    error.protocol = ipv6.ICMP
    error.transport = error.ip + ipv6.HEADER_SIZE
    error.packet_size = headers + quote
    error.length = ethernet.HEADER_SIZE + error.packet_size
    hops, protocol = ipv6.HOPS_DEFAULT, ipv6.ICMP
    ipv6.write(memory, error.ip, 0, error.packet_size, protocol, hops, source, sender)
    copy(memory, error.transport + icmp.HEADER_SIZE, frame.ip, quote)
    type_, code = icmp.to_ipv6(type_, code)
    size = icmp.HEADER_SIZE + quote
    icmp.write_ipv6(memory, error.ip, error.transport, type_, code, rest, size)
    return row


@compiled
def _size_max(tables, sender, now_ms):
    """Return what an error's packet may take: it is not to be cut in pieces."""
    path = paths.find(tables, sender)
    if path == NONE:
        return icmp.ERROR_SIZE_MAX
    return min(icmp.ERROR_SIZE_MAX, paths.mtu_to(tables, path, sender, now_ms))


@compiled
def _source_of(tables, memory, frame):
    """Return the address an error comes from, none if there is no way back."""
    sender = ip.source_of(memory, frame.ip)
    about = ip.destination_of(memory, frame.ip)
    if frame.delivery & DELIVERY_MASK == UNDECIDED:
        frame.delivery |= paths.delivery_of(tables, about, frame.mark)
    if frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY:
        return about if paths.may_be_source(tables, about, frame.mark) else ip.from_ipv4(0)
    path = paths.find(tables, sender)
    if path == NONE or tables.paths[path].kind != UNICAST:
        return ip.from_ipv4(0)
    return paths.source_of(tables, path)
