"""AF_XDP: sockets with four rings each, over one memory of chunks that they all share (UMEM).

    spare chunks -> fill ring -> kernel -> receive ring -> a frame -> send ring -> kernel
         ^  |                                  |               ^                     |
         |  +--- a copy of a frame from elsewhere -------------+                     |
         +-------------------------------------+------- completion ring <------------+

    chunk | 256 of headroom | Ethernet frame ... |

Several workers have a socket each at every queue, so that each gets its own connections' frames
whichever queue they come by (``programs.filter`` chooses).  A queue has one fill and one completion
ring, which they see to in turn, whoever is awake, and leave each other spare chunks in the reserve.

A socket that only sends needs no program and no bpf, and takes 0.8 us a frame where sendto takes
1.8 and sendmmsg 1.2 (veth): what a packet ring received leaves by one, unless it stands for many.
The offload state that a packet socket tells is not to be had here: a checksum that its sender left
unfinished is known by its field, which holds the pseudo-header's sum, and is finished before the
frame leaves.  Source: Documentation/networking/af_xdp.rst, linux/if_xdp.h.
"""

import errno
import os
import socket
import struct
import time
from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.drivers import chunks, linux
from pylvs.drivers.chunks import CHUNK_SIZE, KEPT, UMEM
from pylvs.errors import HostError
from pylvs.forwarding.segments import finish_checksum
from pylvs.jit import barrier, compiled, records
from pylvs.wire import ethernet, ip, ipv4, ipv6, transport
from pylvs.wire.checksum import fold
from pylvs.wire.memory import (
    copy_words,
    load_native_u32,
    load_native_u64,
    load_u8,
    load_u16,
    store_native_u32,
    store_native_u64,
)

MTU_MAX: Final = CHUNK_SIZE - linux.XDP_PACKET_HEADROOM - ethernet.HEADER_SIZE - 64
RING_ENTRIES: Final = 4_096
CHUNKS_TO_RECEIVE: Final = 2 * RING_ENTRIES  # a queue: a full fill ring, and as many on their way
_CHUNKS_LIMIT: Final = 8 * CHUNKS_TO_RECEIVE
"""Of all queues, 256 MB; and the kernel notes each chunk for each queue, in 136 bytes."""
_CHUNKS_MIN: Final = 512
"""Of a queue, however many there are."""
CHUNKS_TO_SEND: Final = 512
"""2 MB, so that four interfaces get by with the memory that anybody may lock."""
_MASK: Final = RING_ENTRIES - 1
_COUNTER: Final = 0xFFFF_FFFF
_DESCRIPTION: Final = 16  # struct xdp_desc: address u64, length u32, options u32
_TRIES, _TRY_S = 100, 0.01
_KICKS: Final = 64
"""Calls that have the kernel send: it takes 32 frames a call."""

RINGS: Final = ("received", "sending", "filling", "completed")
"""In the order in which the kernel tells their layouts."""
_PLACES: Final = ("produced", "consumed", "entries", "wakes")

SOCKET: Final = np.dtype(
    [
        ("descriptor", np.int64),
        ("port", np.int64),
        ("receives", np.int64),
        ("pending", np.int64),  # frames in the send ring that the kernel has not taken
        # Where each ring's counters, entries and need for a call lie in memory.
        *((f"{ring}_{place}", np.int64) for ring in RINGS for place in _PLACES),
    ]
)


