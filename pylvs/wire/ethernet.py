"""Ethernet II header (IEEE 802.3, clause 3).

 0                       6                      12        14
+-----------------------+-----------------------+---------+
|      Destination      |        Source         |  Type   |
+-----------------------+-----------------------+---------+
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire.memory import store_u16, store_u48

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
    store_u48(memory, at + DESTINATION, destination)
    store_u48(memory, at + SOURCE, source)
    store_u16(memory, at + TYPE, ethertype)
