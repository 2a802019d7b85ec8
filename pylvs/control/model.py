"""Virtual services and real servers as a person states them; ``ipvsadm``'s table in plain objects.

``Table.apply`` accepts and refuses what Linux does, with the words that ipvsadm prints for it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pylvs.errors import RuleError
from pylvs.wire.text import (
    endpoint_text,
    family_of,
    host_text,
    is_unicast,
    mask_of,
    network_text,
    ports_text,
)

PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
PROTOCOL_NAMES: Final = {6: "TCP", 17: "UDP", 132: "SCTP", 0: "IP"}
METHODS: Final = {"nat": 0, "tun": 2, "dr": 3, "l3dsr": 5, "fullnat": 6}
METHOD_NAMES: Final = {
    0: "Masq", 1: "Local", 2: "Tunnel", 3: "Route", 5: "L3DSR", 6: "FullNAT",
}  # fmt: skip
MASQUERADE, LOCAL, TUNNEL, ROUTE, _, L3DSR, FULLNAT = range(7)
MAPS_PORTS: Final = frozenset({MASQUERADE, FULLNAT})
"""The methods under which a server's port may be another than the service's."""
DSCP_MAX: Final = 63
TUNNEL_TYPES: Final = ("ipip", "gue", "gre")
IPIP, GUE, GRE = range(3)
CHECKSUM, REMOTE_CHECKSUM = 1, 2  # of a tunnel's flags

PERSISTENT, ONE_PACKET = 0x01, 0x04  # of a service's flags
SCHEDULER_FLAGS: Final = (0x08, 0x10, 0x20)

DEFAULT_SCHEDULER: Final = "wlc"
ANY_MASK: Final = 0xFFFF_FFFF
ANY_PREFIX: Final = 128  # in the place of a mask, of IPv6
WEIGHT_MAX: Final = 2**31 - 1  # Debian's ipvsadm; upstream stops at 65535

WHOLE: Final = -1  # in the place of a prefix's length: one address
ALL_PORTS: Final = ((0, 65_535),)
Ports = tuple[tuple[int, int], ...]
"""Ranges of ports, first and last."""

KERNEL_REFUSED: Final = 255
_INVALID: Final = "Invalid operation.  Possibly wrong module version, address not unicast, ..."


def any_mask(family: int) -> int:
    """Return the netmask that tells every client of a family from every other."""
    return ANY_PREFIX if family == 6 else ANY_MASK


class ServiceKey(NamedTuple):
    """What a virtual service is known by; the address is an int.

    A firewall mark's service has a ``mark``, a family, and nothing else that matters.  One that
    spans a network has its ``prefix``, one that spans ports their ranges, in order, and port 0.
    """

    protocol: int
    address: int
    port: int
    mark: int = 0
    marks_family: int = 4
    prefix: int = WHOLE
    ports: Ports = ()

    @property
    def family(self) -> int:
        """Return 4 or 6."""
        return self.marks_family if self.mark else family_of(self.address)

    @property
    def spans(self) -> bool:
        """Whether it is for more than one address and port, and not by a mark or port 0."""
        return self.prefix != WHOLE or self.ports != ()

    @property
    def vip(self) -> int:
        """Return the address that is the director's own by it, 0 for none."""
        return 0 if self.mark or self.prefix != WHOLE else self.address

    @property
    def prefix_length(self) -> int:
        """Return how many bits of the address count."""
        if self.prefix != WHOLE:
            return self.prefix
        return 128 if self.family == 6 else 32

    @property
    def network(self) -> tuple[int, int, int]:
        """Return what it shares with others that span the same addresses."""
        return self.protocol, self.address, self.prefix

    @property
    def ranges(self) -> Ports:
        """Return its ports as ranges."""
        return self.ports or ((self.port, self.port),)

    def holds(self, address: int) -> bool:
        """Whether an address is the service's; of a mark's, nobody can tell."""
        if self.mark or family_of(address) != self.family:
            return False
        return address & mask_of(self.prefix_length, self.family) == self.address

    def covers(self, address: int, port: int) -> bool:
        """Whether a destination is the service's."""
        if not self.spans:
            return self.holds(address) and port == self.port
        return self.holds(address) and any(low <= port <= high for low, high in self.ranges)

    @property
    def where(self) -> str:
        """Return address and port, or what it spans, as in ``192.0.2.0/24:80,443``."""
        if not self.spans:
            return endpoint_text(self.address, self.port)
        host = host_text(self.address)
        if self.prefix != WHOLE:
            host = network_text(self.address, self.prefix)
        return f"{host}:{ports_text(self.ranges)}"

    def __str__(self) -> str:
        if self.mark:
            return f"FWM  {self.mark}{' IPv6' if self.family == 6 else ''}"
        return f"{PROTOCOL_NAMES[self.protocol]} {self.where}"


