"""TCP's numbers, where text of another length was put into a stream.

server's number  ->  n + after from ``changed`` on, n + before in front of it
client's acknowledgment, and the edges of what it has besides (SACK, RFC 2018): the way back
"""

from numpy import int64

from pylvs.jit import apart, compiled
from pylvs.wire import transport
from pylvs.wire.memory import load_u32, store_u32


@compiled
def is_shifted(talk):
    return talk.before != 0 or talk.after != 0


@compiled
def to_client(talk, number):
    """Return what a number of the server's is to its client."""
    behind = transport.distance(number, int64(talk.changed)) >= 0
    return (number + int64(talk.after if behind else talk.before)) & transport.NUMBER_MASK


@compiled
def to_server(talk, number):
    """Return what a number that the client acknowledges is to the server."""
    behind = (number - int64(talk.after)) & transport.NUMBER_MASK
    if transport.distance(behind, int64(talk.changed)) >= 0:
        return behind
    return (number - int64(talk.before)) & transport.NUMBER_MASK


@compiled
def note_change(talk, number, growth):
    """The text in front of a number of the server's became longer."""
    talk.before = talk.after
    talk.after = int64(talk.after) + growth
    talk.changed = number


@apart
def shift_acknowledgments(memory, frame, talk):
    """Rewrite what a client acknowledges; the checksum is the caller's to mend."""
    header = frame.transport
    field = header + transport.ACKNOWLEDGMENT
    store_u32(memory, field, to_server(talk, load_u32(memory, field)))
    at = header + transport.TCP_HEADER_SIZE
    end = header + transport.tcp_header_size(memory, header)
    while at < end:
        kind, size = transport.option_at(memory, at, end)
        if size == 0:
            return
        if kind == transport.OPTION_SACK:
            for edge in range(at + 2, at + size - 3, 4):
                store_u32(memory, edge, to_server(talk, load_u32(memory, edge)))
        at += size
