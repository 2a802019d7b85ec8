"""A driver around another: every frame in and out goes into a capture as well.

Tracer(PacketRings([...]), Writer(file))        what ``pylvs run --trace FILE`` does
"""

import time
from collections.abc import Callable
from typing import Any

from pylvs.drivers.base import Driver
from pylvs.drivers.pcap import Writer


class Tracer:
    """Writes frames as they came and as they left, unfinished checksums included."""

    def __init__(
        self, inner: Driver, writer: Writer, clock: Callable[[], float] = time.time
    ) -> None:
        self._inner = inner
        self._writer = writer
        self._clock = clock
        self._memory: Any = None
        self.ports = inner.ports
        self.memory_size = inner.memory_size

    def attach(self, reservation: Any, begin: int) -> None:
        self._memory = reservation.array
        self._inner.attach(reservation, begin)

    def receive(self, frames: Any, limit: int) -> int:
        count = self._inner.receive(frames, limit)
        for row in range(count):
            self._write(frames[row])
        return count

    def transmit(self, frames: Any, leaving: int) -> int:
        for k in range(leaving):
            self._write(frames[int(frames[k]["leaves"])])
        return self._inner.transmit(frames, leaving)

    def _write(self, frame: Any) -> None:
        begin = int(frame["offset"])
        data = self._memory[begin : begin + int(frame["length"])].tobytes()
        self._writer.write(self._clock(), data)

    def release(self, frames: Any, count: int) -> None:
        self._inner.release(frames, count)

    def descriptors(self) -> list[int]:
        return self._inner.descriptors()

    def close(self) -> None:
        self._inner.close()
