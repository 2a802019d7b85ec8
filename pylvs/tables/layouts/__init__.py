"""The tables' layouts.  Every byte the data path keeps between packets is declared here.

Narrow types are for storage.  A field that enters arithmetic is widened with ``int()``, or is
int64 to begin with: uint64 + int64 is float64 in NumPy.  An address is a pair (``wire.ip``), or 32
bits in host order; a MAC is below 2**48.  Rows refer to rows by number, ``NONE`` (-1) being nobody.
"""

from typing import Final

import numpy as np

from pylvs.frames import REASON_COUNT
from pylvs.tables import sizes
from pylvs.tables.layouts.network import (
    HELD,
    MTU_EXCEPTION,
    NEIGHBOUR,
    OWN_ADDRESS,
    PATH,
    PORT,
    REASSEMBLY,
    address,
)
from pylvs.tables.layouts.shared import FLOW
from pylvs.tables.sysctls import SETTINGS
from pylvs.wire.text import PORT_RANGES_LIMIT

# fmt: off


# One connection is one cache line: a lookup that misses the cache misses it once (5-7 ns at a
# million rows, against 26-29 ns for twelve columns).  An IPv6 connection keeps keyed 32-bit folds
# in the address fields and the whole addresses of its client and service in a second table at the
# same row, which is read only after the folds agree (its server's are in SERVER): 32 B more for
# those who use IPv6, nothing for those who do not.
CONNECTION: Final = np.dtype([
    ("client_address", np.uint32),
    ("virtual_address", np.uint32),  # a firewall mark's template: the mark
    ("server_address", np.uint32),
    ("client_port", np.uint16),    # a keyed template's: no port, but spreads a client's keys
    ("virtual_port", np.uint16),
    ("server_port", np.uint16),
    ("protocol", np.uint8),
    ("state", np.uint8),
    ("conn_flags", np.uint16),     # ip_vs.h, IP_VS_CONN_F_*: the method in the low three bits
    ("wheel_slot", np.uint16),     # where the row stands in the timing wheel
    ("server", np.int32),          # row in SERVER; NONE: it has none (bypass)
    ("next", np.int32),            # in its hash chain, or in the free list
    ("expires_ms", np.int64),      # engine clock; 0: the row is free
    ("timeout_ms", np.uint32),     # what the timer was last started with
    ("in_packets", np.uint32),     # IPVS's in_pkts
    ("wheel_next", np.int32),
    ("wheel_previous", np.int32),
    ("control", np.int32),         # row of the template or FTP control connection it is under
    ("controls", np.int32),        # how many are under it
], align=True)
assert CONNECTION.itemsize == 64

# What the server of a FullNAT connection sees in the place of its client.
LOCAL_END: Final = np.dtype([
    ("connection", np.int32),      # row in CONNECTION
    ("pool", np.int16),            # row in POOL_ADDRESS
    ("port", np.uint16),
    ("stage", np.int16),           # of its stream: UNANNOUNCED ... ARRIVED
    ("header", np.int16),          # bytes of PROXY's that it begins with
    ("begin", np.uint32),          # the number of the client's first byte
    ("next", np.int32),            # in its hash chain, row + 1, or in the free list
], align=True)
# No header belongs in front of it; its client has sent a SYN; its server has acknowledged that; and
# the header.
UNANNOUNCED, ANNOUNCED, BEGUN, ARRIVED = range(4)

# An address that FullNAT sends from; IPv4's come first.
POOL_ADDRESS: Final = np.dtype([
    *address("address"),
    ("first_port", np.int32),
    ("last_port", np.int32),
    ("next_port", np.int32),       # the one whose turn it is
], align=True)

WIDE_ENDS: Final = np.dtype([*address("client"), *address("virtual")])
assert WIDE_ENDS.itemsize == 32

