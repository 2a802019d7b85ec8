"""One director a network namespace: its folder, its lock, its record of host changes.

    /run/pylvs/<inode of the network namespace>/director.lock      held while a director lives
                                                control            the socket commands come by

Without root the folder lies below ``$XDG_RUNTIME_DIR`` or the temporary directory.  The lock is the
kernel's, so a crash releases it; what a crashed director left in the host (its nftables table) is
cleared by the next start, which then holds the lock.
"""

import fcntl
import os
import pathlib
import tempfile
from typing import Final

from pylvs.errors import HostError

CONTROL: Final = "control"


def namespace_inode() -> int:
    """Return the number that tells this network namespace from others."""
    return os.stat("/proc/self/ns/net").st_ino


def _candidates() -> list[pathlib.Path]:
    parents = [pathlib.Path("/run/pylvs")]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        parents.append(pathlib.Path(runtime) / "pylvs")
    parents.append(pathlib.Path(tempfile.gettempdir()) / f"pylvs-{os.getuid()}")
    return [parent / str(namespace_inode()) for parent in parents]


def find_control() -> pathlib.Path:
    """Return the control socket of this namespace's director; raises FileNotFoundError."""
    for directory in _candidates():
        path = directory / CONTROL
        if path.is_socket() and path.stat().st_uid in (0, os.geteuid()):
            return path
    raise FileNotFoundError(CONTROL)


def state_directory() -> pathlib.Path:
    """Return this namespace's folder, made if need be."""
    candidates = _candidates()
    for directory in candidates:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    raise HostError(f"no folder to keep state in; tried {', '.join(map(str, candidates))}")


class Instance:
    """The right to be this namespace's director."""

    def __init__(self) -> None:
        self.directory = state_directory()
        self._lock = open(self.directory / "director.lock", "a+", encoding="ascii")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise HostError(
                f"a director already runs in this network namespace (process {holder}); "
                "stop it first"
            ) from None
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def close(self) -> None:
        """Give the right up.  The file stays: removing it could part two starters' locks."""
        self._lock.truncate(0)
        self._lock.close()
