"""The command line starts fast: neither numba nor numpy comes with it."""

import subprocess
import sys

import pytest

HEAVY = ("numba", "numpy", "pyroute2", "scapy", "uvloop", "dpkt", "rich", "uvicorn", "starlette")


@pytest.mark.parametrize(
    "module",
    [
        "pylvs",
        "pylvs.cli.main",
        "pylvs.cli.run",
        "pylvs.cli.replay",
        "pylvs.cli.lab",
        "pylvs.cli.realserver",
        "pylvs.cli.changes",
        "pylvs.cli.config",
        "pylvs.cli.drain",
        "pylvs.cli.inspect",
        "pylvs.cli.ipvsadm",
        "pylvs.control.client",
        "pylvs.control.ipvsadm.rules",
    ],
)
def test_importing_it_loads_nothing_heavy(module):
    script = f"import {module}, sys; print([one for one in {HEAVY} if one in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
