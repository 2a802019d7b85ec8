"""How functions are compiled.  Nothing else in pylvs imports numba.

One source, three lives: compiled to run, uncompiled (``NUMBA_DISABLE_JIT=1``) to check and
to cover, bounds-checked (``NUMBA_BOUNDSCHECK=1``) to be safe.

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
from typing import Any, Final

import numba as _numba
import numpy as np

numba: Any = _numba  # its stubs do not know the options used here

COMPILES: Final = not numba.config.DISABLE_JIT
"""Whether ``@compiled`` functions run as machine code."""

CACHED_LAYERS: Final = (
    "",
    "wire",
    "tables",
    "schedulers",
    "forwarding",
    "host",
    "engine",
    "drivers",
)


def _source_digest() -> str:
    """Name everything that a compiled function may depend on."""
    package = pathlib.Path(__file__).parent
    sources = sorted(path for layer in CACHED_LAYERS for path in (package / layer).glob("*.py"))
    state = (
        f"{numba.__version__} {np.__version__} {sys.version} {platform.machine()} "
        f"{numba.config.BOUNDSCHECK} {package}"
    )
    digest = hashlib.sha256(state.encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_directory() -> pathlib.Path:
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


CACHE_DIRECTORY: Final = _cache_directory()
numba.config.CACHE_DIR = str(CACHE_DIRECTORY)

door = numba.njit(nogil=True, cache=True, no_cfunc_wrapper=True, _nrt=False)
"""Compile a function of integers, arrays and records that Python may call.

Nothing compiled here allocates, so reference counting is off: it cost 800 of 1,380 ns a frame.
"""


def compiled(function: Any) -> Any:
    """Compile a function that only compiled functions call.

    It gets no entrance from Python, which saves a third of the cold compile (47 s to 34, measured),
    and is inlined into its caller: handing a call the tables' eighteen arrays costs more than most
    callees do (593 to 273 ns a frame).  Numba would crash on a call through the missing entrance,
    so such a call is refused here: the dispatcher is not told of its machine code and asks for a
    compilation, which raises.
    """
    if not COMPILES:
        return function
    dispatcher = numba.njit(
        nogil=True,
        cache=True,
        _nrt=False,
        forceinline=True,
        no_cfunc_wrapper=True,
        no_cpython_wrapper=True,
    )(function)

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError(f"{function.__qualname__} has no entrance from Python; see jit.entrance")

    dispatcher._insert = lambda *_, **__: None
    dispatcher._compile_for_args = refuse
    return dispatcher


def entrance(function: Any) -> Any:
    """Return a ``@compiled`` function with an entrance, for tests."""
    return numba.njit(nogil=True)(function.py_func) if COMPILES else function


pointer = numba.types.intp
"""The type of an address given to the C library."""


def library_function(name: str, *arguments: Any) -> Any:
    """Return C library function ``name`` (C int or ssize_t result) for use in compiled code.

    Unlike a ctypes pointer it can be cached.  Uncompiled code reaches the same function through
    ctypes, and ``errno`` is not looked at by either: a negative result is all they see.
    """
    if COMPILES:
        return numba.types.ExternalFunction(name, numba.types.intp(*arguments))
    import ctypes

    function = getattr(ctypes.CDLL(None), name)
    function.restype = ctypes.c_ssize_t
    function.argtypes = [ctypes.c_ssize_t] * len(arguments)
    return function


def records(layout: np.dtype[Any], capacity: int) -> Any:
    """Return a zeroed table of ``capacity`` records, every field an attribute.

    Compiled code reads ``entry.field`` from a plain structured array, which is also the
    cheapest argument to pass.  Uncompiled only a recarray has attributes, and NumPy's own come
    first: a field may not be named like one of them (``size``, ``flags``).
    """
    shadowed = set(layout.names or ()) & set(dir(np.record))
    assert not shadowed, f"NumPy scalars have attributes of these names: {shadowed}"
    table = np.zeros(capacity, layout)
    return table if COMPILES else table.view(np.recarray)


def mark_compiled(part: str) -> None:
    """Note that all of ``part`` has been compiled and lies in the cache."""
    (CACHE_DIRECTORY / f"{part}.complete").touch()


def is_compiled(part: str) -> bool:
    """Whether ``part`` of this version of the sources was compiled on this machine before."""
    return (CACHE_DIRECTORY / f"{part}.complete").exists()
