"""Whole addresses in records and frames, and what a connection remembers of them.

    frame.source                       32 bits: IPv4's own address, or a keyed fold of IPv6's
    frame.source_high, source_low      the whole IPv6 address; of IPv4 frames never read

An address handed about is a pair, as ``wire.ip`` has it.
"""

from numpy import int64, uint64

from pylvs.jit import compiled
from pylvs.wire import ip


@compiled
def key_of(tables, address):
    """Return the 32 bits a connection remembers an address by.

    IPv6's is keyed multilinear hashing of its four words: whoever does not know the keys cannot
    choose addresses that fall together (Thorup, "High speed hashing for integers and strings",
    section 3.3).
    """
    if ip.is_ipv4(address):
        return address[1]
    director = tables.director[0]
    total = director.seed_2 * ((address[0] >> 32) & 0xFFFF_FFFF)
    total += director.seed_3 * (address[0] & 0xFFFF_FFFF)
    total += director.seed_4 * ((address[1] >> 32) & 0xFFFF_FFFF)
    total += director.seed_5 * (address[1] & 0xFFFF_FFFF)
    return int64(uint64(total) >> uint64(32))


@compiled
def source_of(frame):
    """Return the whole address that a frame's flow comes from."""
    if frame.family == 4:
        return ip.from_ipv4(frame.source)
    return frame.source_high, frame.source_low


@compiled
def destination_of(frame):
    """Return the whole address that a frame's flow goes to."""
    if frame.family == 4:
        return ip.from_ipv4(frame.destination)
    return frame.destination_high, frame.destination_low


@compiled
def set_ends(tables, frame, source, destination):
    """Give a frame's flow these ends, of its family."""
    frame.source = key_of(tables, source)
    frame.destination = key_of(tables, destination)
    frame.source_high, frame.source_low = source
    frame.destination_high, frame.destination_low = destination


@compiled
def address_of(entry):
    """Return the address in a record of whichever table."""
    return entry.address_high, entry.address_low


@compiled
def set_address(entry, address):
    entry.address_high, entry.address_low = address


@compiled
def is_at(entry, address):
    """Whether a record's address is this one."""
    return entry.address_low == address[1] and entry.address_high == address[0]


@compiled
def is_within(address, network, mask):
    """Whether an address, less what ``mask`` leaves out of it, is the network's."""
    return address[1] & mask[1] == network[1] and address[0] & mask[0] == network[0]
