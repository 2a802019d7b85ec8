"""Fragments on the way out: RFC 791, section 3.2, and RFC 8200, section 4.5.

(net/ipv4/ip_output.c, ip_do_fragment; net/ipv6/ip6_output.c, ip6_fragment)

IPv4's keep the packet's identification; options that are not to be copied become no-operations in
all but the first.  IPv6's get a fragment header with a new one.
"""

from pylvs.forwarding import born
from pylvs.frames import Reason
from pylvs.jit import apart, compiled
from pylvs.wire import ethernet, ip, ipv4, ipv6
from pylvs.wire.memory import copy, load_u8, load_u16, store_u16


@apart
def cut(tables, memory, frames, count, frame, limit):
    """Cut the frame's packet into fragments of at most ``limit`` bytes, born in scratch.

    They follow ``frames[count + director.born]`` in order, with the frame's Ethernet header in
    front.  Returns whether there was room for all.
    """
    if frame.family == 6:
        return _cut_ipv6(tables, memory, frames, count, frame, limit)
    header = ipv4.header_size(memory, frame.ip)
    payload = frame.packet_size - header
    room = limit - header
    step = room & ~7
    if step <= 0:
        return False
    pieces = 1 + (max(0, payload - room) + step - 1) // step
    if not born.has_room(tables, frames, count, pieces, ethernet.HEADER_SIZE + limit):
        return False
    field = load_u16(memory, frame.ip + ipv4.FRAGMENT)
    begun = field & ipv4.FRAGMENT_OFFSET
    keeps_df = 0
    if frame.fragment_max and field & ipv4.DONT_FRAGMENT:
        keeps_df = ipv4.DONT_FRAGMENT
    for number in range(pieces):
        begin = number * step
        size = step if number < pieces - 1 else payload - begin
        piece = frames[_new(tables, memory, frames, count, frame, header, header + size)]
        copy(memory, piece.ip + header, frame.ip + header + begin, size)
        if number:
            _blank_options(memory, piece.ip, header)
        more = number < pieces - 1 or field & ipv4.MORE_FRAGMENTS
        store_u16(memory, piece.ip + ipv4.TOTAL_LENGTH, piece.packet_size)
        store_u16(
            memory,
            piece.ip + ipv4.FRAGMENT,
            keeps_df | (ipv4.MORE_FRAGMENTS if more else 0) | (begun + (begin >> 3)),
        )
        ipv4.mend_checksum(memory, piece.ip)
    return True


@compiled
def _new(tables, memory, frames, count, frame, header, size):
    """Return the row of a new piece of ``size`` bytes, with the frame's headers in place."""
    row = born.new(tables, frames, count, ethernet.HEADER_SIZE + size, frame.family)
    piece = frames[row]
    copy(memory, piece.offset, frame.ip - ethernet.HEADER_SIZE, ethernet.HEADER_SIZE + header)
    piece.ip = piece.offset + ethernet.HEADER_SIZE
    piece.packet_size = size
    piece.port_out = frame.port_out
    piece.connection = frame.connection
    piece.reason = Reason.FRAGMENTED
    return row


@apart
def _cut_ipv6(tables, memory, frames, count, frame, limit):
    at, tells = ipv6.find_fragmentable(memory, frame.ip, frame.ip + frame.packet_size)
    kept = at - frame.ip
    header = kept + ipv6.FRAGMENT_SIZE
    payload = frame.packet_size - kept
    room = limit - header
    step = room & ~7
    if step <= 0:
        return False
    pieces = 1 + (max(0, payload - room) + step - 1) // step
    if not born.has_room(tables, frames, count, pieces, ethernet.HEADER_SIZE + limit):
        return False
    director = tables.director[0]
    director.identification += 1
    identification = director.identification & 0xFFFF_FFFF
    kind = load_u8(memory, tells)
    for number in range(pieces):
        begin = number * step
        last = number == pieces - 1
        size = payload - begin if last else step
        piece = frames[_new(tables, memory, frames, count, frame, kept, header + size)]
        memory[piece.ip + tells - frame.ip] = ipv6.FRAGMENT
        field = begin if last else begin | ipv6.MORE_FRAGMENTS
        ipv6.write_fragment(memory, piece.ip + kept, kind, field, identification)
        copy(memory, piece.ip + header, at + begin, size)
        ip.set_size(memory, piece.ip, piece.packet_size)
    return True


@compiled
def _blank_options(memory, ip, header):
    at = ip + ipv4.HEADER_SIZE
    while at < ip + header:
        option = load_u8(memory, at)
        if option == ipv4.OPTION_END:
            return
        size = 1 if option == ipv4.OPTION_NOP else load_u8(memory, at + 1)
        if size < 1 or at + size > ip + header:
            return
        if option & ipv4.OPTION_COPIED == 0:
            for i in range(at, at + size):
                memory[i] = ipv4.OPTION_NOP
        at += size
