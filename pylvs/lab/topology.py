"""The three networks of the lab, as their textbooks draw them, with either version of IP.

nat   client -- router -- director -- rs1, rs2         replies come back through the director
dr    client -- router -- { director, rs1, rs2 }       one LAN; replies go straight to the router
tun   the same, and the director wraps what it sends
l3dsr client -- router -- { director } and, on a LAN of their own, { rs1, rs2 }; so fullnat
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
    local: str = ""  # what the director sends from, by full NAT
    wired: bool = False  # two interfaces a LAN, and no switch between them

    @property
    def wires(self) -> list[list[tuple[Node, Interface]]]:
        """Return the two ends of every wire."""
        ends = [(node, one) for node in self.nodes for one in node.interfaces]
        return [[end for end in ends if end[1].lan == lan] for lan in self.lans]

    @property
    def lans(self) -> list[str]:
        return sorted({one.lan for node in self.nodes for one in node.interfaces})

    def director_arguments(self) -> list[str]:
        """Return the arguments of ``pylvs run``."""
        director = next(node for node in self.nodes if node.name == "director")
        words = []
        for interface in director.interfaces:
            words += ["--iface", interface.name]
        words += ["--vip", self.endpoint, "--mode", self.mode, "--scheduler", "rr"]
        words += ["--dscp", str(DSCP)] if self.mode == "l3dsr" else []
        words += ["--local", self.local] if self.local else []
        for address in self.servers.values():
            words += ["--rs", f"{bracketed(address)}:{self.server_port}"]
        return words

    @property
    def endpoint(self) -> str:
        """Return where clients find the service."""
        return f"{bracketed(self.vip)}:{self.port}"


def bracketed(address: str) -> str:
    """Return an address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


DSCP: Final = 10
"""What marks the packets of the l3dsr lab's service."""

_IPV4: Final = {
    "outside": "110.0.0.%s/24",
    "front": "10.133.146.%s/24",
    "back": "192.168.79.%s/24",
    "lan": "192.168.0.%s/24",
}
_IPV6: Final = {name: f"2001:db8:{name[0]}::%s/64" for name in ("back", "front")} | {
    "outside": "2001:db8:c::%s/64",
    "lan": "2001:db8:a::%s/64",
}


class _Plan:
    """The addresses of one version of IP, by network and number."""

    def __init__(self, version: int) -> None:
        self.networks = _IPV6 if version == 6 else _IPV4

    def interface(self, name: str, lan: str, number: int) -> Interface:
        return Interface(name, lan, self.networks[lan] % number)

    def address(self, lan: str, number: int) -> str:
        return (self.networks[lan] % number).partition("/")[0]

    def client(self) -> Node:
        return Node("client", (self.interface("eth0", "outside", 1),), self.address("outside", 254))

    def router(self, lan: str, number: int) -> Node:
        interfaces = (
            self.interface("eth0", "outside", 254),
            self.interface("eth1", lan, number),
        )
        return Node("router", interfaces, forwards=True)

    def servers(self, lan: str, numbers: tuple[int, int], gateway: int) -> tuple[Node, ...]:
        return tuple(
            Node(name, (self.interface("eth0", lan, number),), self.address(lan, gateway))
            for name, number in zip(("rs1", "rs2"), numbers, strict=True)
        )


def _nat(plan: _Plan) -> Topology:
    real = plan.servers("back", (129, 131), gateway=1)
    director = Node(
        "director",
        (plan.interface("eth0", "front", 2), plan.interface("eth1", "back", 1)),
        plan.address("front", 1),
    )
    nodes = (plan.client(), plan.router("front", 1), director, *real)
    return Topology("nat", nodes, plan.address("front", 47), 80, 8080, _rips(real))


def _one_lan(plan: _Plan, mode: str) -> Topology:
    real = plan.servers("lan", (5, 8), gateway=253)
    director = Node("director", (plan.interface("eth0", "lan", 9),), plan.address("lan", 253))
    nodes = (plan.client(), plan.router("lan", 253), director, *real)
    return Topology(mode, nodes, plan.address("lan", 211), 80, 80, _rips(real))


def _routed(plan: _Plan, mode: str) -> Topology:
    real = plan.servers("back", (129, 131), gateway=1)
    director = Node("director", (plan.interface("eth0", "lan", 9),), plan.address("lan", 253))
    router = Node(
        "router",
        (
            plan.interface("eth0", "outside", 254),
            plan.interface("eth1", "lan", 253),
            plan.interface("eth2", "back", 1),
        ),
        forwards=True,
    )
    nodes = (plan.client(), router, director, *real)
    vip = plan.address("lan", 211)
    if mode == "fullnat":
        return Topology(mode, nodes, vip, 80, 8080, _rips(real), plan.address("lan", 212))
    return Topology(mode, nodes, vip, 80, 80, _rips(real))


def _rips(nodes: tuple[Node, ...]) -> dict[str, str]:
    return {node.name: node.interfaces[0].address.partition("/")[0] for node in nodes}


def topology(mode: str, version: int = 4) -> Topology:
    """Return the lab for a method, with IP of that version."""
    plan = _Plan(version)
    if mode in ("l3dsr", "fullnat"):
        return _routed(plan, mode)
    return _nat(plan) if mode == "nat" else _one_lan(plan, mode)
