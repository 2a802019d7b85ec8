"""Sends 60-byte frames for some seconds, and tells how many: JSON, a line.

    python -m benchmarks.net.generator INTERFACE MAC VIP PORT KIND RATE SECONDS

KIND is udp, one flow's datagrams, or syn, of random clients.  RATE is frames a second, 0 for as
many as can be.  The kernel makes them itself from a program (live frames of BPF_PROG_TEST_RUN);
where it does not, they go through a packet socket, far slower.  It runs in a namespace of a lab.
"""

import contextlib
import json
import os
import pathlib
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from benchmarks.net import bpf
from pylvs.drivers import linux
from pylvs.wire.text import mac_of
from tests.packets import ethernet, ipv4, tcp, udp

SOURCE: Final = "110.0.0.9"
_BURST: Final = 4_096
_TICK_S: Final = 0.001
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


def _sender(
    interface: str, frame: bytes, spreads: tuple[bpf.Spread, ...]
) -> tuple[str, Callable[[int], None]]:
    with contextlib.suppress(OSError):
        program = bpf.load(bpf.assemble(frame, spreads))
        live = bpf.Sender(program, socket.if_nametoindex(interface), len(frame))
        live.send(1)
        return "live frames", live.send
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((interface, 0))
    out.setsockopt(linux.SOL_PACKET, linux.PACKET_QDISC_BYPASS, 1)

    def send(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(OSError):  # a full queue
                out.send(_varied(frame, spreads))

    return "packet socket", send


def _varied(frame: bytes, spreads: tuple[bpf.Spread, ...]) -> bytes:
    varied = bytearray(frame)
    for place, taken_off in spreads:
        bits = os.urandom(2)
        for at in (place, *taken_off):
            varied[at : at + 2] = bits if at == place else bytes(0xFF - one for one in bits)
    return bytes(varied)


def run(send: Callable[[int], None], rate: int, seconds: float) -> int:
    """Send for some seconds, at a rate or as fast as it goes; return how many frames."""
    sent = 0
    begin = time.monotonic()
    while (spent := time.monotonic() - begin) < seconds:
        due = int(spent * rate) - sent if rate else _BURST
        if due > 0:
            send(min(due, _BURST))
            sent += min(due, _BURST)
        else:
            time.sleep(_TICK_S / 4)
    return sent


def main(
    interface: str, mac: str, vip: str, port: int, kind: str, rate: int, seconds: float
) -> None:
    way, send = _sender(interface, *frame_of(interface, mac, vip, port, kind))
    before = resource.getrusage(resource.RUSAGE_SELF)
    sent = run(send, rate, seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"sent": sent, "way": way, "cpu_s": cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]), float(sys.argv[7]))
