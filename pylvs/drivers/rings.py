"""Frames of real interfaces: a packet ring for each, and XDP sockets for what they are fast at.

    interface -> XDP program -> claimed? -> XDP socket --+                 +-> XDP socket
                     |                                   +-> frames -> ... +
                     +-> host, packet ring --------------+                 +-> GSO: packet socket

Without a program the packet rings have it all.  With one they have what it does not take, so what
the director can do is the same by either.
"""

import logging
import socket
from collections.abc import Sequence
from typing import Any

from pylvs.drivers import linux, packet_ring, xdp
from pylvs.drivers.base import Port
from pylvs.drivers.filter import Filter
from pylvs.errors import HostError
from pylvs.frames import NONE
from pylvs.jit import compiled, door, records

log = logging.getLogger("pylvs")

Groups = dict[tuple[int, int], int]
"""The fan-out group of each ring, by its row and its interface's index."""


@compiled
def receive_all(memory, rings, sockets, umem, frames, limit, segments):
    """Take what waits everywhere; a ring that is always full leaves room for the others."""
    count = 0
    for row in range(sockets.size):
        xdp.recycle(memory, umem[0], sockets[row])
        share = count + (limit - count + 1) // 2
        count = xdp.receive_from(memory, umem[0], sockets[row], frames, count, share)
    left = segments
    ports = rings.size // packet_ring.RINGS_PER_PORT
    for port in range(ports):
        share = limit if port == ports - 1 else count + (limit - count + 1) // 2
        count, left = packet_ring.receive_from(memory, rings, port, frames, count, share, left)
    return count


@compiled
def send_leaving(memory, address, rings, sockets, umem, frames, leaving):
    """Send what leaves, in order, from where it lies; return how many the kernel refused.

    ``address`` is where ``memory`` begins in the process.
    """
    refused = 0
    for k in range(leaving):
        frame = frames[frames[k].leaves]
        ring = rings[packet_ring.RINGS_PER_PORT * frame.port_out]
        if ring.xdp != NONE:
            entry = sockets[ring.xdp]
            if xdp.takes(frame):
                if not xdp.lies_in_chunk(umem[0], frame):
                    if xdp.send_copy(memory, umem[0], entry, frame):
                        continue
                elif xdp.send(memory, umem[0], entry, frame):
                    frame.slot = NONE  # the chunk comes back when it was sent
                    continue
            if entry.pending:
                xdp.kick(memory, entry)
        if not packet_ring.send(memory, address, ring, frame):
            refused += 1
    for row in range(sockets.size):
        if sockets[row].pending:
            xdp.kick(memory, sockets[row])
    return refused


@compiled
def release_slots(memory, umem, frames, count):
    """Give back the places of the first ``count`` received frames."""
    for row in range(count):
        slot = frames[row].slot
        if slot >= umem[0].begin:
            xdp.spare(memory, umem[0], slot)
        elif slot != NONE:
            packet_ring.release(memory, slot)


@door
def receive(memory, rings, sockets, umem, frames, limit, segments):
    return receive_all(memory, rings, sockets, umem, frames, limit, segments)


@door
def transmit(memory, address, rings, sockets, umem, frames, leaving):
    return send_leaving(memory, address, rings, sockets, umem, frames, leaving)


@door
def release(memory, umem, frames, count):
    release_slots(memory, umem, frames, count)


