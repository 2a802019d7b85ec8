"""A stranger's class: how it is found, and what it is shown of a connection that is wanted.

It is named ``package.module:Class``, or by the name of an entry point.
"""

import contextlib
import importlib
import importlib.metadata
from typing import Any, NamedTuple

from pylvs.errors import UsageError
from pylvs.frames import FRAME
from pylvs.tables import Tables
from pylvs.wire.text import address_text, joined


class Service(NamedTuple):
    """The virtual service a connection is wanted to.  Addresses are text, ports ints."""

    protocol: int
    address: str
    port: int


class Flow(NamedTuple):
    """The packet that opens the connection."""

    protocol: int
    client_address: str
    client_port: int
    virtual_address: str
    virtual_port: int


def service_of(tables: Tables, service_row: int) -> Service:
    service = tables.services[service_row]
    address = address_of(service, "address")
    return Service(int(service["protocol"]), address, int(service["port"]))


def flow_of(frame: Any) -> Flow:
    return Flow(
        int(frame["protocol"]),
        address_of(frame, "source"),
        int(frame["source_port"]),
        address_of(frame, "destination"),
        int(frame["destination_port"]),
    )


def address_of(record: Any, name: str) -> str:
    """Return the address of that name in a record or a frame, as text."""
    if record.dtype == FRAME and record["family"] == 4:
        return address_text(record[name])
    return address_text(joined(record[f"{name}_high"], record[f"{name}_low"]))


class Kind(NamedTuple):
    """What a plug-in can be: what it is called, its entry points' group, what it must define."""

    name: str
    group: str
    method: str
    signature: str
    built_in: tuple[str, ...]


def load(kind: Kind, name: str) -> Any:
    """Return the class that ``name`` names; raises UsageError with what to do."""
    title = f"{kind.name} {name}"
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except ImportError as error:
            raise UsageError(f"{title}: {error}; is it on PYTHONPATH?") from error
        except AttributeError:
            raise UsageError(f"{title}: {module_name} has no {class_name}") from None
        except Exception as error:
            raise UsageError(f"{title} cannot be loaded: {error!r}") from error
    else:
        entries = importlib.metadata.entry_points(group=kind.group, name=name)
        if not entries:
            raise UsageError(
                f"{title} is unknown; built in: {' '.join(filter(None, kind.built_in))}; a class "
                "of yours is named package.module:Class"
            )
        try:
            found = next(iter(entries)).load()
        except Exception as error:
            raise UsageError(f"{title} cannot be loaded: {error!r}") from error
    if not callable(getattr(found, kind.method, None)):
        raise UsageError(f"{title} has no method {kind.method}{kind.signature}")
    return found


class Plugins:
    """All of one kind, by numbers: what is built in, and from ``base`` on the classes loaded.

    A class is made without arguments, once a service that names it.
    """

    def __init__(self, kind: Kind, base: int) -> None:
        self._kind = kind
        self._base = base
        self._classes: list[Any] = []
        self._names: dict[str, int] = {}
        self._listed: list[str] = []  # the same, for other threads to read
        self._made: dict[tuple[int, int], Any] = {}

    def number(self, name: str) -> int:
        """Return the number of ``name``; a plug-in is loaded the first time.  Raises UsageError."""
        if name in self._kind.built_in:
            return self._kind.built_in.index(name)
        if name not in self._names:
            self._classes.append(load(self._kind, name))
            self._listed.append(name)
            self._names[name] = self._base + len(self._classes) - 1
        return self._names[name]

    def preload(self, name: str) -> None:
        """Import a plug-in's module, so that no breath has to wait for it."""
        if ":" in name:
            with contextlib.suppress(UsageError):  # who asks for its number will be told why
                load(self._kind, name)

    def name(self, number: int) -> str:
        if number < self._base:
            return self._kind.built_in[number]
        return self._listed[number - self._base]

    def instance(self, service_row: int, number: int) -> Any:
        """Return the object that serves a service."""
        key = (service_row, number)
        if key not in self._made:
            self._made[key] = self._classes[number - self._base]()
        return self._made[key]

    def forget(self, service_row: int) -> None:
        """Part with what a service's plug-ins remember: the service is gone."""
        for key in [key for key in self._made if key[0] == service_row]:
            del self._made[key]
