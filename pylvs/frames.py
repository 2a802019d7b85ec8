"""A batch of frames: where each lies in memory, what was read from it, what becomes of it.

    driver.receive  -> offset length port_in checksum_* segment_*
    parse           -> family protocol source destination ports ip transport packet_size, buckets
    match, schedule -> connection server
    forward         -> port_out verdict reason
    driver.transmit <- everything with verdict TRANSMIT

Rows ``0 .. count`` are the frames received; rows from ``count`` on are frames born in the
director (ICMP errors, resets, ARP, segments).  A born frame leaves right after the frame that
caused it, so frames leave by ``frames[0 .. director.leaving].leaves``, not by row.
"""

from enum import IntEnum
from typing import Final

import numpy as np

BATCH_SIZE: Final = 256  # 512 and more fall out of the second-level cache (measured: up to 2x)
BORN_LIMIT: Final = 1024  # frames a batch may give birth to; a 64 KB frame makes 46 segments
HEADROOM: Final = 64  # bytes free in front of every frame: tunnel headers, a virtio header
NONE: Final = -1
"""No row.  In every table and every field that names a row."""

_WIDE: Final = np.int64  # places in memory, addresses, marks
_SMALL: Final = np.int32

# One row a frame: the hot path's local variables.
FRAME: Final = np.dtype(
    [
        ("offset", _WIDE),  # of the Ethernet header in memory
        ("length", _SMALL),  # bytes from there
        ("port_in", _SMALL),  # row in PORT
        ("port_out", _SMALL),
        ("slot", _WIDE),  # the driver's own name for the frame's place
        ("tagged", _SMALL),  # the link stripped an 802.1Q tag
        (
            "checksum_start",
            _SMALL,
        ),  # transport header of an unfinished checksum; 0: none
        ("checksum_field", _SMALL),  # where the checksum goes, from checksum_start
        ("segment_kind", _SMALL),  # virtio GSO type; 0: an ordinary frame
        ("segment_size", _SMALL),  # payload bytes of each segment the frame stands for
        ("segment_header", _SMALL),  # bytes of headers in front of the payload
        ("family", _SMALL),  # 4, 6 or 0
        ("protocol", _SMALL),
        ("source", _WIDE),  # host order; for IPv6 a keyed fold, compared in full later
        ("destination", _WIDE),
        ("source_port", _SMALL),
        ("destination_port", _SMALL),
        ("ip", _WIDE),  # offset of the IP header in memory
        ("transport", _WIDE),  # offset of the transport header
        ("packet_size", _SMALL),  # bytes from the IP header on, as its header says
        ("signal", _SMALL),  # TCP's flags, or what an SCTP packet's first chunk means
        ("mark", _WIDE),  # firewall mark
        ("delivery", _SMALL),  # whose it is by its destination: LOCAL_DELIVERY ...
        ("fragment_max", _SMALL),  # the largest fragment it came in; 0: it came whole
        ("path", _SMALL),  # of a packet on its way: row in PATH
        ("quotes", _WIDE),  # offset of the IP header that an ICMP error quotes; 0: it quotes none
        ("request_bucket", _SMALL),  # of connections, if a client sent it
        ("reply_bucket", _SMALL),  # and if a real server did
        ("connection", _SMALL),  # row, or NONE
        ("service", _SMALL),  # row, or NONE
        ("server", _SMALL),  # ASK: the answer goes here
        ("verdict", _SMALL),
        ("reason", _SMALL),
        ("leaves", _SMALL),  # in row k: which frame is the k-th to leave
        ("source_high", _WIDE),  # of IPv6 alone: the whole addresses, in halves
        ("source_low", _WIDE),
        ("destination_high", _WIDE),
        ("destination_low", _WIDE),
    ],
    align=True,
)


class Verdict(IntEnum):
    """What becomes of a frame."""

    TRANSMIT = 0  # leaves by port_out
    PASS = 1  # the host's own stack has it
    DROP = 2
    HOLD = 3  # kept by the director until its next hop is known
    ASK = 4  # Python decides, then the door is entered again at this frame
    MATCH = 5  # not decided yet: look it up


# FRAME.delivery: the low two bits, then what a router still has to write into the IP options.
UNDECIDED: Final = 0  # nobody had to know yet
LOCAL_DELIVERY: Final = 1  # an address of the director's
ON_THE_WAY: Final = 2  # somebody else's: to be forwarded
FORWARDED_IN_PIECES: Final = 3  # likewise, and every fragment of it has paid its TTL
DELIVERY_MASK: Final = 3
RECORDS_ROUTE: Final = 4
RECORDS_TIME: Final = 8
STAMPED: Final = 16  # a timestamp was written
NO_ECHO: Final = 32  # its options are not for answers

SHORT: Final = -1  # FRAME.signal: ports, but not the whole transport header


