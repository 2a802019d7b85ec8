"""Schedulers in plain Python.

    class Random:
        def pick(self, service, servers, flow):
            return random.choice([s for s in servers if s.weight > 0])

Named on the command line as ``package.module:Class``, or by the name of an entry point in the
group ``pylvs.schedulers``.  ``pick`` is called for each new connection and returns one of
``servers``, or ``None`` to refuse the connection (ICMP port unreachable).  It may also define
``changed(service, servers)``, called when the service's servers or weights change.
"""

import importlib
import importlib.metadata
from typing import Any, NamedTuple, Protocol

from pylvs.errors import UsageError
from pylvs.frames import FRAME, NONE
from pylvs.schedulers import PLUGIN_BASE
from pylvs.tables.layouts import Tables
from pylvs.wire.text import address_text, joined


class Service(NamedTuple):
    """The virtual service a connection is wanted to.  Addresses are text, ports ints."""

    protocol: int
    address: str
    port: int


class Server(NamedTuple):
    """A real server as a scheduler sees it; ``row`` is its place in the table."""

    address: str
    port: int
    weight: int
    active: int
    inactive: int
    row: int


class Flow(NamedTuple):
    """The packet that opens the connection."""

    protocol: int
    client_address: str
    client_port: int
    virtual_address: str
    virtual_port: int


class Scheduler(Protocol):
    """What a plug-in class looks like; it is made without arguments, once a service."""

    def pick(self, service: Service, servers: list[Server], flow: Flow) -> Server | None: ...


def load(name: str) -> type[Scheduler]:
    """Return the class that ``name`` names; raises UsageError with what to do."""
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except ImportError as error:
            raise UsageError(f"scheduler {name}: {error}; is it on PYTHONPATH?") from error
        except AttributeError:
            raise UsageError(f"scheduler {name}: {module_name} has no {class_name}") from None
        except Exception as error:
            raise UsageError(f"scheduler {name} cannot be loaded: {error!r}") from error
    else:
        entries = importlib.metadata.entry_points(group="pylvs.schedulers", name=name)
        if not entries:
            raise UsageError(
                f"scheduler {name} is unknown; built in are rr, wrr, lc and wlc, and a class of "
                "yours is named package.module:Class"
            )
        try:
            found = next(iter(entries)).load()
        except Exception as error:
            raise UsageError(f"scheduler {name} cannot be loaded: {error!r}") from error
    if not callable(getattr(found, "pick", None)):
        raise UsageError(f"scheduler {name} has no method pick(service, servers, flow)")
    return found  # type: ignore[no-any-return]


class Plugins:
    """The plug-ins in use, by the number that a service's ``scheduler`` field holds."""

    def __init__(self) -> None:
        self._classes: list[type[Scheduler]] = []
        self._names: dict[str, int] = {}
        self._made: dict[tuple[int, int], Scheduler] = {}

    def number(self, name: str) -> int:
        """Return the number of plug-in ``name``, loading it the first time."""
        if name not in self._names:
            self._classes.append(load(name))
            self._names[name] = PLUGIN_BASE + len(self._classes) - 1
        return self._names[name]

    def name(self, number: int) -> str:
        return next(name for name, known in self._names.items() if known == number)

    def _instance(self, service_row: int, number: int) -> Scheduler:
        key = (service_row, number)
        if key not in self._made:
            self._made[key] = self._classes[number - PLUGIN_BASE]()
        return self._made[key]

    def forget(self, service_row: int) -> None:
        """Part with what a service's plug-ins remember: the service is gone."""
        for key in [key for key in self._made if key[0] == service_row]:
            del self._made[key]

    def changed(self, tables: Tables, service_row: int) -> None:
        """Tell the service's plug-in, if it has one and it cares, that its servers changed."""
        number = int(tables.services[service_row]["scheduler"])
        if number < PLUGIN_BASE:
            return
        tell = getattr(self._instance(service_row, number), "changed", None)
        if tell:
            tell(service_of(tables, service_row), servers_of(tables, service_row))

    def answer(self, tables: Tables, frame: Any) -> int:
        """Return the server row that the frame's service's plug-in picks, or ``NONE``.

        Raises whatever the plug-in raises, and ValueError when it names no server of the service.
        """
        service_row = int(frame["service"])
        scheduler = self._instance(service_row, int(tables.services[service_row]["scheduler"]))
        servers = servers_of(tables, service_row)
        flow = Flow(
            int(frame["protocol"]),
            _address_of(frame, "source"),
            int(frame["source_port"]),
            _address_of(frame, "destination"),
            int(frame["destination_port"]),
        )
        picked = scheduler.pick(service_of(tables, service_row), servers, flow)
        if picked is None:
            return NONE
        if picked not in servers:
            raise ValueError(f"pick returned {picked!r}, which is no server of the service")
        return picked.row


def service_of(tables: Tables, service_row: int) -> Service:
    service = tables.services[service_row]
    address = _address_of(service, "address")
    return Service(int(service["protocol"]), address, int(service["port"]))


def _address_of(record: Any, name: str) -> str:
    """Return the address of that name in a record or a frame, as text."""
    if record.dtype == FRAME and record["family"] == 4:
        return address_text(record[name])
    return address_text(joined(record[f"{name}_high"], record[f"{name}_low"]))


def servers_of(tables: Tables, service_row: int) -> list[Server]:
    """Return the service's servers in list order, the newest first."""
    servers = []
    row = int(tables.services[service_row]["head"])
    while row != NONE:
        server = tables.servers[row]
        servers.append(
            Server(
                _address_of(server, "address"),
                int(server["port"]),
                int(server["weight"]),
                int(server["active"]),
                int(server["inactive"]),
                row,
            )
        )
        row = int(server["next"])
    return servers