def marked(mark: int, family: int = 4) -> ServiceKey:
    """Return the key of a firewall mark's service for packets of a family."""
    return ServiceKey(PROTOCOLS["tcp"], 0, 0, mark, family)


class ServerKey(NamedTuple):
    """What a real server is known by within its service."""

    address: int
    port: int

    def __str__(self) -> str:
        return endpoint_text(self.address, self.port)


class MarkRule(NamedTuple):
    """What packets of a family get a firewall mark; addresses are ints, prefix 0 is any."""

    mark: int
    protocol: int = 0
    source: int = 0
    source_prefix: int = 0
    destination: int = 0
    destination_prefix: int = 0
    ports: tuple[int, int] = (0, 65_535)
    family: int = 4


class Server(NamedTuple):
    """A real server."""

    key: ServerKey
    method: int = ROUTE
    weight: int = 1
    upper: int = 0
    lower: int = 0
    tunnel_type: int = IPIP
    tunnel_port: int = 0
    tunnel_flags: int = 0
    dscp: int = 0  # L3DSR's mark, from 1 on
    proxy: int = 0  # FullNAT: 1 if PROXY's header tells the server who its clients are


class Terms(NamedTuple):
    """How a virtual service treats its clients: everything about it but its key and servers."""

    scheduler: str = DEFAULT_SCHEDULER
    flags: int = 0
    persistent: int = 0  # seconds
    netmask: int = ANY_MASK  # of IPv6: the prefix's length
    engine: str = ""


_ANY_TERMS: Final = Terms()


@dataclass
class Service:
    """A virtual service; ``servers`` in the order they were added."""

    key: ServiceKey
    terms: Terms = _ANY_TERMS
    servers: dict[ServerKey, Server] = field(default_factory=dict)


class Command(NamedTuple):
    """One line of ipvsadm; ``verb`` is one of A E D C a e d L Z S R set start stop help version."""

    verb: str
    service: ServiceKey | None = None
    terms: Terms = Terms()
    server: Server | None = None
    timeouts: tuple[int, int, int] = (0, 0, 0)
    show: frozenset[str] = frozenset()
    """Of a list: which options were given, by their long names."""
    daemon: str = ""


class Timeouts(NamedTuple):
    """Seconds, as ``ipvsadm --set`` takes them; 0 keeps."""

    tcp: int = 900
    tcp_fin: int = 120
    udp: int = 300


class Spans:
    """The services that span more than one address and port: no two may span the same.

    One for all ports of an address or network takes what others leave of it.
    """

    def __init__(self) -> None:
        self._on: dict[tuple[int, int, int], list[ServiceKey]] = {}

    def add(self, key: ServiceKey) -> ServiceKey | None:
        """Add a service; if it spans what another does return that, and do not."""
        if not key.spans:
            return None
        others = self._on.setdefault(key.network, [])
        for other in others:
            if _meet(key, other):
                return other
        others.append(key)
        return None

    def remove(self, key: ServiceKey) -> None:
        if key.spans:
            self._on[key.network].remove(key)

    def meets(self, key: ServiceKey) -> bool:
        """Whether a service that spans something spans what another does, or is there."""
        others = self._on.get(key.network, [])
        return any(key == other or _meet(key, other) for other in others)


