"""Linux: every constant and every system call that the drivers use.

Sources: linux/if_packet.h, linux/virtio_net.h, poll.h, sys/mman.h, asm-generic values for x86-64.
"""

import ctypes
import ctypes.util
import logging
import os
import socket
import struct
import time
from typing import Any, Final

import numpy as np

from pylvs.errors import HostError
from pylvs.jit import library_function, pointer

log = logging.getLogger("pylvs")

# fmt: off
SOL_PACKET: Final = 263
PACKET_RX_RING: Final = 5
PACKET_VERSION: Final = 10
PACKET_RESERVE: Final = 12
PACKET_VNET_HDR: Final = 15
PACKET_FANOUT: Final = 18
PACKET_QDISC_BYPASS: Final = 20
PACKET_FANOUT_DATA: Final = 22
PACKET_IGNORE_OUTGOING: Final = 23
PACKET_FANOUT_HASH: Final = 0
PACKET_FANOUT_BPF: Final = 7
PACKET_FANOUT_UNIQUEID: Final = 0x2000
PACKET_FANOUT_IGNORE_OUTGOING: Final = 0x4000
TPACKET_V2: Final = 1
ETH_P_ALL: Final = 0x0003

# struct tpacket2_hdr, and struct sockaddr_ll behind it
RING_STATUS: Final = 0
RING_CAPTURED: Final = 8
RING_MAC: Final = 12
RING_SECONDS: Final = 16
RING_NANOSECONDS: Final = 20
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

# linux/if_xdp.h
AF_XDP: Final = 44
SOL_XDP: Final = 283
XDP_MMAP_OFFSETS: Final = 1
XDP_RX_RING: Final = 2
XDP_TX_RING: Final = 3
XDP_UMEM_REG: Final = 4
XDP_UMEM_FILL_RING: Final = 5
XDP_UMEM_COMPLETION_RING: Final = 6
XDP_PGOFF_RX_RING: Final = 0
XDP_PGOFF_TX_RING: Final = 0x8000_0000
XDP_PGOFF_FILL_RING: Final = 0x1_0000_0000
XDP_PGOFF_COMPLETION_RING: Final = 0x1_8000_0000
XDP_SHARED_UMEM: Final = 1
XDP_COPY: Final = 2
XDP_USE_NEED_WAKEUP: Final = 8
XDP_RING_NEED_WAKEUP: Final = 1
XDP_PACKET_HEADROOM: Final = 256

SO_ATTACH_FILTER: Final = 26
SO_SNDBUFFORCE: Final = 32
SO_ATTACH_BPF: Final = 50
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
read: Final = library_function("read", *[pointer] * 3)
write: Final = library_function("write", *[pointer] * 3)
recvfrom: Final = library_function("recvfrom", *[pointer] * 6)
sendto: Final = library_function("sendto", *[pointer] * 6)
poll: Final = library_function("poll", *[pointer] * 3)
lock_mutex: Final = library_function("pthread_mutex_lock", pointer)
unlock_mutex: Final = library_function("pthread_mutex_unlock", pointer)
clock_gettime: Final = library_function("clock_gettime", *[pointer] * 2)


_MUTEX_SIZE: Final = 64
_SEND_BUFFER: Final = 16 << 20
_SCHED_SETATTR: Final = 314
_SLICE_MIN_NS: Final = 100_000


def wake_at_once() -> None:
    """Ask for short turns on the processor: whoever does runs as soon as it wakes.

    Otherwise whoever runs may do so for milliseconds more, in which rings overflow (EEVDF; kernels
    before 6.12 take no notice).  It needs no privilege, and gives no more time in all.
    """
    size, policy, options, priority = 48, os.sched_getscheduler(0), 0, 0
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    words = (size, policy, options, nice, priority, _SLICE_MIN_NS, 0, 0)
    request = ctypes.create_string_buffer(struct.pack("<IIQiIQQQ", *words))
    if policy == os.SCHED_OTHER and _libc.syscall(_SCHED_SETATTR, 0, request, 0):
        log.debug("sched_setattr: %s", os.strerror(ctypes.get_errno()))


class Mutex:
    """A lock for threads in compiled code and in Python: a pthread_mutex_t, at ``address``."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(_MUTEX_SIZE)  # zeroes: PTHREAD_MUTEX_INITIALIZER
        self.address = ctypes.addressof(self._bytes)

    def __enter__(self) -> None:
        _libc.pthread_mutex_lock(ctypes.c_void_p(self.address))  # without Python's own lock

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        _libc.pthread_mutex_unlock(ctypes.c_void_p(self.address))


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

    def map_file(self, descriptor: int, begin: int, size: int, offset: int = 0) -> None:
        """Map ``size`` bytes of a descriptor (a ring) at offset ``begin``, a page's multiple.

        ``offset`` is where in the descriptor's file.
        """
        _map(self.address + begin, size, _MAP_SHARED | _MAP_FIXED, descriptor, offset)

    def unmap(self, begin: int, size: int) -> None:
        """Put empty pages in the place of what was mapped there."""
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _map(self.address + begin, size, flags, -1)


def attach_filter(descriptor: int, *instructions: tuple[int, int, int, int]) -> None:
    """Have a socket take only what a classic BPF program lets through (linux/filter.h).

    ``instructions`` are code, jumps if true and if not, and a number.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
    request = struct.pack("HP", len(instructions), ctypes.addressof(program))
    if _libc.setsockopt(descriptor, socket.SOL_SOCKET, SO_ATTACH_FILTER, request, len(request)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enlarge_send_buffer(opened: socket.socket) -> None:
    """Let a socket hold a batch of the largest frames, or as much as is allowed."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, _SEND_BUFFER)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def bind(descriptor: int, address: bytes) -> None:
    """Bind a socket of a family that Python does not know; raises OSError."""
    if _libc.bind(descriptor, address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def map_over(table: Any, descriptor: int) -> None:
    """Map a descriptor's file over a table that has whole pages of memory to itself."""
    _map(table.ctypes.data, table.nbytes, _MAP_SHARED | _MAP_FIXED, descriptor)


def _map(address: int | None, size: int, flags: int, descriptor: int, offset: int = 0) -> int:
    got = _libc.mmap(address, size, _PROT_READ_WRITE, flags, descriptor, offset)
    if got is None or got == ctypes.c_void_p(-1).value:
        error = ctypes.get_errno()
        raise HostError(f"cannot map {size >> 20} MiB of memory: {os.strerror(error)}")
    return int(got)
