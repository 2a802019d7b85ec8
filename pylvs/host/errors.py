"""ICMP errors the director sends (RFC 792, RFC 1812 section 4.3.2).

| Ethernet | IPv4, TOS c0, TTL 64, DF clear | ICMP | as much of the packet as fits 576 bytes |
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import born
from pylvs.forwarding.transmit import send_to
from pylvs.frames import NONE, Reason
from pylvs.host import limits
from pylvs.jit import compiled
from pylvs.tables import paths
from pylvs.tables.layouts import UNICAST
from pylvs.wire import ethernet, icmp, ipv4
from pylvs.wire.memory import copy, load_u8

INTERNETWORK_CONTROL: Final = 0xC0
OWN: Final = 0  # as a source: the director's address towards the receiver
QUOTE_MAX: Final = icmp.ERROR_SIZE_MAX - ipv4.HEADER_SIZE - icmp.HEADER_SIZE


@compiled
def send_error(tables, memory, frames, count, frame, type_, code, rest, source, now_ms):
    """Tell the frame's sender, quoting its packet as it stands in memory.

    ``source`` is the VIP, or ``OWN``.
    """
    if not limits.allows_to(tables, frame.source, now_ms):
        tables.reasons[Reason.RATE_LIMITED] += 1
        return
    if source == OWN:
        path = paths.find(tables, frame.source)
        if path == NONE or tables.paths[path].kind != UNICAST:
            return
        source = int64(tables.paths[path].source)
    quote = min(frame.packet_size, QUOTE_MAX)
    size = ipv4.HEADER_SIZE + icmp.HEADER_SIZE + quote
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + size)
    if row == NONE:
        return
    error = frames[row]
    error.reason = Reason.ERROR_SENT
    ip = error.offset + ethernet.HEADER_SIZE
    body = ip + ipv4.HEADER_SIZE
    tos = INTERNETWORK_CONTROL | (load_u8(memory, frame.ip + ipv4.TOS) & 0x1E)
    director = tables.director[0]
    director.identification += 1
    identification = director.identification & 0xFFFF
    ipv4.write(
        memory, ip, tos, size, identification, 0, ipv4.TTL_DEFAULT, ipv4.ICMP, source, frame.source
    )
    copy(memory, body + icmp.HEADER_SIZE, frame.ip, quote)
    icmp.write(memory, body, type_, code, rest, icmp.HEADER_SIZE + quote)
    send_to(tables, memory, error, frame.source, now_ms)
