"""AF_PACKET: a TPACKET_V2 receive ring for each interface, frames sent straight from it.

    slot | tpacket2_hdr | sockaddr_ll | ... headroom ... | virtio header | Ethernet frame ... |
                                                         ^ 10 bytes before the frame

With PACKET_VNET_HDR the kernel puts the offload state directly in front of the frame and takes it
back from there, so header and frame go out as one piece, without a copy: bulk TCP crosses as frames
of up to 64 KB with unfinished checksums.  V2 rather than V3, because V3 hands frames over when a
block is full or its timeout ends, and that wait starves TCP's clock.
"""

import os
import socket
import struct
from typing import Final

import numpy as np

from pylvs.drivers import linux
from pylvs.drivers.base import Port
from pylvs.errors import HostError
from pylvs.frames import HEADROOM
from pylvs.jit import compiled
from pylvs.wire.memory import (
    load_native_u16,
    load_native_u32,
    load_u8,
    store_native_u16,
    store_native_u32,
)

# A slot holds the largest IP packet.  Slots are one cache line short of a whole number of pages:
# with equal page offsets all their headers would compete for the same few cache sets.
SLOT_SIZE: Final = 17 * 4_096 - 64
SLOTS_PER_BLOCK: Final = 15
BLOCK_SIZE: Final = 255 * 4_096  # the kernel rounds a block up to a power of two pages
BLOCKS: Final = 68  # 1,020 slots, 71 MB an interface
RING_SIZE: Final = BLOCKS * BLOCK_SIZE
SEND_BUFFER: Final = 16 << 20

RING: Final = np.dtype(
    [
        ("descriptor", np.int64),
        ("begin", np.int64),  # of the ring in memory
        ("slots", np.int64),
        ("next", np.int64),  # slot that is filled next
        ("xdp", np.int64),  # the XDP socket that sends by the same interface, or NONE
    ],
    align=True,
)


@compiled
def _slot_at(ring, slot):
    return ring.begin + slot // SLOTS_PER_BLOCK * BLOCK_SIZE + slot % SLOTS_PER_BLOCK * SLOT_SIZE


@compiled
def receive_from(memory, ring, port, frames, count, limit, segments_left):
    """Take what waits in one ring into ``frames[count .. limit]``; return the new count.

    Frames that stand for many segments are taken only as far as ``segments_left`` reaches, because
    a tunnel must cut them and the batch has room for so many (the second value returned).
    """
    while count < limit:
        at = _slot_at(ring, ring.next)
        status = load_native_u32(memory, at + linux.RING_STATUS)
        if status & linux.STATUS_USER == 0:
            break
        frame = frames[count]
        frame.offset = at + load_native_u16(memory, at + linux.RING_MAC)
        frame.length = load_native_u32(memory, at + linux.RING_CAPTURED)
        _load_offloads(memory, frame)
        if frame.segment_size:
            segments = frame.length // frame.segment_size + 1
            if segments > segments_left and count > 0:
                break
            segments_left -= segments
        frame.port_in = port
        frame.slot = at
        frame.tagged = status & linux.STATUS_VLAN
        ring.next = (ring.next + 1) % ring.slots
        count += 1
    return count, segments_left


@compiled
def _load_offloads(memory, frame):
    """Read the virtio header in front of the frame."""
    at = frame.offset - linux.VNET_SIZE
    frame.checksum_start = 0
    if load_u8(memory, at + linux.VNET_FLAGS) & linux.VNET_NEEDS_CHECKSUM:
        frame.checksum_start = load_native_u16(memory, at + linux.VNET_CHECKSUM_START)
        frame.checksum_field = load_native_u16(memory, at + linux.VNET_CHECKSUM_FIELD)
    frame.segment_kind = load_u8(memory, at + linux.VNET_GSO_TYPE)
    frame.segment_header = load_native_u16(memory, at + linux.VNET_HEADER)
    frame.segment_size = load_native_u16(memory, at + linux.VNET_GSO_SIZE)


@compiled
def _store_offloads(memory, frame):
    """Write the virtio header in front of the frame."""
    at = frame.offset - linux.VNET_SIZE
    needs = linux.VNET_NEEDS_CHECKSUM if frame.checksum_start else 0
    memory[at + linux.VNET_FLAGS] = needs
    memory[at + linux.VNET_GSO_TYPE] = frame.segment_kind
    store_native_u16(memory, at + linux.VNET_HEADER, frame.segment_header)
    store_native_u16(memory, at + linux.VNET_GSO_SIZE, frame.segment_size)
    store_native_u16(memory, at + linux.VNET_CHECKSUM_START, frame.checksum_start)
    field = frame.checksum_field if needs else 0
    store_native_u16(memory, at + linux.VNET_CHECKSUM_FIELD, field)


@compiled
def send(memory, address, ring, frame):
    """Send a frame from where it lies; return whether the kernel took it.

    ``address`` is where ``memory`` begins in the process.
    """
    _store_offloads(memory, frame)
    begin, size = address + frame.offset - linux.VNET_SIZE, frame.length + linux.VNET_SIZE
    return linux.sendto(ring.descriptor, begin, size, linux.MSG_DONTWAIT, 0, 0) >= 0


@compiled
def release(memory, slot):
    """Give a slot back to the kernel."""
    store_native_u32(memory, slot + linux.RING_STATUS, linux.STATUS_KERNEL)


def open_socket(name: str) -> tuple[socket.socket, Port]:
    """Return a packet socket that hears nothing yet, and what its interface is like."""
    try:
        mac = _read_attribute(name, "address")
        mtu = int(_read_attribute(name, "mtu"))
        kind = int(_read_attribute(name, "type"))
    except OSError:
        known = ", ".join(sorted(os.listdir("/sys/class/net")))
        raise HostError(f"interface {name} does not exist; there are {known}") from None
    if kind != 1:
        raise HostError(f"interface {name} is not Ethernet; --iface takes Ethernet interfaces")
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise HostError(
            f"no permission to open a packet socket on {name}: run as root, or with "
            "CAP_NET_RAW and CAP_NET_ADMIN, or in a user namespace of your own "
            "(unshare --user --map-root-user --net)"
        ) from None
    return opened, Port(name, int(mac.replace(":", ""), 16), mtu, offloads=True)


def _read_attribute(name: str, attribute: str) -> str:
    with open(f"/sys/class/net/{name}/{attribute}", encoding="ascii") as file:
        return file.read().strip()


def make_ring(opened: socket.socket, name: str) -> None:
    """Make the socket's ring, of ``RING_SIZE`` bytes."""
    options = (
        (linux.PACKET_VERSION, linux.TPACKET_V2),
        (linux.PACKET_VNET_HDR, 1),
        (linux.PACKET_RESERVE, HEADROOM),
        (linux.PACKET_IGNORE_OUTGOING, 1),
        (linux.PACKET_QDISC_BYPASS, 1),
    )
    for option, value in options:
        opened.setsockopt(linux.SOL_PACKET, option, value)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    request = struct.pack("IIII", BLOCK_SIZE, BLOCKS, SLOT_SIZE, BLOCKS * SLOTS_PER_BLOCK)
    try:
        opened.setsockopt(linux.SOL_PACKET, linux.PACKET_RX_RING, request)
    except OSError as error:
        size = RING_SIZE >> 20
        raise HostError(
            f"the kernel does not give {size} MiB for the ring of {name}: {error.strerror}"
        ) from None
