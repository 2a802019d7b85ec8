"""TCP (RFC 9293, section 3.1) and UDP (RFC 768) headers, as far as a director reads them.

TCP                                              UDP
+---------------+---------------+                +---------------+---------------+
|  Source port  |   Dest port   |                |  Source port  |   Dest port   |
+---------------+---------------+                +---------------+---------------+
|        Sequence number        |                |    Length     |   Checksum    |
+-------------------------------+                +---------------+---------------+
|     Acknowledgment number     |
+----+-----+----+---------------+
|Size|     |Flag|    Window     |
+----+-----+----+---------------+
|   Checksum    |    Urgent     |
+---------------+---------------+
"""

from typing import Final

import numpy as np
from numpy import int64

from pylvs.jit import compiled
from pylvs.wire import checksum, ipv4, ipv6
from pylvs.wire.memory import load_u8, load_u16

PORTS_SIZE: Final = 4
SOURCE_PORT: Final = 0
DESTINATION_PORT: Final = 2

SEQUENCE: Final = 4
ACKNOWLEDGMENT: Final = 8
DATA_OFFSET: Final = 12
FLAGS: Final = 13
WINDOW: Final = 14
TCP_CHECKSUM: Final = 16
TCP_HEADER_SIZE: Final = 20
NUMBER_MASK: Final = 0xFFFF_FFFF  # of sequence and acknowledgment numbers
OPTION_MSS: Final = 2
OPTION_SACK: Final = 5
OPTION_FAST_OPEN: Final = 34
OPTION_NOP: Final = 1
_OPTION_END: Final = 0

UDP_LENGTH: Final = 4
UDP_CHECKSUM: Final = 6
UDP_HEADER_SIZE: Final = 8

FTP_DATA: Final = 20
FTP: Final = 21
UNPRIVILEGED: Final = 1_024  # ports from here on anybody may listen at

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
CWR: Final = 0x80

SCTP_CHECKSUM: Final = 8
SCTP_HEADER_SIZE: Final = 12
SCTP_CHUNK_LENGTH: Final = 2
SCTP_CHUNK_SIZE: Final = 4  # its own header

# Events by chunk type: DATA, INIT, INIT ACK, SACK, two heartbeats, ABORT, two of SHUTDOWN, ERROR,
# COOKIE ECHO, COOKIE ACK, ECNE, CWR, SHUTDOWN COMPLETE (RFC 9260, section 3.2).
_SCTP_EVENTS: Final = np.array([0, 1, 2, 0, 0, 0, 9, 5, 6, 8, 3, 4, 0, 0, 7], np.int8)
SCTP_INIT: Final = 1
SCTP_ABORT: Final = 9
_ABORT: Final = 6
_COOKIE_ECHO: Final = 10
_COOKIE_ACK: Final = 11

UNTRACKED: Final = 1 << 16  # a transport header no packet is long enough to hold


@compiled
def header_size_min(protocol):
    """Return the least number of bytes of transport header a connection needs."""
    if protocol == ipv4.TCP:
        return TCP_HEADER_SIZE
    if protocol == ipv4.UDP:
        return UDP_HEADER_SIZE
    if protocol == ipv4.SCTP:
        return SCTP_HEADER_SIZE + SCTP_CHUNK_SIZE
    return UNTRACKED


@compiled
def sctp_event(memory, at, size):
    """Return what an SCTP packet's first chunk means, as ``tables.states`` numbers events.

    A cookie, echoed or acknowledged, with an ABORT right behind it counts as ABORT.
    """
    chunk = at + SCTP_HEADER_SIZE
    kind = load_u8(memory, chunk)
    if kind == _COOKIE_ECHO or kind == _COOKIE_ACK:
        length = load_u16(memory, chunk + SCTP_CHUNK_LENGTH)
        second = chunk + ((length + 3) & ~3)
        fits = second + SCTP_CHUNK_SIZE <= at + size
        if length >= SCTP_CHUNK_SIZE and fits and load_u8(memory, second) == _ABORT:
            kind = _ABORT
    return int64(_SCTP_EVENTS[kind]) if kind < _SCTP_EVENTS.size else 0


@compiled
def checksum_field(protocol):
    """Return where the checksum stands in a TCP or UDP header."""
    return TCP_CHECKSUM if protocol == ipv4.TCP else UDP_CHECKSUM


@compiled
def tcp_header_size(memory, transport):
    return (load_u8(memory, transport + DATA_OFFSET) >> 4) << 2


@compiled
def option_at(memory, at, end):
    """Return kind and size of TCP's option at a place; size 0: there is none from here on."""
    kind = load_u8(memory, at)
    if kind == OPTION_NOP:
        return kind, 1
    size = load_u8(memory, at + 1) if at + 1 < end and kind != _OPTION_END else 0
    return kind, size if size >= 2 and at + size <= end else 0


@compiled
def distance(number, other):
    """Return how far a number of TCP's is behind another, in a circle; negative before it."""
    ahead = (number - other) & NUMBER_MASK
    return ahead - (NUMBER_MASK + 1) if ahead > NUMBER_MASK >> 1 else ahead


@compiled
def pseudo_header(memory, ip, protocol, size):
    """Return the unfolded sum of the pseudo-header for ``size`` transport bytes.

    Of IPv4's or IPv6's: the sums differ in how many addresses' words there are (RFC 8200, 8.1).
    """
    begin, end = ip + ipv4.SOURCE, ip + ipv4.HEADER_SIZE
    if load_u8(memory, ip) >> 4 == 6:
        begin, end = ip + ipv6.SOURCE, ip + ipv6.HEADER_SIZE
    total = protocol + size
    for word in range(begin, end, 2):
        total += load_u16(memory, word)
    return total


@compiled
def full_checksum(memory, ip, transport, protocol, size):
    """Return the checksum of ``size`` bytes at ``transport``, whose own field must be zero.

    A UDP checksum of zero would mean "none" and comes out as all ones (RFC 768).
    """
    total = checksum.add(memory, transport, size, pseudo_header(memory, ip, protocol, size))
    result = ~checksum.fold(total) & 0xFFFF
    if result == 0 and protocol == ipv4.UDP:
        return 0xFFFF
    return result
