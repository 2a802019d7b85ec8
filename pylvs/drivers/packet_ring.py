"""AF_PACKET: two TPACKET_V2 receive rings for each interface, frames sent from where they lie.

    slot | tpacket2_hdr | sockaddr_ll | ... headroom ... | virtio header | Ethernet frame ... |
                                                         ^ 10 bytes before the frame

With PACKET_VNET_HDR the kernel puts the offload state directly in front of the frame and takes it
back from there, so header and frame go out as one piece: bulk TCP crosses as frames of up to 64 KB
with unfinished checksums.  They have a ring of their own: so thousands of slots for what the link
carries fit the processor's cache, 5 ms of small frames, in which nobody need be awake.  Frames are
taken from both in the order of their times.  V2 rather than V3, because V3 hands frames over when
a block is full or its timeout ends, and that wait starves TCP's clock.
"""

import os
import socket
import struct
from typing import Final, NamedTuple

import numpy as np
from numpy import int64

from pylvs.drivers import linux
from pylvs.drivers.base import Port
from pylvs.errors import HostError
from pylvs.frames import HEADROOM
from pylvs.jit import barrier, compiled
from pylvs.wire.memory import (
    load_native_u16,
    load_native_u32,
    load_u8,
    store_native_u16,
    store_native_u32,
)

SLOTS_MIN: Final = 4_096
_SLOT_OVERHEAD: Final = 224  # tpacket2_hdr, sockaddr_ll, headroom, link header with a tag, rounding
_LINK_HEADER: Final = 18
_MTU_MAX: Final = 9_216  # 40 MB; what is larger goes with the large frames
_LOAD_LENGTH, _JUMP_IF_GREATER, _RETURN = 0x80, 0x25, 0x06  # of classic BPF
_ALL: Final = 0xFFFF_FFFF

RING: Final = np.dtype(
    [
        ("descriptor", np.int64),
        ("begin", np.int64),  # of the ring in memory
        ("block_size", np.int64),
        ("blocks", np.int64),
        ("slots_per_block", np.int64),
        ("slot_size", np.int64),
        ("at", np.int64),  # the slot that is filled next
        ("block", np.int64),  # the block it is in
        ("left", np.int64),  # slots of that block from there on
        ("xdp", np.int64),  # the XDP socket that sends by the same interface, or NONE
    ],
    align=True,
)
SMALL, LARGE = 0, 1
"""The rings of port p are rows 2 p and 2 p + 1."""
RINGS_PER_PORT: Final = 2


class Shape(NamedTuple):
    """How a ring is divided, and how long a frame it takes."""

    slot_size: int
    slots_per_block: int
    block_size: int
    blocks: int
    longest: int = 0

    @property
    def ring_size(self) -> int:
        return self.blocks * self.block_size


