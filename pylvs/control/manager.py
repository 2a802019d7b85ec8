"""The table as stated, and the same table in the director.

``Manager`` tells the director, by mailbox commands, what the model has accepted; and the director's
routes, ports and own addresses, which the network side finds out.
"""

import bisect
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.control.estimator import Estimator
from pylvs.control.model import Command, MarkRule, ServerKey, Service, ServiceKey, Table, Terms
from pylvs.engine import mailbox
from pylvs.engine.director import Director
from pylvs.errors import RuleError, UsageError
from pylvs.frames import NONE
from pylvs.plugins import Plugins
from pylvs.tables import states
from pylvs.tables.layouts import FAILED, LOCAL_ADDRESS, UNICAST, UNKNOWN
from pylvs.wire.text import family_of, halves, joined, mask_of

log = logging.getLogger("pylvs")

_ROWS_AT_ONCE: Final = 16_384


class Route(NamedTuple):
    """One route; addresses are ints, ``port`` a row in PORT or ``NONE``."""

    network: int
    prefix: int
    gateway: int = 0
    source: int = 0
    port: int = NONE
    mtu: int = 1_500
    kind: int = UNICAST
    metric: int = 0
    mark: int = 0
    family: int = 4


def local_route(address: int, mark: int = 0) -> Route:
    """Return the route that makes an address the director's own."""
    family = family_of(address)
    prefix = 128 if family == 6 else 32
    return Route(address, prefix, kind=LOCAL_ADDRESS, mark=mark, family=family)


def _put(entry: Any, name: str, address: int) -> None:
    """Write an address into a table's record."""
    entry[f"{name}_high"], entry[f"{name}_low"] = halves(address)