def _meet(one: ServiceKey, other: ServiceKey) -> bool:
    if ALL_PORTS in (one.ports, other.ports):
        return False
    pairs = itertools.product(one.ranges, other.ranges)
    return any(low <= last and first <= high for (low, high), (first, last) in pairs)


class Table:
    """All services, and the timeouts."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.spans = Spans()
        self.timeouts = Timeouts()

    def apply(self, command: Command) -> None:
        """Carry out one command; raises RuleError with the kernel's reason and changes nothing."""
        if command.verb == "C":
            self.services.clear()
            self.spans = Spans()
        elif command.verb == "set":
            kept = zip(command.timeouts, self.timeouts, strict=True)
            self.timeouts = Timeouts(*(new or old for new, old in kept))
        elif command.verb in "AED":
            self._apply_service(command)
        elif command.verb == "Z":
            if command.service is not None and command.service not in self.services:
                raise RuleError("No such service", KERNEL_REFUSED)
        else:
            self._apply_server(command)

    def _apply_service(self, command: Command) -> None:
        key = command.service
        assert key is not None
        if command.verb == "A":
            if key in self.services:
                raise RuleError("Service already exists", KERNEL_REFUSED)
            other = self.spans.add(key)
            if other is not None:
                raise RuleError(f"Service overlaps with {other}", KERNEL_REFUSED)
            self.services[key] = Service(key, command.terms)
            return
        if key not in self.services:
            raise RuleError("No such service", KERNEL_REFUSED)
        if command.verb == "E":
            self.services[key].terms = command.terms
        else:
            self.forget(key)

    def forget(self, key: ServiceKey) -> None:
        """Remove a service that is there."""
        del self.services[key]
        self.spans.remove(key)

    def _apply_server(self, command: Command) -> None:
        assert command.service is not None
        assert command.server is not None
        service = self.services.get(command.service)
        if service is None:
            raise RuleError("Service not defined", KERNEL_REFUSED)
        server = command.server
        known = server.key in service.servers
        if command.verb == "d":
            if not known:
                raise RuleError("No such destination", KERNEL_REFUSED)
            del service.servers[server.key]
            return
        if server.lower > server.upper:
            raise RuleError("Numerical result out of range", KERNEL_REFUSED)
        if command.verb == "a":
            if known:
                raise RuleError("Destination already exists", KERNEL_REFUSED)
            if not is_unicast(server.key.address):
                raise RuleError(_INVALID, KERNEL_REFUSED)
            service.servers[server.key] = server
        elif not known:
            raise RuleError("No such destination", KERNEL_REFUSED)
        else:
            service.servers[server.key] = server


Services = Mapping[ServiceKey, Service]


def difference(now: Services, wanted: Services) -> list[Command]:
    """Return the commands that make one table of another, and touch nothing that is the same.

    What is gone goes first, so that there is room; within a service new servers come before old
    ones go, so that it always has some.
    """
    commands = [Command("D", key) for key in now if key not in wanted]
    for key, service in wanted.items():
        old = now.get(key)
        if old is None:
            commands.append(Command("A", key, service.terms))
        elif old.terms != service.terms:
            commands.append(Command("E", key, service.terms))
        commands += _server_commands(key, old.servers if old else {}, service.servers)
    return commands


def _server_commands(
    key: ServiceKey, now: dict[ServerKey, Server], wanted: dict[ServerKey, Server]
) -> list[Command]:
    added = [Command("a", key, server=one) for name, one in wanted.items() if name not in now]
    edited = [
        Command("e", key, server=one)
        for name, one in wanted.items()
        if name in now and now[name] != one
    ]
    removed = [Command("d", key, server=one) for name, one in now.items() if name not in wanted]
    return added + edited + removed
