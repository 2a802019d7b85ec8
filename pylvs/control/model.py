"""Virtual services and real servers as a person states them; ``ipvsadm``'s table in plain objects.

``Table.apply`` accepts and refuses what Linux does, with the words that ipvsadm prints for it.
"""

from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from pylvs.errors import RuleError
from pylvs.wire.text import address_text

PROTOCOLS: Final = {"tcp": 6, "udp": 17}
PROTOCOL_NAMES: Final = {6: "TCP", 17: "UDP"}
METHODS: Final = {"nat": 0, "tun": 2, "dr": 3}
METHOD_NAMES: Final = {0: "Masq", 1: "Local", 2: "Tunnel", 3: "Route"}
MASQUERADE, LOCAL, TUNNEL, ROUTE = range(4)

DEFAULT_SCHEDULER: Final = "wlc"
WEIGHT_MAX: Final = 2**31 - 1  # Debian's ipvsadm; upstream stops at 65535

KERNEL_REFUSED: Final = 255
_MULTICAST_BEGIN: Final = 0xE000_0000


class ServiceKey(NamedTuple):
    """What a virtual service is known by; the address is an int in host order."""

    protocol: int
    address: int
    port: int

    def __str__(self) -> str:
        return f"{PROTOCOL_NAMES[self.protocol]} {address_text(self.address)}:{self.port}"


class ServerKey(NamedTuple):
    """What a real server is known by within its service."""

    address: int
    port: int

    def __str__(self) -> str:
        return f"{address_text(self.address)}:{self.port}"


@dataclass(frozen=True)
class Server:
    """A real server."""

    key: ServerKey
    method: int = ROUTE
    weight: int = 1


@dataclass
class Service:
    """A virtual service; ``servers`` in the order they were added."""

    key: ServiceKey
    scheduler: str = DEFAULT_SCHEDULER
    servers: dict[ServerKey, Server] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """One line of ipvsadm: ``verb`` is one of A E D C a e d set."""

    verb: str
    service: ServiceKey | None = None
    scheduler: str = DEFAULT_SCHEDULER
    server: Server | None = None
    timeouts: tuple[int, int, int] = (0, 0, 0)


class Timeouts(NamedTuple):
    """Seconds, as ``ipvsadm --set`` takes them; 0 keeps."""

    tcp: int = 900
    tcp_fin: int = 120
    udp: int = 300


class Table:
    """All services, and the timeouts."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.timeouts = Timeouts()

    def apply(self, command: Command) -> None:
        """Carry out one command; raises RuleError with the kernel's reason and changes nothing."""
        if command.verb == "C":
            self.services.clear()
        elif command.verb == "set":
            kept = zip(command.timeouts, self.timeouts, strict=True)
            self.timeouts = Timeouts(*(new or old for new, old in kept))
        elif command.verb in "AED":
            self._apply_service(command)
        else:
            self._apply_server(command)

    def _apply_service(self, command: Command) -> None:
        key = command.service
        assert key is not None
        if command.verb == "A":
            if key in self.services:
                raise RuleError("Service already exists", KERNEL_REFUSED)
            self.services[key] = Service(key, command.scheduler)
            return
        if key not in self.services:
            raise RuleError("No such service", KERNEL_REFUSED)
        if command.verb == "E":
            self.services[key].scheduler = command.scheduler
        else:
            del self.services[key]

    def _apply_server(self, command: Command) -> None:
        assert command.service is not None
        assert command.server is not None
        service = self.services.get(command.service)
        if service is None:
            raise RuleError("Service not defined", KERNEL_REFUSED)
        server = command.server
        known = server.key in service.servers
        if command.verb == "a":
            if known:
                raise RuleError("Destination already exists", KERNEL_REFUSED)
            if server.key.address == 0 or server.key.address >= _MULTICAST_BEGIN:
                raise RuleError(
                    "Invalid operation.  Possibly wrong module version, address not unicast, ...",
                    KERNEL_REFUSED,
                )
            service.servers[server.key] = server
        elif not known:
            raise RuleError("No such destination", KERNEL_REFUSED)
        elif command.verb == "e":
            old = service.servers[server.key]
            service.servers[server.key] = replace(old, method=server.method, weight=server.weight)
        else:
            del service.servers[server.key]
