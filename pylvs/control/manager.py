"""The table as stated, and the same table in the director.

``Manager`` tells the director, by mailbox commands, what the model has accepted; and the director's
routes, ports and own addresses, which the network side finds out.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pylvs import schedulers
from pylvs.control.model import Command, Service, Table
from pylvs.engine import mailbox
from pylvs.engine.director import Director
from pylvs.errors import RuleError
from pylvs.frames import NONE
from pylvs.tables import states
from pylvs.tables.layouts import ASKED, UNICAST, UNKNOWN

log = logging.getLogger("pylvs")


class Route(NamedTuple):
    """One route; addresses are ints in host order, ``port`` a row in PORT or ``NONE``."""

    network: int
    prefix: int
    gateway: int = 0
    source: int = 0
    port: int = NONE
    mtu: int = 1_500
    kind: int = UNICAST
    metric: int = 0


class Manager:
    """The only caller of the mailbox.  Not thread-safe; used between breaths."""

    def __init__(self, director: Director) -> None:
        self.director = director
        self.table = Table()
        self.local: frozenset[int] = frozenset()
        self.stations: frozenset[int] = frozenset()
        """Addresses of the director's own beside the VIPs: a TAP device's DIP."""

    def apply(self, command: Command) -> None:
        """Carry out one command in the model and in the director; raises RuleError."""
        if command.verb in "AE":
            self._scheduler_number(command.scheduler)
        before = list(self.table.services)
        self.table.apply(command)
        if command.verb == "C":
            for key in before:
                self._post(mailbox.REMOVE_SERVICE, key)
        elif command.verb == "set":
            states.set_timeouts(self.director.tables.timeouts, *command.timeouts)
        elif command.verb in "AED":
            self._apply_service(command)
        else:
            self._apply_server(command)
        if command.verb in "ADC":
            self.set_local(self.local)

    def apply_all(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.apply(command)

    def _scheduler_number(self, name: str) -> int:
        if name in schedulers.BUILT_IN:
            return schedulers.BUILT_IN.index(name)
        return self.director.plugins.number(name)

    def _post(self, kind: int, key: Any, **fields: int) -> int:
        result = mailbox.carry_out(
            self.director.tables,
            kind=kind,
            protocol=key.protocol,
            address=key.address,
            port=key.port,
            **fields,
        )
        if result == mailbox.FULL:
            raise RuleError("Memory allocation problem", 255)
        return result

    def _apply_service(self, command: Command) -> None:
        kinds = {
            "A": mailbox.ADD_SERVICE,
            "E": mailbox.EDIT_SERVICE,
            "D": mailbox.REMOVE_SERVICE,
        }
        number = 0 if command.verb == "D" else self._scheduler_number(command.scheduler)
        self._post(kinds[command.verb], command.service, scheduler=number)

    def _apply_server(self, command: Command) -> None:
        assert command.server is not None
        kinds = {"a": mailbox.ADD_SERVER, "e": mailbox.EDIT_SERVER, "d": mailbox.REMOVE_SERVER}
        server = command.server
        self._post(
            kinds[command.verb],
            command.service,
            server_address=server.key.address,
            server_port=server.key.port,
            forwarding=server.method,
            weight=server.weight,
        )
        self.director.tell_plugin(self.service_row(command.service))

    def service_row(self, key: Any) -> int:
        """Return the director's row of a service, or ``NONE``."""
        services = self.director.tables.services
        for row in range(len(services)):
            entry = services[row]
            if entry["used"] and (entry["protocol"], entry["address"], entry["port"]) == key:
                return row
        return NONE

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
        tables = self.director.tables
        own = sorted({key.address for key in self.table.services} | self.stations)
        for row, address in enumerate(own):
            entry = tables.own[row]
            entry["address"] = address
            entry["answers_arp"] = entry["answers_ping"] = address not in addresses
        tables.director[0]["own_count"] = len(own)

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the routing table."""
        tables = self.director.tables
        ordered = sorted(routes, key=lambda route: (-route.prefix, route.metric))
        if len(ordered) > len(tables.paths):
            dropped = len(ordered) - len(tables.paths)
            log.error(
                "%d routes are more than the director holds: the widest are left out", dropped
            )
            ordered = ordered[: len(tables.paths)]
        for row, route in enumerate(ordered):
            entry = tables.paths[row]
            mask = (0xFFFF_FFFF << (32 - route.prefix)) & 0xFFFF_FFFF
            entry["network"] = route.network & mask
            entry["mask"] = mask
            entry["gateway"] = route.gateway
            entry["source"] = route.source
            entry["port"] = route.port
            entry["mtu"] = route.mtu
            entry["kind"] = route.kind
        tables.director[0]["path_count"] = len(ordered)
        mailbox.aim_all(tables)

    def want_servers(self) -> None:
        """Have every real server's next hop resolved before the first packet needs it."""
        tables = self.director.tables
        for server in tables.servers[tables.servers["used"] == 1]:
            neighbour = tables.neighbours[int(server["neighbour"])]
            port = tables.ports[int(neighbour["port"])]
            if server["neighbour"] != NONE and neighbour["state"] == UNKNOWN:
                neighbour["state"] = ASKED
                tables.director[0]["soliciting" if port["own_arp"] else "wanted"] += 1

    def _tell_neighbour(self, kind: int, port: int, address: int, mac: int = 0) -> None:
        tables = self.director.tables
        mailbox.carry_out(tables, kind=kind, port=port, address=address, mac=mac)

    def learn(self, port: int, address: int, mac: int) -> None:
        """A next hop's MAC is known."""
        self._tell_neighbour(mailbox.LEARN_NEIGHBOUR, port, address, mac)

    def fail(self, port: int, address: int) -> None:
        """A next hop does not answer."""
        self._tell_neighbour(mailbox.FAIL_NEIGHBOUR, port, address)
