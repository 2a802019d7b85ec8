"""Keeps the hot path's speed: costs as ratios to a calibration, beside those that were stored.

The calibration is a chain of multiplications, as fast as the processor's clock and nothing else; it
runs in turn with the subjects, so that their ratios hold while the machine's speed drifts.
"""

import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pylvs.jit import door

BASELINE: Final = pathlib.Path(__file__).with_name("baseline.json")
TOLERANCE: Final = 1.25
_STEPS: Final = 200_000
_SECOND_LOOKS: Final = 2


@door
def _chain(state, steps):
    """Return what ``steps`` multiplications make of a number, each waiting for the one before."""
    number = state[0]
    for _ in range(steps):
        number = number * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407
    state[0] = number
    return number


_STATE: Final = np.ones(1, np.int64)


def calibrate() -> float:
    """Return nanoseconds a hundred steps of the chain take."""
    began = time.perf_counter_ns()
    _chain(_STATE, _STEPS)
    return (time.perf_counter_ns() - began) * 100 / _STEPS


def ratios(spent: dict[str, list[float]], calibrations: list[float]) -> dict[str, float]:
    """Return each subject's median ratio to the calibration of the same round."""
    return {
        name: statistics.median(a / b for a, b in zip(times, calibrations, strict=True))
        for name, times in spent.items()
    }


def too_slow(found: dict[str, float]) -> dict[str, float]:
    """Return the subjects that cost a quarter more than was stored, and how much more."""
    stored = load()
    more = {name: ratio / stored[name] for name, ratio in found.items() if name in stored}
    return {name: one for name, one in more.items() if one > TOLERANCE}


def load() -> dict[str, float]:
    stored: dict[str, float] = json.loads(BASELINE.read_text(encoding="ascii"))
    return stored


def store(found: dict[str, float]) -> None:
    """Take these ratios for the baseline, beside those of other subjects."""
    known: dict[str, Any] = load() if BASELINE.exists() else {}
    known |= {name: round(ratio, 3) for name, ratio in found.items()}
    BASELINE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="ascii")


def keep(measure: Callable[[], dict[str, float]], storing: bool) -> dict[str, float]:
    """Compare what is measured with the baseline, or store it; return it.

    What seems too slow is measured again, twice at most: another's work must not be taken for ours.
    """
    found = measure()
    if storing:
        store(found)
    for _ in range(_SECOND_LOOKS):
        if not too_slow(found):
            break
        again = measure()
        found = {name: min(ratio, again[name]) for name, ratio in found.items()}
    slow = too_slow(found)
    told = ", ".join(f"{name} {more:.2f} times" for name, more in slow.items())
    assert not slow, f"slower than benchmarks/baseline.json has it: {told}"
    return found
