"""A driver around another: every frame in and out goes into a capture as well.

Tracer(Rings([...]), Writer(file))              what ``pylvs run --trace FILE`` does
"""

import time
from collections.abc import Callable
from typing import Any

from pylvs.drivers.base import Driver, Wrapper
from pylvs.drivers.pcap import Writer


class Tracer(Wrapper):
    """Writes frames as they came and as they left, unfinished checksums included."""

    def __init__(
        self, inner: Driver, writer: Writer, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(inner)
        self._writer = writer
        self._clock = clock

    def receive(self, frames: Any, limit: int) -> int:
        count = super().receive(frames, limit)
        for row in range(count):
            self._write(frames[row])
        return count

    def transmit(self, frames: Any, leaving: int) -> int:
        for k in range(leaving):
            self._write(frames[int(frames[k]["leaves"])])
        return super().transmit(frames, leaving)

    def _write(self, frame: Any) -> None:
        begin = int(frame["offset"])
        data = self._memory[begin : begin + int(frame["length"])].tobytes()
        self._writer.write(self._clock(), data)
