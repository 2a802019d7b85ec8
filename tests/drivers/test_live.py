"""Rings shared with the kernel, whose part is played here: what is taken, sent and given back."""

import socket
import struct

import numpy as np
import pytest

from pylvs.drivers import linux, live, packet_ring, tuntap, xdp
from pylvs.drivers.chunks import CHUNK_SIZE, UMEM
from pylvs.errors import HostError
from pylvs.frames import BATCH_SIZE, BORN_LIMIT, FRAME, HEADROOM, NONE
from pylvs.jit import records
from pylvs.wire import ethernet
from tests.packets import ip_packet, tcp, tcp_frame, udp_frame

CHUNKS = 8
RING_SPACE = 1 << 17
PACKETS_AT = 5 * RING_SPACE
UMEM_AT = PACKETS_AT + (1 << 20)  # chunks lie behind all rings
VNET_AT = 200  # in a slot
CLIENT, VIP = "198.51.100.7", "192.0.2.10"


class Kernel:
    """One interface's rings in plain memory; ``put`` and ``take`` are the kernel's part."""

    def __init__(self, receives=True, chunks=CHUNKS):
        self.memory = np.zeros(UMEM_AT + chunks * CHUNK_SIZE, np.uint8)
        self.frames = records(FRAME, BATCH_SIZE + BORN_LIMIT)
        self.sockets, self.umem = records(xdp.SOCKET, 1), records(UMEM, 1)
        entry = self.sockets[0]
        entry["descriptor"], entry["receives"] = -1, receives
        for number, ring in enumerate(xdp.RINGS):
            for place, offset in (("produced", 0), ("consumed", 64), ("wakes", 128)):
                entry[f"{ring}_{place}"] = number * RING_SPACE + offset
            entry[f"{ring}_entries"] = number * RING_SPACE + 256
        umem = self.umem[0]
        umem["begin"], umem["end"] = UMEM_AT, UMEM_AT + chunks * CHUNK_SIZE
        umem["spare"], umem["spare_count"] = 4 * RING_SPACE, chunks
        umem["level"] = xdp.RING_ENTRIES
        self.memory[4 * RING_SPACE :][: 4 * chunks].view(np.uint32)[:] = range(chunks)
        self.rings = records(packet_ring.RING, 2)
        for kind in (packet_ring.SMALL, packet_ring.LARGE):
            ring = self.rings[kind]
            ring["descriptor"] = -1
            ring["begin"] = ring["at"] = PACKETS_AT + (kind << 19)
            ring["slot_size"], ring["slots_per_block"], ring["left"] = 4_096, 2, 2
            ring["block_size"], ring["blocks"] = 3 * 4_096, 3
            ring["xdp"] = 0 if kind == packet_ring.SMALL else NONE
        self.slots = [0, 0]
        self.queues = records(tuntap.QUEUE, 0)

    @property
    def places(self):
        return self.rings, self.sockets, self.umem, self.queues

    def counter(self, ring, which):
        at = int(self.sockets[0][f"{ring}_{which}"])
        return self.memory[at : at + 4].view(np.uint32)

    def entries(self, ring, size):
        at = int(self.sockets[0][f"{ring}_entries"])
        kind = np.uint64
        return self.memory[at : at + xdp.RING_ENTRIES * size].view(kind).reshape(-1, size // 8)

    def waiting(self):
        """Return how many chunks there are to fill."""
        filled = self.counter("filling", "consumed")[0]
        return int(self.counter("filling", "produced")[0]) - int(filled)

    def receive_xdp(self, data):
        """Fill the next chunk of the fill ring, as the kernel does."""
        assert self.waiting(), "no chunk to fill"
        filled = self.counter("filling", "consumed")
        chunk = int(self.entries("filling", 8)[filled[0] % xdp.RING_ENTRIES][0])
        filled[0] += 1
        address = chunk + linux.XDP_PACKET_HEADROOM
        self.memory[UMEM_AT + address :][: len(data)] = np.frombuffer(data, np.uint8)
        produced = self.counter("received", "produced")
        self.entries("received", 16)[produced[0] % xdp.RING_ENTRIES] = address, len(data)
        produced[0] += 1

    def send_xdp(self):
        """Take what is in the send ring and complete it."""
        sent = []
        consumed, done = self.counter("sending", "consumed"), self.counter("completed", "produced")
        while consumed[0] != self.counter("sending", "produced")[0]:
            address, length = map(int, self.entries("sending", 16)[consumed[0] % xdp.RING_ENTRIES])
            sent.append(self.memory[UMEM_AT + address :][:length].tobytes())
            self.entries("completed", 8)[done[0] % xdp.RING_ENTRIES] = address
            consumed[0] += 1
            done[0] += 1
        return sent

    def receive_packet(self, kind, data, time_ns, vnet=bytes(10)):
        """Fill the next slot of a packet ring."""
        number = self.slots[kind] % 6
        self.slots[kind] += 1
        ring = self.rings[kind]
        slot = int(ring["begin"]) + number // 2 * int(ring["block_size"]) + number % 2 * 4_096
        assert self.memory[slot : slot + 4].view(np.uint32)[0] == linux.STATUS_KERNEL
        header = struct.pack(
            "<IIIHHII", 1, len(data), len(data), VNET_AT, 0, *divmod(time_ns, 10**9)
        )
        body = vnet + data
        self.memory[slot : slot + len(header)] = np.frombuffer(header, np.uint8)
        self.memory[slot + VNET_AT - 10 :][: len(body)] = np.frombuffer(body, np.uint8)

    def receive(self, limit=BATCH_SIZE):
        address = self.memory.ctypes.data
        return live.receive(self.memory, address, *self.places, self.frames, limit, 512)

    def bytes_of(self, row):
        frame = self.frames[row]
        return self.memory[int(frame["offset"]) :][: int(frame["length"])].tobytes()

    def transmit(self, *rows):
        for k, row in enumerate(rows):
            self.frames[k]["leaves"] = row
        address = self.memory.ctypes.data
        return live.transmit(self.memory, address, *self.places, self.frames, len(rows))

    def release(self, count):
        live.release(self.memory, self.umem, self.frames, count)


def test_chunks_that_gather_at_one_worker_are_for_all():
    chunks = 600
    kernel, mutex = Kernel(chunks=chunks), linux.Mutex()
    umem, entry = kernel.umem[0], kernel.sockets[0]
    umem["lock"], umem["reserve"] = mutex.address, 4 * RING_SPACE + 4 * chunks
    reserve = kernel.memory[int(umem["reserve"]) :][: 4 * (chunks + 1)].view(np.uint32)
    reserve[0], reserve[1:], umem["spare_count"] = chunks, range(chunks), 0
    assert kernel.receive() == 0
    assert (kernel.waiting(), reserve[0], umem["spare_count"]) == (chunks, 0, 0)
    for _ in range(chunks):
        kernel.receive_xdp(bytes(60))
    entry["receives"] = False  # a worker who only sends: it keeps no more than it needs
    while count := kernel.receive():
        assert kernel.transmit(*range(count)) == 0
        kernel.release(count)
    assert len(kernel.send_xdp()) == chunks
    kernel.receive()
    kept = int(umem["spare_count"])
    assert 0 < kept <= BATCH_SIZE
    assert reserve[0] + kept == chunks
    entry["receives"] = True
    kernel.receive()
    assert (kernel.waiting(), reserve[0], umem["spare_count"]) == (chunks, 0, 0)
    filled = kernel.entries("filling", 8)[chunks:][:chunks, 0]
    assert len(set(filled.tolist())) == chunks


def test_a_frame_leaves_in_a_chunk_of_the_reserve():
    kernel, mutex = Kernel(receives=False), linux.Mutex()
    umem = kernel.umem[0]
    umem["lock"], umem["reserve"] = mutex.address, 5 * RING_SPACE - 4 * (CHUNKS + 1)
    kernel.memory[int(umem["reserve"]) :][:4].view(np.uint32)[0] = CHUNKS
    umem["spare_count"] = 0
    kernel.receive_packet(packet_ring.SMALL, bytes(60), 1)
    assert kernel.receive() == 1
    assert kernel.transmit(0) == 0
    assert kernel.send_xdp() == [bytes(60)]


def test_who_cannot_open_sockets_leaves_others_theirs(monkeypatch):
    def open_one(sockets, row, queue):
        if sockets is workers[1]:
            raise OSError(12, "no memory")
        opened = socket.socket()
        sockets.opened.append(opened)
        shared.pools.setdefault((1, queue.number), opened)

    monkeypatch.setattr(xdp.Sockets, "_open", open_one)
    shared = xdp.Shared(3)
    queues = [xdp.Queue(0, "lo", 0), xdp.Queue(0, "lo", 1)]
    workers = [xdp.Sockets(queues, True, shared) for _ in range(3)]
    reservation = linux.Reservation(sum(one.memory_size for one in workers))
    begins = [0, workers[0].memory_size, workers[0].memory_size + workers[1].memory_size]
    workers[0].open(reservation, begins[0])
    reserve = reservation.array[int(workers[0].umem[0]["reserve"]) :][:4].view(np.uint32)
    assert reserve[0] == 2 * xdp.CHUNKS_TO_RECEIVE + 3 * xdp.CHUNKS_TO_SEND
    reserve[0] = 7  # the rest is in use
    with pytest.raises(HostError, match="queue 0 of lo: no memory"):
        workers[1].open(reservation, begins[1])
    workers[2].open(reservation, begins[2])
    assert reserve[0] == 7
    for name in ("begin", "end", "reserve", "lock", "level"):
        assert len({int(one.umem[0][name]) for one in workers}) == 1
    for one in workers:
        one.close()
    assert shared.pools == {}


def known(frame):
    """Say of a row what parsing would: where the packet is, and how large."""
    frame["ip"] = int(frame["offset"]) + ethernet.HEADER_SIZE
    frame["packet_size"] = int(frame["length"]) - ethernet.HEADER_SIZE
    frame["protocol"] = 6


def test_chunks_go_round():
    kernel = Kernel()
    assert kernel.receive() == 0
    for turn in range(3 * CHUNKS):
        data = udp_frame(CLIENT, VIP, 40_000 + turn, 80)
        kernel.receive_xdp(data)
        assert kernel.receive() == 1
        assert kernel.bytes_of(0) == data
        if turn % 2:  # else it is dropped
            assert kernel.transmit(0) == 0
            assert kernel.frames[0]["slot"] == NONE
            assert kernel.send_xdp() == [data]
        kernel.release(1)
    kernel.receive()
    assert kernel.waiting() == CHUNKS


def test_a_chunk_that_is_being_sent_is_not_given_away():
    kernel = Kernel()
    kernel.receive()
    for _ in range(CHUNKS):
        kernel.receive_xdp(bytes(60))
    assert kernel.receive() == CHUNKS
    assert kernel.transmit(*range(CHUNKS)) == 0
    kernel.release(CHUNKS)
    assert kernel.receive() == 0
    assert kernel.waiting() == kernel.umem[0]["spare_count"] == 0
    assert len(kernel.send_xdp()) == CHUNKS
    kernel.receive()
    assert kernel.waiting() == CHUNKS


@pytest.mark.parametrize("size", [0, 1, 500, 1_400])
def test_a_checksum_that_its_sender_left_is_finished(size):
    kernel = Kernel()
    kernel.receive()
    whole = tcp_frame(CLIENT, VIP, 40_000, 80, "PA", (bytes(range(250)) * 6)[:size])
    total = sum(struct.unpack(">4H", whole[26:34])) + 6 + len(whole) - 34
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    unfinished = whole[:50] + total.to_bytes(2, "big") + whole[52:]
    kernel.receive_xdp(unfinished)
    kernel.receive_xdp(whole)
    assert kernel.receive() == 2
    assert [int(kernel.frames[row]["checksum_start"]) for row in (0, 1)] == [34, 0]
    for row in (0, 1):
        known(kernel.frames[row])
    kernel.transmit(0, 1)
    assert kernel.send_xdp() == [whole, whole]


@pytest.mark.parametrize("size", [60, 61, 67, 1_514])
def test_frames_of_packet_rings_leave_as_copies(size):
    kernel = Kernel(receives=False)
    data = bytes(n * 7 & 0xFF for n in range(size))
    kernel.receive_packet(packet_ring.SMALL, data, 1)
    assert kernel.receive() == 1
    assert kernel.transmit(0) == 0
    kernel.release(1)
    assert kernel.umem[0]["spare_count"] == CHUNKS - 1
    assert kernel.send_xdp() == [data]
    kernel.receive()
    assert kernel.umem[0]["spare_count"] == CHUNKS


def test_without_a_chunk_a_frame_takes_the_other_way():
    kernel = Kernel(receives=False)
    kernel.umem[0]["spare_count"] = 0
    kernel.receive_packet(packet_ring.SMALL, bytes(60), 1)
    assert kernel.receive() == 1
    assert kernel.transmit(0) == 1  # to a packet socket that there is not


def test_frames_that_stand_for_many_are_not_for_xdp():
    kernel = Kernel(receives=False)
    gso = struct.pack("<BBHHHH", 1, 1, 54, 1_400, 34, 16)
    kernel.receive_packet(packet_ring.LARGE, bytes(3_000), 1, gso)
    assert kernel.receive() == 1
    frame = kernel.frames[0]
    assert (frame["segment_size"], frame["checksum_start"]) == (1_400, 34)
    assert kernel.transmit(0) == 1
    assert kernel.send_xdp() == []


def test_both_packet_rings_are_taken_from_in_the_order_of_their_times():
    kernel = Kernel()
    small, large = packet_ring.SMALL, packet_ring.LARGE
    order = [
        (large, 5),
        (small, 6),
        (small, 2_000_000_000),
        (large, 2_000_000_001),
        (small, 3 * 10**9),
    ]
    for turn in range(4):
        for kind, time_ns in sorted(order):
            kernel.receive_packet(kind, bytes([turn]) * (60 + 1_000 * kind), time_ns)
        assert kernel.receive() == len(order)
        lengths = [int(kernel.frames[row]["length"]) for row in range(len(order))]
        assert lengths == [60 + 1_000 * kind for kind, _ in order]
        assert all(set(kernel.bytes_of(row)) == {turn} for row in range(len(order)))
        kernel.release(len(order))


@pytest.mark.parametrize("link_header", [0, ethernet.HEADER_SIZE])
def test_a_tap_and_a_tun_device_carry_offloads(link_header):
    kernel = Kernel()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setblocking(False)
        kernel.queues = records(tuntap.QUEUE, 1)
        queue = kernel.queues[0]
        queue["descriptor"], queue["link_header"] = near.fileno(), link_header
        # Slots are as large as the largest frame: only the first is used here.
        queue["slots"] = PACKETS_AT
        packet = ip_packet(CLIENT, VIP, 6, tcp(CLIENT, VIP, 40_000, 80, "PA", bytes(3_000)))
        link = bytes(12) + b"\x08\x00"
        body = packet if link_header else link + packet
        begin = 14 - link_header
        vnet = struct.pack("<BBHHHH", 1, 1, begin + 40, 1_400, begin + 20, 16)
        far.send(vnet + body)
        assert kernel.receive() == 1
        frame = kernel.frames[0]
        assert kernel.bytes_of(0) == link + packet
        assert (frame["checksum_start"], frame["checksum_field"]) == (34, 16)
        assert (frame["segment_header"], frame["segment_size"]) == (54, 1_400)
        assert frame["offset"] == PACKETS_AT + HEADROOM
        assert kernel.transmit(0) == 0
        assert far.recv(70_000) == vnet + body
        kernel.release(1)
        assert kernel.receive() == 0
