"""Sends 60-byte frames for some seconds, and tells how many: JSON, a line.

    python -m benchmarks.net.generator INTERFACE MAC VIP PORT KIND RATE SECONDS [WAY]

KIND is udp, one flow's datagrams, 1k or 1m, those of so many flows, or syn, of random clients.
RATE is frames a second, 0 for as many as can be.  WAY is live, frames that the kernel makes itself
from a program (live frames of BPF_PROG_TEST_RUN), or socket, slower, which leaves the processor
alone between frames; unless said live, if the kernel does.  Runs in a namespace of a lab.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import time
from typing import Final

import numpy as np

from benchmarks.net import pace
from pylvs.drivers import linux
from pylvs.drivers.programs import bpf
from pylvs.jit import door
from pylvs.wire.text import mac_of
from tests.packets import ethernet, ipv4, tcp, udp

SOURCE: Final = "110.0.0.9"
_ONLY: Final = bytes(4)  # key of a map that has one value
_NICE: Final = 19
"""Whoever forwards on the generator's processor, in the kernel, comes first there."""
_BREAK_S: Final = 0.0005
_ETHERNET: Final = 14
_ADDRESS, _IDENTIFICATION, _TCP = _ETHERNET + 14, _ETHERNET + 4, _ETHERNET + 20
_CLIENTS: Final = (
    pace.Spread(_TCP, (_TCP + 6,)),  # the port; of the sequence number, the low half
    pace.Spread(
        _ADDRESS, (_IDENTIFICATION, _TCP + 18)
    ),  # and the urgent pointer, which means nothing
)
_DATA: Final = _ETHERNET + 28
_FLOWS: Final = {
    "1k": (pace.Spread(_ETHERNET + 20, (_DATA,), 0x03FF),),
    "1m": (
        pace.Spread(_ETHERNET + 20, (_DATA,)),
        pace.Spread(_ADDRESS, (_IDENTIFICATION, _DATA + 2), 0x000F),
    ),
}
"""Source ports, and sixteen clients; what they add is taken off in the data."""


def frame_of(
    interface: str, mac: str, vip: str, port: int, kind: str
) -> tuple[bytes, tuple[pace.Spread, ...]]:
    """Return the frame, its checksums right, and where it is varied."""
    own = pathlib.Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii").strip()
    ends = [mac_of(text).to_bytes(6, "big") for text in (mac, own)]
    if kind == "udp":
        body = udp(SOURCE, vip, 40_000, port, bytes(18))
        return ethernet(ipv4(SOURCE, vip, 17, body), *ends), ()
    source = SOURCE.rsplit(".", 2)[0] + ".0.0"
    if kind in _FLOWS:
        body = udp(source, vip, 0, port, b"\xff" * 4 + bytes(14))
        return ethernet(ipv4(source, vip, 17, body, ident=0xFFFF), *ends), _FLOWS[kind]
    body = tcp(source, vip, 0, port, "S", seq=0xFFFF)
    body = body[:18] + b"\xff\xff"  # which adds nothing to a sum of ones' complements
    return ethernet(ipv4(source, vip, 6, body, ident=0xFFFF) + bytes(6), *ends), _CLIENTS


class _Live:
    """Frames that the kernel makes itself: the fastest."""

    way = "live"
    burst, runs = 1 << 19, 1 << 24
    """How often a call runs the program, for each frame or to wait for the next one's time.

    Half a second: between two calls are 20 ms in which nothing is sent.
    """

    def __init__(
        self, interface: str, frame: bytes, spreads: tuple[pace.Spread, ...], rate: int
    ) -> None:
        self._state = bpf.Map(bpf.ARRAY, len(_ONLY), pace.STATE.size, 1)
        self._state[_ONLY] = pace.STATE.pack(0, 1_000_000_000 // rate if rate else 0, 0)
        program = bpf.load(pace.assemble(frame, spreads, self._state.descriptor))
        self._frames = bpf.LiveFrames(program, socket.if_nametoindex(interface), len(frame))
        self._frames.run(1)
        self._count = self.runs if rate else self.burst

    def send(self, seconds: float) -> tuple[int, float]:
        """Send for some seconds; return how many frames, and how long it was."""
        before = self._sent()
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < seconds:
            self._frames.run(self._count)
        return self._sent() - before, spent

    def _sent(self) -> int:
        return int(pace.STATE.unpack(self._state[_ONLY])[2])


@door
def _send_burst(descriptor, address, size, count):
    """Send one frame ``count`` times; return how many the kernel took."""
    sent = 0
    for _ in range(count):
        if linux.sendto(descriptor, address, size, 0, 0, 0) > 0:
            sent += 1
    return sent


class _Socket:
    """Frames through a packet socket."""

    way = "socket"
    burst = 256

    def __init__(
        self, interface: str, frame: bytes, spreads: tuple[pace.Spread, ...], rate: int
    ) -> None:
        self._frame, self._spreads, self._rate = frame, spreads, rate
        self._memory = np.frombuffer(frame, np.uint8).copy()
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._out.bind((interface, 0))
        self._out.setsockopt(linux.SOL_PACKET, linux.PACKET_QDISC_BYPASS, 1)
        self._send(1)

    def send(self, seconds: float) -> tuple[int, float]:
        sent = 0
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < seconds:
            due = min(int(spent * self._rate) - sent, self.burst) if self._rate else self.burst
            if due > 0:
                self._send(due)
                sent += due
            else:
                time.sleep(_BREAK_S)
        return sent, spent

    def _send(self, count: int) -> None:
        if not self._spreads:
            _send_burst(self._out.fileno(), self._memory.ctypes.data, len(self._frame), count)
            return
        for _ in range(count):
            with contextlib.suppress(OSError):  # a full queue
                self._out.send(_varied(self._frame, self._spreads))


def _busy_s() -> float:
    """Return how long all processors together have been busy."""
    words = pathlib.Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _varied(frame: bytes, spreads: tuple[pace.Spread, ...]) -> bytes:
    varied = bytearray(frame)
    for place, taken_off, mask in spreads:
        bits = int.from_bytes(os.urandom(2), "big") & mask
        varied[place : place + 2] = bits.to_bytes(2, "big")
        for at in taken_off:
            varied[at : at + 2] = (0xFFFF - bits).to_bytes(2, "big")
    return bytes(varied)


def _sender(
    interface: str, frame: bytes, spreads: tuple[pace.Spread, ...], rate: int, way: str
) -> _Live | _Socket:
    if way != _Socket.way:
        try:
            return _Live(interface, frame, spreads, rate)
        except OSError:  # no bpf here, or no such program
            if way == _Live.way:
                raise
    return _Socket(interface, frame, spreads, rate)


def main(
    interface: str,
    mac: str,
    vip: str,
    port: int,
    kind: str,
    rate: int,
    seconds: float,
    way: str = "",
) -> None:
    os.nice(_NICE)
    sender = _sender(interface, *frame_of(interface, mac, vip, port, kind), rate, way)
    busy = _busy_s()
    sent, spent = sender.send(seconds)
    told = {"sent": sent, "seconds": spent, "busy_s": _busy_s() - busy, "way": sender.way}
    print(json.dumps(told))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*words[:3], int(words[3]), words[4], int(words[5]), float(words[6]), *words[7:])
