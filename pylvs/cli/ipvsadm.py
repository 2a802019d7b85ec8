"""ipvsadm's commands, carried out by a manager: what they print and how they exit."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from pylvs.cli import render
from pylvs.control.grammar import TRY
from pylvs.control.model import Command
from pylvs.control.rules import parse_line
from pylvs.errors import RuleError

if TYPE_CHECKING:
    from pylvs.control.manager import Manager

VERSION: Final = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"
_LIST_REFUSED: Final = 1


class Result(NamedTuple):
    """What a command leaves behind."""

    status: int = 0
    output: str = ""
    error: str = ""


def run(manager: "Manager", words: list[str], text: str = "") -> Result:
    """Carry out one command line, ``words`` without the program's name.

    ``text`` is what ``-R`` reads from standard input.
    """
    try:
        command = parse_line(words) if words else Command("L")
        if command.verb == "R":
            return _restore(manager, text.splitlines())
        return Result(output=_carry_out(manager, command))
    except RuleError as error:
        return Result(error.status, "", f"{error}\n")


def _carry_out(manager: "Manager", command: Command) -> str:
    from pylvs.control import listing

    if command.verb == "version":
        return VERSION
    if command.verb == "help":
        return VERSION + "Usage: see `pylvs --help` and ipvsadm(8).\n"
    if command.verb == "S":
        return render.saved(listing.read(manager))
    if command.verb != "L":
        manager.apply(command)
        return ""
    if "timeout" in command.show:
        return render.timeouts(manager.table.timeouts)
    if "daemon" in command.show:
        return ""
    if "connection" in command.show:
        return render.connections(listing.connections(manager), command.show)
    rows = listing.read(manager)
    if command.service is None:
        return render.table(rows, command.show)
    if command.service not in manager.table.services:
        raise RuleError("No such service", _LIST_REFUSED)
    chosen = [row for row in rows if row.key == command.service]
    return render.table(chosen, command.show, title=False)


def _restore(manager: "Manager", lines: Iterable[str]) -> Result:
    """Carry out a line at a time: the kernel's refusals are told, a wrong line is the end."""
    status, output, errors = 0, "", ""
    for line in lines:
        words = line.split()
        if not words:
            continue
        try:
            command = parse_line(words)
            if command.verb == "R":
                raise RuleError(TRY, 255)
        except RuleError as error:
            return Result(error.status, output, f"{errors}{error}\n")
        try:
            output += _carry_out(manager, command)
            status = 0
        except RuleError as error:
            errors += f"{error}\n"
            status = error.status
    return Result(status, output, errors)
