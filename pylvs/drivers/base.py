"""What a driver does."""

from typing import Any, Final, NamedTuple, Protocol

SLOT_SIZE: Final = 66_048  # the largest frame and its headroom
SLOTS: Final = 256  # of a driver that copies frames into memory: one batch


class Port(NamedTuple):
    """One way in and out, as the director's PORT table is to know it."""

    name: str
    mac: int = 0  # int below 2**48
    mtu: int = 1_500
    raw_ip: bool = False  # no link layer
    own_arp: bool = False  # no host stack behind it
    offloads: bool = False  # takes unfinished checksums and GSO frames


class Driver(Protocol):
    """A batching source and sink of frames.

    Wrapping a driver in another (``tracer.py``) is how captures and faults are made.
    """

    ports: list[Port]

    memory_size: int
    """Bytes of the common memory that the driver needs."""

    def attach(self, reservation: Any, begin: int) -> None:
        """Take ``memory_size`` bytes of the reservation, from offset ``begin`` on."""

    def receive(self, frames: Any, limit: int) -> int:
        """Fill ``offset length port_in slot tagged checksum_* segment_*`` of up to ``limit`` rows.

        Returns how many; 0 when nothing waits.  The bytes stay where they are until ``release``.
        """

    def transmit(self, frames: Any, leaving: int) -> int:
        """Send ``frames[frames[k].leaves]``, k below ``leaving``; return how many were refused."""

    def release(self, frames: Any, count: int) -> None:
        """Give back the places of the first ``count`` received frames."""

    def descriptors(self) -> list[int]:
        """Return the file descriptors that become readable when frames arrive."""

    def let_go(self) -> None:
        """Give up what workers share, before all of them rebind."""

    def rebind(self, port: int) -> None:
        """Go on with the interface that has the port's name now; raises OSError, HostError."""

    def close(self) -> None:
        """Give everything back to the system."""


class Wrapper:
    """A driver around another that changes nothing: what tracers and fault injectors begin with."""

    def __init__(self, inner: Driver) -> None:
        self._inner = inner
        self._memory: Any = None
        self.ports = inner.ports
        self.memory_size = inner.memory_size

    def attach(self, reservation: Any, begin: int) -> None:
        self._memory = reservation.array
        self._inner.attach(reservation, begin)

    def receive(self, frames: Any, limit: int) -> int:
        return self._inner.receive(frames, limit)

    def transmit(self, frames: Any, leaving: int) -> int:
        return self._inner.transmit(frames, leaving)

    def release(self, frames: Any, count: int) -> None:
        self._inner.release(frames, count)

    def descriptors(self) -> list[int]:
        return self._inner.descriptors()

    def let_go(self) -> None:
        self._inner.let_go()

    def rebind(self, port: int) -> None:
        self._inner.rebind(port)

    def close(self) -> None:
        self._inner.close()


def fill_plain(frame: Any, offset: int, length: int, port: int) -> None:
    """Describe a received frame that no offload has touched."""
    frame["offset"] = offset
    frame["length"] = length
    frame["port_in"] = port
    for name in ("slot", "tagged", "checksum_start", "checksum_field"):
        frame[name] = 0
    for name in ("segment_kind", "segment_size", "segment_header"):
        frame[name] = 0