@compiled
def receive_from(memory, umem, entry, frames, count, limit):
    """Take what waits in one socket into ``frames[count .. limit]``; return the new count."""
    produced = load_native_u32(memory, entry.received_produced)
    consumed = load_native_u32(memory, entry.received_consumed)
    if produced == consumed:
        return count
    barrier()
    while consumed != produced and count < limit:
        at = entry.received_entries + (consumed & _MASK) * _DESCRIPTION
        frame = frames[count]
        address = load_native_u64(memory, at)
        frame.offset = umem.begin + address
        frame.length = load_native_u32(memory, at + 8)
        frame.port_in = entry.port
        frame.slot = umem.begin + address // CHUNK_SIZE * CHUNK_SIZE
        frame.tagged = 0
        frame.segment_kind = 0
        frame.segment_size = 0
        frame.segment_header = 0
        _find_unfinished(memory, frame)
        consumed = (consumed + 1) & _COUNTER
        count += 1
    barrier()
    store_native_u32(memory, entry.received_consumed, consumed)
    return count


@compiled
def _find_unfinished(memory, frame):
    """Note a checksum that is the sum of the pseudo-header alone.

    One in 65,536 right ones looks the same, and finishing it makes it what it was.
    """
    frame.checksum_start = 0
    at = frame.offset + ethernet.HEADER_SIZE
    if load_u16(memory, frame.offset + ethernet.TYPE) == ethernet.IPV4:
        header, protocol = ipv4.HEADER_SIZE, load_u8(memory, at + ipv4.PROTOCOL)
    else:
        header, protocol = ipv6.HEADER_SIZE, load_u8(memory, at + ipv6.NEXT_HEADER)
    field = transport.TCP_CHECKSUM if protocol == ipv4.TCP else transport.UDP_CHECKSUM
    if frame.length < ethernet.HEADER_SIZE + header + field + 2:
        return
    found = load_u16(memory, at + header + field)
    size = ip.size_of(memory, at) - header
    if found and found == fold(transport.pseudo_header(memory, at, protocol, size)):
        frame.checksum_start = ethernet.HEADER_SIZE + header
        frame.checksum_field = field


@compiled
def send(memory, umem, entry, frame):
    """Put a frame that lies in a chunk into a send ring; return whether there was room."""
    produced = load_native_u32(memory, entry.sending_produced)
    consumed = load_native_u32(memory, entry.sending_consumed)
    if (produced - consumed) & _COUNTER == RING_ENTRIES:
        return False
    finish_checksum(memory, frame)
    at = entry.sending_entries + (produced & _MASK) * _DESCRIPTION
    store_native_u64(memory, at, frame.offset - umem.begin)
    store_native_u64(memory, at + 8, frame.length)
    barrier()
    store_native_u32(memory, entry.sending_produced, (produced + 1) & _COUNTER)
    entry.pending += 1
    return True


@compiled
def send_copy(memory, umem, entry, frame):
    """Send a copy of a frame from elsewhere, which stays; return whether there was room."""
    if umem.spare_count == 0:
        _replenish(memory, umem, entry)
        if umem.spare_count == 0:
            return False
    number = load_native_u32(memory, umem.spare + 4 * (umem.spare_count - 1))
    place = umem.begin + number * CHUNK_SIZE
    copy_words(memory, place, frame.offset, frame.length)
    offset, header = frame.offset, frame.ip
    frame.offset, frame.ip = place, place + header - offset
    sent = send(memory, umem, entry, frame)
    frame.offset, frame.ip = offset, header
    if sent:
        umem.spare_count -= 1
    return sent


@compiled
def takes(frame):
    """Whether a frame can be sent: one that stands for many, or SCTP's checksum, cannot."""
    if frame.segment_kind or frame.length > CHUNK_SIZE:
        return False
    if frame.checksum_start == 0:
        return True
    is_known = frame.ip - frame.offset == ethernet.HEADER_SIZE  # one that waited is not
    return is_known and (frame.protocol == ipv4.TCP or frame.protocol == ipv4.UDP)


@compiled
def kick(memory, entry):
    """Have the kernel send what is in the ring; what it does not take now is tried again."""
    produced = load_native_u32(memory, entry.sending_produced)
    for _ in range(_KICKS):
        before = load_native_u32(memory, entry.sending_consumed)
        if before == produced:
            break
        linux.sendto(entry.descriptor, 0, 0, linux.MSG_DONTWAIT, 0, 0)
        if load_native_u32(memory, entry.sending_consumed) == before:
            break
    entry.pending = (produced - load_native_u32(memory, entry.sending_consumed)) & _COUNTER


