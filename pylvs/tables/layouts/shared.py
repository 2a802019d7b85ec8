"""What the director's tables share with programs in the kernel: flows, which forward by themselves.

A flow is one way of a connection: its packets as they come, and what becomes of them.  Programs of
BPF read that, and count (``drivers.programs.offload``); ``connections.flows`` writes it.
"""

from typing import Final

import numpy as np

# fmt: off
FLOW: Final = np.dtype([
    ("source_high", np.int64),
    ("source_low", np.int64),
    ("destination_high", np.int64),
    ("destination_low", np.int64),
    ("ends", np.int64),            # ports, protocol and family: ``flows.ends_of``
    ("state", np.uint32),          # VACANT ... SHUT
    ("generation", np.uint32),     # it holds as long as this is the table's
    ("passed", np.uint32),         # packets left to the director while it was WARMING
    ("mtu", np.uint32),
    ("interface", np.uint32),      # that it leaves by: the kernel's index
    ("checksum_at", np.uint32),    # of the transport's checksum in a frame
    ("header_difference", np.uint32),   # what new addresses add to an IPv4 header's checksum
    ("address_difference", np.uint32),  # and to the transport's: native words, for the kernel
    ("port_difference", np.uint32),     # what new ports add to that
    ("rewrites", np.uint32),       # whether any of them is new
    ("outer", np.uint32),          # the family of the packet that it leaves in, or 0
    ("redirects", np.uint32),      # processors from which its interface takes frames of XDP's
    ("hash", np.uint32),           # by which the kernel spreads flows over queues
    ("link", np.uint8, (12,)),     # MAC addresses
    ("ports", np.uint8, (4,)),
    ("addresses", np.uint8, (32,)),     # source and destination, the outer ones in a tunnel
    ("packets", np.uint64),        # what the programs have sent
    ("octets", np.uint64),
    ("used_ns", np.uint64),        # when, last: CLOCK_MONOTONIC
    # From here on the director's own.
    ("connection", np.int64),      # row in CONNECTION
    ("is_reply", np.int64),
    ("twin", np.int64),            # row of the connection's other flow, or NONE
    ("seen_packets", np.int64),    # of those above, what was counted already
    ("seen_octets", np.int64),
    ("seen_passed", np.int64),
    ("since_ms", np.int64),        # when it was offered
    ("rests_until", np.int64),     # a vacant row: not to be used before this tick
    ("_rest", np.uint8, (24,)),
], align=True)
assert FLOW.itemsize == 256
FLOW_PLACES: Final = {name: int(place[1]) for name, place in (FLOW.fields or {}).items()}
VACANT, WARMING, OPEN_FLOW, SHUT = range(4)  # FLOW.state
# fmt: on
