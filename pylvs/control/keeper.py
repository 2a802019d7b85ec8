"""Keeps the host's stack off what commands are about to add, and lets go of what they removed.

    before: claim what is to be added  ->  the commands  ->  after: claim what there is, and no more

Claimed first, because the host would answer a SYN to a new VIP with a reset, or forward a new
server's reply as it came.
"""

import itertools
import logging
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from pylvs.control.changes import Guard
from pylvs.control.model import Command, Service, ServiceKey, Spans
from pylvs.control.network import claims
from pylvs.errors import HostError

if TYPE_CHECKING:
    from pylvs.control.daemon import Daemon

log = logging.getLogger("pylvs.control")

_Change = tuple[Hashable, frozenset[claims.Claim]]


class Keeper(Guard):
    """The claims of one director, as commands change its table."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._numbers = itertools.count()
        self._stale = False  # the host's tables are not what they should be

    def before(self, commands: Sequence[Command]) -> int:
        """Claim what the commands may add, in the name of a number, and return that."""
        local = self._daemon.manager.own.local
        claimed: set[claims.Claim] = set()
        spans = Spans()
        for command in commands:
            if command.service is None:
                continue
            if command.verb == "A" and self._may_claim(command.service, spans):
                claimed |= claims.claims_of(Service(command.service, command.terms), local)
            elif command.server is not None and command.verb in "ae":
                claimed.update(claims.senders_of(command.service, [command.server]))
        with self._daemon.claiming:
            number = next(self._numbers)
            self._claim([(number, frozenset(claimed))])
        return number

    def _may_claim(self, service: ServiceKey, others: Spans) -> bool:
        """Whether its claims go beside those that there are; if not, it will take another's place.

        A set of ranges takes none that overlap.
        """
        now = self._daemon.manager.table.spans
        return not service.spans or not (now.meets(service) or others.add(service))

    def after(self, prepared: int) -> str:
        """Claim what is there now, and no more."""
        daemon = self._daemon
        try:
            with daemon.claiming:
                changed = daemon.manager.take_changed()
                local = daemon.manager.own.local
                changes: list[_Change] = [
                    (key, claims.claims_of(service, local)) for key, service in changed
                ]
                changes.append((prepared, frozenset()))
                # Marks are rules of their own, not elements.
                self._stale |= any(key.mark for key, _ in changed)
                self._claim(changes)
                if any(key.family == 6 for key, _ in changed):
                    daemon.join_groups()
        except HostError as error:
            log.error("%s", error)
            return f"{error}\n"
        if daemon.manager.own.has_unannounced():
            daemon.engine.announce()
        return ""

    def _claim(self, changes: list[_Change]) -> None:
        """Have the host's tables follow; make them anew if they are not what they should be."""
        daemon = self._daemon
        if daemon.claims is None or daemon.is_closed:
            return
        if not self._stale:
            try:
                daemon.claims.update(changes)
                return
            except HostError as error:
                log.warning("%s; making the tables anew", error)
                self._stale = True
        daemon.claim()
        self._stale = False
        daemon.claims.update(changes)
