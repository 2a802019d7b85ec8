"""Who stands in the director's place, each in a lab of its own with one real server."""

import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from pylvs.lab.build import Lab
from pylvs.lab.topology import Interface, Node, Topology, bracketed

PACKETS: Final = frozenset({"overload", "lossless", "syn", "cpu", "p50", "p99", "p999"})
STREAMS: Final = frozenset({"bulk", "keepalive", "closing"})
ECHO_PORT: Final = 81
_QUEUES: Final = 2  # of every interface, for subjects with several threads
CLIENT: Final = "10.133.146.1"
_SERVER: Final = "192.168.79.129"
_TUN_DIP: Final = "192.168.81.1"
_SIDE: Final = (
    Interface("eth1", "side", "192.168.80.1/24"),
    Interface("eth1", "side", "192.168.80.2/24"),
)


class Subject(NamedTuple):
    """One who forwards; ``start`` prepares it in a lab, ``lacks`` says what is not installed."""

    name: str
    mode: str
    start: Callable[[Lab], None]
    measures: frozenset[str] = PACKETS | STREAMS
    lacks: Callable[[], str] = str


def port_of(lab: Lab, port: int) -> int:
    """Return what a service's port becomes at the server: only some methods change it."""
    shape = lab.topology
    return port + shape.server_port - shape.port


def _server(lab: Lab) -> str:
    return next(iter(lab.topology.servers.values()))


_METHODS: Final = {
    "nat": "-m",
    "dr": "-g",
    "tun": "-i",
    "fullnat": "--fullnat",
    "l3dsr": "--l3dsr 10",
}


def _start(lab: Lab, words: list[str]) -> None:
    """Start a director that receives as ``words`` say, with the lab's services."""
    shape = lab.topology
    lines = []
    for letter, port in (("t", shape.port), ("u", shape.port), ("u", ECHO_PORT)):
        service = f"-{letter} {bracketed(shape.vip)}:{port}"
        server = f"-r {bracketed(_server(lab))}:{port_of(lab, port)} {_METHODS[shape.mode]}"
        lines += [f"-A {service} -s rr", f"-a {service} {server}"]
    rules = lab.folder / "rules"
    rules.write_text("\n".join(lines) + "\n", encoding="ascii")
    local = ["--local", shape.local] if shape.local else []
    lab.start_director([*words, *local, "--connections", "4194304", "--rules", str(rules)])


def _on_tun(lab: Lab) -> None:
    """Have the host route what is for the VIP, and what the server answers, to a TUN device."""
    for line in (
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp",
        "echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter",
    ):
        lab.shell("director", line)
    _start(lab, ["--tun", "tun0", "--dip", _TUN_DIP])
    lab.shell("director", f"ip route add {lab.topology.vip} dev tun0")
    lab.shell("director", "ip route add default dev tun0 table 100")
    lab.shell("director", "ip rule add iif eth1 lookup 100")


def _pylvs(mode: str, *options: str) -> Subject:
    def start(lab: Lab) -> None:
        words = lab.topology.director_arguments()
        _start(lab, [*words[: words.index("--vip")], *options])

    name = " ".join(["pylvs", mode, *options]).replace("--driver ", "").replace("--", "")
    measures = PACKETS | STREAMS
    if mode == "nat" and "--driver" not in options and "--workers" not in options:
        measures |= {"million"}  # the kernel's own table has no room for so many
    return Subject(name, mode, start, measures)


def _dnat(lab: Lab) -> None:
    """Let the kernel do it: DNAT to the real server, replies translated by conntrack."""
    shape = lab.topology
    rules = "table ip twin { chain pre { type nat hook prerouting priority -100;"
    for protocol, port in (("tcp", shape.port), ("udp", shape.port), ("udp", ECHO_PORT)):
        rules += f" ip daddr {shape.vip} {protocol} dport {port}"
        rules += f" dnat to {_server(lab)}:{port_of(lab, port)};"
    _own_vip(lab)
    lab.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    lab.shell("director", f"nft '{rules} }}; }}'")


def _routing(lab: Lab) -> None:
    """Let the kernel route the VIP to the real server, which has it: no address is changed.

    The server listens where clients ask, so that ports need no change either.
    """
    shape = lab.topology
    lab.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    lab.shell("director", f"ip route add {shape.vip} via {_server(lab)}")
    lab.shell("director", "echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp")
    lab.shell("rs1", f"ip address add {shape.vip}/32 dev lo")


