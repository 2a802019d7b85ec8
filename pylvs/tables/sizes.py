"""How much there is room for: rows, buckets, regions of memory."""

from typing import Final, NamedTuple

HASH_BITS: Final = 64
WHEEL_SIZE: Final = 16_384
TICK_MS: Final = 64  # horizon 1,048 s: above every timeout but those of --set and persistence
SERVICE_BUCKETS: Final = 16_384
SPAN_BUCKETS: Final = 16_384
PORT_PAGES_LIMIT: Final = 65_536
SENDER_BUCKETS: Final = 65_536
TRASH_BUCKETS: Final = 65_536
NEIGHBOUR_BUCKETS: Final = 4_096
HELD_LIMIT: Final = 512
HELD_PER_HOP: Final = 101  # as many packets as Linux queues (unres_qlen_bytes)
HELD_SLOT: Final = 66_048
TOKEN_BUCKETS: Final = 4_096  # destinations whose ICMP rate is kept apart
CACHE_BUCKETS: Final = 4_096
REASSEMBLY_LIMIT: Final = 64  # packets; with their memory Linux's ipfrag_high_thresh, 4 MB
REASSEMBLY_SLOT: Final = 66_048
RUNS_LIMIT: Final = 128  # stretches without a hole, of one packet
SLOTS_BLOCK: Final = 256  # what dh's and sh's table takes; mh's takes sixteen
BLOCKS_LIMIT: Final = 4_096
CACHE_LIMIT: Final = 65_536
MARK_RULES_LIMIT: Final = 1_024
PORTS_LIMIT: Final = 16
POOL_LIMIT: Final = 256  # local addresses of FullNAT
LOCAL_BITS: Final = 22
LOCAL_ENDS_LIMIT: Final = 1 << LOCAL_BITS  # and its connections
EXCEPTION_LIMIT: Final = 1_024
KEY_LIMIT: Final = 65_536
TALKS_LIMIT: Final = 4_096
DATA_SENDERS_LIMIT: Final = 8_192
FLOW_BITS: Final = 13
FLOWS_PER_BUCKET: Final = 4
FLOWS_LIMIT: Final = FLOWS_PER_BUCKET << FLOW_BITS
FLOW_ROWS: Final = FLOWS_LIMIT + 16  # in whole pages
WARMING_LIMIT: Final = 256
FAR_FUTURE: Final = 1 << 62


class Limits(NamedTuple):
    """How much the tables may hold; at most what ``ROOM`` says."""

    connections: int = 1_048_576
    services: int = 16_384
    servers: int = 131_072
    neighbours: int = 16_384
    paths: int = 4_096


ROOM: Final = Limits(connections=1 << 24)  # a NumPy record is below 2 GB
