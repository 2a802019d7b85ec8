"""What is spoken about: the table, its services with their counters, connections, settings.

    GET    /table                                   what is stated
    PUT    /table?dry_run=1                         make it so, all or nothing; returns the changes
    GET    /services            /services/NAME      with servers, counters and rates
    PUT    /services/NAME       DELETE /services/NAME
    PUT    /services/NAME/servers/NAME              DELETE likewise
    POST   /services/NAME/servers/NAME/forget?what=connections      or templates
    GET    /connections?service=&server=&client=&state=&limit=&after=
    GET    /stats               /settings           PUT /settings
    POST   /reload

Bodies are those of ``control.config.schema``, in JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pylvs.control import listing, settings
from pylvs.control.changes import Changer
from pylvs.control.config import checking, schema, services
from pylvs.control.config.checking import Fault
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.rules import number_of, parse_text
from pylvs.control.model import (
    PROTOCOL_NAMES,
    Command,
    Server,
    Service,
    ServiceKey,
    Table,
    Timeouts,
)
from pylvs.errors import UsageError
from pylvs.frames import NONE

if TYPE_CHECKING:
    from pylvs.control.manager import Manager

_PAGE: Final = 1_000
_PAGE_LIMIT: Final = 100_000
Reload = Callable[[], Sequence[Command]]
_Services = dict[ServiceKey, Service]


class Asked(NamedTuple):
    """One request: what its path and query name, and its body."""

    path: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes = b""


class NotFoundError(UsageError):
    """What a request names does not exist."""


Handler = Callable[[Asked], Any]


def _no_file() -> Sequence[Command]:
    raise UsageError("this director has no configuration file")


class Resources:
    """What one director can be asked, and told; called in threads."""

    def __init__(
        self,
        manager: "Manager",
        call: listing.Call = listing.at_once,
        changer: Changer | None = None,
        reload: Reload = _no_file,
    ) -> None:
        self._manager = manager
        self._call = call
        self._changer = changer or Changer(manager, call)
        self._reload = reload

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return who answers what, by method and path."""
        service, server = "/services/{service}", "/services/{service}/servers/{server}"
        return {
            ("GET", "/table"): self.table,
            ("PUT", "/table"): self.put_table,
            ("GET", "/services"): self.services,
            ("GET", service): self.service,
            ("PUT", service): self.put_service,
            ("DELETE", service): self.delete_service,
            ("PUT", server): self.put_server,
            ("DELETE", server): self.delete_server,
            ("POST", f"{server}/forget"): self.forget,
            ("GET", "/connections"): self.connections,
            ("GET", "/stats"): self.stats,
            ("GET", "/settings"): self.settings,
            ("PUT", "/settings"): self.put_settings,
            ("POST", "/reload"): lambda _: _told(self._reload()),
        }

    def table(self, _: Asked) -> Any:
        with self._changer.alone:
            stated = self._manager.copy_services()
            timeouts = self._manager.table.timeouts
        documents = [services.document_of(one) for one in stated.values()]
        return schema.plain(schema.Table(documents, schema.Timeouts(*timeouts)))

    def put_table(self, asked: Asked) -> Any:
        wanted, timeouts = _wanted(asked.body)
        dry_run = asked.query.get("dry_run", "") not in ("", "0")
        return _told(self._changer.replace(wanted, timeouts, dry_run=dry_run))

    def services(self, _: Asked) -> Any:
        return [_service(row) for row in listing.read(self._manager, self._call)]

    def service(self, asked: Asked) -> Any:
        key = services.service_key(asked.path["service"])
        for row in listing.read(self._manager, self._call):
            if row.key == key:
                return _service(row)
        raise NotFoundError(f"no service {asked.path['service']}")

    def put_service(self, asked: Asked) -> Any:
        body = {**_mapping(asked.body), "service": asked.path["service"]}
        document, faults = checking.convert(body, schema.Service)
        found, more = services.read([document])
        _refuse(faults, more)
        ((key, wanted),) = found.items()
        return _told(self._changer.edit(key, lambda _: wanted))

    def delete_service(self, asked: Asked) -> Any:
        key = services.service_key(asked.path["service"])

        def remove(service: Service | None) -> None:
            _present(service, key)

        return _told(self._changer.edit(key, remove))

    def put_server(self, asked: Asked) -> Any:
        key = services.service_key(asked.path["service"])
        body = {**_mapping(asked.body), "server": asked.path["server"]}
        document, faults = checking.convert(body, schema.Server)
        # Read as part of its service, of which port and mark alone matter here.
        persistent = 0 if key.port else 1
        around = schema.Service(asked.path["service"], persistent=persistent, servers=[document])
        found, more = services.read([around])
        _refuse(faults, more)

        def put(service: Service | None) -> Service:
            _present(service, key).servers.update(found[key].servers)
            return _present(service, key)

        return _told(self._changer.edit(key, put))

    def delete_server(self, asked: Asked) -> Any:
        key = services.service_key(asked.path["service"])
        name = services.server_key(asked.path["server"], key.port)

        def remove(service: Service | None) -> Service:
            if _present(service, key).servers.pop(name, None) is None:
                raise NotFoundError(f"no server {name} in service {asked.path['service']}")
            return _present(service, key)

        return _told(self._changer.edit(key, remove))

    def forget(self, asked: Asked) -> Any:
        what = asked.query.get("what", "")
        if what not in ("connections", "templates"):
            raise UsageError(f"what is connections or templates, not {what!r}")
        key = services.service_key(asked.path["service"])
        name = services.server_key(asked.path["server"], key.port)
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
        after = _number(query, "after", 0, 0, 2**31)
        wanted = {name: query[name] for name in ("service", "server", "client") if name in query}
        found: list[dict[str, Any]] = []
        for one in listing.connections(self._manager, self._call, after):
            document = _connection(one)
            state = query.get("state", document["state"])
            if document["state"] != state or not _is_about(document, wanted):
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
            "counters": listing.totals(manager)._asdict(),
            "rates": listing.Counters(*rates)._asdict(),
            "reasons": listing.reasons(manager),
        }

    def settings(self, _: Asked) -> Any:
        state = self._manager.director.tables.director[0]
        return {name: settings.read(state, name) for name in settings.SETTINGS}

    def put_settings(self, asked: Asked) -> Any:
        values = _mapping(asked.body)
        _refuse([Fault(name, why) for name, why in settings.faults_of(values).items()])
        state = self._manager.director.tables.director[0]

        def apply() -> None:
            for name, value in values.items():
                settings.apply(state, name, value)

        self._call(apply)
        return self.settings(asked)


