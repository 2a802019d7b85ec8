"""Sends 60-byte frames for some seconds, and tells how many: JSON, a line.

    python -m benchmarks.net.generator INTERFACE MAC VIP PORT KIND RATE SECONDS

KIND is udp, one flow's datagrams, or syn, of random clients.  RATE is frames a second, 0 for as
many as can be: those the kernel makes itself from a program (live frames of BPF_PROG_TEST_RUN), if
it does.  Runs in a namespace of a lab.
"""

import contextlib
import json
import os
import pathlib
import resource
import socket
import sys
import time
from typing import Final

import numpy as np

from benchmarks.net import bpf
from pylvs.drivers import linux
from pylvs.jit import door
from pylvs.wire.text import mac_of
from tests.packets import ethernet, ipv4, tcp, udp

SOURCE: Final = "110.0.0.9"
_ETHERNET: Final = 14
_ADDRESS, _IDENTIFICATION, _TCP = _ETHERNET + 14, _ETHERNET + 4, _ETHERNET + 20
_CLIENTS: Final = (
    bpf.Spread(_TCP, (_TCP + 6,)),  # the port; of the sequence number, the low half
    bpf.Spread(
        _ADDRESS, (_IDENTIFICATION, _TCP + 18)
    ),  # and the urgent pointer, which means nothing
)


def frame_of(
    interface: str, mac: str, vip: str, port: int, kind: str
) -> tuple[bytes, tuple[bpf.Spread, ...]]:
    """Return the frame, and where it is varied; its checksums are right, or UDP's is left out."""
    own = pathlib.Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii").strip()
    ends = [mac_of(text).to_bytes(6, "big") for text in (mac, own)]
    if kind == "udp":
        body = udp(SOURCE, vip, 40_000, port, bytes(18), checksum=False)
        return ethernet(ipv4(SOURCE, vip, 17, body), *ends), ()
    source = SOURCE.rsplit(".", 2)[0] + ".0.0"
    body = tcp(source, vip, 0, port, "S", seq=0xFFFF)
    body = body[:18] + b"\xff\xff"  # which adds nothing to a sum of ones' complements
    return ethernet(ipv4(source, vip, 6, body, ident=0xFFFF) + bytes(6), *ends), _CLIENTS


class _Live:
    """Frames that the kernel makes itself: the fastest, but a call takes 20 ms, however few."""

    way = "live frames"
    burst = 1 << 17

    def __init__(self, interface: str, frame: bytes, spreads: tuple[bpf.Spread, ...]) -> None:
        program = bpf.load(bpf.assemble(frame, spreads))
        self._sender = bpf.Sender(program, socket.if_nametoindex(interface), len(frame))
        self._sender.send(1)

    def send(self, count: int) -> None:
        self._sender.send(count)


@door
def _send_burst(descriptor, address, size, count):
    """Send one frame ``count`` times; return how many the kernel took."""
    sent = 0
    for _ in range(count):
        if linux.sendto(descriptor, address, size, 0, 0, 0) > 0:
            sent += 1
    return sent


class _Socket:
    """Frames through a packet socket: half as fast, as few at a time as one likes."""

    way = "packet socket"
    burst = 64

    def __init__(self, interface: str, frame: bytes, spreads: tuple[bpf.Spread, ...]) -> None:
        self._frame, self._spreads = frame, spreads
        self._memory = np.frombuffer(frame, np.uint8).copy()
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._out.bind((interface, 0))
        self._out.setsockopt(linux.SOL_PACKET, linux.PACKET_QDISC_BYPASS, 1)
        self.send(1)

    def send(self, count: int) -> None:
        if not self._spreads:
            _send_burst(self._out.fileno(), self._memory.ctypes.data, len(self._frame), count)
            return
        for _ in range(count):
            with contextlib.suppress(OSError):  # a full queue
                self._out.send(_varied(self._frame, self._spreads))


def _sender(
    interface: str, frame: bytes, spreads: tuple[bpf.Spread, ...], rate: int
) -> _Live | _Socket:
    if not rate:
        with contextlib.suppress(OSError):  # no bpf here, or no such program
            return _Live(interface, frame, spreads)
    return _Socket(interface, frame, spreads)


def _varied(frame: bytes, spreads: tuple[bpf.Spread, ...]) -> bytes:
    varied = bytearray(frame)
    for place, taken_off in spreads:
        bits = os.urandom(2)
        for at in (place, *taken_off):
            varied[at : at + 2] = bits if at == place else bytes(0xFF - one for one in bits)
    return bytes(varied)


def run(sender: _Live | _Socket, rate: int, seconds: float) -> tuple[int, float]:
    """Send at a rate, or as fast as it goes; return how many frames, and in how many seconds."""
    sent = 0
    begin = time.monotonic()
    while (spent := time.monotonic() - begin) < seconds:
        due = min(int(spent * rate) - sent, sender.burst) if rate else sender.burst
        if due > 0:
            sender.send(due)
            sent += due
    return sent, spent


def main(
    interface: str, mac: str, vip: str, port: int, kind: str, rate: int, seconds: float
) -> None:
    sender = _sender(interface, *frame_of(interface, mac, vip, port, kind), rate)
    before = resource.getrusage(resource.RUSAGE_SELF)
    sent, spent = run(sender, rate, seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"sent": sent, "seconds": spent, "way": sender.way, "cpu_s": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]), float(sys.argv[7]))
