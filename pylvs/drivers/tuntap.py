"""TAP and TUN devices through pytun-pmd3: the director as a station of its own.

    slot | ... headroom ... | virtio header | Ethernet frame ... |        a TAP device
    slot | ... headroom ... | 4 | virtio header | IP packet ... |         a TUN device

On a TAP device the director answers and asks ARP itself.  A TUN device carries bare IP packets: an
Ethernet header is put in front of each, over the virtio header, which is read before and written
after.  That header has the offload state, as a packet socket's (``packet_ring``): bulk TCP crosses
as frames of up to 64 KB.  Each of several workers has a queue of the device.
"""

import errno
import fcntl
import os
import random
from typing import Final

import numpy as np
from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR

from pylvs.drivers import linux
from pylvs.drivers.base import SLOT_SIZE, SLOTS, Port
from pylvs.drivers.packet_ring import load_offloads, store_offloads
from pylvs.errors import HostError
from pylvs.frames import HEADROOM, NONE
from pylvs.jit import compiled
from pylvs.wire import ethernet, ip
from pylvs.wire.memory import store_u16, store_u48

_LOCALLY_ADMINISTERED: Final = 0x02_00_00_00_00_00
_TUNSETOFFLOAD: Final = 0x4004_54D0
_OFFLOADS: Final = 0x01 | 0x02 | 0x04 | 0x08  # TUN_F_CSUM, _TSO4, _TSO6, _TSO_ECN
_SEGMENTS_MAX: Final = 64  # that one frame may stand for: it is known when it has been read

QUEUE: Final = np.dtype(
    [
        ("descriptor", np.int64),
        ("slots", np.int64),  # where they begin in memory
        ("link_header", np.int64),  # bytes of one that the device does not carry
    ],
    align=True,
)


@compiled
def receive_from(memory, address, queue, frames, limit, segments_left):
    """Read what waits into ``frames``, up to ``limit`` of them; return how many.

    ``address`` is where ``memory`` begins in the process.
    """
    count = 0
    while count < min(limit, SLOTS) and segments_left >= _SEGMENTS_MAX:
        frame = frames[count]
        frame.offset = queue.slots + count * SLOT_SIZE + HEADROOM
        packet = frame.offset + queue.link_header
        room = SLOT_SIZE - HEADROOM - queue.link_header
        begin = address + packet - linux.VNET_SIZE
        size = linux.read(queue.descriptor, begin, room) - linux.VNET_SIZE
        if size < 0:
            break
        load_offloads(memory, packet - linux.VNET_SIZE, frame)
        if queue.link_header:
            _put_link_header(memory, frame, packet, queue.link_header)
        if frame.segment_size:
            segments_left -= size // frame.segment_size + 1
        frame.length = size + queue.link_header
        frame.port_in = 0
        frame.slot = NONE
        frame.tagged = 0
        count += 1
    return count


@compiled
def _put_link_header(memory, frame, packet, size):
    """Write an Ethernet header in front of a bare packet."""
    kind = ethernet.IPV6 if ip.is_version_6(memory, packet) else ethernet.IPV4
    store_u48(memory, frame.offset + ethernet.DESTINATION, 0)
    store_u48(memory, frame.offset + ethernet.SOURCE, 0)
    store_u16(memory, frame.offset + ethernet.TYPE, kind)
    if frame.checksum_start:
        frame.checksum_start += size
    if frame.segment_kind:
        frame.segment_header += size


@compiled
def send(memory, address, queue, frame):
    """Write a frame from where it lies; return whether the device took it."""
    at = frame.offset + queue.link_header - linux.VNET_SIZE
    store_offloads(memory, at, frame, queue.link_header)
    size = frame.length - queue.link_header + linux.VNET_SIZE
    return linux.write(queue.descriptor, address + at, size) >= 0


def open_device(name: str, layer: int, shared: bool) -> tuple[TunTapDevice, Port]:
    """Return a TAP (``layer`` 2) or TUN (3) device, created or attached to, and what it is like.

    ``shared``: it has a queue for each of several.  Raises HostError.
    """
    is_tun = layer == 3
    try:
        device = _attach(name, IFF_TUN if is_tun else IFF_TAP, shared)
        device.up()
        mtu = int(device.mtu)
        fcntl.ioctl(device.fileno(), _TUNSETOFFLOAD, _OFFLOADS)
    except FileNotFoundError:
        raise HostError("/dev/net/tun does not exist; is the tun module there?") from None
    except PermissionError:
        raise HostError(
            f"no permission for device {name}: run as root or with CAP_NET_ADMIN"
        ) from None
    except OSError as error:
        raise HostError(f"cannot attach to device {name}: {error.strerror or error}") from None
    os.set_blocking(device.fileno(), False)
    mac = _LOCALLY_ADMINISTERED | random.Random(f"pylvs {name}").getrandbits(40)
    return device, Port(name, mac, mtu, raw_ip=is_tun, own_arp=not is_tun, offloads=True)


def _attach(name: str, kind: int, shared: bool) -> TunTapDevice:
    """Return the device's next queue; one that exists says itself whether it has several."""
    flags = kind | IFF_NO_PI | IFF_VNET_HDR
    try:
        return TunTapDevice(name=name, flags=flags | (IFF_MULTI_QUEUE if shared else 0))
    except OSError as error:
        if shared or error.errno != errno.EINVAL:
            raise
    return TunTapDevice(name=name, flags=flags | IFF_MULTI_QUEUE)
