"""A copy of the director's table with its counters, as listings and APIs show it."""

from typing import NamedTuple

from pylvs.control.manager import Manager
from pylvs.control.model import ServerKey, ServiceKey
from pylvs.frames import Reason


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
    counters: Counters


class ServiceRow(NamedTuple):
    """One virtual service in a listing, its servers the newest first."""

    key: ServiceKey
    scheduler: str
    counters: Counters
    servers: list[ServerRow]


def _counters(entry: object) -> Counters:
    return Counters(*(int(entry[name]) for name in Counters._fields))  # type: ignore[index]


def read(manager: Manager) -> list[ServiceRow]:
    """Return every service with its servers; call it between breaths for a consistent picture."""
    tables = manager.director.tables
    rows = []
    for service in manager.table.services.values():
        servers = []
        for row in manager.server_rows(service):
            server = tables.servers[row]
            servers.append(
                ServerRow(
                    ServerKey(int(server["address"]), int(server["port"])),
                    int(server["forwarding"]),
                    int(server["weight"]),
                    int(server["active"]),
                    int(server["inactive"]),
                    _counters(server),
                )
            )
        entry = tables.services[manager.service_row(service.key)]
        rows.append(ServiceRow(service.key, service.scheduler, _counters(entry), servers))
    return rows


def reasons(manager: Manager) -> dict[str, int]:
    """Return how many frames had each reason, those that none had left out."""
    counts = manager.director.tables.reasons
    return {reason.name.lower(): int(counts[reason]) for reason in Reason if counts[reason]}
