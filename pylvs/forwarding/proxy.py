"""The PROXY protocol, version 2: a header in front of a client's stream says who the client is.

    | signature, 12 bytes | 0x21 | family | size | client, virtual address | client, virtual port |

The server reads it before anything else (haproxy.org, proxy-protocol.txt, section 2.2).  It is put
into the client's first segment, be it the acknowledgment that ends the handshake, and into each
that begins where that did until the server acknowledges it; the stream's numbers are shifted by its
size.  So that there is room for it, the server's maximum segment size is told as less.
"""

from typing import Final

from numpy import int64

from pylvs.jit import apart, compiled
from pylvs.tables import connections
from pylvs.tables.connections import local_ends
from pylvs.wire import checksum, ip, ipv4, transport
from pylvs.wire.checksum import adjust, difference_u16, difference_u32
from pylvs.wire.memory import load_u16, load_u32, store_u16, store_u32, store_u64

HEADER_SIZE_4: Final = 28
HEADER_SIZE_6: Final = 52
_SIGNATURE: Final = 0x0D0A_0D0A_000D_0A51
_SIGNATURE_END: Final = 0x5549_540A
_PROXY_TCP4: Final = 0x2111  # version 2, PROXY; AF_INET, STREAM
_PROXY_TCP6: Final = 0x2121
_PREFACE: Final = 16
_PACKET_MAX: Final = 65_535
_MSS_MIN: Final = 88  # what Linux takes


@compiled
def _size(family):
    return HEADER_SIZE_4 if family == 4 else HEADER_SIZE_6


@apart
def follow_request(tables, memory, frame, row, mtu):
    """Put the header in front of a client's stream, or shift its numbers; False: it does not fit.

    The frame is addressed and sent from where the server is to see it.
    """
    end, entry = local_ends.of(tables, row), tables.connections[row]
    field = frame.transport + transport.SEQUENCE
    number = load_u32(memory, field)
    if frame.signal & transport.SYN:
        begin = (number + 1) & transport.NUMBER_MASK
        is_new = end.header == 0 or begin != end.begin
        if is_new and tables.servers[entry.server].proxy:
            end.header = _size(frame.family)
            end.arrived = 0
            end.begin = begin
        return True
    if end.header == 0:
        return True
    ahead = transport.distance(number, int64(end.begin))
    if end.arrived or ahead > 0:
        _write_number(memory, frame, field, number + int64(end.header))
    elif ahead == 0 and frame.signal & transport.RST == 0:
        limit = _PACKET_MAX if frame.segment_kind else mtu
        if frame.packet_size + int64(end.header) > limit or not _is_whole(memory, frame):
            return False
        _insert(tables, memory, frame, row, int64(end.header))
    return True


@compiled
def _is_whole(memory, frame):
    """Whether TCP's header is as long as it says."""
    size = transport.tcp_header_size(memory, frame.transport)
    room = frame.ip + frame.packet_size - frame.transport
    return transport.TCP_HEADER_SIZE <= size <= room


@compiled
def _write_number(memory, frame, field, number):
    """Write one of TCP's numbers, and mend the checksum."""
    _mend(memory, frame, field, load_u32(memory, field), number & transport.NUMBER_MASK)
    store_u32(memory, field, number & transport.NUMBER_MASK)


@compiled
def _mend(memory, frame, field, old, new):
    """Mend the checksum for 32 bits at a place in TCP's header, an odd one also."""
    if frame.checksum_start:
        return  # it is not in there yet
    difference = checksum.fold(difference_u32(old, new))
    if (field - frame.transport) & 1:
        difference = (difference & 0xFF) << 8 | difference >> 8
    _adjust(memory, frame, difference)


@compiled
def _adjust(memory, frame, difference):
    field = frame.transport + transport.TCP_CHECKSUM
    store_u16(memory, field, adjust(load_u16(memory, field), difference))


@compiled
def _insert(tables, memory, frame, row, size):
    """Move the packet's headers forward, and write PROXY's behind them."""
    old = frame.packet_size - (frame.transport - frame.ip)
    end = frame.transport + transport.tcp_header_size(memory, frame.transport)
    for at in range(frame.offset, end):
        memory[at - size] = memory[at]
    frame.offset -= size
    frame.ip -= size
    frame.transport -= size
    frame.length += size
    frame.packet_size += size
    ip.set_size(memory, frame.ip, frame.packet_size)
    if frame.family == 4:
        ipv4.mend_checksum(memory, frame.ip)
    _write(tables, memory, end - size, row, frame.family)
    length = difference_u16(old, old + size)
    if frame.checksum_start:
        field = frame.transport + transport.TCP_CHECKSUM
        store_u16(memory, field, checksum.adjust_partial(load_u16(memory, field), length))
    else:
        _adjust(memory, frame, checksum.add(memory, end - size, size, length))


@compiled
def _write(tables, memory, at, row, family):
    entry = tables.connections[row]
    client, virtual = connections.client_of(tables, row), connections.virtual_of(tables, row)
    store_u64(memory, at, _SIGNATURE)
    store_u32(memory, at + 8, _SIGNATURE_END)
    store_u16(memory, at + 12, _PROXY_TCP4 if family == 4 else _PROXY_TCP6)
    store_u16(memory, at + 14, _size(family) - _PREFACE)
    at += _PREFACE
    if family == 4:
        store_u32(memory, at, client[1])
        store_u32(memory, at + 4, virtual[1])
        at += 8
    else:
        ip.store_wide(memory, at, client)
        ip.store_wide(memory, at + 16, virtual)
        at += 32
    store_u16(memory, at, int64(entry.client_port))
    store_u16(memory, at + 2, int64(entry.virtual_port))


@apart
def follow_reply(memory, frame, end):
    """Shift what a server acknowledges; while the handshake lasts, tell of less room."""
    if end.header == 0:
        return
    field = frame.transport + transport.ACKNOWLEDGMENT
    if frame.signal & transport.ACK:
        number = load_u32(memory, field)
        if transport.distance(number, int64(end.begin)) >= end.header:
            end.arrived = 1
        _write_number(memory, frame, field, _to_client(end, number))
    at = frame.transport + transport.TCP_HEADER_SIZE
    stop = frame.transport + transport.tcp_header_size(memory, frame.transport)
    stop = min(stop, frame.ip + frame.packet_size)
    while at < stop:
        kind, length = transport.option_at(memory, at, stop)
        if length == 0:
            return
        if kind == transport.OPTION_MSS and length == 4:
            _tell_of_less(memory, frame, at, int64(end.header))
        elif kind == transport.OPTION_SACK:
            for edge in range(at + 2, at + length - 3, 4):
                _write_number(memory, frame, edge, _to_client(end, load_u32(memory, edge)))
        at += length


@compiled
def _to_client(end, number):
    """Return what a number that the server acknowledges is to its client."""
    header, begin = int64(end.header), int64(end.begin)
    if end.arrived:
        return number - header
    ahead = transport.distance(number, begin)
    return number - min(header, max(0, ahead))


@compiled
def _tell_of_less(memory, frame, option, header):
    """Lower the maximum segment size in a SYN's option."""
    old = load_u32(memory, option)
    size = old & 0xFFFF
    new = old - size + max(min(size, _MSS_MIN), size - header)
    _mend(memory, frame, option, old, new)
    store_u32(memory, option, new)
