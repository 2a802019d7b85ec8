"""ICMP errors the director sends (RFC 792, RFC 1812 section 4.3.2).

| Ethernet | IPv4, TOS c0, TTL 64, DF clear | ICMP | as much of the packet as fits 576 bytes |
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.forwarding.transmit import send_to
from pylvs.frames import DELIVERY_MASK, LOCAL_DELIVERY, NONE, UNDECIDED, Reason
from pylvs.host import limits
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.tables.layouts import UNICAST
from pylvs.wire import ethernet, icmp, ipv4
from pylvs.wire.memory import copy, load_u8, load_u16, load_u32

INTERNETWORK_CONTROL: Final = 0xC0
QUOTE_MAX: Final = icmp.ERROR_SIZE_MAX - ipv4.HEADER_SIZE - icmp.HEADER_SIZE


@apart
def send_error(tables, memory, frames, count, frame, type_, code, rest, now_ms):
    """Tell the frame's sender, quoting its packet as it stands in memory; return whether that went.

    The error comes from the address the packet was sent to, if that is the director's, else from
    the director's towards the sender.  None is sent about an ICMP error or a later fragment.
    """
    sender = load_u32(memory, frame.ip + ipv4.SOURCE)
    about = load_u32(memory, frame.ip + ipv4.DESTINATION)
    if load_u16(memory, frame.ip + ipv4.FRAGMENT) & ipv4.FRAGMENT_OFFSET:
        return False
    if load_u8(memory, frame.ip + ipv4.PROTOCOL) == ipv4.ICMP and icmp.is_error(
        load_u8(memory, frame.transport + icmp.TYPE)
    ):
        return False
    if not limits.allows_to(tables, sender, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return False
    source = _source_of(tables, frame, sender, about)
    if source == 0:
        return False
    quote = min(frame.packet_size, QUOTE_MAX)
    size = ipv4.HEADER_SIZE + icmp.HEADER_SIZE + quote
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + size)
    if row == NONE:
        return False
    error = frames[row]
    error.reason = Reason.ERROR_SENT
    ip = error.offset + ethernet.HEADER_SIZE
    body = ip + ipv4.HEADER_SIZE
    tos = INTERNETWORK_CONTROL | (load_u8(memory, frame.ip + ipv4.TOS) & 0x1E)
    director = tables.director[0]
    director.identification += 1
    identification = director.identification & 0xFFFF
    error.ip = ip
    error.packet_size = size
    ipv4.write(
        memory, ip, tos, size, identification, 0, ipv4.TTL_DEFAULT, ipv4.ICMP, source, sender
    )
    copy(memory, body + icmp.HEADER_SIZE, frame.ip, quote)
    icmp.write(memory, body, type_, code, rest, icmp.HEADER_SIZE + quote)
    send_to(tables, memory, frames, count, error, sender, now_ms)
    return True


@compiled
def _source_of(tables, frame, sender, about):
    """Return the address an error comes from, 0 if there is no way back."""
    if frame.delivery & DELIVERY_MASK == UNDECIDED:
        frame.delivery |= paths.delivery_of(tables, about, frame.mark)
    if frame.delivery & DELIVERY_MASK == LOCAL_DELIVERY:
        return about if paths.may_be_source(tables, about, frame.mark) else 0
    path = paths.find(tables, sender)
    if path == NONE or tables.paths[path].kind != UNICAST:
        return 0
    return int64(tables.paths[path].source)
