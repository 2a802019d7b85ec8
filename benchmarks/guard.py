"""Keeps the hot path's speed: costs as ratios to a calibration, beside those that were stored.

The calibration reads, hashes, looks up and writes about as the door does, so that what slows the
machine slows both; it runs in turn with the subjects, and their ratios hold while speed drifts.
"""

import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from pylvs.jit import door

BASELINE: Final = pathlib.Path(__file__).with_name("baseline.json")
TOLERANCE: Final = 1.25
_COUNT: Final = 2_048
_ROW, _READ = 32, 16  # words of a row, and those of them that are read
_SLOTS: Final = 1 << 16
_WALKS: Final = 15
_SECOND_LOOKS: Final = 9
_PAUSE_S: Final = 10.0  # others' work on the same processor goes on for some time


@door
def _walk(rows, table, count):
    """Hash each row, and count it in a table; return the last count."""
    entry = 0
    for row in range(count):
        at, total = row * _ROW, 0
        for word in range(_READ):
            total = (total << 1) + (rows[at + word] ^ total)
        slot = (total * 0x61C8_8646_80B5_83EB >> 40) & (_SLOTS - 1)
        entry = table[slot]
        table[slot] = entry + 1
        rows[at + _READ + (entry & 7)] = total
    return entry


_ROWS_OF: Final = np.arange(_COUNT * _ROW, dtype=np.int64)
_TABLE: Final = np.zeros(_SLOTS, np.int64)


def calibrate() -> float:
    """Return nanoseconds that a row of the walk takes."""
    spent = []
    for _ in range(_WALKS):
        began = time.perf_counter_ns()
        _walk(_ROWS_OF, _TABLE, _COUNT)
        spent.append((time.perf_counter_ns() - began) / _COUNT)
    return statistics.median(spent)


def ratios(spent: dict[str, list[float]], calibrations: list[float]) -> dict[str, float]:
    """Return each subject's median ratio to the calibration of the same round."""
    return {
        name: statistics.median(a / b for a, b in zip(times, calibrations, strict=True))
        for name, times in spent.items()
    }


def processor() -> str:
    """Return what this machine's processor is called: each has ratios of its own."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    return ", ".join(facts.get(name, "?") for name in ("model name", "cpu family", "model"))


def too_slow(found: dict[str, float]) -> dict[str, float]:
    """Return the subjects that cost a quarter more than was stored, and how much more."""
    stored = load()
    more = {name: ratio / stored[name] for name, ratio in found.items() if name in stored}
    return {name: one for name, one in more.items() if one > TOLERANCE}


def load() -> dict[str, float]:
    """Return what was stored for this processor; nothing if none was."""
    return _all().get(processor(), {})


def _all() -> dict[str, dict[str, float]]:
    stored: dict[str, dict[str, float]] = json.loads(BASELINE.read_text(encoding="utf-8"))
    return stored


def store(found: dict[str, float]) -> None:
    """Take these ratios for the baseline, beside those of other subjects."""
    known = _all()
    rounded = {name: round(ratio, 3) for name, ratio in found.items()}
    known[processor()] = known.get(processor(), {}) | rounded
    BASELINE.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def keep(measure: Callable[[], dict[str, float]], storing: bool) -> dict[str, float]:
    """Compare what is measured with the baseline, or store it; return it.

    What seems too slow is measured again, a few times: another's work must not be taken for ours.
    """
    found = measure()
    if storing:
        store(found)
    if not load():
        print(f"\nnot compared: no baseline for {processor()}; make baseline stores one")
    for _ in range(_SECOND_LOOKS):
        if not too_slow(found):
            break
        time.sleep(_PAUSE_S)
        again = measure()
        found = {name: min(ratio, again[name]) for name, ratio in found.items()}
    slow = too_slow(found)
    told = ", ".join(f"{name} {more:.2f} times" for name, more in slow.items())
    assert not slow, f"slower than benchmarks/baseline.json has it: {told}"
    return found
