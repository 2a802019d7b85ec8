"""Every fault of a document, not the first: its place, what is there, and what to say instead."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pylvs.control.config.schema import CHOICES
from pylvs.errors import UsageError

_FAULTS_LIMIT: Final = 100
_INSTEAD: Final[tuple[Any, ...]] = ("", [], {}, 0)
_NUMBER_LIMIT: Final = 1 << 64
_Part = TypeVar("_Part", bound=msgspec.Struct)


class Fault(NamedTuple):
    """One thing that is wrong; ``place`` as in ``services[0].servers[1].weight``."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


def refuse(name: str, faults: list[Fault]) -> None:
    """Raise UsageError with every fault, a line each, if there are any."""
    if faults:
        raise UsageError("\n".join(f"{name}: {fault}" for fault in faults))


def convert(data: Any, kind: type[_Part]) -> tuple[_Part, list[Fault]]:
    """Return ``data`` as a part, without what is wrong in it, and what that was.

    What is wrong is taken out and the rest tried again; in lists, something is put in its place,
    so that what follows keeps its number.
    """
    faults: dict[str, Fault] = {}
    tries: Counter[str] = Counter()
    data = _named(data, "", faults)
    while len(faults) < _FAULTS_LIMIT:
        try:
            return msgspec.convert(data, kind), list(faults.values())
        except msgspec.ValidationError as error:
            problem, _, path = str(error).partition(" - at `$")
            path = path.rstrip("`").removeprefix(".")
            steps: list[str | int] = [
                int(index) if index else name
                for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)
            ]
            fault, data = _repair(data, problem, path, steps, tries)
            faults.setdefault(fault.place, fault)
    least = {one.name: "" for one in msgspec.structs.fields(kind) if one.required}
    more = Fault("", f"and more: {_FAULTS_LIMIT} are told at a time")
    return kind(**least), [*faults.values(), more]


def _named(data: Any, place: str, faults: dict[str, Fault]) -> Any:
    """Return the data without names that no field has and no message could quote."""
    if isinstance(data, list):
        return [_named(one, f"{place}[{at}]", faults) for at, one in enumerate(data)]
    if not isinstance(data, dict):
        return data
    kept = {}
    for name, value in data.items():
        where = f"{place}.{name}" if place else name
        if re.fullmatch(r"[\w./-]+", name):
            kept[name] = _named(value, where, faults)
        else:
            faults[where] = Fault(place, f"there is no field {name[:40]!r}")
    return kept


def beside(faults: Sequence[Fault], others: Sequence[Fault]) -> list[Fault]:
    """Return the others that are not about what the faults are about.

    Something else was put in the place of that.
    """
    known = [fault.place for fault in faults]
    return [
        other
        for other in others
        if not any(_holds(other.place, one) or _holds(one, other.place) for one in known)
    ]


def _holds(place: str, inner: str) -> bool:
    return inner == place or inner.startswith((f"{place}.", f"{place}["))


def _repair(
    data: Any, problem: str, path: str, steps: list[str | int], tries: Counter[str]
) -> tuple[Fault, Any]:
    """Return the fault that msgspec tells, and the data without it.

    What has to be there is replaced by the next thing that has not been tried.
    """
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        place = ".".join(filter(None, (path, unknown[1])))
        return Fault(place, "there is no such field"), _without(data, [*steps, unknown[1]])
    missing = re.fullmatch(r"Object missing required field `(.*)`", problem)
    if missing:
        place = ".".join(filter(None, (path, missing[1])))
        instead = _INSTEAD[tries[place]]
        tries[place] += 1
        return Fault(place, "it is missing"), _without(data, [*steps, missing[1]], instead)
    expected = re.sub(r", got .*", "", problem).replace("`", "").replace("Expected ", "")
    if problem.startswith("Invalid enum value"):
        expected = f"one of {', '.join(CHOICES[str(steps[-1])])}"
    told = f"give {expected}, not {_shown(data, steps)}"
    instead = None
    if steps and isinstance(steps[-1], int):
        instead = _INSTEAD[tries[path]]
        tries[path] += 1
    return Fault(path, told), _without(data, steps, instead)


def _shown(data: Any, steps: list[str | int]) -> str:
    for step in steps:
        data = data[step]
    if isinstance(data, int) and abs(data) > _NUMBER_LIMIT:
        return "a number as large as that"
    text = repr(data)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _without(data: Any, steps: list[str | int], instead: Any = None) -> Any:
    """Return a copy of ``data`` without what the steps lead to, or with something in its place."""
    if not steps:
        return {}
    first, rest = steps[0], steps[1:]
    value = _without(data[first], rest, instead) if rest else instead
    if isinstance(data, list):
        assert isinstance(first, int)
        return [*data[:first], value, *data[first + 1 :]]
    kept = {key: old for key, old in data.items() if key != first}
    return kept if value is None else {**kept, first: value}
