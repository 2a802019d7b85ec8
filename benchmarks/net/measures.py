"""What is asked of a subject in its lab, each on a machine that does nothing else."""

import json
import pathlib
import re
import sys
import time
from typing import Final

from benchmarks.net.subjects import ECHO_PORT, Subject, lab_of, port_of
from pylvs.errors import HostError
from pylvs.lab.build import Lab

UNITS: Final = {
    "overload": "Mpps of 60 bytes delivered, offered more",
    "lossless": "Mpps of 60 bytes with at most 0.1 % lost",
    "cpu": "us of CPU a packet delivered then, beside what it takes to reach the door",
    "syn": "M new connections a second",
    "million": "times the CPU of a packet among 1,000 flows, among a million",
    "bulk": "Gbit/s of one TCP stream",
    "keepalive": "k HTTP requests a second, connections kept",
    "closing": "k HTTP requests a second, each its own connection",
    "p50": "us there and back at half load, median",
    "p99": "us there and back at half load, 99 %",
    "p999": "us there and back at half load, 99.9 %",
}
SMALLER_IS_BETTER: Final = frozenset({"cpu", "million", "p50", "p99", "p999"})
_LOSS: Final = 0.001
_STEPS: Final = 7
_SYN_S: Final = 0.3  # before the kernel's table of connections is full
_FLOWS_S: Final = 12.0  # until nearly each of a million flows has come
_ECHOES: Final = 3_000
_SMALL: Final = 70  # the generator's packets are shorter, in a tunnel as well

_ECHO: Final = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, client = one.recvfrom(2048)
    one.sendto(data, client)
"""
_PING = """
import json, socket, sys, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(1)
one.connect((sys.argv[1], int(sys.argv[2])))
took, lost = [], 0
for n in range(int(sys.argv[3])):
    asked = n.to_bytes(4, "big") + bytes(60)
    began = time.perf_counter_ns()
    one.send(asked)
    try:
        while one.recv(2048) != asked:
            pass
    except TimeoutError:
        lost += 1
        continue
    took.append((time.perf_counter_ns() - began) / 1000)