FORWARDING_MASK: Final = 0x0007
MASQUERADE: Final = 0              # IP_VS_CONN_F_MASQ
LOCAL: Final = 1
TUNNEL: Final = 2
ROUTE: Final = 3                   # IP_VS_CONN_F_DROUTE
BYPASS: Final = 4
L3DSR: Final = 5                   # this one and the next are not Linux's
FULLNAT: Final = 6                 # of servers; their connections are masqueraded ones with
FLAG_LOCAL: Final = 0x0008         # a local end in the place of their client's
FLAG_OFFLOADED: Final = 0x0010     # some of its packets the kernel forwards: rows of ``flows``
FLAG_HASHED: Final = 0x0040
FLAG_NO_OUTPUT: Final = 0x0080     # no reply was seen, none is expected
FLAG_INACTIVE: Final = 0x0100
FLAG_HELPED: Final = 0x0200        # what is said on it is read, and numbers may be shifted
FLAG_SPAN: Final = 0x0400          # a template of a service known by what it spans
FLAG_NO_PORT: Final = 0x0800       # its client's port is the one it will come from
FLAG_TEMPLATE: Final = 0x1000
FLAG_ONE_PACKET: Final = 0x2000
FLAG_KEYED: Final = 0x4000         # a template with a key: this flag and the next are not Linux's
FLAG_WIDE: Final = 0x8000          # of IPv6

STATISTICS: Final = [
    ("connections", np.int64),
    ("in_packets", np.int64),
    ("out_packets", np.int64),
    ("in_bytes", np.int64),        # of IP packets; 2**63 bytes is 23 years of 100 Gbit/s
    ("out_bytes", np.int64),
]

SERVICE: Final = np.dtype([
    ("used", np.int32),
    ("protocol", np.int32),        # of a firewall mark's service: TCP, as in Linux
    *address("address"),
    ("port", np.uint16),
    ("family", np.uint16),
    ("mark", np.uint32),           # not 0: known by this firewall mark, and the family, alone
    ("span", np.int32),            # not 0: known by this number, and found by what it spans:
    ("prefix", np.int16),          # the length of its network's
    ("is_network", np.int16),      # and not of one address
    *address("netmask"),          # of persistent clients
    ("service_flags", np.int32),   # PERSISTENT, ONE_PACKET, SCHEDULER_1 ... 3
    ("persistent_ms", np.int64),   # a new template's timeout
    ("engine", np.int32),          # what gives its clients' keys (persistence), 0: none
    ("next", np.int32),            # in its hash chain
    ("scheduler", np.int32),       # schedulers.NUMBERS
    ("head", np.int32),            # newest server
    ("server_count", np.int32),
    # What the scheduler remembers.
    ("current", np.int32),         # rr, wrr: last pick; NONE is the list's head itself
    ("current_weight", np.int32),  # wrr
    ("max_weight", np.int32),      # wrr
    ("weight_step", np.int32),     # wrr: the weights' greatest common divisor
    ("slots_begin", np.int32),     # dh, sh, mh: where its table lies in ``slots``, or NONE
    ("slots_count", np.int32),
    ("cached", np.int32),          # lblc, lblcr: entries of its own
    ("cleanings", np.int32),       # lblc, lblcr: since the last full one
    ("clean_ms", np.int64),        # lblc, lblcr: when its entries are looked through next
    *STATISTICS,
], align=True)
PERSISTENT: Final = 0x01           # ip_vs.h, IP_VS_SVC_F_*
ONE_PACKET: Final = 0x04
SCHEDULER_1: Final = 0x08          # sh, mh: fallback
SCHEDULER_2: Final = 0x10          # sh, mh: port
SCHEDULER_3: Final = 0x20

