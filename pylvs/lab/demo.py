"""The demonstration: real HTTP through the director, and what each station saw of it."""

import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Final

from pylvs.errors import HostError
from pylvs.lab import capture
from pylvs.lab.build import Lab
from pylvs.lab.topology import Topology, bracketed, topology

REQUESTS: Final = 10
_SHOWN: Final = 6
_PICTURES: Final = {
    "nat": "client {client} -- router -- director [VIP {vip}] -- rs1 {rs1}, rs2 {rs2}\n"
    "  requests are rewritten to a real server, and its replies back",
    "dr": "client {client} -- router -- LAN {{ director [VIP {vip}], rs1 {rs1}, rs2 {rs2} }}\n"
    "  requests get a real server's MAC; it answers the client itself, as the VIP",
    "tun": "client {client} -- router -- LAN {{ director [VIP {vip}], rs1 {rs1}, rs2 {rs2} }}\n"
    "  requests go to a real server inside IPIP; it answers the client itself, as the VIP",
    "l3dsr": "client {client} -- router -- director [VIP {vip}]\n"
    "                         \\-- LAN of its own {{ rs1 {rs1}, rs2 {rs2} }}\n"
    "  requests go to a real server's address, marked; it answers the client itself, as the VIP",
    "fullnat": "client {client} -- router -- director [VIP {vip}]\n"
    "                         \\-- LAN of its own {{ rs1 {rs1}, rs2 {rs2} }}\n"
    "  requests leave from the director's own address, and replies come back to it",
}


def _picture(shape: Topology) -> str:
    client = shape.nodes[0].interfaces[0].address.partition("/")[0]
    separator = ":" if ":" in shape.vip else "."
    servers = {
        name: separator + address.rpartition(separator)[2]
        for name, address in shape.servers.items()
    }
    return _PICTURES[shape.mode].format(client=client, vip=shape.vip, **servers)


def demonstrate(mode: str, version: int = 4, requests: int = REQUESTS) -> None:
    """Build a lab, send requests, print what happened, and take it down; raises HostError."""
    shape = topology(mode, version)
    print(f"== {mode}: {_picture(shape)}", flush=True)
    with Lab(shape) as lab:
        _finish_checksums(lab)
        lab.start_servers()
        lab.start_director()
        first = next(iter(lab.topology.servers))
        recorder = _record(lab, first)
        began = time.monotonic()
        answers = lab.fetch(requests)
        spent = time.monotonic() - began
        _stop(recorder)
        url = f"http://{bracketed(shape.vip)}/"
        print(f"{requests} requests to {url} in {spent:.2f} s; who answered:")
        for name, count in sorted(Counter(answers).items()):
            print(f"  {name:<8} {count:>3}  {'#' * count}")
        _show_capture(lab, first)
        print(lab.stop_director())
    if set(answers) != set(lab.topology.servers):
        raise HostError(f"not every real server answered: {dict(Counter(answers))}")


def _finish_checksums(lab: Lab) -> None:
    """Have the stations finish their checksums themselves, so that a capture shows what is right.

    Left to itself veth carries unfinished ones: the director takes those as well.
    """
    for node in ("client", *lab.topology.servers):
        lab.shell(node, f"{sys.executable} -m pylvs.lab.offloads eth0")


def _record(lab: Lab, node: str) -> subprocess.Popen[str]:
    path = lab.folder / "server.pcap"
    words = [sys.executable, "-m", "pylvs.lab.capture", "eth0", str(path)]
    process = lab.spawn(node, words, "capture.log")
    while "recording" not in lab.log("capture.log"):
        if process.poll() is not None:
            raise HostError(f"the recorder did not start: {lab.log('capture.log')}")
        time.sleep(0.02)
    return process


def _stop(recorder: subprocess.Popen[str]) -> None:
    time.sleep(0.2)  # what is on its way arrives
    recorder.send_signal(signal.SIGTERM)
    recorder.wait(10)


def _show_capture(lab: Lab, node: str) -> None:
    packets = list(capture.packets(str(lab.folder / "server.pcap")))
    wrong = [packet for packet in packets if capture.faults(packet)]
    print(f"what {node} received: {len(packets)} packets, {len(wrong)} with a wrong checksum")
    for packet in packets[:_SHOWN]:
        verdict = ", ".join(capture.faults(packet)) or "checksums right"
        print(f"  {capture.describe(packet)}  {verdict}")
    if wrong:
        raise HostError("a checksum was wrong")
