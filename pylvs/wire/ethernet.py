"""Ethernet II header (IEEE 802.3, clause 3).

 0                       6                      12        14
+-----------------------+-----------------------+---------+
|      Destination      |        Source         |  Type   |
+-----------------------+-----------------------+---------+
"""

from typing import Final

from numpy import int64

from pylvs.jit import compiled
from pylvs.wire.memory import store_u16, store_u32, store_u64

DESTINATION: Final = 0
SOURCE: Final = 6
TYPE: Final = 12
HEADER_SIZE: Final = 14

IPV4: Final = 0x0800
ARP: Final = 0x0806
VLAN: Final = 0x8100
VLAN_SERVICE: Final = 0x88A8
IPV6: Final = 0x86DD

BROADCAST: Final = 0xFFFF_FFFF_FFFF
SIZE_MIN: Final = 60  # without frame check sequence; shorter frames arrive padded


@compiled
def write(memory, at, destination, source, ethertype):
    store_u64(memory, at, (int64(destination) << 16) | (source >> 32))
    store_u32(memory, at + 8, source & 0xFFFF_FFFF)
    store_u16(memory, at + TYPE, ethertype)
