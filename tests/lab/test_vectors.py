"""Linux's captures through real interfaces: each driver, and the fan-out to two workers."""

import json
import pathlib
import secrets
import subprocess
import sys

import pytest

from pylvs.lab.build import ip

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def namespace():
    name = f"pylvs-vectors-{secrets.token_hex(2)}"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


@pytest.mark.parametrize("driver", ["packet", "xdp", "tap"])
def test_what_leaves_by_real_interfaces_is_what_linux_sent(namespace, driver):
    words = [sys.executable, ROOT / "tools" / "conformance.py", "--json", "--driver", driver]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *words, "--workers", "2", ROOT / "tests" / "vectors"],
        stdout=subprocess.PIPE,
        check=False,
        timeout=600,
    )
    told = json.loads(done.stdout)
    assert {name: what for name, what in told["results"].items() if what} == {}
    assert told["passed"] > 150
    frames = sum(told["by_worker"])
    assert min(told["by_worker"]) > frames / 3
    assert (told["by_xdp"] > frames / 3) == (driver == "xdp")
