"""A configuration file: read whole or not at all, and written as a person would write it.

[director]                     where it runs
interfaces = ["eth0"]

[settings]                     by the kernel's names
conn_reuse_mode = 1

[[services]]
service = "tcp:192.168.0.211:80"
scheduler = "wrr"

[[services.servers]]
server = "192.168.0.5"
weight = 2
"""

import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pylvs.control import settings
from pylvs.control.config import checking, schema, services
from pylvs.control.config.checking import Fault
from pylvs.control.config.marks import parse_mark
from pylvs.control.ipvsadm.rules import number_of
from pylvs.control.model import (
    METHODS,
    Command,
    MarkRule,
    Service,
    ServiceKey,
    Table,
    Timeouts,
)
from pylvs.errors import UsageError
from pylvs.wire.text import address_of, family_of, is_unicast

DEFAULT_PATH: Final = "/etc/pylvs/pylvs.toml"
_PREFIXES: Final = {4: 24, 6: 64}
_BITS: Final = {4: 32, 6: 128}
_TOKEN_LENGTH: Final = 32


@dataclass
class Stated:
    """All that a file states; addresses are ints."""

    place: schema.Place
    services: dict[ServiceKey, Service]
    timeouts: Timeouts
    settings: dict[str, int]
    marks: list[MarkRule]
    dips: dict[int, int] = field(default_factory=dict)
    """The director's own addresses, with their prefixes' lengths: one of each family."""
    gateways: list[int] = field(default_factory=list)
    local: list[int] = field(default_factory=list)
    """The addresses that full NAT sends from."""
    token: str = ""


def read(path: str) -> Stated:
    """Return what a file states; raises UsageError naming every fault with its place."""
    try:
        with open(path, "rb") as file:
            content = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path}: {reason}") from None
    return read_text(content, path)


def read_text(text: str, name: str) -> Stated:
    """Return what a text states; ``name`` is said in front of every fault."""
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    except RecursionError:
        raise UsageError(f"{name}: it is nested too deeply") from None
    document, faults = checking.convert(data, schema.Config)
    table, more = services.read(document.services)
    stated = Stated(document.director, table, _timeouts(document.timeouts), document.settings, [])
    wrong = settings.faults_of(document.settings)
    more += [Fault(f"settings.{one}", why) for one, why in wrong.items()]
    more += _marks(document, stated) + _addresses(stated)
    more += check_place(stated.place, table) + _api(stated)
    checking.refuse(name, faults + checking.beside(faults, more))
    return stated


def _timeouts(given: schema.Timeouts) -> Timeouts:
    default = Timeouts()
    return Timeouts(
        given.tcp or default.tcp, given.tcp_fin or default.tcp_fin, given.udp or default.udp
    )


def _marks(document: schema.Config, stated: Stated) -> list[Fault]:
    faults = []
    for number, text in enumerate(document.marks):
        try:
            stated.marks += parse_mark(text)
        except UsageError as error:
            faults.append(Fault(f"marks[{number}]", str(error)))
    return faults


def _addresses(stated: Stated) -> list[Fault]:
    place, faults = stated.place, []
    try:
        for text in filter(None, place.dip.split(",")):
            host, slash, length = text.partition("/")
            address = address_of(host)
            family = family_of(address)
            prefix = number_of(length, 0, _BITS[family]) if slash else _PREFIXES[family]
            if prefix is None:
                raise ValueError(f"{length!r} is no prefix length")
            stated.dips[address] = prefix
        _check_one_each(stated.dips)
    except ValueError as error:
        faults.append(Fault("director.dip", f"{error}; give IP or IP/LEN, or two: IPv4,IPv6"))
    try:
        stated.gateways = [address_of(text) for text in filter(None, place.gateway.split(","))]
        _check_one_each(stated.gateways)
    except ValueError as error:
        faults.append(Fault("director.gateway", str(error)))
    for number, text in enumerate(place.local):
        try:
            stated.local.append(address_of(text))
            if not is_unicast(stated.local[-1]):
                raise ValueError(f"{text!r} is not the address of one host")
        except ValueError as error:
            faults.append(Fault(f"director.local[{number}]", str(error)))
    if len(set(stated.local)) < len(stated.local):
        faults.append(Fault("director.local", "an address is given twice"))
    return faults


def _check_one_each(addresses: Iterable[int]) -> None:
    families = [family_of(address) for address in addresses]
    if len(set(families)) < len(families):
        raise ValueError("more than one address of a family")