SERVER: Final = np.dtype([
    ("used", np.int32),
    ("available", np.int32),       # in its service's list; else only kept for connections
    ("local", np.int32),           # the director itself, where it plays the host
    ("overloaded", np.int32),      # reached its upper threshold, not yet below the lower one
    *address("address"),
    ("port", np.uint16),
    ("forwarding", np.uint16),
    ("service", np.int32),
    ("next", np.int32),            # in its service's list, newest first
    ("next_sender", np.int32),     # in the chain of servers by their own address
    ("weight", np.int32),
    ("last_weight", np.int32),     # the last above 0: what mh's table is made of
    ("upper", np.int32),           # connection thresholds, 0: none
    ("lower", np.int32),
    ("active", np.int32),
    ("inactive", np.int32),
    ("persistent", np.int32),      # templates
    ("tunnel_type", np.int32),     # IPIP, GUE, GRE
    ("tunnel_port", np.int32),     # GUE
    ("tunnel_flags", np.int32),    # TUNNEL_CHECKSUM, TUNNEL_REMOTE_CHECKSUM
    ("dscp", np.int32),            # L3DSR: what its packets are marked with
    ("proxy", np.int32),           # FullNAT: it is told its clients' ends, by PROXY's header
    ("overhead", np.int32),        # bytes that its tunnel puts in front of a packet
    ("outer_size", np.int32),      # of which the outer IP header
    ("path", np.int32),            # row in PATH: how a frame gets there; NONE: no route
    ("neighbour", np.int32),       # row in NEIGHBOUR: its next hop
    ("exception", np.int32),       # row in MTU_EXCEPTION of its route; NONE, or UNROUTED
    *address("virtual"),          # what the service was, for the server's return
    ("virtual_mark", np.uint32),
    ("virtual_span", np.int32),
    ("virtual_port", np.uint16),
    ("protocol", np.uint16),
    ("virtual_family", np.int32),
    ("mh_at", np.int32),           # mh: where its permutation of the slots stands, and its step
    ("mh_skip", np.int32),
    ("cached", np.int32),          # entries of lblc and lblcr that name it
    ("idle_ms", np.int64),         # removed: when it was first seen without a connection; 0: never
    *STATISTICS,
], align=True)
UNROUTED: Final = -2               # nothing was sent to the server since it was last edited
IPIP, GUE, GRE = range(3)          # ip_vs.h, IP_VS_CONN_F_TUNNEL_TYPE_*
TUNNEL_CHECKSUM: Final = 1
TUNNEL_REMOTE_CHECKSUM: Final = 2

# What packets get a firewall mark: iptables -t mangle -A PREROUTING ... -j MARK.
MARK_RULE: Final = np.dtype([
    ("protocol", np.int32),        # 0: any
    ("first_port", np.int32),      # destination ports; 0 to 65535: a packet needs none
    ("last_port", np.int32),
    ("mark", np.uint32),
    ("family", np.int32),
    *address("source"),
    *address("source_mask"),
    *address("destination"),
    *address("destination_mask"),
], align=True)

# A network, or an address, of which services span some ports under a protocol.
SPAN: Final = np.dtype([
    *address("address"),
    ("length", np.int32),          # of its prefix
    ("protocol", np.int32),
    ("users", np.int32),           # services that are found here
    ("all_ports", np.int32),       # the one for what others leave, or NONE
    ("first_page", np.int32),      # of its map in ``port_pages``, or NONE
    ("next", np.int32),            # in its hash chain, or in the free list
], align=True)
PREFIX: Final = np.dtype([
    *address("mask"),
    ("length", np.int32),
    ("users", np.int32),           # services with it
], align=True)

# lblc, lblcr: which servers a destination address is sent to.
CACHE: Final = np.dtype([
    ("used", np.int32),
    ("service", np.int32),
    *address("address"),
    ("server", np.int32),          # lblc: its server; lblcr: head of its set, a row in MEMBER
    ("members", np.int32),         # lblcr: how many
    ("next", np.int32),            # in its hash chain
    ("used_ms", np.int64),
    ("changed_ms", np.int64),      # lblcr: when the set last grew or shrank
], align=True)
MEMBER: Final = np.dtype([
    ("used", np.int32),
    ("server", np.int32),
    ("next", np.int32),
], align=True)

