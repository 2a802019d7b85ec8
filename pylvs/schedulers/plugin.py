"""Schedulers in plain Python.

    class Random:
        def pick(self, service, servers, flow):
            return random.choice([s for s in servers if s.weight > 0])

Named on the command line as ``package.module:Class``, or by the name of an entry point in the
group ``pylvs.schedulers``.  ``pick`` is called for each new connection and returns one of
``servers``, or ``None`` to refuse the connection (ICMP port unreachable).  It may also define
``changed(service, servers)``, called when the service's servers or weights change.
"""

from typing import Any, Final, NamedTuple, Protocol

from pylvs.frames import NONE
from pylvs.plugins import Flow, Kind, Plugins, Service, address_of, flow_of, service_of
from pylvs.schedulers import BUILT_IN, NO_SCHEDULER, PLUGIN_BASE
from pylvs.tables import Tables


class Server(NamedTuple):
    """A real server as a scheduler sees it; ``row`` is its place in the table."""

    address: str
    port: int
    weight: int
    active: int
    inactive: int
    row: int


class Scheduler(Protocol):
    """What a plug-in class looks like; it is made without arguments, once a service."""

    def pick(self, service: Service, servers: list[Server], flow: Flow) -> Server | None: ...


KIND: Final = Kind("scheduler", "pylvs.schedulers", "pick", "(service, servers, flow)", BUILT_IN)


class Schedulers(Plugins):
    """The plug-in schedulers in use, by the number that a service's ``scheduler`` field holds."""

    def __init__(self) -> None:
        super().__init__(KIND, PLUGIN_BASE)

    def number(self, name: str) -> int:
        return NO_SCHEDULER if name == "none" else super().number(name)

    def changed(self, tables: Tables, service_row: int) -> None:
        """Tell the service's plug-in, if it has one and it cares, that its servers changed."""
        number = int(tables.services[service_row]["scheduler"])
        if number < PLUGIN_BASE:
            return
        tell = getattr(self.instance(service_row, number), "changed", None)
        if tell:
            tell(service_of(tables, service_row), servers_of(tables, service_row))

    def answer(self, tables: Tables, frame: Any) -> int:
        """Return the server row that the frame's service's plug-in picks, or ``NONE``.

        Raises whatever the plug-in raises, and ValueError when it names no server of the service.
        """
        service_row = int(frame["service"])
        scheduler = self.instance(service_row, int(tables.services[service_row]["scheduler"]))
        servers = servers_of(tables, service_row)
        picked = scheduler.pick(service_of(tables, service_row), servers, flow_of(frame))
        if picked is None:
            return NONE
        if picked not in servers:
            raise ValueError(f"pick returned {picked!r}, which is no server of the service")
        return int(picked.row)


def servers_of(tables: Tables, service_row: int) -> list[Server]:
    """Return the service's servers in list order, the newest first."""
    servers = []
    row = int(tables.services[service_row]["head"])
    while row != NONE:
        server = tables.servers[row]
        servers.append(
            Server(
                address_of(server, "address"),
                int(server["port"]),
                int(server["weight"]),
                int(server["active"]),
                int(server["inactive"]),
                row,
            )
        )
        row = int(server["next"])
    return servers
