"""What Numba does otherwise for functions of ours, and for nobody else's.

It goes by their names: those of doors, of what ends up in them, and of what is set apart.  What is
asked once instead of often (``_ask_once``) is the same for all.
"""

import importlib
from typing import Any, Final

import numba as _numba

numba: Any = _numba  # its stubs do not know what is used of it
_cgutils: Any = importlib.import_module("numba.core.cgutils")
_codegen: Any = importlib.import_module("numba.core.codegen")
_cpu: Any = importlib.import_module("numba.core.cpu")
_flags: Any = importlib.import_module("numba.core.targetconfig")

DOORS: Final[set[str]] = set()
INNER: Final[set[str]] = set()
APART: Final[set[str]] = set()


def _put_apart() -> None:
    """Have what leads to a function set ``apart`` laid out of the way of what leads elsewhere.

    LLVM takes a call of a function said to be cold for unlikely.  Told nothing, it left what most
    frames need in the order of the source, with everything else in between.
    """
    usual = _cpu.CPUContext.declare_function

    def declare_function(self: Any, module: Any, description: Any) -> Any:
        declared = usual(self, module, description)
        if description.qualname in APART:
            declared.attributes.add("cold")
        return declared

    _cpu.CPUContext.declare_function = declare_function


_put_apart()


def _leave_inner_to_doors() -> None:
    """Optimize and assemble a function only where it ends up: in a door.

    Numba would do both for every function with all that it calls, over again at each level.
    """

    def is_inner(library: Any) -> bool:
        return library.name in INNER and library.name not in DOORS

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


def _ask_once() -> None:
    """Keep what Numba asks again and again while it compiles: a quarter of a first start.

    What a record's type is called, all its fields, 19,000 characters for the tables: in each pass
    over each function, for listeners that nobody has.  What a type takes in memory: for debuggers,
    by a module made and parsed for each variable.  Whether two functions' flags are the same: all
    of them, though those that were set tell.
    """
    spelled: dict[int, tuple[Any, str]] = {}  # with the type, so that its id stays its own
    sizes: dict[Any, int] = {}
    record, context, flags = numba.types.Record, _cpu.CPUContext, _flags.TargetConfig
    spell_anew, measure_anew, compare_all = record.__repr__, context.get_abi_sizeof, flags.__eq__

    def spell(self: Any) -> str:
        if id(self) not in spelled:
            spelled[id(self)] = self, spell_anew(self)
        return spelled[id(self)][1]

    def measure(self: Any, kind: Any) -> int:
        if kind not in sizes:
            sizes[kind] = measure_anew(self, kind)
        return sizes[kind]

    def compare(self: Any, other: Any) -> Any:
        is_same = type(self) is type(other) and self._values == other._values
        return is_same or compare_all(self, other)

    record.__repr__, context.get_abi_sizeof = spell, measure
    flags.__eq__, flags.__hash__ = compare, lambda self: hash(type(self))


_ask_once()


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
    usual = _cgutils.alloca_once

    def alloca_once(
        builder: Any, kind: Any, size: Any = None, name: str = "", zfill: bool = False
    ) -> Any:
        if size is not None or zfill or not _is_ours(builder):
            return usual(builder, kind, size, name, zfill)
        with builder.goto_entry_block():
            return builder.alloca(kind, name=name)

    _cgutils.alloca_once = alloca_once


_leave_slots_unset()


def _is_ours(builder: Any) -> bool:
    """Whether what is being compiled is a function of ours, not a plug-in's or one of Numba's."""
    name = builder.module.name.partition("$")[0]
    return name in DOORS or name in INNER
