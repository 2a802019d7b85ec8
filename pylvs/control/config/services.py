"""Services and servers: as documents name them, and as the table holds them."""

from typing import Final

from pylvs.control.config import schema
from pylvs.control.config.checking import Fault
from pylvs.control.ipvsadm.render import flag_names, mask_text
from pylvs.control.ipvsadm.rules import (
    netmask_of,
    number_of,
    parse_endpoint,
    parse_service,
    scheduler_flags,
    unbracketed,
)
from pylvs.control.model import (
    CHECKSUM,
    MAPS_PORTS,
    METHODS,
    ONE_PACKET,
    PERSISTENT,
    PROTOCOL_NAMES,
    PROTOCOLS,
    REMOTE_CHECKSUM,
    TUNNEL_TYPES,
    Server,
    ServerKey,
    Service,
    ServiceKey,
    Spans,
    Terms,
    any_mask,
    marked,
)
from pylvs.errors import RuleError, UsageError
from pylvs.wire.text import family_of, is_unicast

_MARKS: Final = {4: "mark", 6: "mark6"}
_MARK_MAX: Final = 2**32 - 1
_FORMS: Final = "tcp:IP:PORT, tcp:NET/LEN:PORTS, mark:N or mark6:N"
_CHECKSUMS: Final = {"none": 0, "full": CHECKSUM, "remote": REMOTE_CHECKSUM}
_METHOD_NAMES: Final = {number: name for name, number in METHODS.items()} | {1: "dr"}


def service_name(key: ServiceKey) -> str:
    """Return ``tcp:192.0.2.10:80`` or ``mark:5``."""
    if key.mark:
        return f"{_MARKS[key.family]}:{key.mark}"
    return f"{PROTOCOL_NAMES[key.protocol].lower()}:{key.where}"


def service_key(name: str) -> ServiceKey:
    """Return what a service's name says; raises UsageError."""
    kind, _, rest = name.partition(":")
    try:
        if kind in _MARKS.values():
            mark = number_of(rest, 1, _MARK_MAX)
            if mark is None:
                raise ValueError(f"a mark is a number from 1 to {_MARK_MAX}")
            return marked(mark, 6 if kind == _MARKS[6] else 4)
        if kind not in PROTOCOLS:
            raise ValueError(f"{kind!r} is none of {', '.join((*PROTOCOLS, *_MARKS.values()))}")
        if ":" not in rest:
            raise ValueError("there is no port")
        return parse_service(rest, PROTOCOLS[kind])
    except (ValueError, RuleError) as error:
        raise UsageError(f"{name!r}: {error}; give {_FORMS}") from None


def server_key(name: str, default_port: int) -> ServerKey:
    """Return what a server's name says, the service's port if it says none; raises UsageError."""
    try:
        address, port = parse_endpoint(unbracketed(name), default_port)
    except (ValueError, RuleError) as error:
        raise UsageError(f"{name!r}: {error}; give IP or IP:PORT") from None
    if not is_unicast(address):
        raise UsageError(f"{name!r} is not the address of one host")
    return ServerKey(address, port)


