"""The PROXY protocol, version 2: a header in front of a client's stream says who the client is.

    | signature, 12 bytes | 0x21 | family | size | client, virtual address | client, virtual port |

The server reads it before anything else (haproxy.org, proxy-protocol.txt, section 2.2).  It is put
into the client's first segment, be it the acknowledgment that ends the handshake, and into each
that begins where that did until the server acknowledges it; the stream's numbers are shifted by its
size.  So that there is room for it, the server's maximum segment size is told as less.

A client must not speak in its place.  Where the stream begins is what the server's SYN-ACK says;
nothing of the client's is let through before that or in front of it, and no data in a SYN, for
which the option of TCP Fast Open is blanked.
"""

from typing import Final

from numpy import int64

from pylvs.jit import apart, compiled
from pylvs.tables import connections
from pylvs.tables.connections import local_ends
from pylvs.tables.layouts import ANNOUNCED, ARRIVED, BEGUN, UNANNOUNCED
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
_EXPERIMENT: Final = 254  # RFC 4727: Fast Open's option once was one of these
_MSS_SIZE: Final = 4
_BEGINS: Final = transport.SYN | transport.ACK
_ALONE: Final = transport.SYN | transport.RST


@compiled
def _size(family):
    return HEADER_SIZE_4 if family == 4 else HEADER_SIZE_6


@apart
def growth(tables, memory, frame, row):
    """Return by how much a client's segment will grow: by the header, or not at all."""
    end = local_ends.of(tables, row)
    if end.stage != BEGUN or frame.protocol != ipv4.TCP or frame.signal & _ALONE or frame.quotes:
        return 0
    number = load_u32(memory, frame.transport + transport.SEQUENCE)
    return int64(end.header) if number == end.begin else 0


@apart
def follow_request(tables, memory, frame, row):
    """Put the header in front of a client's stream, or shift its numbers; False: it may not pass.

    The frame is addressed and sent from where the server is to see it.
    """
    end = local_ends.of(tables, row)
    if frame.signal & transport.SYN:
        if not tables.servers[tables.connections[row].server].proxy:
            return True
        end.header = _size(frame.family)
        if end.stage == UNANNOUNCED:
            end.stage = ANNOUNCED
        return _is_whole(memory, frame) and _is_bare_syn(memory, frame)
    if end.stage == UNANNOUNCED:
        return True
    field = frame.transport + transport.SEQUENCE
    number = load_u32(memory, field)
    ahead = transport.distance(number, int64(end.begin))
    if end.stage == ARRIVED or (end.stage == BEGUN and ahead > 0):
        _write_number(memory, frame, field, number + int64(end.header))
        return True
    if frame.signal & transport.RST:
        return True
    if end.stage == ANNOUNCED or not _is_whole(memory, frame):
        return False
    if ahead < 0:  # what the server has; a keepalive's byte, say
        return ahead + _payload_size(memory, frame) <= 0
    if frame.packet_size + int64(end.header) > _PACKET_MAX:
        return False
    _insert(tables, memory, frame, row, int64(end.header))
    return True


@compiled
def _payload_size(memory, frame):
    """Return the bytes behind TCP's header; a FIN counts as one."""
    header = transport.tcp_header_size(memory, frame.transport)
    size = frame.packet_size - (frame.transport - frame.ip) - header
    return size + 1 if frame.signal & transport.FIN else size


@compiled
def _is_bare_syn(memory, frame):
    """Whether a SYN comes without data; what would allow it some is blanked."""
    stop = frame.transport + transport.tcp_header_size(memory, frame.transport)
    at = frame.transport + transport.TCP_HEADER_SIZE
    while at < stop:
        kind, length = transport.option_at(memory, at, stop)
        if length == 0:
            break
        if kind == transport.OPTION_FAST_OPEN or kind == _EXPERIMENT:
            _blank(memory, frame, at, length)
        at += length
    return _payload_size(memory, frame) == 0


@compiled
def _blank(memory, frame, option, length):
    for at in range(option, option + length):
        word = at - (at - frame.transport & 1)
        old = load_u16(memory, word)
        memory[at] = transport.OPTION_NOP
        if not frame.checksum_start:
            _adjust(memory, frame, difference_u16(old, load_u16(memory, word)))


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
    """Shift what a server acknowledges; in a SYN, tell of less room."""
    if end.stage == UNANNOUNCED:
        return
    is_begin = frame.signal & _BEGINS == _BEGINS
    if frame.signal & transport.ACK:
        field = frame.transport + transport.ACKNOWLEDGMENT
        number = load_u32(memory, field)
        if is_begin and (end.stage == ANNOUNCED or number != end.begin):
            end.begin = number
            end.stage = BEGUN
        if end.stage == BEGUN and transport.distance(number, int64(end.begin)) >= end.header:
            end.stage = ARRIVED
        _write_number(memory, frame, field, _to_client(end, number))
    at = frame.transport + transport.TCP_HEADER_SIZE
    stop = frame.transport + transport.tcp_header_size(memory, frame.transport)
    stop = min(stop, frame.ip + frame.packet_size)
    while at < stop:
        kind, length = transport.option_at(memory, at, stop)
        if length == 0:
            return
        if kind == transport.OPTION_MSS and length == _MSS_SIZE and is_begin:
            _tell_of_less(memory, frame, at, int64(end.header))
        elif kind == transport.OPTION_SACK:
            for edge in range(at + 2, at + length - 3, 4):
                _write_number(memory, frame, edge, _to_client(end, load_u32(memory, edge)))
        at += length


@compiled
def _to_client(end, number):
    """Return what a number that the server acknowledges is to its client."""
    header, begin = int64(end.header), int64(end.begin)
    if end.stage == ARRIVED:
        return number - header
    if end.stage == ANNOUNCED:
        return number
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