def small_shape(mtu: int) -> Shape:
    """Return the shape of a ring for packets of up to ``mtu`` bytes.

    Slots are an odd number of cache lines: with even ones their headers would compete for the same
    few cache sets.
    """
    mtu = min(mtu, _MTU_MAX)
    slot_size = (mtu + _SLOT_OVERHEAD + 63) // 64 // 2 * 128 + 64
    block_size = 1 << max(18, (slot_size - 1).bit_length())
    per_block = block_size // slot_size
    return Shape(slot_size, per_block, block_size, -(-SLOTS_MIN // per_block), mtu + _LINK_HEADER)


LARGE_SHAPE: Final = Shape(17 * 4_096 - 64, 15, 255 * 4_096, 16)
"""240 slots of the largest IP packet; the kernel rounds a block up to a power of two pages."""


@compiled
def receive_from(memory, rings, port, frames, count, limit, segments_left):
    """Take what waits in a port's rings into ``frames[count .. limit]``; return the new count.

    Frames that stand for many segments are taken only as far as ``segments_left`` reaches, because
    a tunnel must cut them and the batch has room for so many (the second value returned).
    """
    small = rings[RINGS_PER_PORT * port + SMALL]
    large = rings[RINGS_PER_PORT * port + LARGE]
    while count < limit:
        ring, has_small = small, _is_filled(memory, small)
        barrier()  # what came before a frame that was seen is seen by now
        if _is_filled(memory, large):
            barrier()
            if not _is_filled(memory, small) or _time_of(memory, large) < _time_of(memory, small):
                ring = large
        elif not has_small:
            break
        at = int64(ring.at)
        frame = frames[count]
        frame.offset = at + load_native_u16(memory, at + linux.RING_MAC)
        frame.length = load_native_u32(memory, at + linux.RING_CAPTURED)
        load_offloads(memory, frame.offset - linux.VNET_SIZE, frame)
        if frame.segment_size:
            segments = frame.length // frame.segment_size + 1
            if segments > segments_left and count > 0:
                break
            segments_left -= segments
        frame.port_in = port
        frame.slot = at
        frame.tagged = load_native_u32(memory, at + linux.RING_STATUS) & linux.STATUS_VLAN
        _advance(ring)
        count += 1
    return count, segments_left


@compiled
def _is_filled(memory, ring):
    return load_native_u32(memory, ring.at + linux.RING_STATUS) & linux.STATUS_USER != 0


@compiled
def _time_of(memory, ring):
    """Return when the next frame came, in nanoseconds."""
    seconds = load_native_u32(memory, ring.at + linux.RING_SECONDS)
    return seconds * 1_000_000_000 + load_native_u32(memory, ring.at + linux.RING_NANOSECONDS)


@compiled
def _advance(ring):
    ring.at += ring.slot_size
    ring.left -= 1
    if ring.left == 0:
        ring.left = ring.slots_per_block
        ring.block = (ring.block + 1) % ring.blocks
        ring.at = ring.begin + ring.block * ring.block_size


@compiled
def load_offloads(memory, at, frame):
    """Read the virtio header at ``at``."""
    frame.checksum_start = 0
    if load_u8(memory, at + linux.VNET_FLAGS) & linux.VNET_NEEDS_CHECKSUM:
        frame.checksum_start = load_native_u16(memory, at + linux.VNET_CHECKSUM_START)
        frame.checksum_field = load_native_u16(memory, at + linux.VNET_CHECKSUM_FIELD)
    frame.segment_kind = load_u8(memory, at + linux.VNET_GSO_TYPE)
    frame.segment_header = load_native_u16(memory, at + linux.VNET_HEADER)
    frame.segment_size = load_native_u16(memory, at + linux.VNET_GSO_SIZE)


@compiled
def store_offloads(memory, at, frame, left_out):
    """Write the virtio header at ``at``, for a frame of which the first bytes are left out."""
    needs = linux.VNET_NEEDS_CHECKSUM if frame.checksum_start else 0
    memory[at + linux.VNET_FLAGS] = needs
    memory[at + linux.VNET_GSO_TYPE] = frame.segment_kind
    header = frame.segment_header - left_out if frame.segment_kind else 0
    store_native_u16(memory, at + linux.VNET_HEADER, header)
    store_native_u16(memory, at + linux.VNET_GSO_SIZE, frame.segment_size)
    start = frame.checksum_start - left_out if needs else 0
    store_native_u16(memory, at + linux.VNET_CHECKSUM_START, start)
    field = frame.checksum_field if needs else 0
    store_native_u16(memory, at + linux.VNET_CHECKSUM_FIELD, field)


@compiled
def send(memory, address, ring, frame):
    """Send a frame from where it lies; return whether the kernel took it.

    ``address`` is where ``memory`` begins in the process.
    """
    store_offloads(memory, frame.offset - linux.VNET_SIZE, frame, 0)
    begin, size = address + frame.offset - linux.VNET_SIZE, frame.length + linux.VNET_SIZE
    return linux.sendto(ring.descriptor, begin, size, linux.MSG_DONTWAIT, 0, 0) >= 0


@compiled
def release(memory, slot):
    """Give a slot back to the kernel."""
    store_native_u32(memory, slot + linux.RING_STATUS, linux.STATUS_KERNEL)


def port_of(name: str) -> Port:
    """Return what an interface is like; raises HostError."""
    try:
        mac = _read_attribute(name, "address")
        mtu = int(_read_attribute(name, "mtu"))
        kind = int(_read_attribute(name, "type"))
    except OSError:
        known = ", ".join(sorted(os.listdir("/sys/class/net")))
        raise HostError(f"interface {name} does not exist; there are {known}") from None
    if kind != 1:
        raise HostError(f"interface {name} is not Ethernet; --iface takes Ethernet interfaces")
    return Port(name, int(mac.replace(":", ""), 16), mtu, offloads=True)


def open_socket(name: str) -> socket.socket:
    """Return a packet socket that hears nothing yet; raises HostError."""
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise HostError(
            f"no permission to open a packet socket on {name}: run as root, or with "
            "CAP_NET_RAW and CAP_NET_ADMIN, or in a user namespace of your own "
            "(unshare --user --map-root-user --net)"
        ) from None


def _read_attribute(name: str, attribute: str) -> str:
    with open(f"/sys/class/net/{name}/{attribute}", encoding="ascii") as file:
        return file.read().strip()


def take(opened: socket.socket, shape: Shape, shortest: int) -> None:
    """Have a socket take the frames that are longer than ``shortest``, and not too long for it."""
    linux.attach_filter(
        opened.fileno(),
        (_LOAD_LENGTH, 0, 0, 0),
        (_JUMP_IF_GREATER, 0, 2, shortest),
        (_JUMP_IF_GREATER, 1, 0, shape.longest or _ALL),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, 0),
    )


def join(opened: socket.socket, group: int | None, program: int | None) -> int:
    """Share frames with others; return the group, a new one for ``None``.

    Whose a frame is ``program`` tells, a BPF program's descriptor, or the hash of its flow.
    """
    kind = linux.PACKET_FANOUT_HASH if program is None else linux.PACKET_FANOUT_BPF
    kind |= linux.PACKET_FANOUT_UNIQUEID if group is None else 0
    place = linux.SOL_PACKET, linux.PACKET_FANOUT
    try:  # else the group would hear what the kernel forwards as it leaves
        ignoring = kind | linux.PACKET_FANOUT_IGNORE_OUTGOING
        opened.setsockopt(*place, (group or 0) | ignoring << 16)
    except OSError:  # before Linux 5.14, which forwards nothing by itself
        opened.setsockopt(*place, (group or 0) | kind << 16)
    if group is None and program is not None:
        opened.setsockopt(linux.SOL_PACKET, linux.PACKET_FANOUT_DATA, program)
    return opened.getsockopt(linux.SOL_PACKET, linux.PACKET_FANOUT) & 0xFFFF


def make_ring(opened: socket.socket, name: str, shape: Shape) -> None:
    """Make a socket's ring, which takes nothing yet."""
    linux.attach_filter(opened.fileno(), (_RETURN, 0, 0, 0))
    options = (
        (linux.PACKET_VERSION, linux.TPACKET_V2),
        (linux.PACKET_VNET_HDR, 1),
        (linux.PACKET_RESERVE, HEADROOM),
        (linux.PACKET_IGNORE_OUTGOING, 1),
        (linux.PACKET_QDISC_BYPASS, 1),
    )
    for option, value in options:
        opened.setsockopt(linux.SOL_PACKET, option, value)
    linux.enlarge_send_buffer(opened)
    slots = shape.blocks * shape.slots_per_block
    request = struct.pack("IIII", shape.block_size, shape.blocks, shape.slot_size, slots)
    try:
        opened.setsockopt(linux.SOL_PACKET, linux.PACKET_RX_RING, request)
    except OSError as error:
        size = shape.ring_size >> 20
        raise HostError(
            f"the kernel does not give {size} MiB for the ring of {name}: {error.strerror}"
        ) from None