# What a persistence engine read in a packet: its template is found by it.
KEY: Final = np.dtype([
    ("template", np.int32),        # row in CONNECTION
    ("next", np.int32),            # in its hash chain, or in the free list
    ("engine", np.int32),
    ("length", np.int32),
    ("octets", np.uint8, (256,)),
], align=True)

# What an FTP control connection has said.  Numbers are TCP's, of the side that counts them.
FTP: Final = np.dtype([
    ("connection", np.int32),      # row in CONNECTION
    ("asked", np.int32),           # which reply of the server's the client has asked for
    ("before", np.int32),          # what the server's numbers are shifted by before ``changed``
    ("after", np.int32),           # and from there on
    ("changed", np.int64),         # what followed the text that was last replaced
    ("reply", np.int64),           # where the reply began that it was in
    ("client_next", np.int64),     # the client's next byte, once it is known
    ("server_next", np.int64),     # the server's
    ("client_known", np.int32),
    ("server_known", np.int32),
    ("in_reply", np.int32),        # it is in the middle of a line
    ("client_line", np.int32),     # bytes in ``line``
    ("held_count", np.int32),      # bytes in ``held``
    ("held_begin", np.int64),      # the number of the first
    ("line", np.uint8, (64,)),     # of the client's line that is not yet complete
    ("held", np.uint8, (512,)),    # of a reply whose rest has not come: the client has not seen it
], align=True)

SEEDS: Final = 6
DIRECTOR: Final = np.dtype([
    *((f"seed_{number}", np.int64) for number in range(SEEDS)),  # keys of the flow hash
    ("hash_shift", np.int64),      # HASH_BITS less the bucket count's logarithm
    ("free", np.int64),            # head of the list of free connection rows
    ("doomed", np.int64),          # a connection that has to go once its packet was scheduled anew
    ("high_water", np.int64),      # rows never used begin here
    ("connection_count", np.int64),
    ("tick", np.int64),            # the wheel has been swept up to here
    ("path_count", np.int64),
    ("ipv4_path_count", np.int64),
    ("own_count", np.int64),
    ("held_count", np.int64),
    ("mark_rule_count", np.int64),
    ("born", np.int64),            # frames born in this batch
    ("listed", np.int64),          # those of them that were looked at for leaving
    ("parsed", np.int64),          # frames of this batch that were parsed
    ("leaving", np.int64),         # frames that leave with this batch
    # Region of memory for frames born in the director.
    ("scratch_begin", np.int64),
    ("scratch_used", np.int64),
    ("scratch_size", np.int64),
    ("held_begin", np.int64),      # region of memory for frames on hold
    ("wanted", np.int64),          # how often a next hop's MAC was newly wanted
    ("asks_ahead", np.int64),      # a new server's next hop is wanted before its first packet is
    ("soliciting", np.int64),      # next hops that the director itself asks for
    ("neighbour_count", np.int64),  # rows ever used
    ("rover", np.int64),           # where to look for one to use again
    ("identification", np.int64),  # IPv4 id of packets the director originates
    ("icmp_tokens", np.int64),     # kernel's icmp_msgs_per_sec/burst, in thousandths
    ("icmp_filled_ms", np.int64),
    ("unlimited", np.int64),       # no rate limits: conformance
    ("hosted", np.int64),          # no host stack behind: the director answers as one
    ("midnight_ms", np.int64),     # milliseconds since midnight UT when the engine's clock was 0
    ("reassembly_begin", np.int64),  # region of memory for fragments
    ("reassembly_count", np.int64),  # packets of which some fragments have come
    ("reassembled", np.int64),     # those completed in this batch
    ("connections_limit", np.int64),
    ("services_limit", np.int64),
    ("servers_limit", np.int64),
    ("neighbours_limit", np.int64),
    ("paths_limit", np.int64),
    ("keys_seen", np.int64),       # rows of KEY ever used
    ("free_key", np.int64),        # head of the list of those given back
    ("key_size", np.int64),        # of the packet's key, in ``key``
    ("awaited_count", np.int64),   # connections that wait for their client's port
    ("data_sender_count", np.int64),
    ("talk_rover", np.int64),      # where to look for a free row of FTP
    ("ftp_helper", np.int64),      # the control connections of FTP are listened to
    ("starter_count", np.int64),   # services whose servers may speak first (persistence.SIP)
    ("services_seen", np.int64),   # rows of SERVICE ever used
    ("servers_seen", np.int64),    # rows of SERVER ever used
    ("free_server", np.int64),     # head of the list of rows of SERVER that were given back
    ("service_count", np.int64),
    ("any_port_count", np.int64),  # services with port 0
    ("ftp_count", np.int64),       # TCP services with port 21
    ("mark_count", np.int64),      # services known by a firewall mark
    ("span_count", np.int64),      # services known by what they span
    ("pool_count", np.int64),      # rows of POOL_ADDRESS
    ("ipv4_pool_count", np.int64),
    ("pool_rover", np.int64),      # the one whose turn it is
    # Rows of LOCAL_END, of SPAN and of ``port_pages`` ever used; the list of those given back.
    ("local_ends_seen", np.int64),
    ("spans_seen", np.int64),
    ("pages_seen", np.int64),
    ("free_local_end", np.int64),
    ("free_span", np.int64),
    ("free_page", np.int64),
    ("ipv4_prefix_count", np.int64),  # lengths in ``span_prefixes``
    ("ipv6_prefix_count", np.int64),
    ("staged_count", np.int64),    # ranges that the next new service spans
    ("ipv4_count", np.int64),      # services: without any it is left alone
    ("ipv6_count", np.int64),
    ("serves_itself", np.int64),   # there was a real server that is the director itself
    ("exception_count", np.int64),  # rows of MTU_EXCEPTION ever used
    ("dice", np.int64),            # twos: state of its random numbers
    ("chores_ms", np.int64),       # when something of what follows is due
    ("verify_ms", np.int64),       # when known next hops are asked again; 0: there are none
    ("trash_ms", np.int64),        # when removed servers are looked through next; 0: there are none
    ("offloads", np.int64),        # the kernel forwards what is in ``flows``
    ("flow_count", np.int64),      # rows of FLOW in use
    ("offloaded", np.int64),       # packets that it has forwarded, as far as they were counted
    ("warming_count", np.int64),
    ("drop_rate", np.int64),       # each how-many-th new connection drop_packet refuses; 0: none
    ("drop_counter", np.int64),
    ("guarded", np.int64),         # secure_tcp is in force
    ("defence_ms", np.int64),      # when the defences act next
    *((name, np.int64) for name in SETTINGS),
], align=True)

