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
    "cpu": "us of all CPU but the generator's a packet, at that rate",
    "syn": "M new connections a second",
    "bulk": "Gbit/s of one TCP stream",
    "keepalive": "k HTTP requests a second, connections kept",
    "closing": "k HTTP requests a second, each its own connection",
    "p50": "us there and back at half load, median",
    "p99": "us there and back at half load, 99 %",
    "p999": "us there and back at half load, 99.9 %",
}
SMALLER_IS_BETTER: Final = frozenset({"cpu", "p50", "p99", "p999"})
_LOSS: Final = 0.001
_STEPS: Final = 6
_SYN_S: Final = 0.3  # before the kernel's table of connections is full
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
            lab.spawn("rs1", ["iperf3", "-s", "-p", str(_iperf_port(lab))], "iperf.log")
            self._subject.start(lab)
            time.sleep(0.5)
            if "keepalive" in wanted:
                found["keepalive"] = self._http(lab, "")
                found["closing"] = self._http(lab, "-H 'Connection: close'")
            if "overload" in wanted:
                _drop_at_the_end(lab)
                found["overload"] = self._offer(lab, "udp", 0)[0] / 1e6
                rate, found["cpu"] = self._lossless(lab, found["overload"] * 1e6)
                found["lossless"] = rate / 1e6
            if "p50" in wanted:
                found |= self._echo(lab, int(found["lossless"] * 5e5))
            if "syn" in wanted:
                found["syn"] = self._offer(lab, "syn", 0, _SYN_S)[0] / 1e6
            if lab.director is not None:
                lab.stop_director()
        if "bulk" in wanted:
            found["bulk"] = self._bulk()
        return found

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

    def _offer(self, lab: Lab, kind: str, rate: int, seconds: float = 0.0) -> tuple[float, ...]:
        """Offer frames; return those delivered and sent a second, and CPU seconds a packet.

        What the kernel forwards in the generator's name, as its softirq, is not in there.
        """
        shape = lab.topology
        seconds = seconds or self._seconds
        mac = _next_hop(lab)
        words = f"-m benchmarks.net.generator eth1 {mac} {shape.vip} {shape.port} {kind}"
        before, busy = _received(lab), _busy_s()
        told = json.loads(lab.shell("router", f"{sys.executable} {words} {rate} {seconds}"))
        time.sleep(0.2)
        delivered = _received(lab) - before
        spent = _busy_s() - busy - told["cpu_s"]
        took = told["seconds"]
        return delivered / took, told["sent"] / took, spent / max(delivered, 1)

    def _lossless(self, lab: Lab, most: float) -> tuple[float, float]:
        """Return the highest rate that is found without loss, and microseconds of CPU a packet."""
        low, high, cpu = 0.0, 1.5 * most, 0.0
        for _ in range(_STEPS):
            rate = (low + high) / 2
            delivered, sent, spent = self._offer(lab, "udp", int(rate))
            if delivered >= sent * (1 - _LOSS):
                low, cpu = delivered, spent
                high = max(high, rate)
                if sent < rate * 0.9:  # the generator has reached its end
                    break
            else:
                high = rate
        return low, cpu * 1e6

    def _echo(self, lab: Lab, load: int) -> dict[str, float]:
        shape = lab.topology
        vip_is_there = (
            self._subject.mode in ("dr", "tun", "l3dsr") or self._subject.name == "routing"
        )
        address = shape.vip if vip_is_there else shape.servers["rs1"]
        port = ECHO_PORT if self._subject.name == "routing" else port_of(lab, ECHO_PORT)
        lab.spawn("rs1", [sys.executable, "-c", _ECHO, address, str(port)], "echo.log")
        seconds = self._seconds + 1
        words = f"-m benchmarks.net.generator eth1 {_next_hop(lab)} {shape.vip} {shape.port} udp"
        time.sleep(0.3)
        flood = lab.spawn(
            "router", [sys.executable, *words.split(), str(load), str(seconds)], "load"
        )
        time.sleep(0.5)
        path = pathlib.Path(lab.folder, "ping.py")
        path.write_text(_PING, encoding="ascii")
        line = f"{sys.executable} {path} {shape.vip} {ECHO_PORT} {int(_ECHOES * self._seconds)}"
        told = json.loads(lab.shell("client", line))
        flood.wait(30)
        return {name: told[name] for name in ("p50", "p99", "p999")}


def _iperf_port(lab: Lab) -> int:
    return lab.topology.server_port + 1_000


def _next_hop(lab: Lab) -> str:
    """Return the MAC that the router sends the VIP's packets to."""
    vip = lab.topology.vip
    lab.shell("router", f"ping -c 1 -W 1 {vip} >/dev/null; true")
    words = lab.shell("router", f"ip neigh show {vip}").split()
    if "lladdr" not in words:
        raise HostError(f"nobody answers for {vip}")
    # Live frames enter where NAPI runs: with GRO on.
    lab.shell("switch", f"{sys.executable} -m benchmarks.net.gro router.eth1")
    return words[words.index("lladdr") + 1]


def _drop_at_the_end(lab: Lab) -> None:
    """Have the real server drop the flood as early as it can: its own stack is not the subject."""
    rule = f"ip length < {_SMALL} meta l4proto {{ udp, tcp, ipip }} drop"
    hook = 'type filter hook ingress device "eth0" priority 0;'
    lab.shell("rs1", f"nft 'table netdev sink {{ chain in {{ {hook} {rule}; }}; }}'")


def _received(lab: Lab) -> int:
    return int(lab.shell("rs1", "cat /sys/class/net/eth0/statistics/rx_packets"))


def _busy_s() -> float:
    """Return how long all processors together have been busy."""
    words = pathlib.Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, words)
    return (user + nice + system + irq + softirq) / 100
