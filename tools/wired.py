"""A guest whose frames take the way of a real director's: by interfaces, drivers, several workers.

    out0 ---- veth ---- eth0 [ driver ] director [ driver ] eth1 ---- veth ---- out1
    out0 ------- TAP ------- [ driver ] director [ driver ] ------- TAP ------- out1

One frame at a time goes in by a packet socket at ``out0`` or ``out1``, and what comes out there is
what has left.  All of it is in the network namespace of the process, which is to have no other use.
Of two workers the kernel's fan-out says which has a frame; the other has the next, perhaps.
"""

import contextlib
import pathlib
import select
import socket
import time
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from pyroute2 import IPRoute

from pylvs.control.network.claims import claims_of, elements_of
from pylvs.drivers import linux
from pylvs.drivers.live import Common, Live, Rings, TunTap
from pylvs.drivers.programs.filter import Filter
from pylvs.engine.director import OWN_MEMORY
from pylvs.engine.loop import SEGMENTS_LIMIT
from tools.guest import MACS, Guest, Result

_PORTS: Final = ("eth0", "eth1")
_OUTER: Final = ("out0", "out1")
_MTU: Final = 3_400  # XDP takes no more by much
_PATIENCE_S: Final = 10.0
_SIZE: Final = 65_536


class Wires:
    """The interfaces and their drivers, as one driver for a director that breathes in Python."""

    def __init__(self, driver: str, workers: int) -> None:
        self.memory_size = 0
        self.sent: list[tuple[int, bytes]] = []
        self._awaited = 0  # frames that were put in and have not come up
        self._is_tap = driver == "tap"
        if not self._is_tap:
            self._make_interfaces(workers)
        self._outside = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._outside.setsockopt(linux.SOL_PACKET, linux.PACKET_IGNORE_OUTGOING, 1)
        self._outside.setblocking(False)
        self._filter = None if self._is_tap else Filter(driver == "xdp", workers=workers)
        common = Common(workers)
        self._drivers: list[Live] = []
        for worker in range(workers):
            if self._is_tap:
                self._drivers += [TunTap(name, SEGMENTS_LIMIT, workers=workers) for name in _OUTER]
            else:
                shared = SEGMENTS_LIMIT, self._filter, worker, common
                self._drivers.append(Rings(_PORTS, *shared))
        if self._is_tap:
            self._set_up(_OUTER)
        self._turn = 0  # the driver whose frames are under way
        size = sum(one.memory_size for one in self._drivers)
        self.reservation = linux.Reservation(OWN_MEMORY + size)
        begin = linux.page_up(OWN_MEMORY)
        for one in self._drivers:
            one.attach(self.reservation, begin)
            begin += one.memory_size
        self._poller = select.poll()
        for descriptor in self.descriptors():
            self._poller.register(descriptor, select.POLLIN)
        self.by_worker = [0] * workers
        self.by_xdp = 0

    def _make_interfaces(self, queues: int) -> None:
        with IPRoute() as netlink:
            for port, outer, mac in zip(_PORTS, _OUTER, MACS, strict=True):
                count = {"num_rx_queues": queues, "num_tx_queues": queues}
                peer = {"ifname": outer, "mtu": _MTU, **count}
                address = mac.to_bytes(6, "big").hex(":")
                words = {"ifname": port, "kind": "veth", "mtu": _MTU, "address": address, **count}
                netlink.link("add", peer=peer, **words)
        self._set_up(_PORTS + _OUTER)

    def _set_up(self, names: Iterable[str]) -> None:
        with IPRoute() as netlink:
            for name in names:
                path = pathlib.Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
                if path.exists():
                    path.write_text("1", encoding="ascii")
                index = netlink.link_lookup(ifname=name)[0]
                netlink.link("set", index=index, mtu=_MTU, state="up")

    def attach(self, reservation: Any, begin: int) -> None:
        """It has memory of its own, the director's in front."""

    def claim(self, elements: Iterable[tuple[str, str]], pool: Iterable[int]) -> None:
        """Have the interfaces' programs know these claims, and what full NAT sends from."""
        if self._filter is not None:
            self._filter.replace(elements, pool)

    def put(self, port: int, data: bytes) -> None:
        self._outside.sendto(data, (_OUTER[port], 0))
        self._awaited += 1

    def receive(self, frames: Any, limit: int) -> int:
        """Wait for what was put in, and return how many frames that was."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            for number, one in enumerate(self._drivers):
                count = one.receive(frames, limit)
                if count:
                    self._turn = number
                    self.by_worker[number * len(self.by_worker) // len(self._drivers)] += count
                    slots, umem = frames["slot"][:count], one.umem[0]
                    self.by_xdp += int(((slots >= umem["begin"]) & (slots < umem["end"])).sum())
                    if self._is_tap:
                        frames["port_in"][:count] = number % len(_PORTS)
                    self._awaited -= count
                    return count
            if not self._awaited:
                return 0
            if time.monotonic() > end:
                raise TimeoutError("a frame was put in, and never came up")
            self._poller.poll(10)

    def transmit(self, frames: Any, leaving: int) -> int:
        refused = self._transmit_by_tap(frames, leaving) if self._is_tap else 0
        if not self._is_tap:
            refused = self._drivers[self._turn].transmit(frames, leaving)
        end = time.monotonic() + _PATIENCE_S
        wanted = len(self.sent) + leaving - refused
        while len(self.sent) < wanted:
            try:
                data, (name, _, _, *_) = self._outside.recvfrom(_SIZE)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError("a frame was sent, and never came out") from None
                select.select([self._outside], [], [], 0.01)
                continue
            if name in _OUTER:
                self.sent.append((_OUTER.index(name), data))
        return refused

    def _transmit_by_tap(self, frames: Any, leaving: int) -> int:
        """Send each by the device of its port, which knows no other."""
        refused = 0
        first = self._turn - self._turn % len(_PORTS)
        for row in [int(frames[k]["leaves"]) for k in range(leaving)]:
            frames[0]["leaves"] = row
            refused += self._drivers[first + int(frames[row]["port_out"])].transmit(frames, 1)
        return refused

    def release(self, frames: Any, count: int) -> None:
        self._drivers[self._turn].release(frames, count)

    def descriptors(self) -> list[int]:
        return [descriptor for one in self._drivers for descriptor in one.descriptors()]

    def let_go(self) -> None:
        """It is never bound anew."""

    def rebind(self, port: int) -> None:
        """Nothing is lost here that could come back."""

    def close(self) -> None:
        """Stay for the next guest; raises AssertionError if more has left than was sent."""
        with contextlib.suppress(BlockingIOError):
            while True:
                name = self._outside.recvfrom(_SIZE)[1][0]
                assert name not in _OUTER, "a frame left twice"


@cache
def wires(driver: str, workers: int) -> Wires:
    """Return the process's; they are made once."""
    return Wires(driver, workers)


class WiredGuest(Guest):
    """A guest at the end of wires."""

    driver_name, workers = "packet", 1

    def _open_driver(self) -> tuple[Any, Any]:
        made = wires(self.driver_name, self.workers)
        made.reservation.array[:OWN_MEMORY] = 0
        return made, made.reservation.array

    def close(self) -> None:
        self.driver.close()

    def _ipvsadm(self, words: list[str], text: str) -> Result:
        result = super()._ipvsadm(words, text)
        services = self.manager.copy_services().values()
        local = self.manager.own.local
        claims = {claim for service in services for claim in claims_of(service, local)}
        elements = {element for claim in claims for element in elements_of(claim)}
        self.driver.claim(elements, self.manager.own.pool)
        return result
