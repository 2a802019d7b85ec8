"""Debian's ldirectord, as it is, checks real servers and drives the director by ipvsadm."""

import os
import shutil
import signal
import sys
import time

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import topology

LDIRECTORD = shutil.which("ldirectord", path="/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    LDIRECTORD is None, reason="ldirectord is not installed; as root: apt-get install ldirectord"
)
CONFIG = """
checktimeout = 2
checkinterval = 1
autoreload = no
quiescent = {quiescent}
virtual = {vip}:{port}
    real = {one}:{server_port} masq 3
    real = {other}:{server_port} masq
    fallback = {one}:8081 masq
    service = http
    request = "/"
    receive = "rs"
    scheduler = wrr
    protocol = tcp
    checktype = negotiate
"""
WAIT_S = 20.0


class Driven:
    """A lab whose director is driven by ldirectord."""

    def __init__(self, lab, quiescent):
        self.lab = lab
        shape = lab.topology
        self.addresses = list(shape.servers.values())
        lab.start_servers()
        self.servers = dict(zip(shape.servers, lab.processes[-2:], strict=True))
        sorry = [sys.executable, "-m", "pylvs.lab.webserver", "sorry", "8081"]
        lab.spawn("rs1", sorry, "sorry.log")
        words = shape.director_arguments()
        lab.start_director(words[: words.index("--vip")])
        one, other = self.addresses
        text = CONFIG.format(
            quiescent=quiescent,
            vip=shape.vip,
            port=shape.port,
            one=one,
            other=other,
            server_port=shape.server_port,
        )
        config = lab.folder / "ldirectord.cf"
        config.write_text(text, encoding="ascii")
        ours = lab.folder / "ipvsadm"
        ours.write_text(f'#!/bin/sh\nexec {sys.executable} -m pylvs.control.client "$@"\n')
        ours.chmod(0o755)
        theirs = shutil.which("ipvsadm", path="/usr/sbin:/sbin")
        line = f"mount --bind {ours} {theirs} && exec {LDIRECTORD} -d {config} start"
        lab.spawn("director", ["sh", "-c", line], "ldirectord.log")

    def listing(self):
        """Return the weights by server, of the one service there is."""
        shown = self.lab.shell("director", f"{sys.executable} -m pylvs.control.client -Ln")
        lines = [line.split() for line in shown.splitlines() if "->" in line][1:]
        return {words[1]: int(words[3]) for words in lines}

    def until(self, wanted):
        end = time.monotonic() + WAIT_S
        while (listed := self.listing()) != wanted:
            assert time.monotonic() < end, f"{listed}\n{self.lab.log('ldirectord.log')[-3_000:]}"
            time.sleep(0.2)

    def stop(self, node):
        os.killpg(self.servers[node].pid, signal.SIGTERM)
        self.servers[node].wait(5)

    def restart(self, node):
        shape = self.lab.topology
        words = [sys.executable, "-m", "pylvs.lab.webserver", node, str(shape.server_port)]
        self.servers[node] = self.lab.spawn(node, words, f"{node}.log")
        self.lab._await_port(node, shape.servers[node], shape.server_port)


@pytest.mark.parametrize("quiescent", ["no", "yes"])
def test_servers_go_and_come_back_as_ldirectord_finds_them(quiescent):
    with Lab(topology("nat")) as lab:
        driven = Driven(lab, quiescent)
        port = lab.topology.server_port
        one, other = (f"{address}:{port}" for address in driven.addresses)
        fallback = f"{driven.addresses[0]}:8081"
        gone = {} if quiescent == "no" else {one: 0}
        driven.until({one: 3, other: 1})
        assert sorted(lab.fetch(4)) == ["rs1", "rs1", "rs1", "rs2"]
        driven.stop("rs1")
        driven.until({**gone, other: 1})
        assert set(lab.fetch(4)) == {"rs2"}
        driven.stop("rs2")
        quiesced = {one: 0, other: 0} if quiescent == "yes" else {}
        driven.until({**quiesced, fallback: 1})
        assert set(lab.fetch(2)) == {"sorry"}
        driven.restart("rs1")
        driven.restart("rs2")
        driven.until({one: 3, other: 1})
        assert set(lab.fetch(4)) == {"rs1", "rs2"}
        lab.stop_director()
