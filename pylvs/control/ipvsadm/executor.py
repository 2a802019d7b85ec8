"""ipvsadm's commands, carried out by a manager: what they print and how they exit."""

import socket
from collections.abc import Callable, Container, Iterable
from typing import Final, NamedTuple

from pylvs.control import Call, at_once, listing
from pylvs.control.changes import TOGETHER, Changer
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.grammar import TRY
from pylvs.control.ipvsadm.names import NUMERIC, Names, SystemNames
from pylvs.control.ipvsadm.rules import Lines, parse_line
from pylvs.control.ipvsadm.usage import HELP, VERSION
from pylvs.control.manager import Manager
from pylvs.control.model import KERNEL_REFUSED, Command
from pylvs.errors import RuleError

_LIST_REFUSED: Final = 1
_CHANGES: Final = frozenset({"A", "E", "D", "C", "a", "e", "d", "Z", "set"})


class Result(NamedTuple):
    """What a command leaves behind."""

    status: int = 0
    output: str = ""
    error: str = ""
    ended: bool = False
    """Whether a wrong line was the end of what ``-R`` reads."""


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


class Executor:
    """Carries command lines out.

    ``resolves`` says whether hosts and services may have names, ``interfaces`` which the host has.
    """

    def __init__(
        self,
        manager: Manager,
        call: Call = at_once,
        *,
        changer: Changer | None = None,
        resolves: bool = False,
        interfaces: Callable[[], Container[str]] = _interfaces,
    ) -> None:
        self._manager = manager
        self._call = call
        self._change = (changer or Changer(manager, call)).change
        self._resolves = resolves
        self._interfaces = interfaces

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
        if command.verb in ("start", "stop"):
            raise RuleError(self._without_daemon(command), KERNEL_REFUSED)
        if "numeric" in command.show:
            names = NUMERIC
        return self._list(command, names)

    def _without_daemon(self, command: Command) -> str:
        """Return why there is no synchronisation daemon to be started or stopped."""
        if command.verb == "stop":
            return "No daemon is running"
        if command.daemon and command.daemon not in self._interfaces():
            return "No such device"
        return "the synchronisation daemon is not built yet"

    def _list(self, command: Command, names: Names) -> str:
        manager, show = self._manager, command.show
        if "timeout" in show:
            return render.timeouts(manager.table.timeouts)
        if "daemon" in show:
            return ""
        if "connection" in show:
            return render.connections(listing.connections(manager, self._call), show, names)
        counted = "stats" in show or "rate" in show
        rows = listing.read(manager, self._call, counted=counted)
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
        parser = Lines(names)

        def flush() -> None:
            nonlocal status, errors
            if waiting:
                status, complaints = self._change(waiting)
                errors += complaints
                waiting.clear()

        for words in filter(None, map(str.split, lines)):
            try:
                command = parser.parse(words)
                if command.verb == "R":
                    raise RuleError(TRY, 255)
            except RuleError as error:
                flush()
                return Result(error.status, output, f"{errors}{error}\n", ended=True)
            if command.verb in _CHANGES:
                waiting.append(command)
                if len(waiting) == TOGETHER:
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