class Rings:
    """A driver: interfaces' packet rings, and XDP sockets to send by.

    With a ``Filter`` for XDP they receive as well.  ``segments`` is how many segments the GSO
    frames of one batch may stand for.  One of several ``workers`` has its share of the flows, by
    the fan-out ``groups`` that all of them know, and of the queues.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        segments: int,
        claimed: Filter | None = None,
        worker: int = 0,
        workers: int = 1,
        groups: Groups | None = None,
    ) -> None:
        self.ports: list[Port] = []
        self.segments = segments
        self._worker, self._workers = worker, workers
        self._groups: Groups = {} if groups is None else groups
        self._packet_sockets: list[socket.socket] = []
        self._filter = claimed
        self._receives_by_xdp = claimed is not None and claimed.xdp
        self._xdp = xdp.Sockets([], False)
        try:
            for name in interfaces:
                self.ports.append(packet_ring.port_of(name))
                for _ in range(packet_ring.RINGS_PER_PORT):
                    self._packet_sockets.append(packet_ring.open_socket(name))
            self._xdp = xdp.Sockets(self._queues(), self._receives_by_xdp)
        except BaseException:
            self.close()
            raise
        self.rings = records(packet_ring.RING, len(self._packet_sockets))
        self.rings["xdp"] = NONE
        self.sockets, self.umem = self._xdp.table, self._xdp.umem
        small = [packet_ring.small_shape(port.mtu) for port in self.ports]
        self._shapes = [each for one in small for each in (one, packet_ring.LARGE_SHAPE)]
        self._rings_size = sum(shape.ring_size for shape in self._shapes)
        self.memory_size = self._rings_size + self._xdp.memory_size
        self._begin = 0
        self._reservation: linux.Reservation | None = None

    def _queues(self) -> list[tuple[int, str, int]]:
        """Return whose XDP sockets there are to be: one to send by, or all to receive by."""
        queues = []
        for row, port in enumerate(self.ports):
            count = xdp.queues_of(port.name)
            if not self._receives_by_xdp:
                queues += [(row, port.name, self._worker)] if self._worker < count else []
                continue
            if port.mtu > xdp.MTU_MAX:
                raise HostError(
                    f"--driver xdp takes an MTU of {xdp.MTU_MAX} at most, {port.name} has "
                    f"{port.mtu}; use --driver packet"
                )
            queues += [(row, port.name, one) for one in range(self._worker, count, self._workers)]
        for row, port in enumerate(self.ports):
            if row not in [queue[0] for queue in queues]:
                log.warning(
                    "%s has fewer queues than there are workers, so worker %d sends more slowly: "
                    "ethtool -L %s rx %d tx %d",
                    *(port.name, self._worker, port.name, self._workers, self._workers),
                )
        return queues

    def attach(self, reservation: linux.Reservation, begin: int) -> None:
        """Make the rings and begin to receive; ``begin`` is a multiple of the page size."""
        self._reservation, self._begin = reservation, begin
        for row in range(len(self._shapes)):
            self._open_ring(row)
        self._open_xdp()

    def _open_ring(self, row: int) -> None:
        assert self._reservation is not None
        opened, shape = self._packet_sockets[row], self._shapes[row]
        name = self.ports[row // packet_ring.RINGS_PER_PORT].name
        at = self._begin + sum(one.ring_size for one in self._shapes[:row])
        packet_ring.make_ring(opened, name, shape)
        self._reservation.map_file(opened.fileno(), at, shape.ring_size)
        ring = self.rings[row]
        ring["descriptor"] = opened.fileno()
        ring["begin"] = ring["at"] = at
        ring["block"] = 0
        for field in ("slot_size", "slots_per_block", "block_size", "blocks"):
            ring[field] = getattr(shape, field)
        ring["left"] = shape.slots_per_block
        opened.bind((name, linux.ETH_P_ALL))
        if self._workers > 1:
            place = row, socket.if_nametoindex(name)
            self._groups[place] = packet_ring.join(opened, self._groups.get(place))
        kind = row % packet_ring.RINGS_PER_PORT
        packet_ring.take(opened, shape, self._shapes[row - 1].longest if kind else 0)

    def _open_xdp(self) -> None:
        assert self._reservation is not None
        try:
            self._xdp.open(self._reservation, self._begin + self._rings_size)
        except HostError as error:
            if self._receives_by_xdp:
                raise
            log.info("%s: frames are sent one by one", error)
            self.sockets = records(xdp.SOCKET, 0)
        else:
            for row, (port, _, _) in reversed([*enumerate(self._xdp.queues)]):
                self.rings[packet_ring.RINGS_PER_PORT * port]["xdp"] = row
        if self._filter is not None:
            self._attach(self._filter)

    def _attach(self, claimed: Filter) -> None:
        """Have the interfaces' programs run, and feed those sockets that receive."""
        try:
            for port in self.ports:
                claimed.attach(port.name, port.mac)
            for row, (_, name, queue) in enumerate(self._xdp.queues if claimed.xdp else ()):
                claimed.feed(name, queue, self._xdp.opened[row].fileno())
        except OSError as error:
            if claimed.xdp:
                raise HostError(
                    f"no XDP program here: {error.strerror}; use --driver packet"
                ) from None
            log.info("no BPF program here (%s): nftables does its work", error.strerror)

    def rebind(self, port: int) -> None:
        """Go on with the interface that has the port's name now; raises OSError, HostError."""
        for row in range(
            packet_ring.RINGS_PER_PORT * port, packet_ring.RINGS_PER_PORT * (port + 1)
        ):
            old = self._packet_sockets[row]
            self._packet_sockets[row] = packet_ring.open_socket(self.ports[port].name)
            self._open_ring(row)
            old.close()
        self.rings["xdp"] = NONE
        self._xdp.close()
        self.sockets = self._xdp.table
        self._open_xdp()

    def receive(self, frames: Any, limit: int) -> int:
        assert self._reservation is not None
        memory, places = self._reservation.array, (self.rings, self.sockets, self.umem)
        return int(receive(memory, *places, frames, limit, self.segments))

    def transmit(self, frames: Any, leaving: int) -> int:
        assert self._reservation is not None
        memory, address = self._reservation.array, self._reservation.address
        places = (self.rings, self.sockets, self.umem)
        return int(transmit(memory, address, *places, frames, leaving))

    def release(self, frames: Any, count: int) -> None:
        assert self._reservation is not None
        release(self._reservation.array, self.umem, frames, count)

    def descriptors(self) -> list[int]:
        return [one.fileno() for one in (*self._packet_sockets, *self._xdp.opened)]

    def clear_errors(self) -> None:
        """Take the pending error from every socket (ENETDOWN, told once when a link goes down)."""
        for opened in (*self._packet_sockets, *self._xdp.opened):
            opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        for opened in self._packet_sockets:
            opened.close()
        self._xdp.close()
