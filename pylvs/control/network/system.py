"""What the director is to its system: privileges given up, the service manager told.

Sources: linux/capability.h, capset(2); sd_notify(3).
"""

import ctypes
import logging
import os
import resource
import socket
import struct
from collections.abc import Iterable
from typing import Final

from pylvs.errors import HostError

log = logging.getLogger("pylvs")

CAP_NET_ADMIN: Final = 12  # nftables, TAP devices
CAP_NET_RAW: Final = 13  # packet sockets
CAP_IPC_LOCK: Final = 14  # memory that XDP sockets share with the kernel
CAP_BPF: Final = 39  # programs for interfaces that come back
NEEDED: Final = (CAP_NET_ADMIN, CAP_NET_RAW)
NEEDED_FOR_BPF: Final = (*NEEDED, CAP_IPC_LOCK, CAP_BPF)

_CAP_SETPCAP: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION_3: Final = 0x2008_0522
_HEADER: Final = struct.Struct("Ii")
_SETS: Final = struct.Struct("6I")  # effective, permitted, inheritable: low halves, then high ones


def _call(name: str, *arguments: ctypes.Array[ctypes.c_char]) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise HostError(f"{name}: {os.strerror(ctypes.get_errno())}")


def _control(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise HostError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def capabilities() -> frozenset[int]:
    """Return the capabilities that this thread can use."""
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    sets = ctypes.create_string_buffer(_SETS.size)
    _call("capget", header, sets)
    low, _, _, high, _, _ = _SETS.unpack(sets.raw[: _SETS.size])
    return frozenset(one for one in range(64) if (high << 32 | low) >> one & 1)


def keep_capabilities(wanted: Iterable[int] = NEEDED) -> None:
    """Give up all capabilities but those, for good; before other threads, which inherit them."""
    held = capabilities()
    if _CAP_SETPCAP in held:  # or there is nothing that a program run later could have back
        for one in held.difference(wanted):
            _control(_PR_CAPBSET_DROP, one)
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    kept = sum(1 << one for one in held.intersection(wanted))
    low, high = kept & 0xFFFF_FFFF, kept >> 32
    header = ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0))
    sets = ctypes.create_string_buffer(_SETS.pack(low, low, 0, high, high, 0))
    _call("capset", header, sets)


def allow_descriptors() -> None:
    """Have as many open files as may be: workers have a socket at every queue."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def notify(state: str) -> None:
    """Tell the service manager, if one has asked to be told: ``READY=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        try:
            told.sendto(state.encode(), address)
        except OSError as error:
            log.warning("the service manager cannot be told %s: %s", state, error.strerror)