def _api(stated: Stated) -> list[Fault]:
    place = stated.place
    if bool(place.api) != bool(place.token_file):
        return [Fault("director.api", "goes with token_file, a secret that only root can read")]
    if not place.api:
        return []
    host, _, port = place.api.rpartition(":")
    host = host.strip("[]")
    try:
        if host not in ("::", "::1"):
            address_of(host)
    except ValueError as error:
        return [Fault("director.api", f"{error}; give IP:PORT")]
    if number_of(port, 1, 65_535) is None:
        return [Fault("director.api", f"{port!r} is no port; give IP:PORT")]
    try:
        stated.token = _read_token(place.token_file)
    except UsageError as error:
        return [Fault("director.token_file", str(error))]
    return []


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            mode, token = os.fstat(file.fileno()).st_mode, file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise UsageError(f"{path}: {reason}") from None
    if mode & 0o077:
        raise UsageError(f"{path}: others can read it; chmod 600 {path}")
    if len(token) < _TOKEN_LENGTH:
        raise UsageError(f"{path}: {_TOKEN_LENGTH} characters are the least; openssl rand -hex 32")
    return token


def of_options(
    place: schema.Place,
    commands: Iterable[Command],
    values: dict[str, int],
    marks: list[MarkRule],
) -> Stated:
    """Return what options state; raises UsageError."""
    table = Table()
    for command in commands:
        table.apply(command)
    stated = Stated(place, table.services, table.timeouts, values, marks)
    faults = _addresses(stated) + check_place(place, table.services)
    if faults:
        raise UsageError("\n".join(fault.problem for fault in faults))
    return stated


def check_place(place: schema.Place, table: dict[ServiceKey, Service]) -> list[Fault]:
    """Return what cannot work where a director is to run."""
    faults = []
    servers = [server for service in table.values() for server in service.servers.values()]
    methods = {server.method for server in servers}
    if bool(place.interfaces) + bool(place.tap) + bool(place.tun) != 1:
        faults.append(
            Fault("director", "name where to direct, by one of interfaces (--iface), tap and tun")
        )
    if len(set(place.interfaces)) < len(place.interfaces):
        faults.append(Fault("director.interfaces", "an interface is given twice"))
    if len(place.interfaces) > schema.PORTS_LIMIT:
        faults.append(
            Fault("director.interfaces", f"{schema.PORTS_LIMIT} interfaces are the most there are")
        )
    if place.driver != "auto" and not place.interfaces:
        faults.append(Fault("director.driver", "is for interfaces; TAP and TUN have their own"))
    if place.offload == "on" and not place.interfaces:
        faults.append(Fault("director.offload", "is for interfaces: TAP and TUN have none"))
    if place.tun and METHODS["dr"] in methods:
        faults.append(
            Fault("director.tun", "has no link layer: DR cannot work there; use nat or tun")
        )
    local = {6 if ":" in text else 4 for text in place.local}
    for server in servers:
        family = family_of(server.key.address)
        if server.method == METHODS["fullnat"] and family not in local:
            local.add(family)
            why = f"fullnat sends from addresses of its own (--local): give one of IPv{family}"
            faults.append(Fault("director.local", why))
    if place.tap or place.tun:
        tunneled = [one.key.address for one in servers if one.method == METHODS["tun"]]
        has = {6 if ":" in text else 4 for text in filter(None, place.dip.split(","))}
        for family in sorted(set(map(family_of, tunneled)) - has):
            why = "tunnels need a source address where there is no host"
            faults.append(Fault("director.dip", f"{why}: give one of IPv{family}"))
    return faults


def text_of(config: schema.Config) -> str:
    """Return the TOML that states a configuration, defaults left out."""
    document = schema.plain(config)
    blocks = []
    if document.get("marks"):
        lines = "".join(f"  {_value(mark)},\n" for mark in document["marks"])
        blocks.append(f"marks = [\n{lines}]\n")
    for name in ("director", "timeouts", "settings"):
        if document.get(name):
            blocks.append(f"[{name}]\n{_pairs(document[name])}")
    for service in document.get("services", ()):
        servers = service.pop("servers", ())
        blocks.append(f"[[services]]\n{_pairs(service)}")
        blocks += [f"[[services.servers]]\n{_pairs(server)}" for server in servers]
    return "\n".join(blocks)


def _pairs(values: dict[str, Any]) -> str:
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in values.items())


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    """Return a string, number, truth value or list as TOML has it: as JSON does."""
    return json.dumps(value, ensure_ascii=False)