def _network(network: int, prefix: int, family: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a network and its mask, each as the tables hold it."""
    mask = mask_of(prefix, family)
    return halves(network & mask), halves(mask)


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
    """The only caller of the mailbox.  Not thread-safe; used between breaths."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.table = Table()
        self.local: frozenset[int] = frozenset()
        self.stations: frozenset[int] = frozenset()
        """Addresses of the director's own beside the VIPs: a TAP device's DIP."""
        self.adopts_vips = True
        """Whether a service's address is the director's; if not, only routes make it so."""
        self.clock: Callable[[], int] = lambda: 0
        """The engine's clock, in milliseconds: removed servers are forgotten by it."""
        self.estimator = Estimator(director.tables)
        self.asks_ahead = False
        """Whether a new server's next hop is asked for before the first packet needs it."""
        self._rows: dict[ServiceKey, int] = {}
        self._vips: Counter[int] = Counter()
        self._changed: set[ServiceKey] = set()

    def apply(self, command: Command) -> None:
        """Carry out one command in the model and in the director; raises RuleError."""
        if command.verb in "AE":
            _number(self.director.schedulers, command.terms.scheduler)
            _number(self.director.engines, command.terms.engine)
        if command.verb == "C":
            self.clear(len(self.table.services))
            return
        self.table.apply(command)
        if command.service is not None:
            self._changed.add(command.service)
        if command.verb == "set":
            states.set_timeouts(self.director.tables.timeouts, *command.timeouts)
        elif command.verb in "AED":
            self._apply_service(command)
        elif command.verb == "Z":
            self._post(mailbox.ZERO, command.service or ServiceKey(0, 0, 0))
            if command.service is None:
                self.estimator.zero()
        else:
            self._apply_server(command)

    def clear(self, limit: int) -> bool:
        """Remove that many services; return whether any are left."""
        for key in list(itertools.islice(self.table.services, limit)):
            self.apply(Command("D", key))
        return bool(self.table.services)

    def preload(self, terms: Terms) -> None:
        """Import the plug-ins' modules that a service names."""
        self.director.schedulers.preload(terms.scheduler)
        self.director.engines.preload(terms.engine)

    def faults_of(self, wanted: Mapping[ServiceKey, Service]) -> list[str]:
        """Return why a table could not be had, as far as that can be told ahead."""
        faults = []
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
        """Return the stated table, or those services of it that there are, as it is now."""
        services = self.table.services
        return {
            key: _copy(services[key])
            for key in (services if keys is None else keys)
            if key in services
        }

    def take_changed(self) -> list[tuple[ServiceKey, Service | None]]:
        """Return the services that were changed, ``None`` for what is gone, and forget it."""
        keys, self._changed = self._changed, set()
        services = self.table.services
        return [(key, _copy(services[key]) if key in services else None) for key in keys]

    def apply_all(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.apply(command)

    def _post(self, kind: int, key: ServiceKey, **fields: int) -> int:
        high, low = halves(key.address)
        result = mailbox.carry_out(
            self.director.tables,
            kind=kind,
            family=key.family,
            protocol=key.protocol,
            address_high=high,
            address_low=low,
            port=key.port,
            mark=key.mark,
            now_ms=self.clock(),
            **fields,
        )
        if result == mailbox.FULL:
            raise RuleError("Memory allocation problem", 255)
        return result

    def _apply_service(self, command: Command) -> None:
        key = command.service
        assert key is not None
        if command.verb == "D":
            self._remove_service(key)
            return
        terms = command.terms
        kind = mailbox.ADD_SERVICE if command.verb == "A" else mailbox.EDIT_SERVICE
        mask = mask_of(terms.netmask, 6) if key.family == 6 else terms.netmask
        try:
            self._rows[key] = self._post(
                kind,
                key,
                scheduler=_number(self.director.schedulers, terms.scheduler),
                service_flags=terms.flags,
                persistent_ms=terms.persistent * 1_000,
                engine=_number(self.director.engines, terms.engine),
                netmask_high=halves(mask)[0],
                netmask_low=halves(mask)[1],
            )
        except RuleError:
            if command.verb == "A":
                del self.table.services[key]
            raise
        if command.verb == "A":
            try:
                self._adopt(key)
            except RuleError:
                self.table.apply(Command("D", key))
                self._remove_service(key)
                raise

    def _remove_service(self, key: ServiceKey) -> None:
        self._post(mailbox.REMOVE_SERVICE, key)
        row = self._rows.pop(key)
        self.director.schedulers.forget(row)
        self.director.engines.forget(row)
        self._forsake(key)

    def _apply_server(self, command: Command) -> None:
        assert command.server is not None
        assert command.service is not None
        kinds = {"a": mailbox.ADD_SERVER, "e": mailbox.EDIT_SERVER, "d": mailbox.REMOVE_SERVER}
        server = command.server
        high, low = halves(server.key.address)
        try:
            row = self._post(
                kinds[command.verb],
                command.service,
                server_high=high,
                server_low=low,
                server_port=server.key.port,
                forwarding=server.method,
                weight=server.weight,
                upper=server.upper,
                lower=server.lower,
                tunnel_type=server.tunnel_type,
                tunnel_port=server.tunnel_port,
                tunnel_flags=server.tunnel_flags,
            )
        except RuleError:
            if command.verb == "a":
                del self.table.services[command.service].servers[server.key]
            raise
        if command.verb == "a" and self.asks_ahead:
            self._want(row)
        self.director.tell_plugin(self.service_row(command.service))

    def server_row(self, key: ServiceKey, server: ServerKey) -> int:
        """Return the director's row of a server, or ``NONE``."""
        if key not in self.table.services:
            return NONE
        tables = self.director.tables
        for row in self.server_rows(self.table.services[key]):
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

    def server_rows(self, service: Service) -> list[int]:
        """Return the director's rows of the service's servers, the newest first."""
        tables = self.director.tables
        rows = []
        row = int(tables.services[self.service_row(service.key)]["head"])
        while row != NONE:
            rows.append(row)
            row = int(tables.servers[row]["next"])
        return rows

    def set_local(self, addresses: frozenset[int]) -> None:
        """Say which addresses are the host's: it answers ARP and pings for a VIP among them."""
        self.local = addresses
        self._vips = Counter(key.address for key in self.table.services if not key.mark)
        tables = self.director.tables
        tables.director[0]["own_count"] = 0
        announced = tables.own[tables.own["announced"] == 1]
        known = {joined(own["address_high"], own["address_low"]) for own in announced}
        for address in sorted((set(self._vips) if self.adopts_vips else set()) | self.stations):
            self._add_own(address, announced=address in known)

    def _add_own(self, address: int, announced: bool = False) -> None:
        """Put an address among the director's own, which are sorted."""
        tables = self.director.tables
        count = int(tables.director[0]["own_count"])
        row, found = self._own_row(address)
        if found:
            return
        if count == len(tables.own):
            raise RuleError("Memory allocation problem", 255)
        tables.own[row + 1 : count + 1] = tables.own[row:count].copy()
        entry = tables.own[row]
        _put(entry, "address", address)
        entry["announced"] = announced
        entry["answers_arp"] = entry["answers_ping"] = address not in self.local
        tables.director[0]["own_count"] = count + 1

    def _own_row(self, address: int) -> tuple[int, bool]:
        """Return where an own address stands or belongs, and whether it is there."""
        tables = self.director.tables
        count = int(tables.director[0]["own_count"])
        pair = halves(address)

        def pair_of(row: int) -> tuple[int, int]:
            own = tables.own[row]
            return int(own["address_high"]), int(own["address_low"])

        row = bisect.bisect_left(range(count), pair, key=pair_of)
        return row, row < count and pair_of(row) == pair

    def own_addresses(self) -> list[int]:
        """Return the addresses that the director answers for itself."""
        tables = self.director.tables
        own = tables.own[: int(tables.director[0]["own_count"])]
        own = own[own["answers_arp"] == 1]
        return [joined(one["address_high"], one["address_low"]) for one in own]

    def has_unannounced(self) -> bool:
        """Whether some own address still has to be announced."""
        tables = self.director.tables
        own = tables.own[: int(tables.director[0]["own_count"])]
        return bool(((own["announced"] == 0) & (own["answers_arp"] == 1)).any())

    def _adopt(self, key: ServiceKey) -> None:
        """A service's address becomes the director's own."""
        if not key.mark:
            self._vips[key.address] += 1
            if self.adopts_vips:
                self._add_own(key.address)

    def _forsake(self, key: ServiceKey) -> None:
        """A service is gone, and with the last one of an address that address."""
        if key.mark:
            return
        self._vips[key.address] -= 1
        if self._vips[key.address]:
            return
        del self._vips[key.address]
        if not self.adopts_vips or key.address in self.stations:
            return
        tables = self.director.tables
        count = int(tables.director[0]["own_count"])
        row, found = self._own_row(key.address)
        if not found:
            return  # there was no room for it
        tables.own[row : count - 1] = tables.own[row + 1 : count].copy()
        tables.own[count - 1]["announced"] = 0
        tables.director[0]["own_count"] = count - 1

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the routing table."""
        tables = self.director.tables
        ordered = sorted(
            routes,
            key=lambda route: (
                route.family,
                bool(route.mark) or (route.kind != LOCAL_ADDRESS) * 2,
                -route.prefix,
                route.metric,
            ),
        )
        limit = int(tables.director[0]["paths_limit"])
        if len(ordered) > limit:
            dropped = len(ordered) - limit
            log.error(
                "%d routes are more than the director holds: the widest are left out", dropped
            )
            ordered = ordered[:limit]
        for row, route in enumerate(ordered):
            entry = tables.paths[row]
            network, mask = _network(route.network, route.prefix, route.family)
            entry["network_high"], entry["network_low"] = network
            entry["mask_high"], entry["mask_low"] = mask
            _put(entry, "gateway", route.gateway)
            _put(entry, "source", route.source)
            entry["port"] = route.port
            entry["mtu"] = route.mtu
            entry["kind"] = route.kind
            entry["mark"] = route.mark
            entry["family"] = route.family
        tables.director[0]["path_count"] = len(ordered)
        tables.director[0]["ipv4_path_count"] = sum(route.family == 4 for route in ordered)
        mailbox.aim_all(tables.all)

    def override_source(self, address: int) -> None:
        """Have all routes of an address's family lead away from it, whatever they say."""
        tables = self.director.tables
        rows = tables.paths[: int(tables.director[0]["path_count"])]
        chosen = rows["family"] == family_of(address)
        rows["source_high"][chosen], rows["source_low"][chosen] = halves(address)

    def set_mark_rules(self, rules: Sequence[MarkRule]) -> None:
        """Replace what gives packets a firewall mark; the last rule that matches one counts."""
        tables = self.director.tables
        if len(rules) > len(tables.mark_rules):
            raise UsageError(f"{len(rules)} mark rules are more than the director holds")
        for row, rule in enumerate(rules):
            entry = tables.mark_rules[row]
            entry["mark"], entry["protocol"] = rule.mark, rule.protocol
            entry["first_port"], entry["last_port"] = rule.ports
            entry["family"] = rule.family
            for end in ("source", "destination"):
                prefix = getattr(rule, f"{end}_prefix")
                network, mask = _network(getattr(rule, end), prefix, rule.family)
                entry[f"{end}_high"], entry[f"{end}_low"] = network
                entry[f"{end}_mask_high"], entry[f"{end}_mask_low"] = mask
        tables.director[0]["mark_rule_count"] = len(rules)

    def want_servers(self) -> None:
        """Have every real server's next hop resolved before the first packet needs it."""
        tables = self.director.tables
        for row in np.flatnonzero(tables.servers["used"]):
            self._want(int(row))

    def _want(self, server_row: int) -> None:
        tables = self.director.tables
        row = int(tables.servers[server_row]["neighbour"])
        if row != NONE and tables.neighbours["state"][row] in (UNKNOWN, FAILED):
            neighbour = tables.neighbours[row]
            port = int(neighbour["port"])
            address = joined(neighbour["address_high"], neighbour["address_low"])
            self._tell_neighbour(mailbox.WANT_NEIGHBOUR, port, address)

    def _tell_neighbour(self, kind: int, port: int, address: int, mac: int = 0) -> None:
        tables = self.director.tables
        high, low = halves(address)
        mailbox.carry_out(
            tables,
            kind=kind,
            port=port,
            address_high=high,
            address_low=low,
            mac=mac,
            now_ms=self.clock(),
        )

    def learn(self, port: int, address: int, mac: int) -> None:
        """A next hop's MAC is known."""
        self._tell_neighbour(mailbox.LEARN_NEIGHBOUR, port, address, mac)

    def fail_all(self, port: int) -> None:
        """No next hop can be reached by this port any more."""
        mailbox.carry_out(self.director.tables, kind=mailbox.FAIL_PORT, port=port)

    def fail(self, port: int, address: int) -> None:
        """A next hop does not answer."""
        self._tell_neighbour(mailbox.FAIL_NEIGHBOUR, port, address)
