"""Layouts of what the director knows of the network, and of what waits for it.

ports -- next hops -- routes -- path MTUs; own addresses; frames on hold, and fragments
"""

from typing import Final

import numpy as np

# fmt: off


def address(name: str) -> list[tuple[str, type]]:
    """Return the fields of an address' two halves, as ``wire.ip`` has it."""
    return [(f"{name}_high", np.int64), (f"{name}_low", np.int64)]


PORT: Final = np.dtype([
    ("mac", np.int64),
    ("address", np.uint32),        # for ARP
    ("mtu", np.int32),
    ("raw_ip", np.int32),          # no link layer: the frame's Ethernet header is the driver's
    ("own_arp", np.int32),         # no host stack behind it: the director resolves neighbours
    ("offloads", np.int32),        # takes unfinished checksums and GSO frames
    ("up", np.int32),
    ("interface", np.int32),       # the kernel's index
    ("redirects", np.int32),       # from how many processors frames may leave straight from XDP
], align=True)

# A next hop, and how to reach it.  One row serves all servers and clients behind it.
NEIGHBOUR: Final = np.dtype([
    ("used", np.int32),
    ("port", np.int32),            # row in PORT
    *address("address"),
    ("state", np.int32),
    ("next", np.int32),            # in its hash chain
    ("attempts", np.int32),        # ARP requests without an answer; NONE: nothing is asked
    ("pinned", np.int32),          # how many real servers' it is: none may take its place
    ("waiting", np.int32),         # frames on hold for it
    ("mac", np.int64),
    ("asked_ms", np.int64),        # when resolution was last asked for
], align=True)
UNKNOWN, ASKED, KNOWN, FAILED = range(4)  # NEIGHBOUR.state

# A route.  The table is sorted, longest prefix first and lowest metric first; IPv6's come last.
PATH: Final = np.dtype([
    *address("network"),
    *address("mask"),
    *address("gateway"),          # none: the destination itself is the next hop
    *address("source"),           # the director's address on this path
    ("port", np.int32),            # row in PORT; NONE: an interface the director does not run on
    ("mtu", np.int32),
    ("kind", np.int32),            # UNICAST, LOCAL, UNREACHABLE
    ("family", np.int32),
    ("mark", np.uint32),           # only for packets of this firewall mark; 0: for all
], align=True)
UNICAST: Final = 1                 # rtnetlink.h, RTN_*
LOCAL_ADDRESS: Final = 2
BROADCAST_ADDRESS: Final = 3
UNREACHABLE: Final = 7

# A path MTU that an ICMP error told (net/ipv4/route.c, fib_nh_exception).
MTU_EXCEPTION: Final = np.dtype([
    *address("address"),          # none: the row is free
    ("mtu", np.int32),
    ("expires_ms", np.int64),
    ("locked", np.int32),          # it also binds packets that the director only forwards
], align=True)

# An address that the director answers for: an ARP request or a neighbour solicitation, a ping.
OWN_ADDRESS: Final = np.dtype([
    *address("address"),
    ("answers_arp", np.int32),
    ("answers_ping", np.int32),
    ("announced", np.int32),
    ("in_pool", np.int32),         # full NAT sends from it
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
    ("lost", np.int64),            # its next hop does not answer
], align=True)

# Fragments of one packet, until all have come (net/ipv4/ip_fragment.c, struct ipq).
REASSEMBLY: Final = np.dtype([
    ("state", np.int32),           # FREE, OPEN, or COMPLETE until the batch is over
    *address("source"),
    *address("destination"),
    ("identification", np.int64),
    ("protocol", np.int32),        # 0 for IPv6, whose fragments are told by identification alone
    ("forwarded", np.int32),       # not addressed to the director: reassembled on the way
    ("expires_ms", np.int64),
    ("total", np.int32),           # payload bytes in all, as far as is known
    ("received", np.int32),
    ("has_last", np.int32),
    ("header", np.int32),          # the first fragment's header, in bytes; 0: it has not come
    ("first_size", np.int32),      # its payload
    ("largest", np.int32),         # the largest fragment, with its header
    ("largest_df", np.int32),      # the largest of those with DF
    ("ecn", np.int32),             # 1 << ECN of every fragment
    ("runs", np.int32),            # how many rows of ``runs`` are in use
    ("last_run", np.int32),        # the one that reaches furthest
    ("port_in", np.int32),
    ("_reserved", np.int32),
    ("mark", np.int64),
    ("ticket", np.int64),          # of its latest fragment, among its source's
], align=True)
FREE, OPEN, COMPLETE = range(3)    # REASSEMBLY.state

# fmt: on
