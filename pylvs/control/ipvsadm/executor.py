"""ipvsadm's commands, carried out by a manager: what they print and how they exit."""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from pylvs.control import listing
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.grammar import TRY
from pylvs.control.ipvsadm.names import NUMERIC, Names, SystemNames
from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.ipvsadm.usage import HELP, VERSION
from pylvs.control.model import KERNEL_REFUSED, Command
from pylvs.errors import HostError, RuleError, UsageError

if TYPE_CHECKING:
    from pylvs.control.manager import Manager

_LIST_REFUSED: Final = 1
_CHANGES: Final = frozenset({"A", "E", "D", "C", "a", "e", "d", "Z", "set"})
_A_BREATH: Final = 32  # commands carried out between two breaths
_TOGETHER: Final = 256  # commands of a restore that are guarded at a time


class Result(NamedTuple):
    """What a command leaves behind."""

    status: int = 0
    output: str = ""
    error: str = ""


class Guard:
    """What is to be done around changes; this one does nothing."""

    def before(self, commands: Sequence[Command]) -> None:
        """Prepare for what the commands will add; raises HostError, and then nothing is changed."""

    def after(self) -> str:
        """Follow what has changed; return what went wrong, a line, or an empty text."""
        return ""


class Executor:
    """Carries command lines out; ``resolves`` says whether hosts and services may have names."""

    def __init__(
        self,
        manager: "Manager",
        call: listing.Call = listing.at_once,
        *,
        guard: Guard = Guard(),
        resolves: bool = False,
    ) -> None:
        self._manager = manager
        self._call = call
        self._guard = guard
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
            if command.verb in _CHANGES:
                status, complaints = self._change([command])
                return Result(status, "", complaints)
            return Result(output=self._carry_out(command, names))
        except RuleError as error:
            return Result(error.status, "", f"{error}\n")

    def _carry_out(self, command: Command, names: Names) -> str:
        if command.verb == "version":
            return VERSION
        if command.verb == "help":
            return HELP
        if "numeric" in command.show:
            names = NUMERIC
        return self._list(command, names)

    def _list(self, command: Command, names: Names) -> str:
        manager, show = self._manager, command.show
        if "timeout" in show:
            return render.timeouts(manager.table.timeouts)
        if "daemon" in show:
            return ""
        if "connection" in show:
            return render.connections(listing.connections(manager, self._call), show, names)
        rows = listing.read(manager, self._call)
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
            if waiting:
                status, complaints = self._change(waiting)
                errors += complaints
                waiting.clear()

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

    def _change(self, commands: Sequence[Command]) -> tuple[int, str]:
        """Carry changes out; return the last one's status, and all complaints."""
        for command in commands:
            self._manager.preload(command.terms.scheduler)
        try:
            self._guard.before(commands)
        except HostError as error:
            return KERNEL_REFUSED, f"{error}\n"
        refusals: list[RuleError | None] = []
        try:
            for clears, some in itertools.groupby(commands, lambda one: one.verb == "C"):
                refusals += self._clear() if clears else self._apply(list(some))
        finally:
            trouble = self._guard.after()
        status = refusals[-1].status if refusals[-1] else 0
        told = "".join(f"{refusal}\n" for refusal in refusals if refusal)
        return (status or KERNEL_REFUSED, told + trouble) if trouble else (status, told)

    def _clear(self) -> list[RuleError | None]:
        while self._call(lambda: self._manager.clear(_A_BREATH)):
            pass
        return [None]

    def _apply(self, commands: list[Command]) -> list[RuleError | None]:
        """Carry changes out, a few in each breath; return the kernel's refusals."""
        refusals: list[RuleError | None] = []
        for at in range(0, len(commands), _A_BREATH):
            some = commands[at : at + _A_BREATH]
            refusals += self._call(partial(list, map(self._refusal, some)))
        return refusals

    def _refusal(self, command: Command) -> RuleError | None:
        try:
            self._manager.apply(command)
        except RuleError as error:
            return error
        except UsageError as error:
            return RuleError(str(error), KERNEL_REFUSED)
        return None
