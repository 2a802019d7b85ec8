"""In memory: frames are put in by hand and taken out by hand.  For tests and for replay."""

from typing import Any

import numpy as np

from pylvs.drivers.base import SLOT_SIZE, SLOTS, Port, fill_plain
from pylvs.frames import HEADROOM


class Loopback:
    """Ports that lead nowhere.  ``sent`` collects (port row, bytes) of what the director sends."""

    def __init__(self, ports: list[Port]) -> None:
        self.ports = ports
        self.memory_size = SLOTS * SLOT_SIZE
        self.waiting: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, bytes]] = []
        self._memory: Any = None
        self._begin = 0

    def attach(self, reservation: Any, begin: int) -> None:
        self._memory = reservation.array
        self._begin = begin

    def put(self, port: int, data: bytes) -> None:
        """Let a frame arrive; at most ``SLOT_SIZE - HEADROOM`` bytes."""
        if len(data) > SLOT_SIZE - HEADROOM:
            raise ValueError(f"a frame of {len(data)} bytes does not fit a slot")
        self.waiting.append((port, data))

    def receive(self, frames: Any, limit: int) -> int:
        count = min(len(self.waiting), limit, SLOTS)
        for row, (port, data) in enumerate(self.waiting[:count]):
            offset = self._begin + row * SLOT_SIZE + HEADROOM
            self._memory[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            fill_plain(frames[row], offset, len(data), port)
        del self.waiting[:count]
        return count

    def transmit(self, frames: Any, leaving: int) -> int:
        for k in range(leaving):
            frame = frames[int(frames[k]["leaves"])]
            begin = int(frame["offset"])
            data = self._memory[begin : begin + int(frame["length"])].tobytes()
            self.sent.append((int(frame["port_out"]), data))
        return 0

    def release(self, frames: Any, count: int) -> None:
        pass

    def descriptors(self) -> list[int]:
        return []

    def let_go(self) -> None:
        """Nothing is shared here."""

    def rebind(self, port: int) -> None:
        """Nothing is lost here that could come back."""

    def close(self) -> None:
        pass
