"""Big-endian loads and stores.  The only code that knows the network's byte order.

Loads widen to int64 at once: in NumPy ``uint8 << 8`` is zero, in Numba it is not, and a
function must mean the same thing compiled and uncompiled.  (``int()`` would not do: Numba makes
uint64 of an unsigned field, and uint64 + int64 is float64.)  Positions are made unsigned only
between the brackets: a signed index costs a test for Python's negative ones at every byte.
"""

import numpy as np
from numpy import int64, uint64

from pylvs.jit import compiled, one_load, one_store


@compiled
def load_u8(memory, at):
    return int64(memory[uint64(at)])


@one_load(2)
def load_u16(memory, at):
    return (int64(memory[uint64(at)]) << 8) | int64(memory[uint64(at + 1)])


@one_load(4)
def load_u32(memory, at):
    return (load_u16(memory, at) << 16) | load_u16(memory, at + 2)


@one_load(8)
def load_u64(memory, at):
    """Return eight bytes; as int64, so that those above 2**63 are negative."""
    return (load_u32(memory, at) << 32) | load_u32(memory, at + 4)


@compiled
def load_u48(memory, at):
    """Return a MAC address, with at least two bytes behind it, as an integer."""
    return (load_u64(memory, at) >> 16) & 0xFFFF_FFFF_FFFF


@one_store(2)
def store_u16(memory, at, value):
    memory[uint64(at)] = (value >> 8) & 0xFF
    memory[uint64(at + 1)] = value & 0xFF


@one_store(4)
def store_u32(memory, at, value):
    store_u16(memory, at, value >> 16)
    store_u16(memory, at + 2, value & 0xFFFF)


@one_store(8)
def store_u64(memory, at, value):
    store_u32(memory, at, (value >> 32) & 0xFFFF_FFFF)
    store_u32(memory, at + 4, value & 0xFFFF_FFFF)


@compiled
def store_u48(memory, at, value):
    store_u16(memory, at, value >> 32)
    store_u32(memory, at + 2, value & 0xFFFFFFFF)


@compiled
def load_native_u16(memory, at):
    """Return 16 bits in the machine's own byte order: what the kernel shares memory in."""
    return int64(memory[at : at + 2].view(np.uint16)[0])


@compiled
def load_native_u32(memory, at):
    return int64(memory[at : at + 4].view(np.uint32)[0])


@compiled
def store_native_u16(memory, at, value):
    memory[at : at + 2].view(np.uint16)[0] = value


@compiled
def store_native_u32(memory, at, value):
    memory[at : at + 4].view(np.uint32)[0] = value


@compiled
def load_native_u64(memory, at):
    """Return a native word below 2**63."""
    return int64(memory[at : at + 8].view(np.uint64)[0])


@compiled
def store_native_u64(memory, at, value):
    memory[at : at + 8].view(np.uint64)[0] = value


@compiled
def copy(memory, to, at, size):
    """Copy ``size`` bytes from ``at`` to ``to``; the two ranges do not overlap."""
    for i in range(size):  # a slice assignment would allocate a copy in between
        memory[to + i] = memory[at + i]


@compiled
def copy_out(memory, field, at, size):
    """Copy ``size`` bytes from ``at`` into a field of a record, an array of bytes."""
    for i in range(size):
        field[i] = memory[at + i]


@compiled
def copy_words(memory, to, at, size):
    """Copy likewise, eight bytes at a time, and so up to seven more."""
    for i in range(0, size, 8):
        store_native_u64(memory, to + i, load_native_u64(memory, at + i))