@compiled
def lies_in_chunk(umem, frame):
    """Whether a frame is still where it was received: what was built anew lies elsewhere."""
    if not chunks.holds(umem, frame.slot):
        return False
    begin = frame.offset - frame.slot
    return begin >= 0 and begin + frame.length <= CHUNK_SIZE


@compiled
def recycle(memory, umem, entry):
    """Take back the chunks that were sent, and give the kernel those it may fill."""
    if entry.pending:
        kick(memory, entry)
    if umem.lock:
        done = _held_in(memory, entry.completed_produced, entry.completed_consumed)
        is_full = not entry.receives or _room_to_fill(memory, umem, entry) < umem.level // 4
        if done < KEPT and is_full:
            return
        linux.lock_mutex(umem.lock)
    _take_back_sent(memory, umem, entry)
    if entry.receives:
        _fill(memory, umem, entry)
    if umem.lock:
        chunks.give(memory, umem)
        linux.unlock_mutex(umem.lock)


@compiled
def _replenish(memory, umem, entry):
    """Find spare chunks: sent ones, or others'."""
    if umem.lock:
        linux.lock_mutex(umem.lock)
    _take_back_sent(memory, umem, entry)
    chunks.draw(memory, umem, KEPT)
    if umem.lock:
        linux.unlock_mutex(umem.lock)


@compiled
def _held_in(memory, produced, consumed):
    """Return how many entries of a ring wait, whose counters are at these places."""
    return (load_native_u32(memory, produced) - load_native_u32(memory, consumed)) & _COUNTER


@compiled
def _room_to_fill(memory, umem, entry):
    return umem.level - _held_in(memory, entry.filling_produced, entry.filling_consumed)


@compiled
def _take_back_sent(memory, umem, entry):
    consumed = load_native_u32(memory, entry.completed_consumed)
    produced = load_native_u32(memory, entry.completed_produced)
    if consumed == produced:
        return
    barrier()
    while consumed != produced:
        at = entry.completed_entries + (consumed & _MASK) * 8
        chunks.take_back(memory, umem, umem.begin + load_native_u64(memory, at))
        consumed = (consumed + 1) & _COUNTER
    barrier()
    store_native_u32(memory, entry.completed_consumed, consumed)


@compiled
def _fill(memory, umem, entry):
    produced = load_native_u32(memory, entry.filling_produced)
    room = _room_to_fill(memory, umem, entry)
    chunks.draw(memory, umem, room)
    if room == 0 or umem.spare_count == 0:
        return
    for _ in range(min(room, umem.spare_count)):
        umem.spare_count -= 1
        number = load_native_u32(memory, umem.spare + 4 * umem.spare_count)
        at = entry.filling_entries + (produced & _MASK) * 8
        store_native_u64(memory, at, number * CHUNK_SIZE)
        produced = (produced + 1) & _COUNTER
    barrier()
    store_native_u32(memory, entry.filling_produced, produced)
    if load_native_u32(memory, entry.filling_wakes) & linux.XDP_RING_NEED_WAKEUP:
        linux.recvfrom(entry.descriptor, 0, 0, linux.MSG_DONTWAIT, 0, 0)


