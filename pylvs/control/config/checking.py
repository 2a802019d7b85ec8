"""Every fault of a document, not the first: its place, what is there, and what to say instead."""

import re
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pylvs.control.config.schema import CHOICES
from pylvs.errors import UsageError

_FAULTS_LIMIT: Final = 100
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
            fault, data = _repair(data, problem, path, steps, path in faults)
            faults.setdefault(fault.place, fault)
    return kind(), [*faults.values(), Fault("", f"and more: {_FAULTS_LIMIT} are told at a time")]


def _repair(
    data: Any, problem: str, path: str, steps: list[str | int], again: bool
) -> tuple[Fault, Any]:
    """Return the fault that msgspec tells, and the data without it."""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        place = ".".join(filter(None, (path, unknown[1])))
        return Fault(place, "there is no such field"), _without(data, [*steps, unknown[1]])
    missing = re.fullmatch(r"Object missing required field `(.*)`", problem)
    if missing:
        place = ".".join(filter(None, (path, missing[1])))
        return Fault(place, "it is missing"), _without(data, [*steps, missing[1]], "")
    expected = re.sub(r", got .*", "", problem).replace("`", "").replace("Expected ", "")
    if problem.startswith("Invalid enum value"):
        expected = f"one of {', '.join(CHOICES[str(steps[-1])])}"
    told = f"give {expected}, not {_shown(data, steps)}"
    instead = None
    if steps and isinstance(steps[-1], int):
        instead = {} if again else ""
    return Fault(path, told), _without(data, steps, instead)


def _shown(data: Any, steps: list[str | int]) -> str:
    for step in steps:
        data = data[step]
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
