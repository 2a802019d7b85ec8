"""ipvsadm's commands, carried out by a manager: what they print and how they exit."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.grammar import TRY
from pylvs.control.ipvsadm.names import NUMERIC, Names, SystemNames
from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.model import KERNEL_REFUSED, Command
from pylvs.errors import RuleError, UsageError

if TYPE_CHECKING:
    from pylvs.control.manager import Manager

VERSION: Final = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"
_LIST_REFUSED: Final = 1
_CHANGES: Final = frozenset({"A", "E", "D", "C", "a", "e", "d", "Z", "set"})
_TOGETHER: Final = 16  # commands of a restore carried out between two breaths

Call = Callable[[Callable[[], Any]], Any]
"""Runs a function where the manager may be used, and returns its result: ``Engine.call``."""


class Result(NamedTuple):
    """What a command leaves behind."""

    status: int = 0
    output: str = ""
    error: str = ""


def _at_once(function: Callable[[], Any]) -> Any:
    return function()


class Executor:
    """Carries command lines out; ``resolves`` says whether hosts and services may have names."""

    def __init__(
        self, manager: "Manager", call: Call = _at_once, *, resolves: bool = False
    ) -> None:
        self._manager = manager
        self._call = call
        self._resolves = resolves

    def run(self, words: list[str], text: str = "") -> Result:
        """Carry out one command line, ``words`` without the program's name.

        ``text`` is what ``-R`` reads from standard input.
        """
        names = SystemNames() if self._resolves else NUMERIC
        try:
            command = parse_line(words, names) if words else Command("L")
            if command.verb == "R":
                return self._restore(text.splitlines(), names)
            return Result(output=self._carry_out(command, names))
        except RuleError as error:
            return Result(error.status, "", f"{error}\n")
        except UsageError as error:  # of a plug-in scheduler that is not there, say
            return Result(KERNEL_REFUSED, "", f"{error}\n")

    def _carry_out(self, command: Command, names: Names) -> str:
        if command.verb == "version":
            return VERSION
        if command.verb == "help":
            return VERSION + "Usage: see `pylvs ipvsadm --help` and ipvsadm(8).\n"
        if command.verb == "C":
            while self._call(lambda: self._manager.clear(_TOGETHER)):
                pass
            return ""
        if command.verb in _CHANGES:
            self._call(lambda: self._manager.apply(command))
            return ""
        if "numeric" in command.show:
            names = NUMERIC
        return self._list(command, names)

    def _list(self, command: Command, names: Names) -> str:
        from pylvs.control import listing

        manager, show = self._manager, command.show
        if "timeout" in show:
            return render.timeouts(manager.table.timeouts)
        if "daemon" in show:
            return ""
        if "connection" in show:
            entries = self._call(lambda: listing.take_connections(manager))
            return render.connections(listing.connection_rows(entries), show, names)
        rows = self._call(lambda: listing.take(manager)).rows()
        if command.verb == "S":
            return render.saved(rows, names)
        if command.service is None:
            return render.table(rows, show, names=names)
        chosen = [row for row in rows if row.key == command.service]
        if not chosen:
            raise RuleError("No such service", _LIST_REFUSED)
        return render.table(chosen, show, title=False, names=names)

    def _restore(self, lines: Iterable[str], names: Names) -> Result:
        """Carry lines out one by one: the kernel's refusals are told, a wrong line is the end."""
        status, output, errors = 0, "", ""
        waiting: list[Command] = []

        def flush() -> None:
            nonlocal status, errors
            if not waiting:
                return
            refusals = self._call(lambda: [self._refusal(command) for command in waiting])
            waiting.clear()
            errors += "".join(f"{refusal}\n" for refusal in refusals if refusal)
            status = refusals[-1].status if refusals[-1] else 0

        for words in filter(None, map(str.split, lines)):
            try:
                command = parse_line(words, names)
                if command.verb == "R":
                    raise RuleError(TRY, 255)
            except RuleError as error:
                flush()
                return Result(error.status, output, f"{errors}{error}\n")
            if command.verb in _CHANGES:
                waiting.append(command)
                if len(waiting) == _TOGETHER:
                    flush()
                continue
            flush()
            try:
                output += self._carry_out(command, names)
                status = 0
            except RuleError as error:
                errors += f"{error}\n"
                status = error.status
        flush()
        return Result(status, output, errors)

    def _refusal(self, command: Command) -> RuleError | None:
        """Carry a change out; return the kernel's refusal, if that was it."""
        try:
            self._manager.apply(command)
        except RuleError as error:
            return error
        except UsageError as error:
            return RuleError(str(error), KERNEL_REFUSED)
        return None
