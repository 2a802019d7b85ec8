"""TAP and TUN devices through pytun-pmd3: the director as a station of its own.

On a TAP device the director answers and asks ARP itself.  A TUN device carries bare IP packets: the
driver puts an Ethernet header in front of each and takes it off again.
"""

import errno
import os
import random
from typing import Any, Final

from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_NO_PI, IFF_TAP, IFF_TUN

from pylvs.drivers.base import SLOT_SIZE, SLOTS, Port, fill_plain
from pylvs.errors import HostError
from pylvs.frames import HEADROOM

_HEADER: Final = 14
_IPV4_HEADER: Final = bytes(12) + b"\x08\x00"
_IPV6_HEADER: Final = bytes(12) + b"\x86\xdd"
_LOCALLY_ADMINISTERED: Final = 0x02_00_00_00_00_00


class TunTap:
    """One TAP (``layer`` 2) or TUN (``layer`` 3) device, created or attached to."""

    def __init__(self, name: str, layer: int = 2) -> None:
        self.is_tun = layer == 3
        flags = (IFF_TUN if self.is_tun else IFF_TAP) | IFF_NO_PI
        try:
            self._device = TunTapDevice(name=name, flags=flags)
            self._device.up()
            mtu = int(self._device.mtu)
        except FileNotFoundError:
            raise HostError("/dev/net/tun does not exist; is the tun module there?") from None
        except PermissionError:
            raise HostError(
                f"no permission for device {name}: run as root or with CAP_NET_ADMIN"
            ) from None
        except OSError as error:
            raise HostError(f"cannot attach to device {name}: {error.strerror or error}") from None
        self.name = name
        self._descriptor = self._device.fileno()
        os.set_blocking(self._descriptor, False)
        mac = _LOCALLY_ADMINISTERED | random.Random(f"pylvs {name}").getrandbits(40)
        self.ports = [Port(name, mac, mtu, raw_ip=self.is_tun, own_arp=not self.is_tun)]
        self.memory_size = SLOTS * SLOT_SIZE
        self._view = memoryview(b"")
        self._begin = 0

    def attach(self, reservation: Any, begin: int) -> None:
        self._view = memoryview(reservation.array)
        self._begin = begin

    def receive(self, frames: Any, limit: int) -> int:
        skip = _HEADER if self.is_tun else 0
        for row in range(min(limit, SLOTS)):
            offset = self._begin + row * SLOT_SIZE + HEADROOM
            end = self._begin + (row + 1) * SLOT_SIZE
            try:
                length = os.readv(self._descriptor, [self._view[offset + skip : end]])
            except BlockingIOError:
                return row
            except OSError as error:
                if error.errno in (errno.EIO, errno.EBADFD):  # down, or deleted
                    return row
                raise
            if self.is_tun:
                is_ipv6 = length > 0 and self._view[offset + skip] >> 4 == 6
                self._view[offset : offset + skip] = _IPV6_HEADER if is_ipv6 else _IPV4_HEADER
            fill_plain(frames[row], offset, length + skip, 0)
        return min(limit, SLOTS)

    def transmit(self, frames: Any, leaving: int) -> int:
        refused = 0
        for k in range(leaving):
            frame = frames[int(frames[k]["leaves"])]
            begin, length = int(frame["offset"]), int(frame["length"])
            if self.is_tun:
                begin, length = begin + _HEADER, length - _HEADER
            try:
                os.write(self._descriptor, self._view[begin : begin + length])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EIO, errno.EINVAL, errno.ENOBUFS):
                    raise
                refused += 1
        return refused

    def release(self, frames: Any, count: int) -> None:
        pass

    def descriptors(self) -> list[int]:
        return [self._descriptor]

    def rebind(self, port: int) -> None:
        """Nothing is lost here that could come back."""

    def close(self) -> None:
        self._view.release()
        self._device.close()
