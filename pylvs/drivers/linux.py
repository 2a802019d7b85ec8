"""Linux: every constant and every system call that the drivers use.

Sources: linux/if_packet.h, linux/virtio_net.h, poll.h, sys/mman.h, asm-generic values for x86-64.
"""

import ctypes
import ctypes.util
import os
import time
from typing import Any, Final

import numpy as np

from pylvs.errors import HostError
from pylvs.jit import library_function, pointer

# fmt: off
SOL_PACKET: Final = 263
PACKET_RX_RING: Final = 5
PACKET_VERSION: Final = 10
PACKET_RESERVE: Final = 12
PACKET_VNET_HDR: Final = 15
PACKET_QDISC_BYPASS: Final = 20
PACKET_IGNORE_OUTGOING: Final = 23
TPACKET_V2: Final = 1
ETH_P_ALL: Final = 0x0003

# struct tpacket2_hdr, and struct sockaddr_ll behind it
RING_STATUS: Final = 0
RING_CAPTURED: Final = 8
RING_MAC: Final = 12
STATUS_KERNEL: Final = 0
STATUS_USER: Final = 0x01
STATUS_VLAN: Final = 0x10

# struct virtio_net_hdr, little-endian on every machine we run on
VNET_SIZE: Final = 10
VNET_FLAGS: Final = 0
VNET_GSO_TYPE: Final = 1
VNET_HEADER: Final = 2
VNET_GSO_SIZE: Final = 4
VNET_CHECKSUM_START: Final = 6
VNET_CHECKSUM_FIELD: Final = 8
VNET_NEEDS_CHECKSUM: Final = 1

MSG_DONTWAIT: Final = 0x40
POLLIN: Final = 1
POLLERR: Final = 8
CLOCK_MONOTONIC: Final = 1

_PROT_NONE: Final = 0
_PROT_READ_WRITE: Final = 3
_MAP_SHARED: Final = 0x01
_MAP_PRIVATE: Final = 0x02
_MAP_FIXED: Final = 0x10
_MAP_ANONYMOUS: Final = 0x20
_MAP_NORESERVE: Final = 0x4000
# fmt: on

POLLFD: Final = np.dtype([("fd", np.int32), ("events", np.int16), ("revents", np.int16)])

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

# For compiled loops; arguments and results are pointers and integers of pointer size.
sendto: Final = library_function("sendto", *[pointer] * 6)
poll: Final = library_function("poll", *[pointer] * 3)
clock_gettime: Final = library_function("clock_gettime", *[pointer] * 2)


def monotonic_ms() -> int:
    """Return the engine clock: what ``clock_gettime(CLOCK_MONOTONIC)`` says, in milliseconds."""
    return time.monotonic_ns() // 1_000_000


def page_up(size: int) -> int:
    page = os.sysconf("SC_PAGESIZE")
    return -(-size // page) * page


class Reservation:
    """One range of addresses that all rings and the director's own bytes are mapped into.

    ``array`` is uint8[size] over all of it.  Untouched pages cost nothing.
    """

    def __init__(self, size: int) -> None:
        self.size = page_up(size)
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
        self.address = _map(None, self.size, flags, -1)
        buffer: Any = (ctypes.c_uint8 * self.size).from_address(self.address)
        self.array: Any = np.frombuffer(buffer, np.uint8)

    def map_file(self, descriptor: int, begin: int, size: int) -> None:
        """Map ``size`` bytes of a descriptor (a ring) at offset ``begin``, a page's multiple."""
        _map(self.address + begin, size, _MAP_SHARED | _MAP_FIXED, descriptor)


def _map(address: int | None, size: int, flags: int, descriptor: int) -> int:
    got = _libc.mmap(address, size, _PROT_READ_WRITE, flags, descriptor, 0)
    if got is None or got == ctypes.c_void_p(-1).value:
        error = ctypes.get_errno()
        raise HostError(f"cannot map {size >> 20} MiB of memory: {os.strerror(error)}")
    return int(got)
