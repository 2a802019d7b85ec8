"""FTP: a control connection is listened to for the data connections that it speaks of.

    client  PORT, EPRT     it listens, and the server will come: active
            PASV, EPSV     the server is to listen
    server  227, 229       it does, and the client will come: passive

The address in 227 becomes the virtual one, and numbers behind it are shifted.  Lines may come in
pieces: of a reply that may name an address the client sees nothing until the rest is there, and
then all of it at once.  Data go between client and real server of the control connection alone,
whatever address is named.  Whoever calls has verified the segment's checksum.
"""

from typing import Final

from numpy import int64

from pylvs.forwarding import segments
from pylvs.forwarding.transmit import discard
from pylvs.frames import NONE, Reason
from pylvs.helpers import replies, sequence
from pylvs.helpers.expected import expect
from pylvs.jit import apart, compiled
from pylvs.tables import states
from pylvs.tables.layouts import FLAG_HELPED, FLAG_WIDE
from pylvs.tables.sizes import TALKS_LIMIT
from pylvs.wire import checksum, ipv4, ipv6, transport
from pylvs.wire.memory import load_u16, load_u32, store_u16, store_u32

NOTHING: Final = 0  # FTP.asked, or the last digit of the reply that is expected
PASSIVE: Final = ord("7")
EXTENDED: Final = ord("9")
_PASV, _EPSV = tuple(b"PASV"), tuple(b"EPSV")
_PORT, _EPRT = tuple(b"PORT"), tuple(b"EPRT")
_ARGUMENT: Final = 5  # where a command's begins
_LINE_MIN: Final = 6
_NOWHERE: Final = -1  # no number of TCP's
_TRIED: Final = 64  # rows of FTP that are looked at for a new connection
_LET_GO: Final = -1  # FTP.held_count: what was held is not held again
_SURELY_WHOLE: Final = 576  # bytes of a packet that every network takes (RFC 791)
_FRAME_MAX: Final = 1_514  # what would grow beyond is left as it is


@apart
def listen(tables, row):
    """Listen to a new control connection, once somebody speaks on it."""
    entry = tables.connections[row]
    entry.conn_flags = int64(entry.conn_flags) | FLAG_HELPED
    tables.details[row] = NONE


@compiled
def _note(tables, frame):
    """Return the row of FTP that is the connection's, or ``NONE``: nothing was said, or no room.

    Who only knocks, and never says anything, is given none.
    """
    row = int64(frame.connection)
    established = tables.connections[row].state == states.ES
    if frame.signal & transport.SYN and not established and tables.details[row] != NONE:
        tables.talks[tables.details[row]].connection = NONE  # another talk, by the same ports
        tables.details[row] = NONE
    if tables.details[row] == NONE and established:
        tables.details[row] = _take_row(tables, row)
    return int64(tables.details[row])


@apart
def _take_row(tables, row):
    """Return a row of FTP with nothing said yet, or ``NONE``."""
    director = tables.director[0]
    for _ in range(_TRIED):
        place = director.talk_rover
        director.talk_rover = (place + 1) % TALKS_LIMIT
        if _is_free(tables, place):
            talk = tables.talks[place]
            talk.connection = row
            talk.asked = NOTHING
            talk.before = 0
            talk.after = 0
            talk.client_known = 0
            talk.client_line = 0
            talk.server_known = 0
            talk.in_reply = 0
            talk.reply = _NOWHERE
            talk.held_count = 0
            return place
    return NONE


@compiled
def _is_free(tables, place):
    """Whether a row of FTP is nobody's any more: its connection was removed."""
    row = int64(tables.talks[place].connection)
    if row == NONE:
        return True
    entry = tables.connections[row]
    helped = int64(entry.conn_flags) & FLAG_HELPED != 0
    return entry.expires_ms == 0 or not helped or tables.details[row] != place


@apart
def follow_request(tables, memory, frame, now_ms):
    """Read what a client says, and shift what it acknowledges; the segment is sound."""
    place = _note(tables, frame)
    if place == NONE:
        return
    talk = tables.talks[place]
    begin = load_u32(memory, frame.transport + transport.SEQUENCE)
    if tables.connections[frame.connection].state == states.ES:
        _read_request(tables, memory, frame, talk, begin, now_ms)
    if frame.signal & transport.ACK and sequence.is_shifted(talk):
        sequence.shift_acknowledgments(memory, frame, talk)
        _mend(memory, frame, 0)


