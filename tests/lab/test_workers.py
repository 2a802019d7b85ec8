"""Workers side by side: whose a connection's packets are."""

import pathlib
import time

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, rules, start_director, start_stations

COUNT = 200


def sleeps(process):
    """Return how often each worker has gone to sleep, by its thread: the last two to be started."""
    found = {}
    for status in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found[int(status.parent.name)] = int(line.split()[1])
    return {thread: found[thread] for thread in sorted(found)[-2:]}


@pytest.mark.parametrize("size", [64, 3_000])
@pytest.mark.parametrize(
    ("mode", "version", "driver", "queues"),
    [
        ("nat", 4, "packet", 2),
        ("nat", 6, "packet", 1),
        ("dr", 4, "packet", 2),
        ("nat", 4, "xdp", 1),
        ("nat", 6, "xdp", 2),
        ("nat", 4, "xdp", 3),
    ],
)
def test_a_connection_is_one_workers_both_ways(mode, version, driver, queues, size):
    """And its fragments: each packet wakes one thread, which soon sleeps again."""
    with Lab(topology(mode, version), queues=queues) as lab:
        start_stations(lab)
        options = ("--offload", "off", "--driver", driver, "--workers", "2")
        start_director(lab, rules(lab), *options)
        for other, one in talk_with_both(lab, size):
            assert one > 0.9 * COUNT
            assert other < 0.5 * COUNT
        lab.stop_director()


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_so_it_is_when_an_interface_was_made_again(driver):
    with Lab(topology("nat"), queues=2) as lab:
        start_stations(lab)
        options = ("--offload", "off", "--driver", driver, "--workers", "2")
        start_director(lab, rules(lab), *options)
        lab.shell("director", "ip link del eth1")
        time.sleep(1)
        lab._plug("director", "eth1", "back", "192.168.79.1/24")
        lab.await_text("director.log", "interface eth1 is back")
        for other, one in talk_with_both(lab, 3_000):
            assert one > 0.9 * COUNT
            assert other < 0.5 * COUNT
        lab.stop_director()


def test_so_it_is_when_a_link_was_down():
    """Then the kernel puts the rings into their group again, whose places programs count on."""
    with Lab(topology("nat"), queues=2) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "off", "--workers", "2")
        route = lab.shell("director", "ip route show default").strip()
        for one in ("eth0", "eth1"):
            lab.shell("director", f"ip link set {one} down; ip link set {one} up")
        lab.shell("director", f"ip route replace {route}")  # which went with the link
        time.sleep(1)
        for size in (64, 3_000):
            for other, one in talk_with_both(lab, size):
                assert one > 0.9 * COUNT
                assert other < 0.5 * COUNT
        assert ask(lab, "upload", 1_000_000)[0].startswith("same")
        lab.stop_director()


def talk_with_both(lab, size):
    """Talk until both workers have had a connection; return how often each woke, in each talk."""
    talks = []
    while len(talks) < 3 or len({max(woken, key=woken.get) for woken in talks}) == 1:
        assert len(talks) < 30, "one worker has all of them"
        before = sleeps(lab.director)
        assert int(ask(lab, "talk", COUNT, size)[0]) > 0.9 * COUNT
        talks.append({one: now - before[one] for one, now in sleeps(lab.director).items()})
    return [sorted(woken.values()) for woken in talks]