_RING_SPACE: Final = linux.page_up(RING_ENTRIES * _DESCRIPTION) + linux.page_up(1)
SOCKET_SPACE: Final = len(RINGS) * _RING_SPACE
_OFFSETS: Final = struct.Struct("<16Q")
_OPTIONS: Final = (
    (linux.XDP_RX_RING, linux.XDP_PGOFF_RX_RING, _DESCRIPTION),
    (linux.XDP_TX_RING, linux.XDP_PGOFF_TX_RING, _DESCRIPTION),
    (linux.XDP_UMEM_FILL_RING, linux.XDP_PGOFF_FILL_RING, 8),
    (linux.XDP_UMEM_COMPLETION_RING, linux.XDP_PGOFF_COMPLETION_RING, 8),
)
"""What makes each of ``RINGS``, where in the socket's file it lies, and the size of its entries."""
_OF_SOCKETS: Final = 2
"""How many of them are each socket's own; the others are its queue's."""


def _directory(name: str) -> str:
    return f"/sys/class/net/{name}"


def is_card(name: str) -> bool:
    """Whether an interface has hardware behind it."""
    return os.path.exists(f"{_directory(name)}/device")


def queues_of(name: str, direction: str) -> int:
    """Return how many queues an interface has, ``rx`` or ``tx``."""
    listed = os.listdir(f"{_directory(name)}/queues")
    return sum(one.startswith(f"{direction}-") for one in listed)


def _bind(opened: socket.socket, address: bytes) -> None:
    """Bind to a queue, which one that was closed just now may hold for some milliseconds more."""
    for left in reversed(range(_TRIES)):
        try:
            linux.bind(opened.fileno(), address)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or not left:
                raise
        time.sleep(_TRY_S)


class Shared:
    """What the sockets of several workers have in common: chunks, and the queues' own rings."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.mutex = linux.Mutex()
        self.pools: dict[tuple[int, int], socket.socket] = {}
        """The first socket at each queue, by its interface's index: others there name it."""
        self.host: Sockets | None = None
        """In whose memory the chunks lie."""


class Queue(NamedTuple):
    """Where a socket is bound."""

    port: int
    interface: str
    number: int


