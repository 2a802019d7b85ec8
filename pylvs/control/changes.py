"""Changes to the table while traffic goes on: one by one, or a whole table as a difference.

    guard.before  ->  commands, a few between two breaths  ->  guard.after

A whole table is applied all or nothing: it is checked before, nobody else changes anything
meanwhile, and should the director refuse half-way, what was done is undone.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Final

from pylvs.control import Call, at_once
from pylvs.control.manager import Manager
from pylvs.control.model import (
    KERNEL_REFUSED,
    Command,
    Service,
    ServiceKey,
    Services,
    Timeouts,
    difference,
)
from pylvs.errors import HostError, PylvsError, RuleError, UsageError

TOGETHER: Final = 1_024  # commands that are guarded at a time
_A_BREATH: Final = 64  # commands carried out between two breaths: half a millisecond

Edit = Callable[[Service | None], Service | None]
"""Makes of a service, or of none, another, or none."""


class UnclaimedError(HostError):
    """All was carried out, and the host's tables do not follow."""

    def __init__(self, text: str, commands: Sequence[Command]) -> None:
        super().__init__(text)
        self.commands = commands


class Guard:
    """What is to be done around changes; this one does nothing."""

    def before(self, commands: Sequence[Command]) -> int:
        """Prepare for what the commands will add; raises HostError, and then nothing is changed.

        Returns what ``after`` is to be told.
        """
        return 0

    def after(self, prepared: int) -> str:
        """Follow what has changed; return what went wrong, a line, or an empty text."""
        return ""


class Changer:
    """Carries commands out: the only one who changes a running director's table."""

    def __init__(
        self,
        manager: Manager,
        call: Call = at_once,
        guard: Guard = Guard(),
        tell: Callable[[Sequence[Command]], None] = lambda _: None,
    ) -> None:
        """``tell`` is told of every command that was carried out."""
        self._manager = manager
        self._call = call
        self._guard = guard
        self._tell = tell
        self.alone = threading.RLock()

    def change(self, commands: Sequence[Command]) -> tuple[int, str]:
        """Carry commands out one by one; return the last one's status, and all complaints."""
        for command in commands:
            self._manager.preload(command.terms)
        with self.alone:
            try:
                prepared = self._guard.before(commands)
            except HostError as error:
                return KERNEL_REFUSED, f"{error}\n"
            refusals: list[RuleError | None] = []
            try:
                for clears, some in itertools.groupby(commands, lambda one: one.verb == "C"):
                    refusals += self._clear() if clears else self._apply(list(some))
            finally:
                trouble = self._guard.after(prepared)
        status = refusals[-1].status if refusals[-1] else 0
        told = "".join(f"{refusal}\n" for refusal in refusals if refusal)
        return (status or KERNEL_REFUSED, told + trouble) if trouble else (status, told)

    def replace(
        self, wanted: Services, timeouts: Timeouts | None = None, *, dry_run: bool = False
    ) -> list[Command]:
        """Make the table what is wanted, and return what that took; raises UsageError, HostError.

        A refusal leaves the table as it was, and names every fault that can be told ahead.
        """
        with self.alone:
            now, kept = self._manager.copy_services(), self._manager.table.timeouts
            commands = self._difference(now, wanted)
            if timeouts is not None and timeouts != kept:
                commands.append(Command("set", timeouts=timeouts))
            if commands and not dry_run:
                self._carry_out(commands, now)
            return commands

    def edit(self, key: ServiceKey, change: Edit) -> list[Command]:
        """Make one service what ``change`` makes of it, all or nothing; return what that took."""
        with self.alone:
            now = self._manager.copy_services([key])
            wanted = change(self._manager.copy_services([key]).get(key))
            commands = self._difference(now, {key: wanted} if wanted else {})
            if commands:
                self._carry_out(commands, now)
            return commands

    def _difference(self, now: Services, wanted: Services) -> list[Command]:
        for terms in {service.terms for service in wanted.values()}:
            self._manager.preload(terms)
        faults = self._manager.faults_of(wanted)
        if faults:
            raise UsageError("\n".join(faults))
        return difference(now, wanted)

    def _carry_out(self, commands: list[Command], before: Services) -> None:
        """Carry out all commands or none; ``before`` is what they touch as it was."""
        timeouts = self._manager.table.timeouts
        if self._manager.lacks_room_for(commands):
            commands = _room_first(commands)
        try:
            trouble = self._guarded(commands)
        except PylvsError as error:
            touched = {one.service for one in commands if one.service} | set(before)
            self._undo(touched, before, timeouts)
            raise type(error)(f"the table was left as it is: {error}") from None
        if trouble:
            raise UnclaimedError(trouble.strip(), commands)

    def _undo(self, touched: set[ServiceKey], before: Services, timeouts: Timeouts) -> None:
        undo = _room_first(difference(self._manager.copy_services(touched), before))
        if self._manager.table.timeouts != timeouts:
            undo.append(Command("set", timeouts=timeouts))
        try:
            trouble = self._guarded(undo)
        except PylvsError as error:
            raise HostError(f"a change failed half-way and could not be undone: {error}") from None
        if trouble:
            raise HostError(f"a change was undone, but the host did not follow: {trouble.strip()}")

    def _guarded(self, commands: Sequence[Command]) -> str:
        """Carry out commands up to a refusal, and raise that; return what the guard has to tell."""
        trouble = ""
        for at in range(0, len(commands), TOGETHER):
            some = commands[at : at + TOGETHER]
            prepared = self._guard.before(some)
            try:
                refusals = self._apply(some, stops=True)
            finally:
                trouble += self._guard.after(prepared)
            for refusal in filter(None, refusals):
                raise UsageError(str(refusal))
        return trouble

    def _clear(self) -> list[RuleError | None]:
        while self._manager.clear(_A_BREATH, self._call):
            pass
        self._tell([Command("C")])
        return [None]

    def _apply(self, commands: Sequence[Command], stops: bool = False) -> list[RuleError | None]:
        """Carry changes out, some in each breath; return the director's refusals.

        It may stop after the breath of the first.
        """
        refusals: list[RuleError | None] = []
        for at in range(0, len(commands), _A_BREATH):
            some = commands[at : at + _A_BREATH]
            refused = self._manager.apply_all(some, self._call)
            self._tell([one for one, why in zip(some, refused, strict=True) if why is None])
            refusals += refused
            if stops and any(refused):
                break
        return refusals


def _room_first(commands: Sequence[Command]) -> list[Command]:
    """Return the commands with those that make room in front."""
    return sorted(commands, key=lambda one: one.verb not in "dD")
