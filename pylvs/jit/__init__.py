"""How functions are compiled.  Nothing else in pylvs imports numba.

One source, three lives: compiled to run, uncompiled (``NUMBA_DISABLE_JIT=1``) to check and
to cover, bounds-checked (``NUMBA_BOUNDSCHECK=1``) to be safe.

patches    what Numba does otherwise for functions of ours
cache      where machine code is kept from one start to the next
"""

import functools
import importlib
import operator
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np

from pylvs.jit import cache
from pylvs.jit.patches import APART, DOORS, INNER, numba

_cgutils: Any = importlib.import_module("numba.core.cgutils")
_ir: Any = importlib.import_module("llvmlite.ir")

_WIDE: Final = numba.types.int64
_Function = TypeVar("_Function")

COMPILES: Final = not numba.config.DISABLE_JIT
"""Whether ``@compiled`` functions run as machine code."""

if not COMPILES:
    np.seterr(over="ignore")  # compiled integers wrap around in silence: SipHash counts on it

numba.config.CACHE_DIR = str(cache.DIRECTORY)


def _rename(function: Any) -> str:
    """Give a function a name that tells it from a plug-in's, and return it: Numba goes by names."""
    function.__qualname__ = f"{function.__module__}.{function.__qualname__}"
    return str(function.__qualname__)


def door(function: Any) -> Any:
    """Compile a function of integers, arrays and records that Python may call.

    Nothing compiled here allocates, so reference counting is off: it cost 800 of 1,380 ns a frame.
    """
    DOORS.add(_rename(function))
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
    APART.add(function.__qualname__)
    return made


def _inner(function: Any, **options: bool) -> Any:
    if not COMPILES:
        return function
    INNER.add(_rename(function))
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
    DOORS.add(function.py_func.__qualname__)
    return numba.njit(nogil=True, _nrt=False)(function.py_func)


def pointer_to(entered: Any, *arguments: Any) -> int:
    """Return where a door's machine code lies for arguments like these, compiling what is not."""
    if not COMPILES:
        return 0
    kinds = tuple(map(numba.typeof, arguments))
    entered.compile(kinds)
    made = entered.overloads[kinds]
    place = int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))
    assert place, f"{entered.py_func.__qualname__} has no machine code"
    return place


def by_pointer(entered: Any) -> Any:
    """Return what calls a door from compiled code: by its ``pointer_to``, the first argument.

    Called by its name it would be in two doors, and LLVM would optimize and assemble it twice: a
    fifth of a first start.  Pointers are made first, for arguments of the very same types.
    """
    if not COMPILES:
        return lambda _, *arguments: entered(*arguments)

    def call(typing_context: Any, address: Any, *arguments: Any) -> Any:
        kinds = tuple(map(numba.types.unliteral, arguments))
        result = entered.overloads[kinds].signature.return_type

        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            passed = _cgutils.unpack_tuple(builder, values[1])
            kind = context.call_conv.get_function_type(result, kinds).as_pointer()
            place = builder.inttoptr(values[0], kind)
            status, answer = context.call_conv.call_function(builder, place, result, kinds, passed)
            with _cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return answer

        return result(address, numba.types.StarArgTuple(arguments)), emit

    return numba.extending.intrinsic(call)


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