class Sockets:
    """The sockets of some interfaces' queues, their rings and chunks, in a part of a reservation.

    ``table`` SOCKET[queues], and ``umem`` UMEM[1], are what compiled code has of them.  What other
    workers' sockets share is ``shared``; all are closed before one is opened anew.
    """

    def __init__(self, queues: list[Queue], receives: bool, shared: Shared | None = None) -> None:
        self.queues = queues
        self.present = queues  # those whose interfaces there are
        self._receives = receives
        each = min(CHUNKS_TO_RECEIVE, max(_CHUNKS_MIN, _CHUNKS_LIMIT // max(1, len(queues))))
        self._level = each // 2
        self._chunks = len(queues) * (each if receives else CHUNKS_TO_SEND)
        self._shared = shared
        if shared is not None:
            self._chunks += shared.workers * CHUNKS_TO_SEND
            shared.host = shared.host or self
        self.table = records(SOCKET, len(queues))
        self.umem = records(UMEM, 1)
        self._numbers_space = linux.page_up(4 * (self._chunks + 1))
        self._chunks_size = self._chunks * CHUNK_SIZE
        self.memory_size = 0
        if queues:
            self.memory_size = len(queues) * SOCKET_SPACE + self._numbers_space
            if shared is None or shared.host is self:
                self.memory_size += self._numbers_space + self._chunks_size
        self.opened: list[socket.socket] = []
        self._pools: dict[tuple[int, int], socket.socket] = {} if shared is None else shared.pools
        self._reservation: linux.Reservation | None = None
        self._begin = 0

    def open(self, reservation: linux.Reservation, begin: int) -> None:
        """Make the sockets, in ``memory_size`` bytes from ``begin`` on; raises HostError."""
        self._reservation, self._begin = reservation, begin
        self.present = [one for one in self.queues if os.path.exists(_directory(one.interface))]
        self.table = records(SOCKET, len(self.present))
        if not self.present:
            return
        self._lay_out_chunks(reservation.array, begin + len(self.queues) * SOCKET_SPACE)
        for row, queue in enumerate(self.present):
            try:
                self._open(row, queue)
            except OSError as error:
                self.close()
                reason = error.strerror or error
                where = f"queue {queue.number} of {queue.interface}"
                raise HostError(f"no XDP socket for {where}: {reason}") from None

    def _lay_out_chunks(self, memory: Any, spare: int) -> None:
        """Have all chunks be spare, or in the reserve of those who share them."""
        umem, shared = self.umem[0], self._shared
        host = self if shared is None else shared.host
        assert host is not None
        umem["spare"], umem["level"] = spare, self._level
        if host is self:
            umem["reserve"] = spare + self._numbers_space
            umem["begin"] = umem["reserve"] + self._numbers_space
            umem["end"] = umem["begin"] + self._chunks_size
        for name in ("reserve", "begin", "end"):
            umem[name] = host.umem[0][name]
        numbers = np.arange(self._chunks, dtype=np.uint32).view(np.uint8)
        if shared is None:
            umem["spare_count"] = self._chunks
            memory[spare:][: numbers.size] = numbers
            return
        umem["spare_count"] = 0
        umem["lock"] = shared.mutex.address
        if not shared.pools:  # nobody has any yet
            reserve = memory[int(umem["reserve"]) :][: 4 + numbers.size]
            reserve[:4].view(np.uint32)[0] = self._chunks
            reserve[4:] = numbers

    def _open(self, row: int, queue: Queue) -> None:
        assert self._reservation is not None
        opened = socket.socket(linux.AF_XDP, socket.SOCK_RAW, 0)
        self.opened.append(opened)
        place = socket.if_nametoindex(queue.interface), queue.number
        first, of_queue = next(iter(self._pools.values()), None), self._pools.get(place)
        if first is None:
            where = self._reservation.address + int(self.umem[0]["begin"])
            request = struct.pack("<QQIIII", where, self._chunks_size, CHUNK_SIZE, 0, 0, 0)
            opened.setsockopt(linux.SOL_XDP, linux.XDP_UMEM_REG, request)
        for option, _, _ in _OPTIONS[: _OF_SOCKETS if of_queue else None]:
            opened.setsockopt(linux.SOL_XDP, option, RING_ENTRIES)
        other = of_queue or first
        how = linux.XDP_SHARED_UMEM if other else linux.XDP_COPY | linux.XDP_USE_NEED_WAKEUP
        address = (linux.AF_XDP, how, *place, other.fileno() if other else 0)
        _bind(opened, struct.pack("<HHIII", *address))
        self._pools.setdefault(place, opened)
        self._map_rings(row, opened)
        entry = self.table[row]
        entry["descriptor"] = opened.fileno()
        entry["port"] = queue.port
        entry["receives"] = self._receives
        linux.enlarge_send_buffer(opened)

    def _map_rings(self, row: int, opened: socket.socket) -> None:
        assert self._reservation is not None
        told = opened.getsockopt(linux.SOL_XDP, linux.XDP_MMAP_OFFSETS, _OFFSETS.size)
        offsets = _OFFSETS.unpack(told)
        for number, (ring, (_, place, size)) in enumerate(zip(RINGS, _OPTIONS, strict=True)):
            at = self._begin + row * SOCKET_SPACE + number * _RING_SPACE
            of_ring = offsets[4 * number : 4 * number + 4]
            whole = linux.page_up(of_ring[2] + RING_ENTRIES * size)
            self._reservation.map_file(opened.fileno(), at, whole, place)
            for name, offset in zip(_PLACES, of_ring, strict=True):
                self.table[row][f"{ring}_{name}"] = at + offset

    def close(self) -> None:
        """Close the sockets; their rings are unmapped first, which would keep them bound."""
        if self._reservation is not None and self.opened:
            self._reservation.unmap(self._begin, len(self.queues) * SOCKET_SPACE)
        for place in [place for place, one in self._pools.items() if one in self.opened]:
            del self._pools[place]
        for one in self.opened:
            one.close()
        self.opened.clear()
