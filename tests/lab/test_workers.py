"""Workers side by side: whose a connection's packets are."""

import pathlib

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, rules, start_director, start_stations

COUNT = 200


def sleeps(process):
    """Return how often each thread has gone to sleep, by its number."""
    found = {}
    for status in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found[status.parent.name] = int(line.split()[1])
    return found


@pytest.mark.parametrize("size", [64, 3_000])
@pytest.mark.parametrize(("mode", "version"), [("nat", 4), ("nat", 6), ("dr", 4)])
def test_a_connection_is_one_workers_both_ways(mode, version, size):
    """And its fragments: each packet wakes one thread, which soon sleeps again."""
    with Lab(topology(mode, version), queues=2) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "off", "--workers", "2")
        chosen = []
        while len(chosen) < 3 or len(set(chosen)) == 1:
            before = sleeps(lab.director)
            assert int(ask(lab, "talk", COUNT, size)[0]) > 0.9 * COUNT
            woken = {one: now - before.get(one, 0) for one, now in sleeps(lab.director).items()}
            *_, second, most = sorted(woken, key=woken.get)
            assert woken[most] > 0.9 * COUNT
            assert woken[second] < 0.5 * COUNT
            chosen.append(most)
            assert len(chosen) < 30, "one worker has all of them"
        lab.stop_director()
