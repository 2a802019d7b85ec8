"""The director beside the kernel's own NAT: the same lab, the same traffic, in turn, as ratios.

    sudo .venv/bin/python -m benchmarks.side_by_side [ROUNDS]

Bulk TCP by iperf3 with default offloads, and 60-byte UDP from a generator on the other core,
counted where it arrives.  nft DNAT stands in the director's place of a twin of the lab.
"""

import json
import shutil
import statistics
import sys
import time

from pylvs.errors import HostError
from pylvs.lab.build import Lab
from pylvs.lab.topology import topology

SECONDS = 3
FLOOD = [sys.executable, "-m", "benchmarks.flood"]


def one_server(lab):
    """Return the director's arguments with one real server, TCP and UDP."""
    shape = lab.topology
    arguments = shape.director_arguments()[:-2]
    return [*arguments, "--vip", f"{shape.vip}:{shape.port}/udp"]


def start_dnat(lab):
    """Let the kernel do it: DNAT to the first real server, replies translated by conntrack."""
    shape = lab.topology
    server = next(iter(shape.servers.values()))
    rules = "table ip twin { chain pre { type nat hook prerouting priority -100;"
    for protocol in ("tcp", "udp"):
        rules += f" ip daddr {shape.vip} {protocol} dport {shape.port}"
        rules += f" dnat to {server}:{shape.server_port};"
    lab.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    lab.shell("director", f"ip address add {shape.vip}/24 dev eth0")
    lab.shell("director", f"nft '{rules} }}; }}'")


def bulk(lab):
    """Return Gbit/s of one TCP stream from client to real server."""
    shape = lab.topology
    line = f"timeout 30 iperf3 -J -c {shape.vip} -p {shape.port} -t {SECONDS}"
    return json.loads(lab.shell("client", line))["end"]["sum_received"]["bits_per_second"] / 1e9


def small(lab):
    """Return Mpps of 60-byte UDP that reach the real server's interface."""
    shape = lab.topology
    lab.shell("router", f"ping -c 1 -W 1 {shape.vip} >/dev/null; true")
    known = lab.shell("router", f"ip neigh show {shape.vip}").split()
    mac = known[known.index("lladdr") + 1]
    interface = known[known.index("dev") + 1]
    count = "cat /sys/class/net/eth0/statistics/rx_packets"
    before = int(lab.shell("rs1", count))
    words = [*FLOOD, interface, mac, "110.0.0.9", shape.vip, str(shape.port), str(SECONDS)]
    lab.shell("router", " ".join(words))
    time.sleep(0.2)
    return (int(lab.shell("rs1", count)) - before) / SECONDS / 1e6


def drop_at_the_end(lab):
    """Have the real server drop the flood as early as it can: its own stack is not the subject."""
    rule = (
        'table netdev sink { chain in { type filter hook ingress device "eth0" priority 0;'
        " meta l4proto udp drop; }; }"
    )
    lab.shell("rs1", f"nft '{rule}'")


def measure(mode, kernel):
    with Lab(topology(mode)) as lab:
        shape = lab.topology
        lab.spawn("rs1", ["iperf3", "-s", "-p", str(shape.server_port)], "iperf.log")
        if kernel:
            start_dnat(lab)
        else:
            lab.start_director(one_server(lab))
        time.sleep(0.5)
        result = {"bulk": bulk(lab)}
        drop_at_the_end(lab)
        result["small"] = small(lab)
        if not kernel:
            lab.stop_director()
        return result


def main(rounds):
    for program in ("iperf3", "nft"):
        if not shutil.which(program):
            raise HostError(f"{program} is missing: apt-get install iperf3 nftables")
    results = {"nft dnat": [], "nat": [], "dr": [], "tun": []}
    for turn in range(rounds):
        for name, spent in results.items():
            spent.append(measure("nat" if name == "nft dnat" else name, name == "nft dnat"))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    print(f"{'':10} {'Gbit/s':>8} {'ratio':>6} {'Mpps':>8} {'ratio':>6}   medians of {rounds}")
    for name, spent in results.items():
        line = f"{name:10}"
        for kind in ("bulk", "small"):
            kernel = [one[kind] for one in results["nft dnat"]]
            values = [one[kind] for one in spent]
            ratio = statistics.median(a / b for a, b in zip(values, kernel, strict=True))
            line += f" {statistics.median(values):8.2f} {ratio:6.2f}"
        print(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