@compiled
def _payload(memory, frame):
    """Return where a segment's payload begins and ends."""
    at = frame.transport + transport.tcp_header_size(memory, frame.transport)
    return at, frame.ip + frame.packet_size


@compiled
def _mend(memory, frame, growth):
    """Compute the checksum anew; of an unfinished one the size alone, which is in its header."""
    field = frame.transport + transport.TCP_CHECKSUM
    size = frame.packet_size - (frame.transport - frame.ip)
    if frame.checksum_start:
        difference = checksum.difference_u16(size - growth, size)
        store_u16(memory, field, checksum.adjust_partial(load_u16(memory, field), difference))
        return
    store_u16(memory, field, 0)
    total = transport.full_checksum(memory, frame.ip, frame.transport, ipv4.TCP, size)
    store_u16(memory, field, total)


@compiled
def _read_request(tables, memory, frame, talk, begin, now_ms):
    """Take what is new of a client's stream into its line; behind a gap another line begins."""
    at, end = _payload(memory, frame)
    known = transport.distance(int64(talk.client_next), begin) if talk.client_known else 0
    talk.client_known = 1
    if known < 0:
        talk.client_line = 0
        known = 0
    for place in range(at + known, end):
        count = int64(talk.client_line)
        if count < talk.line.size:
            talk.line[count] = memory[place]
            talk.client_line = count + 1
        if memory[place] == replies.NEWLINE:
            _heed(tables, frame.connection, talk, now_ms)
            talk.client_line = 0
    if at + known <= end:
        talk.client_next = (begin + end - at) & transport.NUMBER_MASK


@apart
def _heed(tables, row, talk, now_ms):
    """Do what a client's line asks for, if it fits where lines are kept."""
    line, end = talk.line, int64(talk.client_line)
    entry = tables.connections[row]
    is_ipv4 = int64(entry.conn_flags) & FLAG_WIDE == 0
    port = 0
    if end < _LINE_MIN or line[end - 1] != replies.NEWLINE:
        return
    if is_ipv4 and replies.is_command(line, _PASV):
        talk.asked = PASSIVE
    elif replies.is_command(line, _EPSV):
        talk.asked = EXTENDED
    elif is_ipv4 and replies.is_command(line, _PORT):
        _, port = replies.read_numbers(line, _ARGUMENT, end)
    elif replies.is_command(line, _EPRT):
        _, port = replies.read_extended(line, _ARGUMENT, end)
    talk.held_count = max(0, int64(talk.held_count))  # what is asked for now may be held again
    if port:
        virtual, server = int64(entry.virtual_port) - 1, int64(entry.server_port) - 1
        expect(tables, row, port, virtual, server, now_ms)


@apart
def follow_reply(tables, memory, frame, now_ms):
    """Read what a real server says, rewrite what names it; return whether it may go on.

    The segment is sound.
    """
    place = _note(tables, frame)
    if place == NONE:
        return True
    talk = tables.talks[place]
    came = load_u32(memory, frame.transport + transport.SEQUENCE)
    at, end = _payload(memory, frame)
    begin, size = came, int64(frame.packet_size)
    if size <= _SURELY_WHOLE:
        frame.segment_kind = segments.GSO_NONE  # segments that were joined on the way may stay so
    is_read = tables.connections[frame.connection].state == states.ES
    if at < end and is_read and frame.segment_kind == segments.GSO_NONE:
        begin = _join_held(memory, frame, talk, came)
        found = _read_reply(tables, memory, frame, talk, begin, now_ms)
        if found == replies.PART and _hold(memory, frame, talk, begin):
            discard(frame, Reason.HELD_BACK)
            return False
    if frame.packet_size != size or begin != came or sequence.is_shifted(talk):
        number = sequence.to_client(talk, begin)
        store_u32(memory, frame.transport + transport.SEQUENCE, number)
        _mend(memory, frame, frame.packet_size - size)
    return True


