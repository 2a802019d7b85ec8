"""Where machine code is kept from one start to the next.

Numba's on-disk cache does not notice that a function *called by* a cached one has changed in
another file (numba#1833), nor that bounds checking was switched on.  The cache directory is
therefore named after a digest of the sources, that switch and the versions involved: any edit
starts a fresh directory.
"""

import hashlib
import os
import pathlib
import platform
import sys
import tempfile
from typing import Final

import numpy as np

from pylvs.jit.patches import numba

_LAYERS: Final = (
    "",
    "jit",
    "wire",
    "tables",
    "tables/connections",
    "tables/layouts",
    "tables/services",
    "schedulers",
    "persistence",
    "helpers",
    "forwarding",
    "host",
    "engine",
    "drivers",
)


def _source_digest() -> str:
    """Name everything that a compiled function may depend on."""
    package = pathlib.Path(__file__).parent.parent
    sources = sorted(path for layer in _LAYERS for path in (package / layer).glob("*.py"))
    state = (
        f"{numba.__version__} {np.__version__} {sys.version} {platform.machine()} "
        f"{numba.config.BOUNDSCHECK} {package}"
    )
    digest = hashlib.sha256(state.encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _directory() -> pathlib.Path:
    """Return the first directory that can be written: the user's cache, else a private one.

    The private one is named after the user and refused unless that user owns it: compiled code
    is loaded from it.
    """
    digest = _source_digest()
    wanted = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    home = os.environ.get("HOME")
    if not wanted and home:
        wanted = os.path.join(home, ".cache")
    fallback = os.path.join(tempfile.gettempdir(), f"pylvs-{os.getuid()}")
    for root in (wanted, fallback):
        if not root:
            continue
        directory = pathlib.Path(root) / "pylvs" / digest
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(directory, os.W_OK) and directory.stat().st_uid == os.getuid():
            return directory
    return pathlib.Path(tempfile.mkdtemp(prefix="pylvs-"))


DIRECTORY: Final = _directory()


def mark_compiled(part: str) -> None:
    """Note that all of ``part`` has been compiled and lies in the cache."""
    (DIRECTORY / f"{part}.complete").touch()


def is_compiled(part: str) -> bool:
    """Whether ``part`` of this version of the sources was compiled on this machine before."""
    return (DIRECTORY / f"{part}.complete").exists()