class _Reader:
    """Reads one document, and notes what is wrong with it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def note(self, place: str, problem: object) -> None:
        self.faults.append(Fault(place, str(problem)))

    def service(self, document: schema.Service, place: str) -> Service | None:
        try:
            key = service_key(document.service)
        except UsageError as error:
            self.note(f"{place}.service", error)
            return None
        service = Service(key, self._terms(document, key, place))
        for number, one in enumerate(document.servers):
            where = f"{place}.servers[{number}]"
            server = self._server(one, key, where)
            if server is None:
                continue
            if server.key in service.servers:
                self.note(f"{where}.server", f"{one.server!r} is there twice")
            service.servers[server.key] = server
        return service

    def _terms(self, document: schema.Service, key: ServiceKey, place: str) -> Terms:
        flags, netmask = 0, any_mask(key.family)
        try:
            flags = scheduler_flags(document.flags, document.scheduler)
        except RuleError as error:
            self.note(f"{place}.flags", error)
        try:
            if document.netmask:
                netmask = netmask_of(document.netmask, key.family == 6)
        except RuleError as error:
            self.note(f"{place}.netmask", error)
        if document.persistent:
            flags |= PERSISTENT
        elif not key.mark and not key.port and not key.ports:
            self.note(f"{place}.service", "port 0 is for persistent services; say any for all")
        if document.one_packet:
            flags |= ONE_PACKET
            if not key.mark and key.protocol != PROTOCOLS["udp"]:
                self.note(f"{place}.one_packet", "is for UDP and marks only")
        return Terms(document.scheduler, flags, document.persistent, netmask, document.engine)

    def _server(self, document: schema.Server, service: ServiceKey, place: str) -> Server | None:
        try:
            key = server_key(document.server, service.port)
        except UsageError as error:
            self.note(f"{place}.server", error)
            return None
        method = METHODS[document.method]
        if method not in MAPS_PORTS and not service.mark and key.port != service.port:
            why = "only methods nat and fullnat can change ports"
            self.note(f"{place}.server", f"port {key.port}: {why}")
        if family_of(key.address) != service.family and document.method != "tun":
            self.note(f"{place}.server", "only method tun takes a client to the other kind of IP")
        if document.lower > document.upper:
            self.note(f"{place}.lower", f"{document.lower} is above upper, {document.upper}")
        if (document.method == "l3dsr") != bool(document.dscp):
            self.note(f"{place}.dscp", "goes with method l3dsr, which needs one")
        if document.proxy and document.method != "fullnat":
            self.note(f"{place}.proxy", "goes with method fullnat")
        if document.proxy and not service.mark and service.protocol != PROTOCOLS["tcp"]:
            self.note(f"{place}.proxy", "is for TCP services")
        self._check_tunnel(document, place)
        return Server(
            key,
            method,
            document.weight,
            document.upper,
            document.lower,
            TUNNEL_TYPES.index(document.tunnel),
            document.tunnel_port,
            _CHECKSUMS[document.tunnel_checksum],
            document.dscp,
            int(document.proxy),
        )

    def _check_tunnel(self, document: schema.Server, place: str) -> None:
        kind, checksum = document.tunnel, document.tunnel_checksum
        plain = kind == "ipip" and not document.tunnel_port and checksum == "none"
        if document.method != "tun":
            if not plain:
                self.note(f"{place}.method", "tunnel settings go with method tun")
        elif (kind == "gue") != bool(document.tunnel_port):
            self.note(f"{place}.tunnel_port", "goes with tunnel gue, which needs one")
        elif (kind == "ipip" and checksum != "none") or (kind == "gre" and checksum == "remote"):
            self.note(f"{place}.tunnel_checksum", f"{checksum!r} is not for tunnel {kind}")


def read(
    documents: list[schema.Service], place: str = "services"
) -> tuple[dict[ServiceKey, Service], list[Fault]]:
    """Return the services that documents state, and everything that is wrong with them."""
    reader, spans = _Reader(), Spans()
    services: dict[ServiceKey, Service] = {}
    for number, document in enumerate(documents):
        where = f"{place}[{number}]"
        service = reader.service(document, where)
        if service is None:
            continue
        if service.key in services:
            reader.note(f"{where}.service", f"{document.service!r} is there twice")
        elif other := spans.add(service.key):
            reader.note(f"{where}.service", f"{document.service!r} overlaps with {other}")
        services[service.key] = service
    return services, reader.faults


def document_of(service: Service) -> schema.Service:
    """Return what states a service."""
    terms = service.terms
    return schema.Service(
        service_name(service.key),
        terms.scheduler,
        flag_names(terms),
        terms.persistent,
        mask_text(terms, service.key.family),
        terms.engine,
        bool(terms.flags & ONE_PACKET),
        [server_document(server) for server in service.servers.values()],
    )


def server_document(server: Server) -> schema.Server:
    """Return what states a server."""
    checksum = next(name for name, flag in _CHECKSUMS.items() if flag == server.tunnel_flags)
    return schema.Server(
        str(server.key),
        _METHOD_NAMES[server.method],  # type: ignore[arg-type]
        server.weight,
        server.upper,
        server.lower,
        server.dscp,
        bool(server.proxy),
        TUNNEL_TYPES[server.tunnel_type],
        server.tunnel_port,
        checksum,  # type: ignore[arg-type]
    )