# All tables are one record: compiled code is handed one address, whatever it needs of them, and
# how much of a table is used is a number, not a type.  Pages nobody touches cost nothing.
_SMALL: Final = [
    ("director", DIRECTOR, (1,)),
    ("timeouts", np.int64, (3, 16)),    # ms: a row each for TCP, UDP and SCTP, by state
    ("totals", np.int64, (5,)),         # STATISTICS of all services together
    ("reasons", np.int64, (REASON_COUNT,)),  # how many frames had each
    ("ports", PORT, (sizes.PORTS_LIMIT,)),
    ("wheel", np.int32, (sizes.WHEEL_SIZE,)),  # heads of the wheel's lists
    ("services", SERVICE, (sizes.ROOM.services,)),
    ("service_buckets", np.int32, (sizes.SERVICE_BUCKETS,)),
    ("spans", SPAN, (2 * sizes.ROOM.services,)),
    ("span_buckets", np.int32, (sizes.SPAN_BUCKETS,)),
    ("span_prefixes", PREFIX, (33 + 129,)),  # lengths in use, the longest first: IPv4's, IPv6's
    ("port_pages", np.int32, (sizes.PORT_PAGES_LIMIT, 256)),
    ("staged", np.int64, (PORT_RANGES_LIMIT, 2)),
    ("servers", SERVER, (sizes.ROOM.servers + 1,)),  # and one to look others up with
    ("trash_buckets", np.int32, (sizes.TRASH_BUCKETS,)),  # of removed servers
    ("sender_buckets", np.int32, (sizes.SENDER_BUCKETS,)),  # servers by what they send from
    ("neighbours", NEIGHBOUR, (sizes.ROOM.neighbours,)),
    ("neighbour_buckets", np.int32, (sizes.NEIGHBOUR_BUCKETS,)),
    ("paths", PATH, (sizes.ROOM.paths,)),
    ("exceptions", MTU_EXCEPTION, (sizes.EXCEPTION_LIMIT,)),
    # VIPs, a DIP of each family, full NAT's.
    ("own", OWN_ADDRESS, (sizes.ROOM.services + 2 + sizes.POOL_LIMIT,)),
    ("held", HELD, (sizes.HELD_LIMIT,)),
    ("tokens", np.int64, (sizes.TOKEN_BUCKETS, 2)),  # thousandths of an ICMP message, since when
    ("slots", np.int32, (sizes.BLOCKS_LIMIT * sizes.SLOTS_BLOCK,)),  # dh, sh, mh: rows in SERVER
    ("slot_owners", np.int32, (sizes.BLOCKS_LIMIT,)),  # the service whose a block is, or NONE
    ("cache", CACHE, (sizes.CACHE_LIMIT,)),
    ("cache_buckets", np.int32, (sizes.CACHE_BUCKETS,)),
    ("members", MEMBER, (sizes.CACHE_LIMIT,)),
    ("mark_rules", MARK_RULE, (sizes.MARK_RULES_LIMIT,)),
    ("key", np.uint8, (256,)),          # of the packet that is being scheduled
    ("keys", KEY, (sizes.KEY_LIMIT,)),
    ("key_buckets", np.int32, (sizes.KEY_LIMIT,)),
    ("talks", FTP, (sizes.TALKS_LIMIT,)),
    ("data_senders", np.int32, (sizes.DATA_SENDERS_LIMIT,)),  # servers of FTP, masqueraded
    ("details", np.int32, (sizes.ROOM.connections,)),  # a connection's in ``keys`` and the like
    ("reassembly", REASSEMBLY, (sizes.REASSEMBLY_LIMIT,)),
    ("runs", np.int32, (sizes.REASSEMBLY_LIMIT, sizes.RUNS_LIMIT, 2)),  # begin and end of what came
    ("tickets", np.int64, (sizes.TOKEN_BUCKETS,)),  # fragments that a source has sent
    ("drop_counters", np.int64, (9,)),  # drop_entry: by how many packets a connection has seen
    ("pool", POOL_ADDRESS, (sizes.POOL_LIMIT,)),
    ("warming", np.int32, (sizes.WARMING_LIMIT,)),  # flows that are not OPEN_FLOW yet
]
# A connection's row is one cache line only where the table begins at one.
_PAGE: Final = 4_096
TABLES: Final = np.dtype([
    *_SMALL,
    ("_rest_of_page", np.uint8, (-np.dtype(_SMALL, align=True).itemsize % _PAGE,)),
    # Whole pages, for maps of the kernel: how many flows a bucket has, and they; then their age.
    ("flow_counts", np.uint8, (1 << sizes.FLOW_BITS,)),
    ("flows", FLOW, (sizes.FLOW_ROWS,)),
    ("local_buckets", np.int32, (sizes.LOCAL_ENDS_LIMIT,)),  # heads of hash chains: row + 1, or 0
    ("local_ends", LOCAL_END, (sizes.LOCAL_ENDS_LIMIT,)),
    ("buckets", np.int32, (sizes.ROOM.connections * 2,)),  # heads of the connections' hash chains
    ("connections", CONNECTION, (sizes.ROOM.connections,)),
    ("wide_ends", WIDE_ENDS, (sizes.ROOM.connections,)),  # of the IPv6 connection in the same row
], align=True)

# fmt: on