def _present(service: Service | None, key: ServiceKey) -> Service:
    if service is None:
        raise NotFoundError(f"no service {services.service_name(key)}")
    return service


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the body is not JSON: {error}") from None


def _mapping(body: bytes) -> dict[str, Any]:
    value = _decode(body or b"{}")
    if not isinstance(value, dict):
        raise UsageError("the body is not a JSON object")
    return value


def _refuse(*faults: list[Fault]) -> None:
    told = {fault.place: fault for some in faults for fault in some}
    if told:
        raise UsageError("\n".join(map(str, told.values())))


def _wanted(body: bytes) -> tuple[_Services, Timeouts | None]:
    """Return the table that a body states: a document, or ``{"rules": ipvsadm's text}``."""
    data = _mapping(body)
    if set(data) == {"rules"} and isinstance(data["rules"], str):
        table = Table()
        for command in parse_text(data["rules"].splitlines(), "rules"):
            table.apply(command)
        return table.services, None
    document, faults = checking.convert(data, schema.Table)
    found, more = services.read(document.services)
    known = {fault.place for fault in faults}
    _refuse(faults, [fault for fault in more if fault.place not in known])
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
    tunnel_type, tunnel_port, flags = row.tunnel
    server = Server(
        row.key, row.method, row.weight, row.upper, row.lower, tunnel_type, tunnel_port, flags
    )
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
        "client": render.endpoint(*row.client),
        "virtual": render.endpoint(*row.virtual),
        "server": render.endpoint(*row.server),
        "state": row.state,
        "expires": row.expires,
    }


def _is_about(document: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether a connection has these ends; an address without a port is one of any port."""
    service = wanted.get("service")
    if service is not None and f"{document['protocol']}:{document['virtual']}" != service:
        return False
    return all(
        document[name] == wanted[name] or document[name].rpartition(":")[0] == wanted[name]
        for name in ("server", "client")
        if name in wanted
    )


def _number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = number_of(query.get(name, str(default)), low, high)
    if value is None:
        raise UsageError(f"{name} is a number from {low} to {high}, not {query[name]!r}")
    return value
