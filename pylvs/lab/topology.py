"""The three networks of the lab, as their textbooks draw them.

nat   client -- router -- director -- rs1, rs2         replies come back through the director
dr    client -- router -- { director, rs1, rs2 }       one LAN; replies go straight to the router
tun   the same, and the director wraps what it sends
"""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Interface:
    """One interface of a node: its name, the LAN it is plugged into, its address with prefix."""

    name: str
    lan: str
    address: str


@dataclass(frozen=True)
class Node:
    """One host of the lab."""

    name: str
    interfaces: tuple[Interface, ...]
    gateway: str = ""
    forwards: bool = False


@dataclass(frozen=True)
class Topology:
    """A whole lab, and what the director in it is told."""

    mode: str
    nodes: tuple[Node, ...]
    vip: str
    port: int
    server_port: int
    servers: dict[str, str] = field(default_factory=dict)  # node name -> RIP

    @property
    def lans(self) -> list[str]:
        return sorted({one.lan for node in self.nodes for one in node.interfaces})

    def director_arguments(self) -> list[str]:
        """Return the arguments of ``pylvs run``."""
        director = next(node for node in self.nodes if node.name == "director")
        words = []
        for interface in director.interfaces:
            words += ["--iface", interface.name]
        words += ["--vip", f"{self.vip}:{self.port}", "--mode", self.mode, "--scheduler", "rr"]
        for address in self.servers.values():
            words += ["--rs", f"{address}:{self.server_port}"]
        return words


_CLIENT: Final = Node("client", (Interface("eth0", "outside", "110.0.0.1/24"),), "110.0.0.254")


def _nat() -> Topology:
    servers = {"rs1": "192.168.79.129", "rs2": "192.168.79.131"}
    router = Node(
        "router",
        (
            Interface("eth0", "outside", "110.0.0.254/24"),
            Interface("eth1", "front", "10.133.146.1/24"),
        ),
        forwards=True,
    )
    director = Node(
        "director",
        (
            Interface("eth0", "front", "10.133.146.2/24"),
            Interface("eth1", "back", "192.168.79.1/24"),
        ),
        gateway="10.133.146.1",
    )
    real = (
        Node(name, (Interface("eth0", "back", f"{address}/24"),), "192.168.79.1")
        for name, address in servers.items()
    )
    nodes = (_CLIENT, router, director, *real)
    return Topology("nat", nodes, "10.133.146.47", 80, 8080, servers)


def _one_lan(mode: str) -> Topology:
    servers = {"rs1": "192.168.0.5", "rs2": "192.168.0.8"}
    router = Node(
        "router",
        (
            Interface("eth0", "outside", "110.0.0.254/24"),
            Interface("eth1", "lan", "192.168.0.253/24"),
        ),
        forwards=True,
    )
    director = Node("director", (Interface("eth0", "lan", "192.168.0.9/24"),), "192.168.0.253")
    real = (
        Node(name, (Interface("eth0", "lan", f"{address}/24"),), "192.168.0.253")
        for name, address in servers.items()
    )
    return Topology(mode, (_CLIENT, router, director, *real), "192.168.0.211", 80, 80, servers)


def topology(mode: str) -> Topology:
    """Return the lab for ``nat``, ``dr`` or ``tun``."""
    return _nat() if mode == "nat" else _one_lan(mode)
