"""Ping to a VIP that is the director's own: answered in place (RFC 792, echo)."""

from pylvs.forwarding.transmit import send_to
from pylvs.frames import Reason
from pylvs.jit import compiled
from pylvs.wire import icmp, ipv4
from pylvs.wire.checksum import add, fold, replace_u16
from pylvs.wire.memory import load_u8, load_u16, store_u16


@compiled
def is_echo(memory, frame):
    """Whether the frame is a whole echo request, without IP options, and its checksum right."""
    size = frame.packet_size - (frame.transport - frame.ip)
    if frame.transport - frame.ip != ipv4.HEADER_SIZE:
        return False
    if size < icmp.HEADER_SIZE or load_u8(memory, frame.transport + icmp.TYPE) != icmp.ECHO:
        return False
    return fold(add(memory, frame.transport, size, 0)) == 0xFFFF


@compiled
def answer(tables, memory, frame, now_ms):
    """Turn the request into its reply and send it back; the data and the TOS are kept."""
    director = tables.director[0]
    director.identification += 1
    old = load_u16(memory, frame.transport + icmp.TYPE)
    new = old & 0xFF  # ECHO_REPLY is type 0
    store_u16(memory, frame.transport + icmp.TYPE, new)
    field = frame.transport + icmp.CHECKSUM
    store_u16(memory, field, replace_u16(load_u16(memory, field), old, new))
    ipv4.write(
        memory,
        frame.ip,
        load_u8(memory, frame.ip + ipv4.TOS),
        frame.packet_size,
        director.identification & 0xFFFF,
        0,
        ipv4.TTL_DEFAULT,
        ipv4.ICMP,
        frame.destination,
        frame.source,
    )
    frame.reason = Reason.ECHO
    send_to(tables, memory, frame, frame.source, now_ms)
