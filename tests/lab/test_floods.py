"""SYNs of random clients, faster than any of them could be served: who is connected stays so."""

import json
import pathlib
import re
import sys
import threading
import time

import pytest

from pylvs.drivers.programs import bpf
from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, rules, start_director, start_stations

ROOM = 65_536
FLOOD_S = 4
MEGABYTE = 1_000_000
GROWN_KB = 40_000  # pages of tables that had never been used


def resident_kb(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1])


def flood(lab):
    """Send SYNs from the router for some seconds; return how many."""
    mac = lab.shell("director", "cat /sys/class/net/eth0/address").strip()
    lab.shell("switch", f"{sys.executable} -m benchmarks.net.gro router.eth1")
    words = f"eth1 {mac} {lab.topology.vip} {lab.topology.port} syn 0 {FLOOD_S} live"
    return json.loads(lab.shell("router", f"{sys.executable} -m benchmarks.net.generator {words}"))[
        "sent"
    ]


@pytest.mark.parametrize("scheduler", ["wlc", "sh"])
def test_a_flood_stalls_nobody_and_takes_no_memory(scheduler):
    try:
        bpf.Map(bpf.ARRAY, 4, 4, 1).close()
    except OSError as error:
        pytest.skip(f"no bpf here to make a flood by: {error}")
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab, scheduler), "--connections", str(ROOM))
        assert ask(lab, "upload", 1)[0].startswith("same")
        results = []

        def transfer():
            results.extend(ask(lab, "upload", 50 * MEGABYTE, FLOOD_S + 3))

        before = resident_kb(lab.director)
        transferring = threading.Thread(target=transfer)
        transferring.start()
        time.sleep(1)
        sent = flood(lab)
        transferring.join()
        assert sent > 2 * ROOM
        assert results[0].startswith("same")
        assert resident_kb(lab.director) - before < GROWN_KB
        told = lab.stop_director()
        full = int(re.search(r"^table_full +(\d+)", told, re.MULTILINE)[1])
        made = int(re.search(r"^TCP .*?:80 +(\d+)", told, re.MULTILINE)[1])
        assert made <= ROOM
        assert full > ROOM / 2
