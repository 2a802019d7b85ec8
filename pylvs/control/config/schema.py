"""What a document may say, and what is meant where it says nothing.

A service is named ``tcp:192.0.2.10:80``, ``tcp:[2001:db8::10]:80``, ``mark:5``, or ``mark6:5`` for
IPv6; one that spans ports or a network ``tcp:192.0.2.10:80,443,8000-8999``,
``udp:192.0.2.0/24:any`` or ``tcp:[2001:db8::/64]:80``; a server ``10.0.0.11:8080`` or
``[2001:db8::11]:8080``.
"""

from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, field

Seconds = Annotated[int, Meta(ge=0, le=31 * 86_400)]
Threshold = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Dscp = Annotated[int, Meta(ge=0, le=63)]
Port = Annotated[int, Meta(ge=0, le=65_535)]

PORTS_LIMIT: Final = 16
CONNECTIONS_LIMIT: Final = 1 << 24
WORKERS_LIMIT: Final = 64


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a document."""


class Server(Part):
    """A real server of a virtual service."""

    server: str
    method: Literal["nat", "dr", "tun", "l3dsr", "fullnat"] = "dr"
    weight: Threshold = 1
    upper: Threshold = 0
    lower: Threshold = 0
    dscp: Dscp = 0  # of l3dsr: what stands for the service
    proxy: bool = False  # of fullnat: the PROXY protocol tells the server its clients
    tunnel: Literal["ipip", "gue", "gre"] = "ipip"
    tunnel_port: Port = 0
    tunnel_checksum: Literal["none", "full", "remote"] = "none"


class Service(Part):
    """A virtual service."""

    service: str
    scheduler: str = "wlc"
    flags: list[str] = field(default_factory=list)
    persistent: Seconds = 0
    netmask: str = ""  # of persistent clients: 255.255.255.0, or of IPv6 64; none: all of it
    engine: str = ""  # of persistence: sip, or package.module:Class
    one_packet: bool = False
    servers: list[Server] = field(default_factory=list)


class Timeouts(Part):
    """Seconds, as ``ipvsadm --set`` takes them; 0 keeps what there is."""

    tcp: Seconds = 0
    tcp_fin: Seconds = 0
    udp: Seconds = 0


class Table(Part):
    """All services."""

    services: list[Service]
    timeouts: Timeouts = field(default_factory=Timeouts)


class Place(Part):
    """Where a director runs; a change of these takes a restart."""

    interfaces: list[str] = field(default_factory=list)
    tap: str = ""
    tun: str = ""
    dip: str = ""
    gateway: str = ""
    local: list[str] = field(default_factory=list)  # addresses that fullnat sends from
    driver: Literal["auto", "packet", "xdp"] = "auto"
    workers: Annotated[int, Meta(ge=1, le=WORKERS_LIMIT)] = 1
    offload: Literal["auto", "on", "off"] = "auto"
    connections: Annotated[int, Meta(ge=1, le=CONNECTIONS_LIMIT)] = 1 << 20
    control: str = ""
    api: str = ""
    token_file: str = ""


class Config(Part):
    """A configuration file."""

    services: list[Service] = field(default_factory=list)
    timeouts: Timeouts = field(default_factory=Timeouts)
    director: Place = field(default_factory=Place)
    settings: dict[str, Any] = field(default_factory=dict)  # numbers, by the kernel's names
    marks: list[str] = field(default_factory=list)


CHOICES: Final = {
    one.name: get_args(one.type)
    for part in (Server, Place)
    for one in msgspec.structs.fields(part)
    if get_origin(one.type) is Literal
}
"""What fields may be that are one of a few words."""


def complete(part: Part) -> dict[str, Any]:
    """Return a part as plain values, what is as by default included."""
    return {
        one.name: msgspec.to_builtins(getattr(part, one.name))
        for one in msgspec.structs.fields(part)
    }


def plain(part: Part) -> dict[str, Any]:
    """Return a part as plain values, without what is as by default."""
    values: dict[str, Any] = {}
    for one in msgspec.structs.fields(part):
        value = getattr(part, one.name)
        if isinstance(value, Part):
            value = plain(value)
        elif isinstance(value, list):
            value = [plain(item) if isinstance(item, Part) else item for item in value]
        if value != one.default and value not in ([], {}):
            values[one.name] = value
    return values
