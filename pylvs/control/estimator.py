"""Rates as IPVS estimates them, every two seconds, for each service, server and all together.

    rate = (now - last) << 9; e += (rate - e) >> 2; shown (e + 0x1FF) >> 10      bytes: 4, 0xF, 5

An exponential average that gives the newest two seconds a quarter (ip_vs_est.c).
"""

from functools import partial
from typing import Any, Final

import numpy as np

from pylvs.control import Call
from pylvs.tables import Tables
from pylvs.tables.layouts import STATISTICS

TICK_S: Final = 2
_ROWS_AT_ONCE: Final = 2_048
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

        self._seen = 0  # rows that have ever counted: the others' pages stay untouched

    def tick(self, now: Any, begin: int = 0) -> None:
        """Take counters, ``int64[rows, 5]`` from a row on; those that went back began anew."""
        end = begin + len(now)
        self._seen = max(self._seen, end)
        last, scaled = self._last[begin:end], self._scaled[begin:end]
        began = (now < last).any(axis=1)
        last[began], scaled[began] = 0, 0
        scaled += (((now - last) << _SCALE) - scaled) >> 2
        last[:] = now

    def rates(self, count: int) -> Any:
        """Return the rates shown of the first rows, int64[count, 5] in the counters' order."""
        return (self._scaled[:count] + _ROUND) >> _SHOWN

    def zero(self) -> None:
        self._last[: self._seen], self._scaled[: self._seen] = 0, 0


def _bring(averages: _Averages, rows: Any, begin: int) -> None:
    averages.tick(np.stack([rows[name] for name in _NAMES], axis=1), begin)


class Estimator:
    """All rates of one director; ``tick`` every ``TICK_S`` seconds."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._services = _Averages(len(tables.services))
        self._servers = _Averages(len(tables.servers))
        self._totals = _Averages(1)

    def tick(self, call: Call) -> None:
        """Bring the rates up to date, some in each ``call``."""
        tables, state = self._tables, self._tables.director[0]
        if not state["run_estimation"]:
            return
        parts = (
            (self._services, tables.services, int(state["services_seen"])),
            (self._servers, tables.servers, int(state["servers_seen"])),
        )
        for averages, table, seen in parts:
            for begin in range(0, seen, _ROWS_AT_ONCE):
                rows = table[begin : min(begin + _ROWS_AT_ONCE, seen)]
                call(partial(_bring, averages, rows, begin))
        call(lambda: self._totals.tick(tables.totals.reshape(1, -1)))

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
