"""Rates as IPVS estimates them, every two seconds, for each service, server and all together.

    rate = (now - last) << 9; e += (rate - e) >> 2; shown (e + 0x1FF) >> 10      bytes: 4, 0xF, 5

An exponential average that gives the newest two seconds a quarter (ip_vs_est.c).
"""

from typing import Any, Final

import numpy as np

from pylvs.tables import Tables
from pylvs.tables.layouts import STATISTICS

TICK_S: Final = 2
_NAMES: Final = [name for name, _ in STATISTICS]
# By column: connections, packets in and out; bytes in and out.
_SCALE: Final = np.array([9, 9, 9, 4, 4])
_ROUND: Final = np.array([0x1FF, 0x1FF, 0x1FF, 0xF, 0xF])
_SHOWN: Final = np.array([10, 10, 10, 5, 5])


class _Averages:
    """The averages of one table's rows."""

    def __init__(self, count: int) -> None:
        self._last = np.zeros((count, len(_NAMES)), np.int64)
        self._scaled = np.zeros((count, len(_NAMES)), np.int64)

    def tick(self, now: Any) -> None:
        """Take the counters ``int64[rows, 5]``; those that went back began anew."""
        rows = len(now)
        last, scaled = self._last[:rows], self._scaled[:rows]
        began = (now < last).any(axis=1)
        last[began], scaled[began] = 0, 0
        scaled += (((now - last) << _SCALE) - scaled) >> 2
        last[:] = now

    def rates(self, count: int) -> Any:
        """Return the rates shown of the first rows, int64[count, 5] in the counters' order."""
        return (self._scaled[:count] + _ROUND) >> _SHOWN

    def zero(self) -> None:
        self._last[:], self._scaled[:] = 0, 0


def _counters(table: Any) -> Any:
    used = np.flatnonzero(table["used"])
    rows = table[: int(used[-1]) + 1 if len(used) else 0]
    return np.stack([rows[name] for name in _NAMES], axis=1)


class Estimator:
    """All rates of one director; ``tick`` between breaths, every ``TICK_S`` seconds."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._services = _Averages(len(tables.services))
        self._servers = _Averages(len(tables.servers))
        self._totals = _Averages(1)

    def tick(self) -> None:
        if not self._tables.director[0]["run_estimation"]:
            return
        self._services.tick(_counters(self._tables.services))
        self._servers.tick(_counters(self._tables.servers))
        self._totals.tick(self._tables.totals.reshape(1, -1))

    def zero(self) -> None:
        """Begin anew, as ``ipvsadm -Z`` does."""
        for averages in (self._services, self._servers, self._totals):
            averages.zero()

    def services(self, count: int) -> Any:
        """Return the rates a second of the first services by row, int64[count, 5]."""
        return self._services.rates(count)

    def servers(self, count: int) -> Any:
        return self._servers.rates(count)

    def total(self) -> list[int]:
        rates: list[int] = self._totals.rates(1)[0].tolist()
        return rates