class Reason(IntEnum):
    """Why a frame got its verdict.  One reason is one counter and one line of help.

    Members carry ``healthy``, the value a well-run director shows, and ``help``.
    """

    healthy: str
    help: str

    def __new__(cls, value: int, healthy: str, text: str) -> "Reason":
        member = int.__new__(cls, value)
        member._value_ = value
        member.healthy = healthy
        member.help = text
        return member

    FORWARDED = 0, "grows with traffic", "sent to the connection's real server"
    REPLIED = 1, "grows with NAT traffic", "a real server's reply, sent to its client"
    OBSERVED = 2, "0 unless replies cross the director", "a reply of a DR or TUN connection"
    NOT_OURS = 3, "any", "no virtual service and no connection: the host's"
    OTHER_HOST = 4, "any", "addressed to another station's MAC"
    NOT_IP = 5, "any", "neither IP nor ARP: the host's"
    TAGGED = 6, "any", "802.1Q or 802.1ad tagged: the host's"
    TRUNCATED = 7, "0", "shorter than its headers say"
    BAD_HEADER = 8, "0", "IP header malformed, or its checksum wrong"
    MARTIAN = (
        9,
        "0",
        "no client's source: multicast, broadcast, loopback, 0/8, or our own",
    )
    FRAGMENT = 10, "low", "a fragment, kept until the rest of its packet has come"
    RELATED = 11, "low", "an ICMP error about a connection, sent to its real server"
    OPTIONS = 12, "0", "source-routed: refused, as accept_source_route=0 does"
    STRAY = 13, "low", "no connection, and not a packet that may open one: answered with a reset"
    NO_SERVER = 14, "0", "service without a usable real server: answered with ICMP 3/3, ICMPv6 1/4"
    SERVER_GONE = 15, "0", "the connection's real server was removed"
    TABLE_FULL = 16, "0", "no room for another connection"
    SCHEDULER_FAILED = 17, "0", "the plug-in scheduler or persistence engine raised, or lied"
    TIME_EXCEEDED = 18, "low", "TTL was used up: answered with ICMP 11/0, ICMPv6 3/0"
    TOO_BIG = 19, "low", "larger than the path takes: answered with ICMP 3/4, ICMPv6 2/0"
    UNCUT = 20, "0", "a GSO frame that cannot be cut into packets for a tunnel"
    NO_ROUTE = 21, "0", "no route to the next hop"
    WAITING = 22, "low", "kept until the next hop's MAC is known"
    RELEASED = 23, "low", "left after waiting for its next hop's MAC"
    WAIT_FULL = 24, "0", "too many frames wait for a MAC"
    WAIT_TIMEOUT = 25, "0", "the next hop did not say its MAC"
    SCRATCH_FULL = 26, "0", "no room to build a frame"
    SEGMENTED = 27, "grows with TUN bulk traffic", "left as several segments inside a tunnel"
    ECHO = 28, "any", "ping to a VIP of the director's own, answered"
    ARP = 29, "any", "ARP or neighbour discovery for an address of the director's own"
    ARP_OTHER = 30, "any", "ARP or neighbour discovery about somebody else: the host's"
    RATE_LIMITED = 31, "low", "an ICMP error or reset that was due and not sent"
    SEND_FAILED = 32, "0", "the kernel did not take the frame"
    ROUTED = 33, "low", "a real server's packet without connection, forwarded as a router does"
    ERROR_SENT = 34, "low", "an ICMP error that the director sent"
    RESET_SENT = 35, "low", "a reset that the director sent"
    RELATED_REPLY = 36, "low", "a server's ICMP error about a connection, sent to its client"
    TUNNEL_ERROR = 37, "low", "an ICMP error about a tunnel's packet: its client was told"
    FRAGMENTED = 38, "low", "left in fragments"
    FRAGMENTS_BAD = 39, "0", "fragments that overlap, or of too large a packet: all dropped"
    FRAGMENTS_FULL = 40, "0", "too many packets in fragments at a time"
    FRAGMENTS_LATE = 41, "low", "a packet whose fragments did not all come in ipfrag_time"
    BAD_CHECKSUM = 42, "0", "an ICMP message or a packet to a closed port, its checksum wrong"
    BAD_OPTIONS = 43, "0", "IP options malformed: answered with ICMP 12/0, ICMPv6 4/2"
    DEFENDED = 44, "0", "a new connection refused by the drop_packet defence"
    CLOSED = (
        45,
        "any",
        "nothing listens there: answered with a reset, or ICMP 3/3 or 3/2 (1/4, 4/1)",
    )
    BYPASSED = 46, "0", "no real server, cache_bypass: sent on to where it was addressed"
    NOT_OF_A_SERVER = 47, "0", "a server's packet without connection, refused by nat_icmp_send"
    TIMESTAMP = 48, "any", "ICMP timestamp request, answered"
    DISCARDED = 49, "any", "for this host, which has no use for it and says nothing"
    NO_KEY = 50, "0", "the persistence engine found no key in the packet: a Call-ID, say"
    HELD_BACK = 51, "0", "part of an FTP server's reply: it leaves with the rest"
    NO_LOCAL_END = 52, "0", "full NAT: no local address and port is free towards the real server"
    OUT_OF_TURN = 53, "0", "full NAT: what would reach the server in front of PROXY's header"


REASON_COUNT: Final = len(Reason)