def _own_vip(lab: Lab) -> None:
    lab.shell("director", f"ip address add {lab.topology.vip}/24 dev eth0")


def _haproxy(lab: Lab) -> None:
    _own_vip(lab)
    shape = lab.topology
    path = lab.folder / "haproxy.cfg"
    path.write_text(
        "global\n  maxconn 8000\n  nbthread 2\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"listen web\n  bind {shape.vip}:{shape.port}\n"
        f"  server rs1 {_server(lab)}:{shape.server_port}\n",
        encoding="ascii",
    )
    lab.spawn("director", ["haproxy", "-db", "-f", str(path)], "haproxy.log")
    lab._await_port("director", shape.vip, shape.port)


_STREAM_MODULE: Final = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def _nginx(lab: Lab) -> None:
    _own_vip(lab)
    shape = lab.topology
    path = lab.folder / "stream.conf"
    path.write_text(
        f"load_module {_STREAM_MODULE};\nuser root root; daemon off; worker_processes 2;\n"
        f"pid {lab.folder}/stream.pid; error_log stderr;\n"
        "events { worker_connections 8192; }\n"
        f"stream {{ server {{ listen {shape.vip}:{shape.port} reuseport;"
        f" proxy_pass {_server(lab)}:{shape.server_port}; }} }}\n",
        encoding="ascii",
    )
    nginx = shutil.which("nginx") or ""
    lab.spawn("director", [nginx, "-e", "stderr", "-c", str(path)], "stream.log")
    lab._await_port("director", shape.vip, shape.port)


def _plain(lab: Lab) -> None:
    shape = lab.topology
    _own_vip(lab)
    lab.shell("director", f"ping -c 1 -W 1 {_server(lab)} >/dev/null; true")
    words = ["-m", "benchmarks.net.plain", shape.vip, str(shape.port), _server(lab)]
    words += [str(shape.server_port)]
    lab.spawn("director", [sys.executable, *words], "plain.log")
    lab.await_text("plain.log", "ready")


def _without(program: str, package: str) -> Callable[[], str]:
    return lambda: (
        "" if shutil.which(program) else f"{program} is missing: apt-get install {package}"
    )


def _without_stream() -> str:
    package = "libnginx-mod-stream"
    return (
        "" if _STREAM_MODULE.exists() else f"nginx's stream is missing: apt-get install {package}"
    )


REFERENCE: Final = "nft dnat"
SUBJECTS: Final = (
    Subject(REFERENCE, "nat", _dnat, lacks=_without("nft", "nftables")),
    Subject("routing", "nat", _routing, PACKETS),
    *map(_pylvs, ("nat", "dr", "tun", "l3dsr", "fullnat")),
    *(_pylvs(mode, "--offload", "off") for mode in ("nat", "dr")),
    *(_pylvs(mode, "--driver", "xdp") for mode in ("nat", "dr", "tun")),
    *(_pylvs("nat", "--workers", "2", *driver) for driver in ((), ("--driver", "xdp"))),
    Subject("pylvs nat tun device", "nat", _on_tun),
    Subject("haproxy", "nat", _haproxy, STREAMS, _without("haproxy", "haproxy")),
    Subject("nginx stream", "nat", _nginx, STREAMS, _without_stream),
    Subject("plain python", "nat", _plain, frozenset({"overload", "lossless", "cpu"})),
)


def lab_of(subject: Subject) -> Lab:
    """Return a lab of three, wired in a triangle: bridges would take more time than forwarding.

    client -- director -- rs1, and back from rs1 to the client where servers answer on their own
    """
    back = f"{_SERVER[:-3]}1"
    answers_itself = subject.mode in ("dr", "tun", "l3dsr")
    client = Node("client", (Interface("eth0", "front", f"{CLIENT}/24"), _SIDE[0]))
    ends = Interface("eth0", "front", "10.133.146.2/24"), Interface("eth1", "back", f"{back}/24")
    server = Interface("eth0", "back", f"{_SERVER}/24")
    real = Node("rs1", (server, _SIDE[1]), _SIDE[0].address[:-3] if answers_itself else back)
    nodes = (client, Node("director", ends, CLIENT), real)
    kept = subject.mode in ("dr", "tun", "l3dsr") or subject.name == "routing"
    shape = Topology(
        subject.mode,
        nodes,
        "10.133.146.47",
        80,
        80 if kept else 8080,
        {"rs1": _SERVER},
        f"{_SERVER[:-3]}212" if subject.mode == "fullnat" else "",
        wired=True,
    )
    return Lab(shape, queues=_QUEUES)
