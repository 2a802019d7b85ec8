"""The tables' layouts.  Every byte the data path keeps between packets is declared here.

Narrow types are for storage.  A field that enters arithmetic is widened with ``int()``, or is
int64 to begin with: uint64 + int64 is float64 in NumPy.  Addresses and ports are in host order;
a MAC is an int64 below 2**48.  Rows refer to rows by number, ``NONE`` (-1) being nobody.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.frames import NONE, REASON_COUNT
from pylvs.jit import records

# fmt: off

# One connection is one cache line: a lookup that misses the cache misses it once (5-7 ns at a
# million rows, against 26-29 ns for twelve columns).  An IPv6 connection keeps keyed 32-bit folds
# in the address fields and its three whole addresses in a second table at the same row, which is
# read only after the folds agree: 64 B more for those who use IPv6, nothing for those who do not.
CONNECTION: Final = np.dtype([
    ("client_address", np.uint32),
    ("virtual_address", np.uint32),
    ("server_address", np.uint32),
    ("client_port", np.uint16),
    ("virtual_port", np.uint16),
    ("server_port", np.uint16),
    ("protocol", np.uint8),
    ("state", np.uint8),
    ("conn_flags", np.uint32),     # ip_vs.h, IP_VS_CONN_F_*: the method in the low three bits
    ("server", np.int32),          # row in SERVER, NONE once that was removed
    ("next", np.int32),            # in its hash chain, or in the free list
    ("expires_ms", np.int64),      # engine clock; 0: the row is free
    ("timeout_ms", np.uint32),     # what the timer was last started with
    ("in_packets", np.uint32),     # IPVS's in_pkts
    ("wheel_tick", np.int32),      # where the row stands in the timing wheel
    ("wheel_next", np.int32),
    ("wheel_previous", np.int32),
    ("mark", np.uint32),           # IPVS's fwmark; no service has one yet
], align=True)
assert CONNECTION.itemsize == 64

FORWARDING_MASK: Final = 0x0007
MASQUERADE: Final = 0              # IP_VS_CONN_F_MASQ
LOCAL: Final = 1
TUNNEL: Final = 2
ROUTE: Final = 3                   # IP_VS_CONN_F_DROUTE
FLAG_HASHED: Final = 0x0040
FLAG_NO_OUTPUT: Final = 0x0080     # no reply was seen, none is expected
FLAG_INACTIVE: Final = 0x0100

STATISTICS: Final = [
    ("connections", np.int64),
    ("in_packets", np.int64),
    ("out_packets", np.int64),
    ("in_bytes", np.int64),        # of IP packets; 2**63 bytes is 23 years of 100 Gbit/s
    ("out_bytes", np.int64),
]

SERVICE: Final = np.dtype([
    ("used", np.int32),
    ("protocol", np.int32),
    ("address", np.uint32),
    ("port", np.uint16),
    ("_reserved", np.uint16),
    ("next", np.int32),            # in its hash chain
    ("scheduler", np.int32),       # schedulers.NUMBERS
    ("head", np.int32),            # newest server
    ("server_count", np.int32),
    # What the scheduler remembers.
    ("current", np.int32),         # rr, wrr: last pick; NONE is the list's head itself
    ("current_weight", np.int32),  # wrr
    ("max_weight", np.int32),      # wrr
    ("weight_step", np.int32),     # wrr: the weights' greatest common divisor
    *STATISTICS,
], align=True)

SERVER: Final = np.dtype([
    ("used", np.int32),
    ("available", np.int32),       # in its service's list; else only kept for connections
    ("address", np.uint32),
    ("port", np.uint16),
    ("forwarding", np.uint16),
    ("service", np.int32),
    ("next", np.int32),            # in its service's list, newest first
    ("next_sender", np.int32),     # in the chain of servers by their own address
    ("weight", np.int32),
    ("active", np.int32),
    ("inactive", np.int32),
    ("path", np.int32),            # row in PATH: how a frame gets there; NONE: no route
    ("neighbour", np.int32),       # row in NEIGHBOUR: its next hop
    ("virtual_address", np.uint32),  # what the service was, for the server's return
    ("virtual_port", np.uint16),
    ("protocol", np.uint16),
    *STATISTICS,
], align=True)

# A next hop, and how to reach it.  One row serves all servers and clients behind it.
NEIGHBOUR: Final = np.dtype([
    ("used", np.int32),
    ("port", np.int32),            # row in PORT
    ("address", np.uint32),
    ("state", np.int32),
    ("next", np.int32),            # in its hash chain
    ("attempts", np.int32),        # ARP requests since it was last heard of
    ("pinned", np.int32),          # a real server's: never makes place for another
    ("_reserved", np.int32),
    ("mac", np.int64),
    ("asked_ms", np.int64),        # when resolution was last asked for
], align=True)
UNKNOWN: Final = 0                 # NEIGHBOUR.state
ASKED: Final = 1
KNOWN: Final = 2
FAILED: Final = 3

# A route; the table is sorted, longest prefix first and lowest metric first.
PATH: Final = np.dtype([
    ("network", np.uint32),
    ("mask", np.uint32),
    ("gateway", np.uint32),        # 0: the destination itself is the next hop
    ("source", np.uint32),         # the director's address on this path
    ("port", np.int32),            # row in PORT; NONE: an interface the director does not run on
    ("mtu", np.int32),
    ("kind", np.int32),            # UNICAST, LOCAL, UNREACHABLE
    ("_reserved", np.int32),
], align=True)
UNICAST: Final = 1                 # rtnetlink.h, RTN_*
LOCAL_ADDRESS: Final = 2
BROADCAST_ADDRESS: Final = 3
UNREACHABLE: Final = 7

PORT: Final = np.dtype([
    ("mac", np.int64),
    ("address", np.uint32),
    ("mtu", np.int32),
    ("raw_ip", np.int32),          # no link layer: the frame's Ethernet header is the driver's
    ("own_arp", np.int32),         # no host stack behind it: the director resolves neighbours
    ("offloads", np.int32),        # takes unfinished checksums and GSO frames
    ("up", np.int32),
], align=True)

# An address that the director answers for: an ARP request, a ping.
OWN_ADDRESS: Final = np.dtype([
    ("address", np.uint32),
    ("answers_arp", np.int32),
    ("answers_ping", np.int32),
], align=True)

# A frame that is finished but for its next hop's MAC.
HELD: Final = np.dtype([
    ("neighbour", np.int32),       # NONE: the row is free
    ("port_out", np.int32),
    ("offset", np.int64),
    ("length", np.int64),
    ("checksum_start", np.int64),
    ("checksum_field", np.int64),
    ("segment_kind", np.int64),
    ("segment_size", np.int64),
    ("segment_header", np.int64),
    ("since_ms", np.int64),
], align=True)

DIRECTOR: Final = np.dtype([
    ("seed_0", np.int64),          # keys of the flow hash
    ("seed_1", np.int64),
    ("seed_2", np.int64),
    ("seed_3", np.int64),
    ("hash_shift", np.int64),      # HASH_BITS less the bucket count's logarithm
    ("free", np.int64),            # head of the list of free connection rows
    ("freed", np.int64),           # head and tail of those freed in this batch, not yet reusable
    ("freed_tail", np.int64),
    ("high_water", np.int64),      # rows never used begin here
    ("connection_count", np.int64),
    ("tick", np.int64),            # the wheel has been swept up to here
    ("path_count", np.int64),
    ("own_count", np.int64),
    ("born", np.int64),            # frames born in this batch
    ("leaving", np.int64),         # frames that leave with this batch
    ("scratch_begin", np.int64),   # region of memory for frames born in the director
    ("scratch_used", np.int64),
    ("scratch_size", np.int64),
    ("held_begin", np.int64),      # region of memory for frames on hold
    ("held_count", np.int64),
    ("wanted", np.int64),          # how often a next hop's MAC was newly wanted
    ("soliciting", np.int64),      # next hops that the director itself asks for
    ("neighbour_count", np.int64),  # rows ever used
    ("rover", np.int64),           # where to look for one to use again
    ("identification", np.int64),  # IPv4 id of packets the director originates
    ("icmp_tokens", np.int64),     # kernel's icmp_msgs_per_sec/burst, in thousandths
    ("icmp_filled_ms", np.int64),
    ("unlimited", np.int64),       # no rate limits: conformance
    ("forwards", np.int64),        # ip_forward: packets of servers without a connection
    ("reuse_mode", np.int64),      # conn_reuse_mode
    ("expire_gone", np.int64),     # expire_nodest_conn
    ("sloppy_tcp", np.int64),
    ("pmtu_disc", np.int64),
], align=True)

# fmt: on

HASH_BITS: Final = 44
WHEEL_SIZE: Final = 16_384
TICK_MS: Final = 64  # horizon 1,048 s: above every timeout but those of --set and persistence
SERVICE_BUCKETS: Final = 16_384
SENDER_BUCKETS: Final = 65_536
NEIGHBOUR_BUCKETS: Final = 4_096
HELD_LIMIT: Final = 128  # Linux queues 101 packets a neighbour (unres_qlen_bytes)
HELD_SLOT: Final = 66_048
TOKEN_BUCKETS: Final = 4_096  # destinations whose ICMP rate is kept apart


class Tables(NamedTuple):
    """Everything ``direct`` remembers.  Each field is an array of the layout it is named after."""

    director: Any  # DIRECTOR[1]
    connections: Any  # CONNECTION[limit]
    buckets: Any  # int32[2**k >= limit], heads of the connections' hash chains
    wheel: Any  # int32[WHEEL_SIZE], heads of the wheel's lists
    services: Any  # SERVICE[limit]
    service_buckets: Any  # int32[SERVICE_BUCKETS]
    servers: Any  # SERVER[limit]
    sender_buckets: Any  # int32[SENDER_BUCKETS], masqueraded servers by (protocol, RIP, port)
    neighbours: Any  # NEIGHBOUR[limit]
    neighbour_buckets: Any  # int32[NEIGHBOUR_BUCKETS]
    paths: Any  # PATH[limit]
    ports: Any  # PORT[16]
    own: Any  # OWN_ADDRESS[limit]
    held: Any  # HELD[HELD_LIMIT]
    timeouts: Any  # int64[2, 16], ms: a row each for TCP and UDP, by state
    tokens: Any  # int64[TOKEN_BUCKETS, 2]: thousandths of an ICMP message, since when
    reasons: Any  # int64[REASON_COUNT], how many frames had each
    totals: Any  # int64[5], STATISTICS of all services together


class Limits(NamedTuple):
    """How much the tables hold."""

    connections: int = 1_048_576
    services: int = 16_384
    servers: int = 131_072
    neighbours: int = 16_384
    paths: int = 4_096
    own: int = 16_384


def new_tables(limits: Limits, seed: tuple[int, int, int, int]) -> Tables:
    """Return empty tables.  ``seed`` keys the flow hash: four random ints of 44 bits."""
    bucket_bits = max(4, (limits.connections - 1).bit_length())
    tables = Tables(
        director=records(DIRECTOR, 1),
        connections=records(CONNECTION, limits.connections),
        buckets=np.full(1 << bucket_bits, NONE, np.int32),
        wheel=np.full(WHEEL_SIZE, NONE, np.int32),
        services=records(SERVICE, limits.services),
        service_buckets=np.full(SERVICE_BUCKETS, NONE, np.int32),
        servers=records(SERVER, limits.servers),
        sender_buckets=np.full(SENDER_BUCKETS, NONE, np.int32),
        neighbours=records(NEIGHBOUR, limits.neighbours),
        neighbour_buckets=np.full(NEIGHBOUR_BUCKETS, NONE, np.int32),
        paths=records(PATH, limits.paths),
        ports=records(PORT, 16),
        own=records(OWN_ADDRESS, limits.own),
        held=records(HELD, HELD_LIMIT),
        timeouts=np.zeros((2, 16), np.int64),
        tokens=np.zeros((TOKEN_BUCKETS, 2), np.int64),
        reasons=np.zeros(REASON_COUNT, np.int64),
        totals=np.zeros(len(STATISTICS), np.int64),
    )
    director = tables.director[0]
    for name, value in zip(("seed_0", "seed_1", "seed_2", "seed_3"), seed, strict=True):
        director[name] = value
    director["hash_shift"] = HASH_BITS - bucket_bits
    for name in ("free", "freed", "freed_tail"):
        director[name] = NONE
    director["tick"] = -1
    director["pmtu_disc"] = 1
    director["reuse_mode"] = 1
    director["forwards"] = 1
    tables.held["neighbour"] = NONE
    return tables
