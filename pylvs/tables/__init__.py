"""What is remembered between packets.

``layouts`` declares every byte; ``Tables`` bundles the arrays for their one way through the
door (as cheap as passing them singly: 2.3 us against 1.8 for fourteen arrays, measured).  The
other files are what can be done with one table each, in compiled code.
"""

import contextlib
import mmap
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pylvs.frames import NONE
from pylvs.jit import attributed
from pylvs.tables.layouts import SEEDS, TABLES
from pylvs.tables.sizes import FAR_FUTURE, HASH_BITS, ROOM, Limits
from pylvs.tables.sysctls import SETTINGS

_MAP_NORESERVE: Final = 0x4000  # sys/mman.h


class Tables:
    """Everything the director remembers: each field of ``TABLES`` as an array, for Python.

    ``all`` is the record itself, TABLES[1], as doors take it.
    """

    def __init__(self, world: Any) -> None:
        self.all = world
        for name in TABLES.names or ():
            setattr(self, name, world[0][name])

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no table {name}")


def new_tables(limits: Limits, seed: Sequence[int]) -> Tables:
    """Return empty tables.  ``seed`` keys the flow hash: random numbers, signed, of 64 bits."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    room = mmap.mmap(-1, TABLES.itemsize, flags)
    # A lookup among a million connections waits for page tables too: with pages of 2 MB a seventh
    # less.  Where the kernel does not have them, it says so, and that is all.
    assert TABLES.fields
    begin = TABLES.fields["buckets"][1] & -mmap.PAGESIZE  # what follows is the connections' too
    with contextlib.suppress(OSError):
        room.madvise(mmap.MADV_HUGEPAGE, begin, TABLES.itemsize - begin)
    tables = Tables(attributed(np.frombuffer(room, TABLES, 1)))
    director = tables.director[0]
    for name, value in limits._asdict().items():
        assert value <= getattr(ROOM, name), f"no room for {value} {name}"
        director[f"{name}_limit"] = value
    for number in range(SEEDS):
        director[f"seed_{number}"] = seed[number]
    # Twice as many as rows: with all taken, three lookups in four end at the chain's first row.
    bucket_bits = max(4, (limits.connections * 2 - 1).bit_length())
    director["hash_shift"] = HASH_BITS - bucket_bits
    tables.buckets[: 1 << bucket_bits] = NONE
    for name in (
        *("wheel", "service_buckets", "sender_buckets", "trash_buckets", "neighbour_buckets"),
        *("slot_owners", "cache_buckets", "key_buckets", "span_buckets"),
    ):
        getattr(tables, name)[:] = NONE
    for name in (
        "free",
        "free_server",
        "free_key",
        "free_span",
        "free_page",
        "free_local_end",
        "doomed",
    ):
        director[name] = NONE
    director["tick"] = -1
    director["dice"] = seed[0] & 0x7FFF_FFFF
    director["chores_ms"] = FAR_FUTURE
    for name, value in SETTINGS.items():
        director[name] = value
    tables.held["neighbour"] = NONE
    tables.talks["connection"] = NONE
    director["ftp_helper"] = 1
    tables.drop_counters[:] = range(len(tables.drop_counters))
    return tables
