"""How functions are compiled.  Nothing else in pylvs imports numba.

One source, three lives: compiled to run, uncompiled (``NUMBA_DISABLE_JIT=1``) to check and
to cover, bounds-checked (``NUMBA_BOUNDSCHECK=1``) to be safe.

Numba's on-disk cache does not notice that a function *called by* a cached one has changed in
another file (numba#1833), nor that bounds checking was switched on.  The cache directory is
therefore named after a digest of the sources, that switch and the versions involved: any edit
starts a fresh directory.
"""

import functools
import hashlib
import importlib
import operator
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba as _numba
import numpy as np

numba: Any = _numba  # its stubs do not know the options used here
_codegen: Any = importlib.import_module("numba.core.codegen")
_cpu: Any = importlib.import_module("numba.core.cpu")
_ir: Any = importlib.import_module("llvmlite.ir")

_WIDE: Final = numba.types.int64
_Function = TypeVar("_Function")

COMPILES: Final = not numba.config.DISABLE_JIT
"""Whether ``@compiled`` functions run as machine code."""

if not COMPILES:
    np.seterr(over="ignore")  # compiled integers wrap around in silence: SipHash counts on it

CACHED_LAYERS: Final = (
    "",
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
_APART: Final[set[str]] = set()


def _rename(function: Any) -> str:
    """Give a function a name that tells it from a plug-in's, and return it: Numba goes by names."""
    function.__qualname__ = f"{function.__module__}.{function.__qualname__}"
    return str(function.__qualname__)


def door(function: Any) -> Any:
    """Compile a function of integers, arrays and records that Python may call.

    Nothing compiled here allocates, so reference counting is off: it cost 800 of 1,380 ns a frame.
    """
    _DOORS.add(_rename(function))
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

    For what happens to few frames, or is asked for in many places; LLVM takes it for unlikely.  It
    says so in as many words: unless told, Numba gives a function its caller's ``forceinline``, and
    with everything inlined everywhere LLVM took ten times as long for a slower door.
    """
    made = _inner(function, forceinline=False)
    _APART.add(function.__qualname__)
    return made


def _put_apart() -> None:
    """Have what leads to a function set ``apart`` laid out of the way of what leads elsewhere.

    LLVM takes a call of a function said to be cold for unlikely.  Told nothing, it left what most
    frames need in the order of the source, with everything else in between.
    """
    usual = _cpu.CPUContext.declare_function

    def declare_function(self: Any, module: Any, description: Any) -> Any:
        declared = usual(self, module, description)
        if description.qualname in _APART:
            declared.attributes.add("cold")
        return declared

    _cpu.CPUContext.declare_function = declare_function


_put_apart()


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


def _spell_records_once() -> None:
    """Keep what a record's type is called, all its fields: 19,000 characters for the tables.

    Numba asks anew in each pass over each function, for listeners that nobody has: a seventh of a
    first start.
    """
    spelled: dict[int, tuple[Any, str]] = {}  # with the type, so that its id stays its own
    usual = numba.types.Record.__repr__

    def spell(self: Any) -> str:
        if id(self) not in spelled:
            spelled[id(self)] = self, usual(self)
        return spelled[id(self)][1]

    numba.types.Record.__repr__ = spell


_spell_records_once()


def _count_from_the_front_only() -> None:
    """Take an index as it is, not counting negative ones from the end.

    We have none, and looking for them cost an eighth of the door's time.  Bounds-checked, a
    negative index is an error now instead of another row.
    """
    arrays: Any = importlib.import_module("numba.np.arrayobj")

    usual = arrays.fix_integer_index

    def fix_integer_index(context: Any, builder: Any, kind: Any, index: Any, size: Any) -> Any:
        if not _is_ours(builder):
            return usual(context, builder, kind, index, size)
        return context.cast(builder, index, kind, numba.types.intp)

    arrays.fix_integer_index = fix_integer_index


_count_from_the_front_only()


def _leave_slots_unset() -> None:
    """Do not zero a variable's slot where its function begins, only where it is set.

    Numba does so for its reference counts, which are off here; a slot that is to be zero for
    another reason says so (``zfill``).  A slot that is lent to a function set ``apart``, for its
    result, stays in memory, and each frame paid for all of them.
    """
    cgutils: Any = importlib.import_module("numba.core.cgutils")

    usual = cgutils.alloca_once

    def alloca_once(
        builder: Any, kind: Any, size: Any = None, name: str = "", zfill: bool = False
    ) -> Any:
        if size is not None or zfill or not _is_ours(builder):
            return usual(builder, kind, size, name, zfill)
        with builder.goto_entry_block():
            return builder.alloca(kind, name=name)

    cgutils.alloca_once = alloca_once


_leave_slots_unset()


def _is_ours(builder: Any) -> bool:
    """Whether what is being compiled is a function of ours, not a plug-in's or one of Numba's."""
    name = builder.module.name.partition("$")[0]
    return name in _DOORS or name in _INNER


def _inner(function: Any, **options: bool) -> Any:
    if not COMPILES:
        return function
    _INNER.add(_rename(function))
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


def one_load(size: int) -> Any:
    """Compile ``function(memory, at)``, a big-endian load of ``size`` bytes, as one instruction.

    What is written in Python says what it means, and is what runs uncompiled and bounds-checked.
    LLVM sees through single pairs of bytes only: the door is a tenth faster this way.
    """
    return _one_access(_Word(size).load)


def one_store(size: int) -> Any:
    """Compile ``function(memory, at, value)``, a big-endian store, likewise."""
    return _one_access(_Word(size).store)


def _one_access(emitter: Any) -> Any:
    return compiled if numba.config.BOUNDSCHECK else _emitted(emitter)


def _emitted(emitter: Any) -> Callable[[_Function], _Function]:
    """Compile a function as what ``emitter`` says in LLVM's words."""
    if not COMPILES:
        return lambda function: function
    return lambda function: numba.extending.intrinsic(emitter)


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return where element ``arguments[1]`` of array ``arguments[0]`` lies."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


class _Word:
    """LLVM's words for one access to ``size`` bytes, wherever they lie."""

    def __init__(self, size: int) -> None:
        self.type = _ir.IntType(8 * size)

    def load(self, typing_context: Any, memory: Any, at: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _address(context, builder, signature, arguments)
            word = builder.load(builder.bitcast(place, self.type.as_pointer()), align=1)
            return builder.zext(builder.bswap(word), _ir.IntType(64))

        return _WIDE(memory, _WIDE), emit

    def store(self, typing_context: Any, memory: Any, at: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _address(context, builder, signature, arguments)
            word = builder.bswap(builder.trunc(arguments[2], self.type))
            builder.store(word, builder.bitcast(place, self.type.as_pointer()), align=1)
            return context.get_dummy_value()

        return numba.types.none(memory, _WIDE, _WIDE), emit


def _prefetch(typing_context: Any, table: Any, row: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = _ir.IntType(8).as_pointer(), _ir.IntType(32)
        place = builder.bitcast(_address(context, builder, signature, arguments), byte)
        kind = _ir.FunctionType(_ir.VoidType(), [byte, word, word, word])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(instruction, [place, word(0), word(3), word(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return numba.types.none(table, _WIDE), emit


@_emitted(_prefetch)
def prefetch(table: Any, row: Any) -> None:
    """Have the processor bring a row, existing or not, into its cache while work goes on."""


def _barrier(typing_context: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acq_rel")
        return context.get_dummy_value()

    return numba.types.none(), emit


@_emitted(_barrier)
def barrier() -> None:
    """Keep what stands above from being done after what stands below, in rings shared with others.

    On x86-64 only the compiler has to be told: the processor keeps loads and stores in order.
    """


def entrance(function: Any) -> Any:
    """Return a ``@compiled`` function with an entrance, for tests."""
    if not COMPILES:
        return function
    _DOORS.add(function.py_func.__qualname__)
    return numba.njit(nogil=True, _nrt=False)(function.py_func)


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
    """Return a zeroed table of ``capacity`` records, every field an attribute."""
    return attributed(np.zeros(capacity, layout))


def attributed(table: Any) -> Any:
    """Return a structured array with its fields as attributes, for code that runs uncompiled.

    Compiled code reads ``entry.field`` from a plain structured array, which is also the
    cheapest argument to pass.
    """
    return table if COMPILES else table.view(_with_attributes(table.dtype))


@functools.cache
def _with_attributes(layout: np.dtype[Any]) -> np.dtype[Any]:
    """Return a layout whose records have fields as attributes, however deep; recarray's are slow.

    A field may not be named like what NumPy's own scalars have (``size``, ``flags``).
    """
    if layout.subdtype is not None:
        within, shape = layout.subdtype
        return np.dtype((_with_attributes(within), shape))
    if layout.fields is None:
        return layout
    shadowed = layout.fields.keys() & set(dir(np.void))
    assert not shadowed, f"NumPy scalars have attributes of these names: {shadowed}"
    record = type("Record", (np.void,), {name: _attribute(name) for name in layout.fields})
    names, places = zip(*layout.fields.items(), strict=True)
    formats = [_with_attributes(kind) for kind, *_ in places]
    offsets = [at for _, at, *_ in places]
    plain: Any = {"names": names, "formats": formats, "offsets": offsets}
    return np.dtype((record, np.dtype(plain | {"itemsize": layout.itemsize})))


def _attribute(name: str) -> property:
    def write(record: Any, value: Any) -> None:
        record[name] = value

    return property(operator.itemgetter(name), write)


def mark_compiled(part: str) -> None:
    """Note that all of ``part`` has been compiled and lies in the cache."""
    (CACHE_DIRECTORY / f"{part}.complete").touch()


def is_compiled(part: str) -> bool:
    """Whether ``part`` of this version of the sources was compiled on this machine before."""
    return (CACHE_DIRECTORY / f"{part}.complete").exists()
