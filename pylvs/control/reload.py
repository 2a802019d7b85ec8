"""A configuration file read again: the running director becomes what it states, or stays as it is.

Services go by the difference, so connections stay.  Settings that are no longer stated are as they
were at the start.  Where the director runs takes a restart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from pylvs.control import settings
from pylvs.control.changes import UnclaimedError
from pylvs.control.config import file
from pylvs.control.config.checking import Fault, refuse
from pylvs.control.model import Command
from pylvs.errors import UsageError

if TYPE_CHECKING:
    from pylvs.control.daemon import Daemon


def reload(daemon: "Daemon") -> Sequence[Command]:
    """Follow the file the director was started from, and return what that took.

    Raises UsageError or HostError, and then nothing has changed; but UnclaimedError when all has,
    and the host's tables do not follow.
    """
    path = daemon.options.config
    if not path:
        raise UsageError("this director was not started from a file; start it by pylvs run -c FILE")
    stated = file.read(path)
    moved = [
        Fault(f"director.{field.name}", "a change of it takes a restart")
        for field in msgspec.structs.fields(stated.place)
        if getattr(stated.place, field.name) != getattr(daemon.place, field.name)
    ]
    refuse(path, moved)
    before = daemon.stated
    trouble: UnclaimedError | None = None
    commands: Sequence[Command]
    daemon.stated = stated  # claims go by the marks in here
    try:
        if stated.marks != before.marks:
            daemon.engine.call(lambda: daemon.manager.around.set_mark_rules(stated.marks))
        commands = daemon.changer.replace(stated.services, stated.timeouts)
    except UnclaimedError as error:
        trouble, commands = error, error.commands
    except BaseException:
        daemon.stated = before
        daemon.engine.call(lambda: daemon.manager.around.set_mark_rules(before.marks))
        raise
    daemon.engine.call(lambda: _set(daemon, stated.settings))
    if stated.marks != before.marks:
        daemon.claim_again()
    if trouble:
        raise trouble
    return commands


def _set(daemon: "Daemon", values: dict[str, int]) -> None:
    stated = {settings.full_name(name): value for name, value in values.items()}
    daemon.manager.set_settings(daemon.first_settings | stated)
