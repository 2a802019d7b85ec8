"""How long the in-memory door takes for a frame, beside plain Python and dpkt.

    make bench

Each round runs all subjects in turn, so their ratios hold while the machine's speed drifts.  pylvs
parses, looks the connection up, counts, runs the state machine, rewrites and addresses the frame;
the two others are given the answer and only rewrite.
"""

import statistics
import time

import dpkt
import numpy as np
import pytest

from pylvs.engine.director import NEW_BATCH, Director, direct
from pylvs.frames import BATCH_SIZE, Reason
from pylvs.tables.layouts import Limits
from tests.packets import tcp_frame
from tests.world import VIP, World

SLOT = 2_048 + 64  # staggered, so that headers do not share cache sets
ROUNDS = 15
RESULTS: dict[str, float] = {}


class Bench:
    """A director with ``count`` established connections, and batches of their frames."""

    def __init__(self, method, count, room=0):
        made = World(limits=Limits(connections=room or count * 2))
        port = 8080 if method == "-m" else 80
        made.rule(f"-A -t {VIP}:80 -s rr")
        for n in range(4):
            made.rule(f"-a -t {VIP}:80 -r 10.0.0.{11 + n}:{port} {method}")
        self.director: Director = made.director
        self.now_ms = made.now_ms
        self.base = len(self.director.memory)
        self.director.memory = np.concatenate(
            [self.director.memory, np.zeros(BATCH_SIZE * SLOT, np.uint8)]
        )
        self.template = np.frombuffer(tcp_frame("1.0.0.0", VIP, 1024, 80, "S"), np.uint8)
        self.count = count
        self.order = np.random.default_rng(1).permutation(count)
        self.at = 0
        self._fill("S")
        for _ in range(-(-count // BATCH_SIZE)):
            self.load()
            self.run()
        self._fill("A")
        for _ in range(-(-count // BATCH_SIZE)):
            self.load()
            self.run()

    def _fill(self, flags):
        self.template = np.frombuffer(tcp_frame("1.0.0.0", VIP, 1024, 80, flags), np.uint8)

    def load(self):
        """Put the next batch of clients' frames into memory: client n is 1.0.0.0 + n."""
        size = len(self.template)
        frames = self.director.frames
        for row in range(BATCH_SIZE):
            client = int(self.order[self.at % self.count])
            self.at += 1
            offset = self.base + row * SLOT + 128
            memory = self.director.memory[offset : offset + size]
            memory[:] = self.template
            change_source(memory, 0x01000000 + client)
            frame = frames[row]
            for name in ("slot", "tagged", "checksum_start", "segment_kind", "segment_size"):
                frame[name] = 0
            frame["offset"], frame["length"], frame["port_in"] = offset, size, 0

    def run(self):
        tables, frames = self.director.tables, self.director.frames
        return direct(tables.all, self.director.memory, frames, BATCH_SIZE, NEW_BATCH, self.now_ms)


def change_source(frame, address):
    """Write another client address and mend the header checksum, slowly."""
    frame[26:30] = np.frombuffer(address.to_bytes(4, "big"), np.uint8)
    frame[24:26] = 0
    total = sum(int.from_bytes(frame[at : at + 2].tobytes(), "big") for at in range(14, 34, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    frame[24:26] = np.frombuffer((~total & 0xFFFF).to_bytes(2, "big"), np.uint8)


def nanoseconds(bench, batches=40):
    """Return the median time a frame takes, the loading of frames left out."""
    spent = []
    for _ in range(batches):
        bench.load()
        began = time.perf_counter_ns()
        bench.run()
        spent.append((time.perf_counter_ns() - began) / BATCH_SIZE)
    return statistics.median(spent)


def plain_python(frame: bytearray):
    """The tightest NAT rewrite in plain Python: destination, port, both checksums, TTL."""
    new, port = 0x0A00000B, 8080
    old = int.from_bytes(frame[30:34], "big")
    delta = (~(old >> 16) & 0xFFFF) + (~old & 0xFFFF) + (new >> 16) + (new & 0xFFFF)
    ttl = int.from_bytes(frame[22:24], "big")
    total = (~int.from_bytes(frame[24:26], "big") & 0xFFFF) + delta + (~ttl & 0xFFFF) + ttl - 256
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    frame[24:26] = (~total & 0xFFFF).to_bytes(2, "big")
    frame[22] -= 1
    frame[30:34] = new.to_bytes(4, "big")
    old_port = int.from_bytes(frame[36:38], "big")
    total = (~int.from_bytes(frame[50:52], "big") & 0xFFFF) + delta + (~old_port & 0xFFFF) + port
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    frame[50:52] = (~total & 0xFFFF).to_bytes(2, "big")
    frame[36:38] = port.to_bytes(2, "big")


def with_dpkt(frame: bytes):
    ethernet = dpkt.ethernet.Ethernet(frame)
    ip = ethernet.data
    ip.dst = b"\x0a\0\0\x0b"
    ip.ttl -= 1
    ip.data.dport = 8080
    ip.sum = ip.data.sum = 0
    return bytes(ethernet)


def per_call(function, argument, calls=2_000):
    began = time.perf_counter_ns()
    for _ in range(calls):
        function(argument())
    return (time.perf_counter_ns() - began) / calls


@pytest.fixture(scope="module")
def benches():
    return {
        "nat 1k": Bench("-m", 1_000),
        "nat 1M": Bench("-m", 1_000_000),
        "dr 1k": Bench("-g", 1_000),
        "tun 1k": Bench("-i", 1_000),
    }


def test_the_door_beside_plain_python_and_dpkt(benches, benchmark):
    frame = tcp_frame("1.0.0.1", VIP, 1024, 80, "A")
    spent: dict[str, list[float]] = {}

    def one_round():
        for name, bench in benches.items():
            spent.setdefault(name, []).append(nanoseconds(bench, 10))
        spent.setdefault("plain", []).append(per_call(plain_python, lambda: bytearray(frame)))
        spent.setdefault("dpkt", []).append(per_call(with_dpkt, lambda: frame, 200))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    nat = spent["nat 1k"]

    def ratio(name):
        return statistics.median(a / b for a, b in zip(spent[name], nat, strict=True))

    print(f"\n{'':10} {'ns a frame':>10} {'ratio to nat 1k':>16}")
    for name, times in spent.items():
        print(f"{name:10} {statistics.median(times):10.0f} {ratio(name):16.2f}")
    # Guards against a slide, a quarter below what was measured: 48, 325 and 1.8.
    assert ratio("plain") >= 36
    assert ratio("dpkt") >= 244
    assert ratio("nat 1M") <= 2.4


def test_new_connections(benchmark):
    """A million random SYNs, each making its connection."""
    bench = Bench("-m", 1_000, room=1 << 20)
    bench._fill("S")
    spent = []

    def one_round():
        bench.order = np.random.default_rng().integers(0, 1 << 24, 10_000)
        bench.count = len(bench.order)
        bench.now_ms += 120_000
        bench.director.expire(bench.now_ms)
        spent.append(nanoseconds(bench, 6))

    benchmark.pedantic(one_round, rounds=ROUNDS)
    print(f"\nnew connection: {statistics.median(spent):.0f} ns a frame")
    assert bench.director.tables.reasons[Reason.TABLE_FULL] == 0
