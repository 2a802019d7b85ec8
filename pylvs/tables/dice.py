"""Dice: a small congruential generator for what is left to chance, in replay the same each time."""

from typing import Final

from pylvs.jit import compiled

_MULTIPLIER: Final = 0x5851_F42D  # Steele and Vigna, "Computationally easy, spectrally good ..."
_INCREMENT: Final = 12_345
_STATE_MASK: Final = (1 << 31) - 1


@compiled
def draw(director, limit):
    """Return a number of 0 to below ``limit``."""
    high = _roll(director)
    return ((high << 23) | _roll(director)) % limit


@compiled
def _roll(director):
    director.dice = (director.dice * _MULTIPLIER + _INCREMENT) & _STATE_MASK
    return director.dice >> 8  # the low bits have short periods
