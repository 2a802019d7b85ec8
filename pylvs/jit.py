"""How functions are compiled.  Nothing else in pylvs imports numba.

One source, three lives: compiled to run, uncompiled (``NUMBA_DISABLE_JIT=1``) to check and
to cover, bounds-checked (``NUMBA_BOUNDSCHECK=1``) to be safe.

Numba's on-disk cache does not notice that a function *called by* a cached one has changed in
another file (numba#1833), nor that bounds checking was switched on.  The cache directory is
therefore named after a digest of the sources, that switch and the versions involved: any edit
starts a fresh directory.
"""

import hashlib
import importlib
import os
import pathlib
import platform
import sys
import tempfile
from typing import Any, Final

import numba as _numba
import numpy as np

numba: Any = _numba  # its stubs do not know the options used here
_codegen: Any = importlib.import_module("numba.core.codegen")
_cpu: Any = importlib.import_module("numba.core.cpu")

COMPILES: Final = not numba.config.DISABLE_JIT
"""Whether ``@compiled`` functions run as machine code."""

if not COMPILES:
    np.seterr(over="ignore")  # compiled integers wrap around in silence: SipHash counts on it

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

_DOORS: Final[set[str]] = set()
_INNER: Final[set[str]] = set()


def door(function: Any) -> Any:
    """Compile a function of integers, arrays and records that Python may call.

    Nothing compiled here allocates, so reference counting is off: it cost 800 of 1,380 ns a frame.
    """
    _DOORS.add(function.__qualname__)
    return numba.njit(nogil=True, cache=True, no_cfunc_wrapper=True, _nrt=False)(function)


def compiled(function: Any) -> Any:
    """Compile a function that only compiled functions call.

    It has no entrance from Python and no machine code of its own: that is made in the door it ends
    up in, where it is inlined.  A call from Python would crash, so it is refused here: the
    dispatcher is not told of any code and asks for a compilation, which raises.
    """
    return _inner(function, forceinline=True)


def apart(function: Any) -> Any:
    """Compile a function likewise, but as one that is called.

    For what happens to few frames, or is asked for in many places.
    """
    return _inner(function)


def _leave_inner_to_doors() -> None:
    """Optimize and assemble a function only where it ends up: in a door.

    Numba would do both for every function with all that it calls, over again at each level.
    """

    def is_inner(library: Any) -> bool:
        return library.name in _INNER and library.name not in _DOORS

    library = _codegen.CPUCodeLibrary
    context = _cpu.CPUContext
    optimize, finalize = library._optimize_final_module, library._finalize_final_module
    get_executable = context.get_executable

    def optimize_doors(self: Any) -> None:
        if not is_inner(self):
            optimize(self)

    def finalize_doors(self: Any) -> None:
        if is_inner(self):
            self._finalize_dynamic_globals()
            self._verify_declare_only_symbols()
            self._finalized = True
        else:
            finalize(self)

    def get_executable_of_doors(self: Any, library: Any, description: Any, env: Any) -> Any:
        if is_inner(library):
            return object()
        return get_executable(self, library, description, env)

    library._optimize_final_module = optimize_doors
    library._finalize_final_module = finalize_doors
    context.get_executable = get_executable_of_doors


_leave_inner_to_doors()


def _inner(function: Any, **options: bool) -> Any:
    if not COMPILES:
        return function
    _INNER.add(function.__qualname__)
    dispatcher = numba.njit(
        nogil=True,
        _nrt=False,
        no_cfunc_wrapper=True,
        no_cpython_wrapper=True,
        **options,
    )(function)

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError(f"{function.__qualname__} has no entrance from Python; see jit.entrance")

    dispatcher._insert = lambda *_, **__: None
    dispatcher._compile_for_args = refuse
    return dispatcher


def entrance(function: Any) -> Any:
    """Return a ``@compiled`` function with an entrance, for tests."""
    if not COMPILES:
        return function
    _DOORS.add(function.py_func.__qualname__)
    return numba.njit(nogil=True)(function.py_func)


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
    return attributed(np.zeros(capacity, layout))


def attributed(table: Any) -> Any:
    """Return a structured array with its fields as attributes, for code that runs uncompiled."""
    shadowed = set(table.dtype.names or ()) & set(dir(np.record))
    assert not shadowed, f"NumPy scalars have attributes of these names: {shadowed}"
    return table if COMPILES else table.view(np.recarray)


def mark_compiled(part: str) -> None:
    """Note that all of ``part`` has been compiled and lies in the cache."""
    (CACHE_DIRECTORY / f"{part}.complete").touch()


def is_compiled(part: str) -> bool:
    """Whether ``part`` of this version of the sources was compiled on this machine before."""
    return (CACHE_DIRECTORY / f"{part}.complete").exists()
