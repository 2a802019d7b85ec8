"""What a driver does."""

from typing import Any, NamedTuple, Protocol


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

    def close(self) -> None:
        """Give everything back to the system."""
