"""A driver around another that loses and damages what it receives, by a seeded chance."""

import random
from typing import Any

from pylvs.drivers.base import Driver, Wrapper


class Faults(Wrapper):
    """``lose``, ``damage``: how many in a thousand frames received meet each fate."""

    def __init__(self, inner: Driver, *, lose: int = 0, damage: int = 0, seed: int = 0) -> None:
        super().__init__(inner)
        self._lose = lose
        self._damage = damage
        self._random = random.Random(seed)

    def receive(self, frames: Any, limit: int) -> int:
        count = super().receive(frames, limit)
        for row in range(count):
            chance = self._random.randrange(1_000)
            frame = frames[row]
            if chance < self._lose:
                frame["length"] = 0  # its place is still to be released
            elif chance < self._lose + self._damage and frame["length"]:
                at = int(frame["offset"]) + self._random.randrange(int(frame["length"]))
                self._memory[at] ^= 1 << self._random.randrange(8)
        return count
