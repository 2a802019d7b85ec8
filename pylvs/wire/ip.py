"""What both versions of IP have, whichever a packet is of.

An address is a pair of integers of 64 bits, ``(high, low)``, the halves of an IPv6 address; an IPv4
address is the low one, the other is 0.  No packet comes from or goes to an IPv6 address that looks
like that: ``::/96`` holds the loopback, the unspecified and the long deprecated "IPv4-compatible"
addresses (RFC 4291, section 2.5), and is refused at the door.  Halves are signed, as ``load_u64``
makes them: only equality, masks and an order, any order, are asked of them.
"""

from typing import Final

from numpy import int64

from pylvs.jit import compiled
from pylvs.wire import checksum, ipv4, ipv6
from pylvs.wire.memory import (
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u16,
    store_u32,
    store_u64,
)

CONGESTION_EXPERIENCED: Final = 3  # of the low two bits of TOS or traffic class (RFC 3168)
ECT_0: Final = 2


@compiled
def is_version_6(memory, ip):
    return load_u8(memory, ip) >> 4 == 6


@compiled
def from_ipv4(address):
    """Return an IPv4 address as a pair."""
    return int64(0), int64(address)


@compiled
def is_ipv4(address):
    return address[0] == 0 and address[1] >> 32 == 0


@compiled
def is_same(one, other):
    return one[0] == other[0] and one[1] == other[1]


@compiled
def is_none(address):
    """Whether it is 0.0.0.0 or ``::``."""
    return address[0] == 0 and address[1] == 0


@compiled
def load_wide(memory, at):
    """Return the IPv6 address at ``at``."""
    return load_u64(memory, at), load_u64(memory, at + 8)


@compiled
def store_wide(memory, at, address):
    store_u64(memory, at, address[0])
    store_u64(memory, at + 8, address[1])


@compiled
def source_of(memory, ip):
    """Return the address that the packet at ``ip`` comes from."""
    if is_version_6(memory, ip):
        return load_wide(memory, ip + ipv6.SOURCE)
    return from_ipv4(load_u32(memory, ip + ipv4.SOURCE))


@compiled
def destination_of(memory, ip):
    """Return the address that the packet at ``ip`` goes to."""
    if is_version_6(memory, ip):
        return load_wide(memory, ip + ipv6.DESTINATION)
    return from_ipv4(load_u32(memory, ip + ipv4.DESTINATION))


@compiled
def set_source(memory, ip, address):
    """Write where a packet comes from; no checksum is mended."""
    if is_version_6(memory, ip):
        store_wide(memory, ip + ipv6.SOURCE, address)
    else:
        store_u32(memory, ip + ipv4.SOURCE, address[1])


@compiled
def set_destination(memory, ip, address):
    """Write where a packet goes to likewise."""
    if is_version_6(memory, ip):
        store_wide(memory, ip + ipv6.DESTINATION, address)
    else:
        store_u32(memory, ip + ipv4.DESTINATION, address[1])


@compiled
def fold(address):
    """Return 32 bits of an address: IPv4's own, or IPv6's four words, one upon the other.

    Linux's schedulers go by this.
    """
    mixed = address[0] ^ address[1]
    return (mixed ^ (mixed >> 32)) & 0xFFFF_FFFF


@compiled
def difference(old, new):
    """Return what a checksum is adjusted by when one address takes the place of another."""
    return checksum.difference_u64(old[0], new[0]) + checksum.difference_u64(old[1], new[1])


@compiled
def traffic_class(memory, ip):
    """Return the TOS, or the traffic class."""
    if is_version_6(memory, ip):
        return ipv6.traffic_class(memory, ip)
    return load_u8(memory, ip + ipv4.TOS)


@compiled
def size_of(memory, ip):
    """Return the packet's size, as its header says."""
    if is_version_6(memory, ip):
        return ipv6.size_of(memory, ip)
    return load_u16(memory, ip + ipv4.TOTAL_LENGTH)


@compiled
def set_size(memory, ip, size):
    """Write the packet's size; a checksum of the header's is not mended."""
    if is_version_6(memory, ip):
        store_u16(memory, ip + ipv6.PAYLOAD_LENGTH, size - ipv6.HEADER_SIZE)
    else:
        store_u16(memory, ip + ipv4.TOTAL_LENGTH, size)
