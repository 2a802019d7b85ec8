"""A copy of the director's table with its counters, as listings and APIs show it."""

from typing import Any, NamedTuple

from pylvs.control.manager import Manager
from pylvs.control.model import ServerKey, ServiceKey, Terms
from pylvs.frames import Reason
from pylvs.tables.layouts import FLAG_TEMPLATE
from pylvs.tables.states import STATE_NAMES, TEMPLATE_NAMES


class Counters(NamedTuple):
    """What IPVS counts; bytes are those of IP packets."""

    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


class ServerRow(NamedTuple):
    """One real server in a listing."""

    key: ServerKey
    method: int
    weight: int
    active: int
    inactive: int
    persistent: int
    upper: int
    lower: int
    tunnel: tuple[int, int, int]
    counters: Counters
    rates: Counters


class ServiceRow(NamedTuple):
    """One virtual service in a listing, its servers the newest first."""

    key: ServiceKey
    terms: Terms
    counters: Counters
    rates: Counters
    servers: list[ServerRow]


class ConnectionRow(NamedTuple):
    """One connection or template; addresses are ints in host order, ``expires`` seconds left."""

    protocol: int
    client: tuple[int, int]
    virtual: tuple[int, int]
    server: tuple[int, int]
    state: str
    expires: int


def _counters(entry: object) -> Counters:
    return Counters(*(int(entry[name]) for name in Counters._fields))  # type: ignore[index]


def _server_row(server: Any, rates: tuple[int, ...]) -> ServerRow:
    return ServerRow(
        ServerKey(int(server["address"]), int(server["port"])),
        int(server["forwarding"]),
        int(server["weight"]),
        int(server["active"]),
        int(server["inactive"]),
        int(server["persistent"]),
        int(server["upper"]),
        int(server["lower"]),
        (int(server["tunnel_type"]), int(server["tunnel_port"]), int(server["tunnel_flags"])),
        _counters(server),
        Counters(*rates),
    )


def read(manager: Manager) -> list[ServiceRow]:
    """Return every service with its servers; call it between breaths for a consistent picture."""
    tables = manager.director.tables
    rows = []
    for service in manager.table.services.values():
        servers = [
            _server_row(tables.servers[row], manager.estimator.server(row))
            for row in manager.server_rows(service)
        ]
        row = manager.service_row(service.key)
        counters = _counters(tables.services[row])
        rates = Counters(*manager.estimator.service(row))
        rows.append(ServiceRow(service.key, service.terms, counters, rates, servers))
    return rows


def totals(manager: Manager) -> Counters:
    """Return the counters of all services together, also of those that were removed."""
    return Counters(*map(int, manager.director.tables.totals))


def connections(manager: Manager) -> list[ConnectionRow]:
    """Return every connection and template that is not due."""
    tables = manager.director.tables
    now_ms = manager.clock()
    used = tables.connections[: int(tables.director[0]["high_water"])]
    rows = []
    for entry in used[used["expires_ms"] > now_ms]:
        protocol = int(entry["protocol"])
        names: tuple[str, ...] = TEMPLATE_NAMES
        if not entry["conn_flags"] & FLAG_TEMPLATE:
            names = STATE_NAMES[protocol]
        rows.append(
            ConnectionRow(
                protocol,
                (int(entry["client_address"]), int(entry["client_port"])),
                (int(entry["virtual_address"]), int(entry["virtual_port"])),
                (int(entry["server_address"]), int(entry["server_port"])),
                names[int(entry["state"])],
                (int(entry["expires_ms"]) - now_ms) // 1_000,
            )
        )
    return rows


def reasons(manager: Manager) -> dict[str, int]:
    """Return how many frames had each reason, those that none had left out."""
    counts = manager.director.tables.reasons
    return {reason.name.lower(): int(counts[reason]) for reason in Reason if counts[reason]}
