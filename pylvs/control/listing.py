"""A copy of the director's table with its counters, as listings and APIs show it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.control import Call, at_once
from pylvs.control.estimator import Estimator
from pylvs.control.manager import Manager
from pylvs.control.model import ServerKey, Service, ServiceKey, Terms
from pylvs.frames import NONE, Reason
from pylvs.tables.layouts import (
    BYPASS,
    FLAG_KEYED,
    FLAG_LOCAL,
    FLAG_TEMPLATE,
    FLAG_WIDE,
    FORWARDING_MASK,
    L3DSR,
)
from pylvs.tables.states import STATE_NAMES, TEMPLATE_NAMES
from pylvs.wire.text import joined


class Counters(NamedTuple):
    """What IPVS counts; bytes are those of IP packets."""

    connections: int
    in_packets: int
    out_packets: int
    in_bytes: int
    out_bytes: int


class Offloaded(NamedTuple):
    """What the kernel forwards by itself: flows now, packets since the start."""

    flows: int
    packets: int


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
    dscp: int
    proxy: int
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
    local: tuple[int, int] = (0, 0)
    """What its server sees in the place of the client, by full NAT."""
    service: ServiceKey | None = None
    """Whose it is; nobody's, once its server was removed."""


_SERVER_FIELDS: Final = [
    "next", "address_high", "address_low", "port", "forwarding", "weight", "active", "inactive",
    "persistent", "upper", "lower", "tunnel_type", "tunnel_port", "tunnel_flags",
    "dscp", "proxy",
]  # fmt: skip
_CONNECTION_FIELDS: Final = [
    "protocol", "conn_flags", "state", "client_address", "client_port", "virtual_address",
    "virtual_port", "server_port",
]  # fmt: skip
_ROWS_AT_ONCE: Final = 1_024  # copied in a quarter of a millisecond
_NOTHING: Final = Counters(0, 0, 0, 0, 0)


def _server_row(values: tuple[int, ...], counters: Counters, rates: Counters) -> ServerRow:
    address = joined(values[1], values[2]) if values[1] else values[2]
    key = ServerKey(address, values[3])
    dscp = values[14] if values[4] == L3DSR else 0
    return ServerRow._make((key, *values[4:11], values[11:14], dscp, values[15], counters, rates))


class _Snapshot(NamedTuple):
    """What a listing is made of, copied in one breath."""

    stated: Iterator[tuple[Service, int]]
    heads: Any
    """Rows of SERVICE, whole: picking fields takes several times as long."""
    servers: Any

    def rows(self, estimator: Estimator | None) -> list[ServiceRow]:
        """Return every service with its servers; without an estimator nothing is counted."""
        heads, servers = self.heads["head"].tolist(), self.servers[_SERVER_FIELDS].tolist()
        of_service = _counted(self.heads, estimator and estimator.services(len(heads)))
        of_server = _counted(self.servers, estimator and estimator.servers(len(servers)))
        listed = []
        for service, row in self.stated:
            at = heads[row]
            under = []
            while at != NONE:
                values = servers[at]
                under.append(_server_row(values, *of_server(at)))
                at = values[0]
            listed.append(ServiceRow(service.key, service.terms, *of_service(row), under))
        return listed


def _counted(rows: Any, averages: Any) -> Callable[[int], tuple[Counters, Counters]]:
    """Return what finds the counters and rates in a row; without averages there are none."""
    if averages is None:
        return lambda row: (_NOTHING, _NOTHING)
    counters, rates = rows[list(Counters._fields)].tolist(), averages.tolist()
    return lambda row: (Counters(*counters[row]), Counters(*rates[row]))


def _take(manager: Manager, room: tuple[Any, Any]) -> _Snapshot | None:
    """Copy the table, if there is room for it: quickly, because it is done between two breaths."""
    used = _used(manager)
    if any(len(rows) > len(place) for rows, place in zip(used, room, strict=True)):
        return None
    return _Snapshot(manager.stated(), *map(_copy, used, room))


def _used(manager: Manager) -> tuple[Any, Any]:
    """Return the rows of services and of servers that have been in use."""
    tables = manager.director.tables
    state = tables.director[0]
    services, servers = int(state["services_seen"]), int(state["servers_seen"])
    return tables.services[:services], tables.servers[:servers]


