"""A driver around another that loses and damages what it receives, by a seeded chance."""

import random
from typing import Any

from pylvs.drivers.base import Driver


class Faults:
    """``lose``, ``damage``: how many in a thousand frames received meet each fate."""

    def __init__(self, inner: Driver, *, lose: int = 0, damage: int = 0, seed: int = 0) -> None:
        self._inner = inner
        self._lose = lose
        self._damage = damage
        self._random = random.Random(seed)
        self._memory: Any = None
        self.ports = inner.ports
        self.memory_size = inner.memory_size

    def attach(self, reservation: Any, begin: int) -> None:
        self._memory = reservation.array
        self._inner.attach(reservation, begin)

    def receive(self, frames: Any, limit: int) -> int:
        count = self._inner.receive(frames, limit)
        for row in range(count):
            chance = self._random.randrange(1_000)
            frame = frames[row]
            if chance < self._lose:
                frame["length"] = 0  # its place is still to be released
            elif chance < self._lose + self._damage and frame["length"]:
                at = int(frame["offset"]) + self._random.randrange(int(frame["length"]))
                self._memory[at] ^= 1 << self._random.randrange(8)
        return count

    def transmit(self, frames: Any, leaving: int) -> int:
        return self._inner.transmit(frames, leaving)

    def release(self, frames: Any, count: int) -> None:
        self._inner.release(frames, count)

    def descriptors(self) -> list[int]:
        return self._inner.descriptors()

    def close(self) -> None:
        self._inner.close()
