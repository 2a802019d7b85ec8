"""What is spoken about: the table, its services with their counters, connections, settings.

``Resources.operations`` lists it all, and /openapi.json tells it to clients.  A service is named
``tcp:192.0.2.10:80`` or ``mark:5``, a server ``10.0.0.11:8080``; bodies are those of
``control.config.schema``, in JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from pylvs.control import Call, at_once, listing, settings
from pylvs.control.api.answers import (
    Changes,
    Connections,
    Forgotten,
    Rules,
    ServiceState,
    Settings,
    Stats,
)
from pylvs.control.api.handling import Asked, MalformedError, NotFoundError
from pylvs.control.api.openapi import Operation
from pylvs.control.changes import Changer
from pylvs.control.config import checking, schema, services
from pylvs.control.config.checking import Fault
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.rules import number_of, parse_endpoint, parse_text, unbracketed
from pylvs.control.manager import Manager
from pylvs.control.model import (
    PROTOCOL_NAMES,
    Command,
    Server,
    ServerKey,
    Service,
    ServiceKey,
    Table,
    Timeouts,
)
from pylvs.errors import UsageError
from pylvs.frames import NONE
from pylvs.wire.text import endpoint_text, host_text, octets_text

_PAGE: Final = 1_000
_PAGE_LIMIT: Final = 100_000
_ROW_LIMIT: Final = 2**31
_FORGETS: Final = ("connections", "templates")
Reload = Callable[[], Sequence[Command]]
_Services = dict[ServiceKey, Service]


def _exact(text: str) -> float:
    """Return a number; 3.0 is an integer, as JSON Schema has it."""
    value = float(text)
    return int(value) if value.is_integer() else value


_JSON: Final = msgspec.json.Decoder(float_hook=_exact)


def _no_file() -> Sequence[Command]:
    raise UsageError("this director has no configuration file")


class Resources:
    """What one director can be asked, and told; called in threads."""

    def __init__(
        self,
        manager: Manager,
        call: Call = at_once,
        changer: Changer | None = None,
        reload: Reload = _no_file,
    ) -> None:
        self._manager = manager
        self._call = call
        self._changer = changer or Changer(manager, call)
        self._reload = reload

    def operations(self) -> list[Operation]:
        """Return what can be asked."""
        service, server = "/services/{service}", "/services/{service}/servers/{server}"
        forget = f"{server}/forget"
        text, number = {"type": "string"}, {"type": "integer", "minimum": 0}
        filters = {"service": text, "server": text, "client": text, "state": text}
        page = {
            "limit": {**number, "minimum": 1, "maximum": _PAGE_LIMIT},
            "after": {**number, "maximum": _ROW_LIMIT},
        }
        tables = (schema.Table, Rules)
        dry_run = {"dry_run": {"enum": ["0", "1"]}}
        whole = "Make it so, all of it or nothing."
        kept = {"what": {"enum": list(_FORGETS)}}
        shown: dict[str, dict[str, Any]] = {**filters, **page}
        return [
            Operation("GET", "/table", self.table, "What is stated.", schema.Table),
            Operation("PUT", "/table", self.put_table, whole, Changes, tables, dry_run),
            Operation("GET", "/services", self.services, "All services.", list[ServiceState]),
            Operation("GET", service, self.service, "A service.", ServiceState),
            Operation("PUT", service, self.put_service, whole, Changes, (schema.Service,)),
            Operation("DELETE", service, self.delete_service, "Remove a service.", Changes),
            Operation("PUT", server, self.put_server, whole, Changes, (schema.Server,)),
            Operation("DELETE", server, self.delete_server, "Remove a server.", Changes),
            Operation(
                "POST", forget, self.forget, "Forget what it has.", Forgotten, (), kept, True
            ),
            Operation("GET", "/connections", self.connections, "Some.", Connections, (), shown),
            Operation("GET", "/stats", self.stats, "All traffic together.", Stats),
            Operation("GET", "/settings", self.settings, "The settings.", Settings),
            Operation("PUT", "/settings", self.put_settings, whole, Settings, (Settings,)),
            Operation("POST", "/reload", self.reload, "Read the file again.", Changes),
        ]

    def reload(self, _: Asked) -> Any:
        return _told(self._reload())

    def table(self, _: Asked) -> Any:
        with self._changer.alone:
            stated = self._manager.copy_services()
            timeouts = self._manager.table.timeouts
        documents = [services.document_of(one) for one in stated.values()]
        told = schema.plain(schema.Table(documents, schema.Timeouts(*timeouts)))
        return {"services": [], **told}

    def put_table(self, asked: Asked) -> Any:
        wanted, timeouts = _wanted(asked.body)
        dry_run = _number(asked.query, "dry_run", 0, 0, 1)
        return _told(self._changer.replace(wanted, timeouts, dry_run=bool(dry_run)))

    def services(self, _: Asked) -> Any:
        return [_service(row) for row in listing.read(self._manager, self._call)]

    def service(self, asked: Asked) -> Any:
        key = _service_of(asked)
        for row in listing.read(self._manager, self._call):
            if row.key == key:
                return _service(row)
        raise NotFoundError(f"no service {asked.path['service']}")

    def put_service(self, asked: Asked) -> Any:
        _service_of(asked)
        body = {**_mapping(asked.body), "service": asked.path["service"]}
        document, faults = checking.convert(body, schema.Service)
        _refuse(faults)
        found, more = services.read([document])
        _refuse([], more)
        ((key, wanted),) = found.items()
        return _told(self._changer.edit(key, lambda _: wanted))

    def delete_service(self, asked: Asked) -> Any:
        key = _service_of(asked)

        def remove(service: Service | None) -> None:
            _present(service, key)

        return _told(self._changer.edit(key, remove))

    def put_server(self, asked: Asked) -> Any:
        key = _service_of(asked)
        _server_of(asked, key)
        body = {**_mapping(asked.body), "server": asked.path["server"]}
        document, faults = checking.convert(body, schema.Server)
        _refuse(faults)
        # Read as part of its service, of which ports and mark alone matter here.
        persistent = 0 if key.port or key.ports else 1
        around = schema.Service(asked.path["service"], persistent=persistent, servers=[document])
        found, more = services.read([around])
        _refuse([], more)

        def put(service: Service | None) -> Service:
            _present(service, key).servers.update(found[key].servers)
            return _present(service, key)

        return _told(self._changer.edit(key, put))

    def delete_server(self, asked: Asked) -> Any:
        key = _service_of(asked)
        name = _server_of(asked, key)

        def remove(service: Service | None) -> Service:
            if _present(service, key).servers.pop(name, None) is None:
                raise NotFoundError(f"no server {name} in service {asked.path['service']}")
            return _present(service, key)

        return _told(self._changer.edit(key, remove))

    def forget(self, asked: Asked) -> Any:
        what = asked.query.get("what", "")
        if what not in _FORGETS:
            raise MalformedError(f"what is connections or templates, not {what!r}")
        key = _service_of(asked)
        name = _server_of(asked, key)
        with self._changer.alone:
            row = self._call(partial(self._manager.server_row, key, name))
            if row == NONE:
                raise NotFoundError(f"no server {name} in service {asked.path['service']}")
            begin: int | None = 0
            forgotten = 0
            while begin is not None:
                take = partial(self._manager.forget, row, what == "templates", begin)
                count, begin = self._call(take)
                forgotten += count
        return {"forgotten": forgotten}

    def connections(self, asked: Asked) -> Any:
        query = asked.query
        limit = _number(query, "limit", _PAGE, 1, _PAGE_LIMIT)
        after = _number(query, "after", 0, 0, _ROW_LIMIT)
        wanted = {name: _end(query[name]) for name in ("server", "client") if name in query}
        service = services.service_key(query["service"]) if "service" in query else None
        found: list[dict[str, Any]] = []
        for one in listing.connections(self._manager, self._call, after):
            document = _connection(one)
            state = query.get("state", document["state"])
            if document["state"] != state or not _is_about(document, wanted):
                continue
            if service and not _is_of(one, service):
                continue
            if len(found) == limit:
                return {"connections": found, "next": one.row}
            found.append(document)
        return {"connections": found}

    def stats(self, _: Asked) -> Any:
        manager = self._manager
        rates = self._call(manager.estimator.total)
        return {
            "connections": int(manager.director.tables.director[0]["connection_count"]),
            "counters": listing.totals(manager, self._call)._asdict(),
            "rates": listing.Counters(*rates)._asdict(),
            "reasons": listing.reasons(manager, self._call),
            "offload": listing.offload(manager)._asdict(),
        }

    def settings(self, _: Asked) -> Any:
        state = self._manager.director.tables.director[0]
        return {name: settings.read(state, name) for name in settings.SETTINGS}

    def put_settings(self, asked: Asked) -> Any:
        values = _mapping(asked.body)
        _refuse([], [Fault(name, why) for name, why in settings.faults_of(values).items()])
        self._call(partial(self._manager.set_settings, values))
        return self.settings(asked)


def _service_of(asked: Asked) -> ServiceKey:
    try:
        return services.service_key(asked.path["service"])
    except UsageError as error:
        raise NotFoundError(str(error)) from None


def _server_of(asked: Asked, service: ServiceKey) -> ServerKey:
    try:
        return services.server_key(asked.path["server"], service.port)
    except UsageError as error:
        raise NotFoundError(str(error)) from None


def _present(service: Service | None, key: ServiceKey) -> Service:
    if service is None:
        raise NotFoundError(f"no service {services.service_name(key)}")
    return service


def _mapping(body: bytes) -> dict[str, Any]:
    try:
        value = _JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError("the body is not a JSON object")
    return value


def _refuse(malformed: list[Fault], impossible: Sequence[Fault] = ()) -> None:
    """Raise an error with all faults, if there are any."""
    told = malformed + checking.beside(malformed, impossible)
    if told:
        kind = MalformedError if malformed else UsageError
        raise kind("\n".join(map(str, told)))


def _wanted(body: bytes) -> tuple[_Services, Timeouts | None]:
    """Return the table that a body states: a document, or ``{"rules": ipvsadm's text}``."""
    data = _mapping(body)
    if set(data) == {"rules"} and isinstance(data["rules"], str):
        table = Table()
        commands = parse_text(data["rules"].splitlines(), "rules")
        for command in commands:
            table.apply(command)
        states_timeouts = any(command.verb == "set" for command in commands)
        return table.services, table.timeouts if states_timeouts else None
    document, faults = checking.convert(data, schema.Table)
    found, more = services.read(document.services)
    _refuse(faults, more)
    given = document.timeouts
    timeouts = Timeouts(given.tcp, given.tcp_fin, given.udp)
    return found, timeouts if any(timeouts) else None


def _told(commands: Sequence[Command]) -> Any:
    return {"changes": [render.command(one) for one in commands]}


def _counters(row: Any) -> dict[str, Any]:
    return {"counters": row.counters._asdict(), "rates": row.rates._asdict()}


def _service(row: listing.ServiceRow) -> dict[str, Any]:
    document = schema.complete(services.document_of(Service(row.key, row.terms)))
    document["servers"] = [_server(one) for one in row.servers]
    return {**document, **_counters(row)}


def _server(row: listing.ServerRow) -> dict[str, Any]:
    stated = row.key, row.method, row.weight, row.upper, row.lower
    server = Server(*stated, *row.tunnel, row.dscp, row.proxy)
    return {
        **schema.complete(services.server_document(server)),
        "active": row.active,
        "inactive": row.inactive,
        "templates": row.persistent,
        **_counters(row),
    }


def _connection(row: listing.ConnectionRow) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL_NAMES[row.protocol].lower(),
        "client": endpoint_text(*row.client),
        "virtual": endpoint_text(*row.virtual),
        "server": endpoint_text(*row.server) if row.server[0] else render.nobody(row),
        "state": row.state,
        "expires": row.expires,
        "local": endpoint_text(*row.local) if row.local[0] else "",
        "engine": row.engine,
        "key": octets_text(row.key),
    }


def _end(text: str) -> str:
    """Return a connection's end as documents spell it, or only its address if no port is given."""
    try:
        address, port = parse_endpoint(unbracketed(text), -1)
    except ValueError as error:
        raise MalformedError(f"{text!r}: {error}; give IP or IP:PORT") from None
    return host_text(address) if port < 0 else endpoint_text(address, port)


def _is_of(row: listing.ConnectionRow, service: ServiceKey) -> bool:
    """Whether a connection is a service's; of one whose server is gone its ends tell."""
    if row.service:
        return row.service == service
    return row.protocol == service.protocol and service.covers(*row.virtual)


def _is_about(document: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether a connection has these ends; an address without a port is one of any port."""
    return all(
        document[name] == wanted[name] or document[name].rpartition(":")[0] == wanted[name]
        for name in ("server", "client")
        if name in wanted
    )


def _number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = number_of(query.get(name, str(default)), low, high)
    if value is None:
        raise MalformedError(f"{name} is a number from {low} to {high}, not {query[name]!r}")
    return value