took.sort()
at = lambda share: took[min(len(took) - 1, int(len(took) * share))]
print(json.dumps({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "lost": lost}))
"""


class Bench:
    """One subject, started in a lab, and what it does."""

    def __init__(self, subject: Subject, seconds: float) -> None:
        self._subject = subject
        self._seconds = seconds

    def measure(self) -> dict[str, float]:
        """Return all that the subject is measured by."""
        found: dict[str, float] = {}
        wanted = self._subject.measures
        with lab_of(self._subject) as lab:
            lab.start_servers()
            door = self._cost_of_the_way(lab) if "cpu" in wanted else 0.0
            self._subject.start(lab)
            time.sleep(0.5)
            if "keepalive" in wanted:
                found["keepalive"] = self._http(lab, "")
                found["closing"] = self._http(lab, "-H 'Connection: close'")
            if "overload" in wanted:
                _drop_at_the_end(lab)
                delivered, sent, busy = self._offer(lab, "udp", 0)
                found["overload"] = delivered / 1e6
                found["cpu"] = (busy - sent * door) / max(delivered, 1) * 1e6
                found["lossless"] = self._lossless(lab, delivered) / 1e6
            if "p50" in wanted:
                found |= self._echo(lab, int(found["lossless"] * 5e5))
            if "syn" in wanted:
                found["syn"] = self._offer(lab, "syn", 0, _SYN_S)[0] / 1e6
            if "million" in wanted:
                found["million"] = self._cpu(lab, "1m", door) / self._cpu(lab, "1k", door)
            if lab.director is not None:
                lab.stop_director()
        if "bulk" in wanted:
            found["bulk"] = self._bulk()
        return found

    def _cpu(self, lab: Lab, kind: str, door: float) -> float:
        """Return CPU seconds a packet, beside those to the door, once all flows are there."""
        self._offer(lab, kind, 0, _FLOWS_S)
        delivered, sent, busy = self._offer(lab, kind, 0)
        return (busy - sent * door) / max(delivered, 1)

    def _bulk(self) -> float:
        """Return Gbit/s, in a lab whose real server has no web server at its port."""
        with lab_of(self._subject) as lab:
            shape = lab.topology
            lab.spawn("rs1", ["iperf3", "-s", "-p", str(shape.server_port)], "iperf.log")
            time.sleep(0.3)
            self._subject.start(lab)
            time.sleep(0.5)
            line = f"timeout 60 iperf3 -J -c {shape.vip} -p {shape.port} -t {self._seconds:.0f}"
            told = json.loads(lab.shell("client", line))
            if lab.director is not None:
                lab.stop_director()
        return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9

    def _http(self, lab: Lab, header: str) -> float:
        url = f"http://{lab.topology.endpoint}/"
        text = lab.shell("client", f"wrk -t1 -c20 -d{self._seconds:.0f}s {header} {url}")
        found = re.search(r"Requests/sec: +([\d.]+)", text)
        failed = re.search(r"Socket errors.*|Non-2xx.*", text)
        if found is None or failed:
            raise HostError(f"wrk says {text}")
        return float(found[1]) / 1_000

    def _offer(
        self, lab: Lab, kind: str, rate: int, seconds: float = 0.0
    ) -> tuple[float, float, float]:
        """Offer frames; return those delivered and sent a second, and how many CPUs were busy."""
        before = _received(lab)
        told = self._generate(lab, _next_hop(lab), f"{kind} {rate} {seconds or self._seconds}")
        time.sleep(0.2)
        told["delivered"] = _received(lab) - before
        delivered, sent, busy = (
            told[name] / told["seconds"] for name in ("delivered", "sent", "busy_s")
        )
        return delivered, sent, busy

    def _generate(self, lab: Lab, mac: str, words: str) -> dict[str, float]:
        line = f"-m benchmarks.net.generator eth0 {mac} {lab.topology.vip} {lab.topology.port}"
        told: dict[str, float] = json.loads(lab.shell("client", f"{sys.executable} {line} {words}"))
        return told

    def _cost_of_the_way(self, lab: Lab) -> float:
        """Return CPU seconds that a packet takes to a director who drops it at once."""
        hook = 'type filter hook ingress device "eth0" priority 0; policy drop;'
        lab.shell("director", f"nft 'table netdev door {{ chain in {{ {hook} }}; }}'")
        mac = lab.shell("director", "cat /sys/class/net/eth0/address").strip()
        _receive_by_napi(lab)
        told = self._generate(lab, mac, f"udp 0 {self._seconds}")
        lab.shell("director", "nft delete table netdev door")
        return told["busy_s"] / told["sent"]

    def _lossless(self, lab: Lab, most: float) -> float:
        """Return the highest rate a second that is found without loss."""
        low, high = 0.0, 1.5 * most
        for _ in range(_STEPS):
            rate = (low + high) / 2
            delivered, sent, _ = self._offer(lab, "udp", int(rate))
            if delivered >= sent * (1 - _LOSS):
                low = delivered
                if sent < rate * 0.9:  # the generator has reached its end
                    break
            else:
                high = rate
        return low

    def _echo(self, lab: Lab, load: int) -> dict[str, float]:
        shape = lab.topology
        vip_is_there = (
            self._subject.mode in ("dr", "tun", "l3dsr") or self._subject.name == "routing"
        )
        address = shape.vip if vip_is_there else shape.servers["rs1"]
        port = port_of(lab, ECHO_PORT)
        lab.spawn("rs1", [sys.executable, "-c", _ECHO, address, str(port)], "echo.log")
        seconds = self._seconds + 1
        words = f"-m benchmarks.net.generator eth0 {_next_hop(lab)} {shape.vip} {shape.port} udp"
        time.sleep(0.3)
        flood = lab.spawn(
            "client", [sys.executable, *words.split(), str(load), str(seconds)], "load"
        )
        time.sleep(0.5)
        path = pathlib.Path(lab.folder, "ping.py")
        path.write_text(_PING, encoding="ascii")
        line = f"{sys.executable} {path} {shape.vip} {ECHO_PORT} {int(_ECHOES * self._seconds)}"
        told = json.loads(lab.shell("client", line))
        flood.wait(30)
        return {name: told[name] for name in ("p50", "p99", "p999")}


def _next_hop(lab: Lab) -> str:
    """Return the MAC that the router sends the VIP's packets to."""
    vip = lab.topology.vip
    lab.shell("client", f"ping -c 1 -W 1 {vip} >/dev/null; true")
    words = lab.shell("client", f"ip neigh show {vip}").split()
    if "lladdr" not in words:
        raise HostError(f"nobody answers for {vip}")
    _receive_by_napi(lab)
    return words[words.index("lladdr") + 1]


def _receive_by_napi(lab: Lab) -> None:
    """Have frames from XDP taken, the generator's and the director's, as cards take them.

    On veth they enter where NAPI runs, with GRO on.
    """
    for node in ("director", "rs1"):
        lab.shell(node, f"{sys.executable} -m benchmarks.net.gro eth0")


def _drop_at_the_end(lab: Lab) -> None:
    """Have the real server drop the flood as early as it can: its own stack is not the subject."""
    lab.spawn("rs1", [sys.executable, "-m", "benchmarks.net.sink", "eth0", str(_SMALL)], "sink.log")
    lab.await_text("sink.log", "ready")


def _received(lab: Lab) -> int:
    return int(lab.shell("rs1", "cat /sys/class/net/eth0/statistics/rx_packets"))