def _room_for(rows: Any) -> Any:
    """Return a place that as many records can be copied to, its pages there already."""
    octets = np.empty(rows.nbytes, np.uint8)
    octets.fill(0)
    return octets.view(rows.dtype)


def _copy(rows: Any, place: Any) -> Any:
    """Copy records as bytes: ten times as fast as NumPy copies records."""
    copied = place[: len(rows)]
    copied.view(np.uint8)[:] = rows.view(np.uint8)
    return copied


def read(manager: Manager, call: Call = at_once, *, counted: bool = True) -> list[ServiceRow]:
    """Return every service with its servers; ``call`` copies, and here they are made objects.

    What is not ``counted`` has no counters and rates, and is had in two thirds of the time.
    """
    if counted:
        manager.settle(call)
    snapshot: _Snapshot | None = None
    while snapshot is None:
        services, servers = map(_room_for, _used(manager))
        snapshot = call(partial(_take, manager, (services, servers)))
    return snapshot.rows(manager.estimator if counted else None)


def totals(manager: Manager, call: Call = at_once) -> Counters:
    """Return the counters of all services together, also of those that were removed."""
    manager.settle(call)
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
    sides = ("address_high", "address_low", "service", "available")
    servers = [tables.servers[name][entries["server"]] for name in sides]
    keyed = rows[entries["conn_flags"] & FLAG_KEYED != 0]
    local = rows[entries["conn_flags"] & FLAG_LOCAL != 0]
    copied = _Copied(
        begin + rows,
        entries,
        tables.wide_ends[begin:end][rows],
        np.column_stack(servers),
        left,
        begin + keyed,
        tables.keys[tables.details[begin:end][keyed]],
        begin + local,
        tables.local_ends[tables.details[begin:end][local]],
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
    local: Any
    """Which rows have a local end; ``local_ends`` are theirs, in order."""
    local_ends: Any


def _connection_rows(manager: Manager, copied: _Copied) -> Iterator[ConnectionRow]:
    engines = manager.director.engines
    keys = {
        row: (engines.name(int(key["engine"])), bytes(key["octets"][: key["length"]]))
        for row, key in zip(copied.keyed.tolist(), copied.keys, strict=True)
    }
    pool = manager.own.pool
    ends = {
        row: (pool[end["pool"]], int(end["port"]))
        for row, end in zip(copied.local.tolist(), copied.local_ends, strict=True)
    }
    fields = copied.entries[_CONNECTION_FIELDS].tolist()
    services = manager.keys_by_row()
    others = (copied.wide_ends, copied.servers, copied.rows, copied.left)
    for values, wide, of_server, row, expires in zip(
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
        high, low, service, available = of_server
        server = 0 if flags & FORWARDING_MASK == BYPASS else joined(high, low)
        yield ConnectionRow(
            protocol,
            (client, client_port),
            (virtual, virtual_port),
            (server, server_port),
            names[state],
            expires,
            row,
            6 if flags & FLAG_WIDE else 4,
            *keys.get(row, ("", b"")),
            ends.get(row, (0, 0)),
            services.get(service) if available else None,
        )


def connections(manager: Manager, call: Call = at_once, begin: int = 0) -> Iterator[ConnectionRow]:
    """Yield every connection and template that is not due, from row ``begin`` on.

    They are copied by ``call``, some at a time, so that forwarding goes on in between.
    """
    manager.settle(call)
    at: int | None = begin
    while at is not None:
        taken, at = call(partial(_take_connections, manager, at))
        yield from _connection_rows(manager, taken)


def reasons(manager: Manager, call: Call = at_once) -> dict[str, int]:
    """Return how many frames had each reason, those that none had left out."""
    manager.settle(call)
    counts = manager.director.tables.reasons
    return {reason.name.lower(): int(counts[reason]) for reason in Reason if counts[reason]}


def offload(manager: Manager) -> Offloaded:
    """Return what the kernel does, as far as it was settled."""
    state = manager.director.tables.director[0]
    return Offloaded(int(state["flow_count"]), int(state["offloaded"]))
