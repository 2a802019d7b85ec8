"""Frames from and to the system, moved in compiled code: interfaces, TAP and TUN devices.

    interface -> BPF program -> claimed? -> XDP socket --+                 +-> XDP socket
                     |                                   +-> frames -> ... +
                     +-> host, packet rings -------------+                 +-> GSO: packet socket

Without XDP the packet rings have it all.  With it they have what the program does not take, so what
the director can do is the same by either.  A TAP or TUN device's queue stands for all of them.
"""

import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from pylvs.drivers import chunks, linux, packet_ring, tuntap, xdp
from pylvs.drivers.base import SLOT_SIZE, SLOTS, Port
from pylvs.drivers.programs.filter import Filter
from pylvs.errors import HostError
from pylvs.frames import NONE
from pylvs.jit import compiled, door, records
from pylvs.wire import ethernet

log = logging.getLogger("pylvs")


class Common:
    """What the drivers of several workers share."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.groups: dict[tuple[int, int], int] = {}
        """Fan-out groups, by the first row of their rings and their interface's index."""
        self.xdp = xdp.Shared(workers) if workers > 1 else None


@compiled
def receive_all(memory, address, rings, sockets, umem, queues, frames, limit, segments):
    """Take what waits everywhere: of each ring a share first, then what is left to be had.

    ``address`` is where ``memory`` begins in the process.
    """
    if queues.size:
        return tuntap.receive_from(memory, address, queues[0], frames, limit, segments)
    count = 0
    for row in range(sockets.size):
        xdp.recycle(memory, umem[0], sockets[row])
        share = count + max(1, limit // (sockets.size + 1))
        count = xdp.receive_from(memory, umem[0], sockets[row], frames, count, share)
    left = segments
    ports = rings.size // packet_ring.RINGS_PER_PORT
    for port in range(ports):
        share = limit if port == ports - 1 else count + (limit - count + 1) // 2
        count, left = packet_ring.receive_from(memory, rings, port, frames, count, share, left)
    for row in range(sockets.size):
        count = xdp.receive_from(memory, umem[0], sockets[row], frames, count, limit)
    return count


@compiled
def send_leaving(memory, address, rings, sockets, umem, queues, frames, leaving):
    """Send what leaves, in order, from where it lies; return how many the kernel refused."""
    refused = 0
    for k in range(leaving):
        frame = frames[frames[k].leaves]
        if queues.size:
            sent = tuntap.send(memory, address, queues[0], frame)
        else:
            sent = _send(memory, address, rings, sockets, umem, frame)
        if not sent:
            refused += 1
    for row in range(sockets.size):
        if sockets[row].pending:
            xdp.kick(memory, sockets[row])
    return refused


@compiled
def _send(memory, address, rings, sockets, umem, frame):
    """Send a frame by its interface's XDP socket, or its packet socket; return whether it left."""
    ring = rings[packet_ring.RINGS_PER_PORT * frame.port_out]
    if ring.xdp != NONE:
        entry = sockets[ring.xdp]
        if xdp.takes(frame):
            if not xdp.lies_in_chunk(umem[0], frame):
                if xdp.send_copy(memory, umem[0], entry, frame):
                    return True
            elif xdp.send(memory, umem[0], entry, frame):
                frame.slot = NONE  # the chunk comes back when it was sent
                return True
        if entry.pending:
            xdp.kick(memory, entry)
    return packet_ring.send(memory, address, ring, frame)


@compiled
def count_pending(sockets):
    """Return how many frames wait that the kernel did not take."""
    count = 0
    for row in range(sockets.size):
        count += sockets[row].pending
    return count


@compiled
def release_slots(memory, umem, frames, count):
    """Give back the places of the first ``count`` received frames."""
    for row in range(count):
        slot = frames[row].slot
        if chunks.holds(umem[0], slot):
            chunks.take_back(memory, umem[0], slot)
        elif slot != NONE:
            packet_ring.release(memory, slot)


@door
def receive(memory, address, rings, sockets, umem, queues, frames, limit, segments):
    return receive_all(memory, address, rings, sockets, umem, queues, frames, limit, segments)


@door
def transmit(memory, address, rings, sockets, umem, queues, frames, leaving):
    return send_leaving(memory, address, rings, sockets, umem, queues, frames, leaving)


@door
def release(memory, umem, frames, count):
    release_slots(memory, umem, frames, count)


def _no_program(error: OSError) -> HostError:
    return HostError(f"no XDP program here: {error.strerror}; use --driver packet")


class Live:
    """A driver whose frames compiled code moves: where it finds them."""

    def __init__(self, segments: int) -> None:
        self.ports: list[Port] = []
        self.segments = segments
        self.memory_size = 0
        self.rings = records(packet_ring.RING, 0)
        self.sockets, self.umem = records(xdp.SOCKET, 0), records(chunks.UMEM, 1)
        self.queues = records(tuntap.QUEUE, 0)
        self._begin = 0
        self._reservation: linux.Reservation | None = None

    @property
    def places(self) -> tuple[Any, ...]:
        """What ``receive`` and ``transmit`` take of it."""
        return self.rings, self.sockets, self.umem, self.queues

    def receive(self, frames: Any, limit: int) -> int:
        assert self._reservation is not None
        where = self._reservation.array, self._reservation.address
        return int(receive(*where, *self.places, frames, limit, self.segments))

    def transmit(self, frames: Any, leaving: int) -> int:
        assert self._reservation is not None
        where = self._reservation.array, self._reservation.address
        return int(transmit(*where, *self.places, frames, leaving))

    def release(self, frames: Any, count: int) -> None:
        assert self._reservation is not None
        release(self._reservation.array, self.umem, frames, count)

    def attach(self, reservation: linux.Reservation, begin: int) -> None:
        """Begin to receive; ``begin`` is a multiple of the page size."""
        self._reservation, self._begin = reservation, begin

    def let_go(self) -> None:
        """Nothing is shared here."""

    def rebind(self, port: int) -> None:
        """Nothing is lost here that could come back."""

    def descriptors(self) -> list[int]:
        raise NotImplementedError

    def clear_errors(self) -> None:
        """Take the errors that sockets have to tell."""

    def close(self) -> None:
        raise NotImplementedError


class TunTap(Live):
    """A TAP (``layer`` 2) or TUN (3) device; one of several workers has a queue of it."""

    def __init__(self, name: str, segments: int, layer: int = 2, workers: int = 1) -> None:
        super().__init__(segments)
        self._device, port = tuntap.open_device(name, layer, workers > 1)
        self.ports.append(port)
        self.memory_size = linux.page_up(SLOTS * SLOT_SIZE)
        self.queues = records(tuntap.QUEUE, 1)
        self.queues[0]["descriptor"] = self._device.fileno()
        self.queues[0]["link_header"] = ethernet.HEADER_SIZE if port.raw_ip else 0

    def attach(self, reservation: linux.Reservation, begin: int) -> None:
        super().attach(reservation, begin)
        self.queues[0]["slots"] = begin

    def descriptors(self) -> list[int]:
        return [self._device.fileno()]

    def close(self) -> None:
        self._device.close()


class Rings(Live):
    """A driver: interfaces' packet rings, and XDP sockets to send by.

    With a ``Filter`` for XDP they receive as well.  ``segments`` is how many segments the GSO
    frames of one batch may stand for.  One of several workers gets its share of the connections:
    by the fan-out groups and the XDP sockets that they have in ``common``.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        segments: int,
        claimed: Filter | None = None,
        worker: int = 0,
        common: Common | None = None,
    ) -> None:
        super().__init__(segments)
        self._worker = worker
        self._common = common or Common(1)
        self._packet_sockets: list[socket.socket] = []
        self._filter = claimed
        self._receives_by_xdp = claimed is not None and claimed.xdp
        self._xdp = xdp.Sockets([], False)
        try:
            for name in interfaces:
                self.ports.append(packet_ring.port_of(name))
                for _ in range(packet_ring.RINGS_PER_PORT):
                    self._packet_sockets.append(packet_ring.open_socket(name))
            shared = self._common.xdp if self._receives_by_xdp else None
            self._xdp = xdp.Sockets(self._queues(), self._receives_by_xdp, shared)
        except BaseException:
            self.close()
            raise
        self.rings = records(packet_ring.RING, len(self._packet_sockets))
        self.rings["xdp"] = NONE
        self.sockets, self.umem = self._xdp.table, self._xdp.umem
        small = [packet_ring.small_shape(port.mtu) for port in self.ports]
        self._shapes = [each for one in small for each in (one, packet_ring.LARGE_SHAPE)]
        if claimed is not None:
            claimed.share({shape.longest for shape in small})
        self._rings_size = sum(shape.ring_size for shape in self._shapes)
        self.memory_size = self._rings_size + self._xdp.memory_size

    def _queues(self) -> list[xdp.Queue]:
        """Return whose XDP sockets there are to be: one to send by, or all to receive by.

        The first one of an interface is to send by.
        """
        queues = []
        worker, workers = self._worker, self._common.workers
        for row, port in enumerate(self.ports):
            count = xdp.queues_of(port.name, "rx" if self._receives_by_xdp else "tx")
            if self._receives_by_xdp:
                if port.mtu > xdp.MTU_MAX:
                    raise HostError(
                        f"--driver xdp takes an MTU of {xdp.MTU_MAX} at most, {port.name} has "
                        f"{port.mtu}; use --driver packet"
                    )
                numbers = ((worker + one) % count for one in range(count))
                queues += [xdp.Queue(row, port.name, one) for one in numbers]
            elif worker < count:
                queues.append(xdp.Queue(row, port.name, worker))
            else:
                log.warning(
                    "%s has fewer queues than there are workers, so worker %d sends more slowly: "
                    "ethtool -L %s rx %d tx %d",
                    *(port.name, worker, port.name, workers, workers),
                )
        return queues

    def attach(self, reservation: linux.Reservation, begin: int) -> None:
        super().attach(reservation, begin)
        try:
            self._attach_programs()
        except OSError as error:
            assert self._filter is not None
            if self._filter.xdp:
                raise _no_program(error) from None
            log.info("no BPF program here (%s): nftables does its work", error.strerror)
            self._filter.give_up()
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
        first = row - row % packet_ring.RINGS_PER_PORT
        if self._common.workers > 1:
            self._join(opened, name, row, first)
        shortest = self._shapes[first].longest if row > first else 0
        if self._filter is not None and self._filter.offload is not None:
            try:
                self._filter.offload.take(opened, shortest, shape.longest or None)
                return
            except OSError as error:
                self._filter.give_up_offload(error.strerror)
        packet_ring.take(opened, shape, shortest)

    def _join(self, opened: socket.socket, name: str, row: int, first: int) -> None:
        """Have a ring's socket share frames with the other workers'.

        A program tells small frames from large ones as well, so that there is one group of all of
        an interface's rings: each group costs the kernel 0.2 us a frame.  It counts on their order,
        which is that of joining, also after the link was down.
        """
        begin, program = row, None
        if self._filter is not None and self._filter.fanout is not None:
            begin, program = first, self._filter.fanout.program(self._shapes[first].longest)
        groups, place = self._common.groups, (begin, socket.if_nametoindex(name))
        groups[place] = packet_ring.join(opened, groups.get(place), program)

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
            self.sockets = self._xdp.table
            for row, queue in reversed([*enumerate(self._xdp.present)]):
                if queue.number < xdp.queues_of(queue.interface, "tx"):  # or nothing would leave
                    self.rings[packet_ring.RINGS_PER_PORT * queue.port]["xdp"] = row
        if self._receives_by_xdp:
            self._feed()

    def _attach_programs(self) -> None:
        """Have the interfaces' programs run: before their packet sockets count on them."""
        if self._filter is None:
            return
        for port in self.ports:
            if os.path.exists(f"/sys/class/net/{port.name}"):
                self._filter.attach(port.name, packet_ring.port_of(port.name).mac)

    def _feed(self) -> None:
        """Have the programs feed the XDP sockets that receive."""
        assert self._filter is not None
        try:
            for queue, opened in zip(self._xdp.present, self._xdp.opened, strict=True):
                where = queue.interface, queue.number, self._worker
                self._filter.feed(*where, opened.fileno())
        except OSError as error:
            raise _no_program(error) from None

    def let_go(self) -> None:
        self._common.groups.clear()  # there may be none of that number any more
        self.rings["xdp"] = NONE
        self._xdp.close()
        self.sockets = records(xdp.SOCKET, 0)

    def rebind(self, port: int) -> None:
        """Go on with the interface that has the port's name now; raises OSError, HostError."""
        self._attach_programs()
        for row in range(
            packet_ring.RINGS_PER_PORT * port, packet_ring.RINGS_PER_PORT * (port + 1)
        ):
            with self._packet_sockets[row]:  # closed when the new ring is in its place
                self._packet_sockets[row] = packet_ring.open_socket(self.ports[port].name)
                self._open_ring(row)
        self._open_xdp()

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
