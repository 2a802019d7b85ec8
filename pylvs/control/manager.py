"""The table as stated, and the same table in the director.

``Manager`` tells the director, by mailbox commands, what the model has accepted.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from pylvs.control import Call, at_once, settings
from pylvs.control.estimator import Estimator
from pylvs.control.model import (
    FULLNAT,
    KERNEL_REFUSED,
    Command,
    ServerKey,
    Service,
    ServiceKey,
    Table,
    Terms,
)
from pylvs.control.network.own import OwnAddresses
from pylvs.control.network.surroundings import Surroundings
from pylvs.engine import mailbox
from pylvs.engine.director import Director
from pylvs.errors import RuleError, UsageError
from pylvs.frames import NONE
from pylvs.plugins import Plugins
from pylvs.tables import states
from pylvs.tables.sizes import FLOWS_LIMIT
from pylvs.wire.text import family_of, halves, joined, mask_of

log = logging.getLogger("pylvs")

_ROWS_AT_ONCE: Final = 16_384
_EVERYTHING: Final = ServiceKey(0, 0, 0)
_NO_TERMS: tuple[int, ...] = (0,) * 6
_NO_SERVER: tuple[int, ...] = (0,) * 12
_NO_SPAN: tuple[int, ...] = (0,) * 4
_SPANS_REMEMBERED: Final = 65_536
_FLOWS_AT_ONCE: Final = 4_096  # half a millisecond, if packets of all have come
_SETTLES: Final = "DdZ"  # what is removed, or set to zero, is charged no more
_KINDS: Final = {
    "A": mailbox.ADD_SERVICE,
    "E": mailbox.EDIT_SERVICE,
    "D": mailbox.REMOVE_SERVICE,
    "a": mailbox.ADD_SERVER,
    "e": mailbox.EDIT_SERVER,
    "d": mailbox.REMOVE_SERVER,
    "Z": mailbox.ZERO,
}
_REFUSED: Final = {
    mailbox.FULL: "Memory allocation problem",
    mailbox.ABSENT: "Service not defined",  # the director had no room for it just before
}


def _stage(ports: tuple[int, int]) -> list[int]:
    first, last = ports
    return mailbox.order(kind=mailbox.SPAN_PORTS, first_port=first, last_port=last)


def _number(plugins: Plugins, name: str) -> int:
    try:
        return plugins.number(name)
    except UsageError:
        if ":" in name:
            raise
        raise RuleError("Scheduler or persistence engine not found", 255) from None


def _copy(service: Service) -> Service:
    """Return a service that further commands do not change."""
    return Service(service.key, service.terms, dict(service.servers))


class Manager:
    """The only caller of the mailbox.

    The model belongs to whoever changes it, one thread at a time (``changes.Changer``); everything
    else here is used between breaths.
    """

    def __init__(self, director: Director) -> None:
        self.director = director
        self.table = Table()
        self.own = OwnAddresses(director)
        self.around = Surroundings(director)
        self.clock: Callable[[], int] = lambda: 0
        """The engine's clock, in milliseconds: removed servers are forgotten by it."""
        self.estimator = Estimator(director.tables)
        self._rows: dict[ServiceKey, int] = {}
        self._changed: set[ServiceKey] = set()
        self._spans: dict[ServiceKey, int] = {}
        self._numbers = itertools.count(1)

    def apply(self, *commands: Command) -> None:
        """Carry out commands in the model and in the director; raises the first RuleError."""
        for refusal in filter(None, self.apply_all(commands)):
            raise refusal

    def apply_all(
        self, commands: Iterable[Command], call: Call = at_once
    ) -> list[RuleError | None]:
        """Carry out commands in order, and return why each was refused, or ``None``.

        The model goes ahead, and the director follows by one ``call`` for many.  What the director
        refuses the model takes back; nothing that depends on that is in the same call.
        """
        refusals: list[RuleError | None] = []
        accepted: list[tuple[int, Command]] = []
        touched: set[tuple[ServiceKey | None, ServerKey | None]] = set()
        for place, command in enumerate(commands):
            subject = (command.service, command.server.key if command.server else None)
            if subject in touched or command.verb == "C":
                self._follow(accepted, refusals, call)
                accepted, touched = [], set()
            touched.add(subject)
            try:
                if command.verb == "C":
                    self.clear(len(self.table.services), call)
                else:
                    self._accept(command)
                    accepted.append((place, command))
            except RuleError as refusal:
                refusals.append(refusal)
            except UsageError as error:
                refusals.append(RuleError(str(error), KERNEL_REFUSED))
            else:
                refusals.append(None)
        self._follow(accepted, refusals, call)
        return refusals

    def _accept(self, command: Command) -> None:
        """Carry out a command in the model; raises RuleError, UsageError."""
        if command.verb in "AE":
            _number(self.director.schedulers, command.terms.scheduler)
            _number(self.director.engines, command.terms.engine)
            if command.service and command.service.vip in self.own.pool:
                raise RuleError("That address is full NAT's own", KERNEL_REFUSED)
        elif command.server and command.server.method == FULLNAT:
            family = family_of(command.server.key.address)
            if family not in map(family_of, self.own.pool):
                why = f"Full NAT needs local addresses of IPv{family}: start with --local IP"
                raise RuleError(why, KERNEL_REFUSED)
        self.table.apply(command)
        if command.service is not None:
            self._changed.add(command.service)

    def _follow(
        self,
        accepted: Sequence[tuple[int, Command]],
        refusals: list[RuleError | None],
        call: Call,
    ) -> None:
        """Carry out in the director what the model has accepted; note what it refuses."""
        if not accepted:
            return
        told = [(place, command) for place, command in accepted if command.verb in _KINDS]
        orders: list[Sequence[int]] = []
        ends = []
        for _, command in told:
            if command.verb == "A" and command.service and command.service.spans:
                orders += [_stage(ports) for ports in command.service.ranges]
            orders.append(self._order(command))
            ends.append(len(orders) - 1)
        batch = mailbox.batch_of(orders)
        if any(command.verb in _SETTLES for _, command in told):
            self.settle(call)  # what has come since is little, and left to that one call

        def carry_out() -> None:
            for _, command in accepted:
                if command.verb == "set":
                    states.set_timeouts(self.director.tables.timeouts, *command.timeouts)
            results = mailbox.carry_out_all(self.director.tables, batch)
            added: list[ServiceKey] = []
            removed: list[ServiceKey] = []
            for (place, command), end in zip(told, ends, strict=True):
                result = results[end]
                if result < 0:
                    self._take_back(command)
                    refusals[place] = RuleError(_REFUSED[result], KERNEL_REFUSED)
                    continue
                self._note(command, result)
                if command.service and command.verb in "AD":
                    (added if command.verb == "A" else removed).append(command.service)
            self.own.follow(added, removed)

        call(carry_out)

    def settle(self, call: Call = at_once) -> None:
        """Have counters and timers know what the kernel has forwarded by itself up to now."""
        tables = self.director.tables
        if not tables.director[0]["flow_count"]:
            return
        for begin in range(0, FLOWS_LIMIT, _FLOWS_AT_ONCE):
            end = begin + _FLOWS_AT_ONCE
            call(partial(mailbox.settle, tables.all, begin, end, self.clock()))

    def _order(self, command: Command) -> tuple[int, ...]:
        """Return what tells the director of a command."""
        key, server, terms = command.service or _EVERYTHING, command.server, command.terms
        # In COMMAND's order: as keywords they take four times as long.
        of_terms, of_server = _NO_TERMS, _NO_SERVER
        if server is not None:
            address, port = server.key
            of_server = (*halves(address), port, *server[1:])
        elif command.verb in "AE":
            mask = mask_of(terms.netmask, 6) if key.family == 6 else terms.netmask
            of_terms = (
                _number(self.director.schedulers, terms.scheduler),
                terms.flags,
                terms.persistent * 1_000,
                _number(self.director.engines, terms.engine),
                *halves(mask),
            )
        service = (key.family, key.protocol, *halves(key.address), key.port, key.mark)
        of_span = (self._span_of(key), key.prefix_length, 0, 0) if key.spans else _NO_SPAN
        return (_KINDS[command.verb], *service, *of_span, *of_terms, *of_server, 0, self.clock(), 0)

    def _span_of(self, key: ServiceKey) -> int:
        """Return the number by which the director knows a service that spans something.

        One that returns has the same number, so its servers are the same; not for ever.
        """
        number = self._spans.get(key)
        if number is None:
            if len(self._spans) >= _SPANS_REMEMBERED:
                there = self._rows.keys() | self.table.services.keys()
                self._spans = {one: at for one, at in self._spans.items() if one in there}
            number = self._spans[key] = next(self._numbers)
        return number

    def _take_back(self, command: Command) -> None:
        """Have the model forget what the director refused to add."""
        services, key, server = self.table.services, command.service, command.server
        assert key is not None
        if command.verb == "A":
            self.table.forget(key)
        elif command.verb == "a" and server is not None and key in services:
            del services[key].servers[server.key]

    def _note(self, command: Command, row: int) -> None:
        """Follow what the director has done."""
        key = command.service
        if command.verb == "Z":
            if key is None:
                self.estimator.zero()
            return
        assert key is not None
        if command.verb in "AE":
            self._rows[key] = row
        elif command.verb == "D":
            del self._rows[key]
            self.director.schedulers.forget(row)
            self.director.engines.forget(row)
        else:
            self.director.tell_plugin(self.service_row(key))

    def clear(self, limit: int, call: Call = at_once) -> bool:
        """Remove that many services; return whether any are left.

        The newest first: they stand at the head of the chains that they share.
        """
        some = list(itertools.islice(reversed(self.table.services), limit))
        self.apply_all((Command("D", key) for key in some), call)
        return bool(self.table.services)

    def set_settings(self, values: Mapping[str, int]) -> None:
        """Give settings their values; what the kernel forwards comes up, for it may differ now."""
        tables = self.director.tables
        for name, value in values.items():
            settings.apply(tables.director[0], name, value)
        mailbox.distrust(tables.all)

    def preload(self, terms: Terms) -> None:
        """Import the plug-ins' modules that a service names."""
        self.director.schedulers.preload(terms.scheduler)
        self.director.engines.preload(terms.engine)

    def faults_of(self, wanted: Mapping[ServiceKey, Service]) -> list[str]:
        """Return why a table could not be had, as far as that can be told ahead."""
        faults = [
            f"{key} is at an address that full NAT sends from"
            for key in wanted
            if key.vip in self.own.pool
        ]
        servers_of = [one for service in wanted.values() for one in service.servers.values()]
        for family in {family_of(one.key.address) for one in servers_of if one.method == FULLNAT}:
            if family not in map(family_of, self.own.pool):
                faults.append(f"fullnat needs local addresses of IPv{family}; say so at the start")
        all_terms = [service.terms for service in wanted.values()]
        named = {("scheduler", one.scheduler) for one in all_terms}
        named |= {("persistence engine", one.engine) for one in all_terms}
        for kind, name in sorted(named):
            known = self.director.schedulers if kind == "scheduler" else self.director.engines
            try:
                _number(known, name)
            except (RuleError, UsageError) as error:
                faults.append(f"{kind} {name}: {error}")
        state = self.director.tables.director[0]
        servers = sum(len(service.servers) for service in wanted.values())
        for name, count in (("services", len(wanted)), ("servers", servers)):
            if count > state[f"{name}_limit"]:
                faults.append(f"{count} {name} are more than the director holds")
        return faults

    def lacks_room_for(self, commands: Sequence[Command]) -> bool:
        """Whether all that the commands add does not fit beside what there is."""
        director = self.director.tables.director[0]
        added = Counter(command.verb for command in commands)
        services = len(self.table.services) + added["A"]
        servers = int(director["servers_seen"]) + added["a"]
        limits = int(director["services_limit"]), int(director["servers_limit"])
        return services > limits[0] or servers > limits[1]

    def copy_services(self, keys: Iterable[ServiceKey] | None = None) -> dict[ServiceKey, Service]:
        """Return the stated table, or those services of it that there are, as it is now.

        It may be called by any thread: dictionaries are copied in one piece.
        """
        services = dict(self.table.services)
        return {
            key: _copy(services[key])
            for key in (services if keys is None else keys)
            if key in services
        }

    def stated(self) -> Iterator[tuple[Service, int]]:
        """Return the services that the director has now, with its rows, in the order of addition.

        What they are, and whether they still are, is looked up as they are read, from any thread,
        and may be newer: that takes ten times as long as to copy the rows.
        """
        services, rows = self.table.services, dict(self._rows)
        found = ((services.get(key), row) for key, row in rows.items())
        return ((service, row) for service, row in found if service is not None)

    def keys_by_row(self) -> dict[int, ServiceKey]:
        """Return the services by the director's rows; callable from any thread, as above."""
        return {row: key for key, row in dict(self._rows).items()}

    def take_changed(self) -> list[tuple[ServiceKey, Service | None]]:
        """Return the services that were changed, ``None`` for what is gone, and forget it."""
        keys, self._changed = self._changed, set()
        services = self.table.services
        return [(key, _copy(services[key]) if key in services else None) for key in keys]

    def server_row(self, key: ServiceKey, server: ServerKey) -> int:
        """Return the director's row of a server, or ``NONE``."""
        tables = self.director.tables
        for row in self.server_rows(key):
            entry = tables.servers[row]
            address = joined(entry["address_high"], entry["address_low"])
            if (address, entry["port"]) == server:
                return row
        return NONE

    def forget(self, server_row: int, templates: bool, begin: int) -> tuple[int, int | None]:
        """Forget some of a server's connections, or templates: those in the rows from ``begin`` on.

        Returns how many there were and where to go on, ``None`` at the end.
        """
        tables = self.director.tables
        end = begin + _ROWS_AT_ONCE
        count = int(mailbox.forget(tables.all, server_row, templates, begin, end))
        return count, end if end < int(tables.director[0]["high_water"]) else None

    def service_row(self, key: ServiceKey) -> int:
        """Return the director's row of a service, or ``NONE``."""
        return self._rows.get(key, NONE)

    def server_rows(self, key: ServiceKey) -> list[int]:
        """Return the director's rows of a service's servers, the newest first."""
        tables = self.director.tables
        rows = []
        service_row = self.service_row(key)
        row = NONE if service_row == NONE else int(tables.services[service_row]["head"])
        while row != NONE:
            rows.append(row)
            row = int(tables.servers[row]["next"])
        return rows

    def want_servers(self) -> None:
        """Have next hops resolved before the first packet needs them; those of new servers too."""
        tables = self.director.tables
        tables.director[0]["asks_ahead"] = 1
        mailbox.carry_out(tables, kind=mailbox.WANT_SERVERS, now_ms=self.clock())
