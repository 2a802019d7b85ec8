"""ICMP errors the director sends (RFC 792, RFC 1812 section 4.3.2).

| Ethernet | IPv4, TOS c0, TTL 64, DF clear, options | ICMP | what fits 576 bytes and the path |
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.forwarding.transmit import discard, send_to
from pylvs.frames import DELIVERY_MASK, LOCAL_DELIVERY, NO_ECHO, NONE, UNDECIDED, Reason
from pylvs.host import limits, options
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.tables.layouts import UNICAST
from pylvs.wire import ethernet, icmp, ipv4
from pylvs.wire.memory import copy, load_u8, load_u16, load_u32

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
    sender = load_u32(memory, frame.ip + ipv4.SOURCE)
    send_to(tables, memory, frames, count, frames[row], sender, now_ms)
    return True


@apart
def compose_from_own(tables, memory, frames, count, frame, type_, code, rest, now_ms):
    """Return the row of such an error, not sent yet, or ``NONE``."""
    source = _source_of(tables, memory, frame)
    if source == 0:
        return NONE
    return int64(compose(tables, memory, frames, count, frame, type_, code, rest, source, now_ms))


@apart
def compose(tables, memory, frames, count, frame, type_, code, rest, source, now_ms):
    """Return the row of an error from ``source`` to the frame's sender, not sent yet, or ``NONE``.

    None is sent about an ICMP error or a later fragment, nor more than the limits allow.
    """
    sender = load_u32(memory, frame.ip + ipv4.SOURCE)
    if load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET:
        return NONE
    if load_u8(memory, frame.ip + ipv4.PROTOCOL) == ipv4.ICMP and icmp.is_error(
        load_u8(memory, frame.transport + icmp.TYPE)
    ):
        return NONE
    if not limits.allows_to(tables, sender, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return NONE
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + icmp.ERROR_SIZE_MAX)
    if row == NONE:
        return NONE
    error = frames[row]
    ip = error.offset + ethernet.HEADER_SIZE
    optional = 0
    if frame.delivery & NO_ECHO == 0:
        optional = options.echo(tables, memory, frame, ip + ipv4.HEADER_SIZE, source, now_ms)
    if optional == options.IMPOSSIBLE:
        discard(error, Reason.RATE_LIMITED)
        return NONE
    headers = ipv4.HEADER_SIZE + optional + icmp.HEADER_SIZE
    quote = min(frame.packet_size, _size_max(tables, sender, now_ms) - headers)
    error.reason = Reason.ERROR_SENT
    error.ip = ip
    error.protocol = ipv4.ICMP
    error.destination = sender
    error.transport = ip + ipv4.HEADER_SIZE + optional
    error.packet_size = error.transport - ip + icmp.HEADER_SIZE + quote
    error.length = ethernet.HEADER_SIZE + error.packet_size
    tos = INTERNETWORK_CONTROL | (load_u8(memory, frame.ip + ipv4.TOS) & 0x1E)
    director = tables.director[0]
    director.identification += 1
    identification = director.identification & 0xFFFF
    size = error.packet_size - optional
    ipv4.write(
        memory, ip, tos, size, identification, 0, ipv4.TTL_DEFAULT, ipv4.ICMP, source, sender
    )
    if optional:
        ipv4.add_options(memory, ip, optional)
    copy(memory, error.transport + icmp.HEADER_SIZE, frame.ip, quote)
    icmp.write(memory, error.transport, type_, code, rest, icmp.HEADER_SIZE + quote)
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
    """Return the address an error comes from, 0 if there is no way back."""
    sender = load_u32(memory, frame.ip + ipv4.SOURCE)
    about = load_u32(memory, frame.ip + ipv4.DESTINATION)
    if frame.delivery & DELIVERY_MASK == UNDECIDED:
        frame.delivery |= paths.delivery_of(tables, about, frame.mark)
    if frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY:
        return about if paths.may_be_source(tables, about, frame.mark) else 0
    path = paths.find(tables, sender)
    if path == NONE or tables.paths[path].kind != UNICAST:
        return 0
    return int64(tables.paths[path].source)
