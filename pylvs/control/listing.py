"""A copy of the director's table with its counters, as listings and APIs show it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.control.manager import Manager
from pylvs.control.model import ServerKey, ServiceKey, Terms
from pylvs.frames import NONE, Reason
from pylvs.tables.layouts import (
    BYPASS,
    FLAG_KEYED,
    FLAG_TEMPLATE,
    FLAG_WIDE,
    FORWARDING_MASK,
)
from pylvs.tables.states import STATE_NAMES, TEMPLATE_NAMES
from pylvs.wire.text import joined

Call = Callable[[Callable[[], Any]], Any]
"""Runs a function where the manager may be used, and returns its result: ``Engine.call``."""


def at_once(function: Callable[[], Any]) -> Any:
    """Run a function where nothing else goes on meanwhile."""
    return function()


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
    """One connection or template; addresses are ints, ``expires`` seconds left."""

    protocol: int
    client: tuple[int, int]
    virtual: tuple[int, int]
    server: tuple[int, int]
    state: str
    expires: int
    row: int
    family: int = 4
    engine: str = ""
    key: bytes = b""
    """What a persistence engine knows a template's clients by."""


_SERVER_FIELDS: Final = [
    "address_high", "address_low", "port", "forwarding", "weight", "active", "inactive",
    "persistent", "upper", "lower", "tunnel_type", "tunnel_port", "tunnel_flags",
    *Counters._fields, "next",
]  # fmt: skip
_CONNECTION_FIELDS: Final = [
    "protocol", "conn_flags", "state", "client_address", "client_port", "virtual_address",
    "virtual_port", "server_port",
]  # fmt: skip
_ROWS_AT_ONCE: Final = 16_384
_SERVICE_FIELDS: Final = [*Counters._fields, "head"]


def _server_row(values: tuple[int, ...], rates: list[int]) -> ServerRow:
    tunnel = (values[10], values[11], values[12])
    counters = Counters(*values[13:18])
    address = joined(values[0], values[1]) if values[0] else values[1]
    key = ServerKey(address, values[2])
    return ServerRow._make((key, *values[3:10], tunnel, counters, Counters(*rates)))


class _Snapshot(NamedTuple):
    """What a listing is made of, copied in one breath."""

    services: list[tuple[ServiceKey, Terms, int]]
    """Key, terms and row, in the order in which services were added."""
    service_table: Any
    server_table: Any
    service_rates: Any
    server_rates: Any

    def rows(self) -> list[ServiceRow]:
        """Return every service with its servers."""
        services, service_rates = self.service_table.tolist(), self.service_rates.tolist()
        servers, server_rates = self.server_table.tolist(), self.server_rates.tolist()
        listed = []
        for key, terms, row in self.services:
            *values, at = services[row]
            under = []
            while at != NONE:
                under.append(_server_row(servers[at], server_rates[at]))
                at = servers[at][-1]
            counters, rates = Counters(*values), Counters(*service_rates[row])
            listed.append(ServiceRow(key, terms, counters, rates, under))
        return listed


def _take(manager: Manager) -> _Snapshot:
    """Copy the table: quickly, because it is to be done between two breaths."""
    tables = manager.director.tables
    state = tables.director[0]
    services_seen, servers_seen = int(state["services_seen"]), int(state["servers_seen"])
    services = manager.table.services.values()
    return _Snapshot(
        [(one.key, one.terms, manager.service_row(one.key)) for one in services],
        tables.services[:services_seen][_SERVICE_FIELDS].copy(),
        tables.servers[:servers_seen][_SERVER_FIELDS].copy(),
        manager.estimator.services(services_seen),
        manager.estimator.servers(servers_seen),
    )


def read(manager: Manager, call: Call = at_once) -> list[ServiceRow]:
    """Return every service with its servers; ``call`` copies, and here they are made objects."""
    snapshot: _Snapshot = call(partial(_take, manager))
    return snapshot.rows()


def totals(manager: Manager) -> Counters:
    """Return the counters of all services together, also of those that were removed."""
    return Counters(*map(int, manager.director.tables.totals))


def _take_connections(manager: Manager, begin: int = 0) -> tuple["_Copied", int | None]:
    """Copy connections and templates that are not due, from row ``begin`` on, not all at once.

    Returns them with their rows and the seconds they have left, and where to go on, ``None`` at the
    end.
    """
    tables = manager.director.tables
    now_ms = manager.clock()
    end = min(begin + _ROWS_AT_ONCE, int(tables.director[0]["high_water"]))
    used = tables.connections[begin:end]
    rows = np.flatnonzero(used["expires_ms"] > now_ms)
    entries = used[rows]
    left = (entries["expires_ms"] - now_ms) // 1_000
    seen = end >= int(tables.director[0]["high_water"])
    # A connection without a server has row NONE: the last row of servers, which is nobody's.
    servers = [tables.servers[half][entries["server"]] for half in ("address_high", "address_low")]
    keyed = rows[entries["conn_flags"] & FLAG_KEYED != 0]
    copied = _Copied(
        begin + rows,
        entries,
        tables.wide_ends[begin:end][rows],
        np.column_stack(servers),
        left,
        begin + keyed,
        tables.keys[tables.template_keys[begin:end][keyed]],
    )
    return copied, None if seen else end


class _Copied(NamedTuple):
    """Connections as they were copied, an array each, one row a connection."""

    rows: Any
    entries: Any
    wide_ends: Any
    servers: Any
    left: Any
    keyed: Any
    """Which rows are templates with a key; ``keys`` are theirs, in order."""
    keys: Any


def _connection_rows(manager: Manager, copied: _Copied) -> Iterator[ConnectionRow]:
    engines = manager.director.engines
    keys = {
        row: (engines.name(int(key["engine"])), bytes(key["octets"][: key["length"]]))
        for row, key in zip(copied.keyed.tolist(), copied.keys, strict=True)
    }
    fields = copied.entries[_CONNECTION_FIELDS].tolist()
    others = (copied.wide_ends, copied.servers, copied.rows, copied.left)
    for values, wide, address, row, expires in zip(
        fields, *(other.tolist() for other in others), strict=True
    ):
        protocol, flags, state, client, client_port, virtual, virtual_port, server_port = values
        names: tuple[str, ...] = TEMPLATE_NAMES
        if not flags & FLAG_TEMPLATE:
            names = STATE_NAMES[protocol]
        if flags & FLAG_KEYED:
            client_port = 0
        if flags & FLAG_WIDE:
            client, virtual = joined(*wide[:2]), joined(*wide[2:])
        server = 0 if flags & FORWARDING_MASK == BYPASS else joined(*address)
        yield ConnectionRow(
            protocol,
            (client, client_port),
            (virtual, virtual_port),
            (server, server_port),
            names[state],
            expires,
            row,
            6 if flags & FLAG_WIDE else 4,
            *keys.get(row, ()),
        )


def connections(manager: Manager, call: Call = at_once, begin: int = 0) -> Iterator[ConnectionRow]:
    """Yield every connection and template that is not due, from row ``begin`` on.

    They are copied by ``call``, some at a time, so that forwarding goes on in between.
    """
    at: int | None = begin
    while at is not None:
        taken, at = call(partial(_take_connections, manager, at))
        yield from _connection_rows(manager, taken)


def reasons(manager: Manager) -> dict[str, int]:
    """Return how many frames had each reason, those that none had left out."""
    counts = manager.director.tables.reasons
    return {reason.name.lower(): int(counts[reason]) for reason in Reason if counts[reason]}