@compiled
def _join_held(memory, frame, talk, begin):
    """Put what is held in front of what follows it; return the number of the first byte.

    What is sent again as it was is let go: perhaps the rest was lost, and will not be sent before.
    """
    at, end = _payload(memory, frame)
    count = int64(talk.held_count)
    if count <= 0:
        return begin
    if begin == talk.held_begin:
        talk.held_count = _LET_GO if end - at <= count else 0
        return begin
    if transport.distance(begin, int64(talk.held_begin)) != count or not _has_room(frame, count):
        return begin
    _stretch(memory, frame, at, count)
    for place in range(count):
        memory[at + place] = talk.held[place]
    talk.held_count = 0
    return int64(talk.held_begin)


@compiled
def _hold(memory, frame, talk, begin):
    """Keep a payload until its rest has come, if that may be; return whether."""
    at, end = _payload(memory, frame)
    if talk.held_count == _LET_GO or frame.signal & transport.FIN or end - at > talk.held.size:
        return False
    for place in range(end - at):
        talk.held[place] = memory[at + place]
    talk.held_begin = begin
    talk.held_count = end - at
    return True


@compiled
def _read_reply(tables, memory, frame, talk, begin, now_ms):
    """Look for the reply that is asked for, or for the last one again, and follow it.

    Returns what was found, as ``replies`` has it.
    """
    at, end = _payload(memory, frame)
    # What is sent again may begin anywhere: only where the last reply began is known.
    ahead = transport.distance(begin, int64(talk.server_next))
    begins = not talk.server_known or ahead > 0 or (ahead == 0 and not talk.in_reply)
    following = (begin + end - at) & transport.NUMBER_MASK
    in_reply = memory[end - 1] != replies.NEWLINE
    found, first, last, port = replies.OTHER, at, at, 0
    for place in range(at, end):
        number = (begin + place - at) & transport.NUMBER_MASK
        if begins or number == talk.reply:
            expected = PASSIVE if number == talk.reply else int64(talk.asked)
            if expected:
                found, first, last, port = replies.find_reply(memory, place, end, expected)
            if found == replies.WHOLE:
                behind = (begin + last - at) & transport.NUMBER_MASK
                _follow(tables, memory, frame, talk, number, behind, first, last, port, now_ms)
                break
            if found == replies.PART:
                return found
        begins = memory[place] == replies.NEWLINE
    if not talk.server_known or transport.distance(following, int64(talk.server_next)) > 0:
        talk.server_known = 1
        talk.server_next = following
        talk.in_reply = in_reply
    return found


@apart
def _follow(tables, memory, frame, talk, number, behind, first, last, port, now_ms):
    """Expect what a reply announces; in its text put the virtual address for the server's."""
    is_new = number != talk.reply
    expected = int64(talk.asked)
    if is_new:
        talk.asked = NOTHING
        talk.held_count = 0
        expect(tables, frame.connection, 0, port, port, now_ms)
        if expected == EXTENDED:
            return
    address = int64(tables.connections[frame.connection].virtual_address)
    growth = replies.size_of_numbers(address, port) - (last - first)
    if not _has_room(frame, growth):
        return
    _stretch(memory, frame, last, growth)
    replies.write_numbers(memory, first, address, port)
    if is_new:
        talk.reply = number
        if growth:
            sequence.note_change(talk, behind, growth)


@compiled
def _has_room(frame, growth):
    return frame.ip - frame.offset + frame.packet_size + growth <= _FRAME_MAX


@apart
def _stretch(memory, frame, at, growth):
    """Move what is behind a place in the packet, and say in its header how large it is now."""
    end = frame.ip + frame.packet_size
    if growth > 0:
        for place in range(end - 1, at - 1, -1):
            memory[place + growth] = memory[place]
    else:
        for place in range(at, end):
            memory[place + growth] = memory[place]
    frame.packet_size += growth
    frame.length = frame.ip - frame.offset + frame.packet_size
    if frame.family == 6:
        field = frame.ip + ipv6.PAYLOAD_LENGTH
        store_u16(memory, field, load_u16(memory, field) + growth)
    else:
        store_u16(memory, frame.ip + ipv4.TOTAL_LENGTH, frame.packet_size)
        ipv4.mend_checksum(memory, frame.ip)
