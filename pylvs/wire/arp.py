"""ARP for IPv4 over Ethernet (RFC 826).

 0        2        4    5    6          8            14           18           24           28
+--------+--------+----+----+----------+------------+------------+------------+------------+
|Hardware|Protocol|Size|Size|Operation | Sender MAC | Sender IP  | Target MAC | Target IP  |
+--------+--------+----+----+----------+------------+------------+------------+------------+
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.wire.memory import load_u16, store_u16, store_u32, store_u48

OPERATION: Final = 6
SENDER_MAC: Final = 8
SENDER_ADDRESS: Final = 14
TARGET_MAC: Final = 18
TARGET_ADDRESS: Final = 24
SIZE: Final = 28

REQUEST: Final = 1
REPLY: Final = 2

_ETHERNET: Final = 1
_IPV4: Final = 0x0800
_SIZES: Final = 0x0604


@compiled
def is_ethernet_ipv4(memory, at):
    return (
        load_u16(memory, at) == _ETHERNET
        and load_u16(memory, at + 2) == _IPV4
        and load_u16(memory, at + 4) == _SIZES
    )


@compiled
def write(memory, at, operation, sender_mac, sender_address, target_mac, target_address):
    store_u16(memory, at, _ETHERNET)
    store_u16(memory, at + 2, _IPV4)
    store_u16(memory, at + 4, _SIZES)
    store_u16(memory, at + OPERATION, operation)
    store_u48(memory, at + SENDER_MAC, sender_mac)
    store_u32(memory, at + SENDER_ADDRESS, sender_address)
    store_u48(memory, at + TARGET_MAC, target_mac)
    store_u32(memory, at + TARGET_ADDRESS, target_address)
