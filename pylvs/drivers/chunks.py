"""Chunks: the places that XDP sockets' frames lie in (a UMEM), and who has which.

spare ones, a worker's own <-> the reserve, which workers leave each other what they have too
                               much of in, under their mutex
"""

from typing import Final

import numpy as np

from pylvs.jit import compiled
from pylvs.wire.memory import load_native_u32, store_native_u32

CHUNK_SIZE: Final = 4_096
KEPT: Final = 256
"""Chunks that a worker who shares them has at hand: a batch's."""

UMEM: Final = np.dtype(
    [
        ("begin", np.int64),  # in memory
        ("end", np.int64),
        ("spare", np.int64),  # where the numbers of spare chunks lie, u32 each
        ("spare_count", np.int64),
        ("level", np.int64),  # how many chunks a queue is to have for the kernel to fill
        # Of workers who share chunks: where their mutex is in the process, or 0, for all that is
        # not their own; and in memory, behind their count, the numbers of chunks that are nobody's.
        ("lock", np.int64),
        ("reserve", np.int64),
    ]
)


@compiled
def holds(umem, place):
    """Whether a place in memory is in a chunk."""
    return umem.begin <= place < umem.end


@compiled
def take_back(memory, umem, place):
    """Take back the chunk at ``place`` in memory."""
    number = (place - umem.begin) // CHUNK_SIZE
    store_native_u32(memory, umem.spare + 4 * umem.spare_count, number)
    umem.spare_count += 1


@compiled
def draw(memory, umem, wanted):
    """Have so many spare chunks, if the reserve has them."""
    if umem.lock == 0 or umem.spare_count >= wanted:
        return
    left = load_native_u32(memory, umem.reserve)
    count = min(left, wanted - umem.spare_count)
    _move(memory, umem.spare, umem.spare_count, umem.reserve + 4, left - count, count)
    store_native_u32(memory, umem.reserve, left - count)
    umem.spare_count += count


@compiled
def give(memory, umem):
    """Leave spare chunks to the others, but for some."""
    count = umem.spare_count - KEPT
    if count <= 0:
        return
    left = load_native_u32(memory, umem.reserve)
    _move(memory, umem.reserve + 4, left, umem.spare, KEPT, count)
    store_native_u32(memory, umem.reserve, left + count)
    umem.spare_count = KEPT


@compiled
def _move(memory, to, to_place, numbers, place, count):
    for k in range(count):
        number = load_native_u32(memory, numbers + 4 * (place + k))
        store_native_u32(memory, to + 4 * (to_place + k), number)
