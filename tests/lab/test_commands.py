"""The commands as people type them: demo, up, exec, status, down, realserver, --tap, plug-ins."""

import json
import re
import subprocess
import sys
import time

import pytest

from pylvs.lab import capture
from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, start_stations

PYLVS = [sys.executable, "-m", "pylvs"]


def pylvs(*words):
    return subprocess.run(
        [*PYLVS, *words], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("mode", ["nat", "tun"])
def test_the_demo_shows_who_answered_and_right_checksums(mode):
    done = pylvs("lab", "demo", mode)
    assert done.returncode == 0, done.stderr
    assert "rs1        5  #####" in done.stdout
    assert ", 0 with a wrong checksum" in done.stdout


def test_a_lab_stays_up_until_it_is_taken_down():
    done = pylvs("lab", "up", "dr")
    assert done.returncode == 0, done.stderr
    name = done.stdout.split()[1]
    try:
        status = json.loads(pylvs("lab", "status", "--json").stdout)
        assert f"{name}-client" in status[name]["namespaces"]
        assert name in pylvs("lab", "status").stdout
        url = "http://192.168.0.211/"
        script = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
        asked = pylvs("lab", "exec", "--lab", name, "client", sys.executable, "-c", script)
        assert asked.stdout.strip() in ("rs1", "rs2")
        assert pylvs("lab", "exec", "--lab", name, "nobody", "true").returncode == 2
        assert pylvs("lab", "exec", "--lab", "none", "client", "true").returncode == 2
    finally:
        done = pylvs("lab", "down", "--lab", name)
    assert done.returncode == 0
    assert name not in pylvs("lab", "status", "--json").stdout


@pytest.mark.parametrize("mode", ["dr", "tun"])
def test_a_real_server_is_prepared_and_put_back(mode):
    with Lab(topology("nat")) as lab:
        sysctl = "cat /proc/sys/net/ipv4/conf/all/arp_ignore; ip -br address"
        before = lab.shell("rs1", sysctl)
        words = f"{sys.executable} -m pylvs realserver"
        vips = "--vip 192.0.2.10 --vip 2001:db8::10"
        for _ in range(2):
            lab.shell("rs1", f"{words} setup {vips} --mode {mode}")
            during = lab.shell("rs1", sysctl)
            assert during.startswith("1")
            assert "192.0.2.10/32" in during
            assert "2001:db8::10/128" in during
            lab.shell("rs1", f"{words} undo {vips} --mode {mode}")
            assert lab.shell("rs1", sysctl) == before
            time.sleep(0.5)
            pids = f"$(ip netns pids {lab.namespace('rs1')})"
            running = f"for pid in {pids}; do cat /proc/$pid/cmdline; done 2>/dev/null; true"
            assert "decapsulator" not in lab.shell("rs1", running)


def test_a_nat_servers_ipv6_gateway_is_put_back():
    with Lab(topology("nat", 6)) as lab:
        words = f"{sys.executable} -m pylvs realserver"
        before = lab.shell("rs1", "ip -6 route show default")
        lab.shell("rs1", f"{words} setup --vip 2001:db8::10 --mode nat --gateway 2001:db8:b::9")
        assert "via 2001:db8:b::9 " in lab.shell("rs1", "ip -6 route show default")
        lab.shell("rs1", f"{words} undo --vip 2001:db8::10 --mode nat")
        assert lab.shell("rs1", "ip -6 route show default") == before


@pytest.mark.parametrize("route", ["default via 192.168.79.1 dev eth0", ""])
def test_a_nat_servers_gateway_is_put_back(route):
    with Lab(topology("nat")) as lab:
        lab.shell("rs1", "ip route flush exact default")
        if route:
            lab.shell("rs1", f"ip route add {route}")
        words = f"{sys.executable} -m pylvs realserver"
        for gateway in ("192.168.79.2", "192.168.79.3"):
            lab.shell("rs1", f"{words} setup --vip 192.0.2.10 --mode nat --gateway {gateway}")
            during = lab.shell("rs1", "ip route show default").strip()
            assert during == f"default via {gateway} dev eth0"
        lab.shell("rs1", f"{words} undo --vip 192.0.2.10 --mode nat")
        assert lab.shell("rs1", "ip route show default").strip() == route


@pytest.mark.parametrize(
    ("mode", "version", "workers"),
    [("dr", 4, 1), ("dr", 6, 1), ("tun", 4, 1), ("tun", 6, 1), ("dr", 4, 2)],
)
def test_a_director_on_a_tap_device_is_a_station_of_its_own(mode, version, workers):
    """The TAP device joins the LAN by a bridge; nobody but the director answers for DIP and VIP."""
    with Lab(topology(mode, version)) as lab:
        start_stations(lab)
        for line in (
            "ip address flush dev eth0",
            "ip link add br0 type bridge",
            "ip link set eth0 master br0",
            "ip link set br0 up",
        ):
            lab.shell("director", line)
        shape = lab.topology
        director = next(node for node in shape.nodes if node.name == "director")
        dip = director.interfaces[0].address
        words = ["--tap", "tap0", "--dip", dip, "--gateway", director.gateway]
        words += ["--vip", shape.endpoint, "--scheduler", "rr", "--mode", mode]
        for address in shape.servers.values():
            words += ["--rs", address]
        lab.start_director([*words, "--workers", str(workers)])
        lab.shell("director", "ip link set tap0 master br0")
        time.sleep(0.5)
        answers = sorted(ask(lab, "upload", 100_000)[0].split()[1] for _ in range(4))
        assert answers == ["rs1", "rs1", "rs2", "rs2"]
        for address in (dip.partition("/")[0], shape.vip):
            ping = f"ping -c 1 -W 2 {address} >/dev/null && echo up"
            assert lab.shell("client", ping).strip() == "up"
        assert f"TCP  {shape.endpoint}" in lab.stop_director()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_director_on_a_tun_device_gets_what_the_host_routes_there(workers):
    """Bare packets, GSO frames among them, which the director cuts for its tunnels."""
    with Lab(topology("tun")) as lab:
        start_stations(lab)
        shape = lab.topology
        for name in ("ip_forward", "conf/eth0/proxy_arp"):
            lab.shell("director", f"echo 1 > /proc/sys/net/ipv4/{name}")
        words = ["--tun", "tun0", "--dip", "192.168.0.10", "--workers", str(workers)]
        words += ["--vip", shape.endpoint, "--scheduler", "rr", "--mode", "tun"]
        for address in shape.servers.values():
            words += ["--rs", address]
        lab.start_director(words)
        lab.shell("director", f"ip route add {shape.vip} dev tun0")
        answers = sorted(ask(lab, "upload", 1_000_000)[0].split()[1] for _ in range(4))
        assert answers == ["rs1", "rs1", "rs2", "rs2"]
        ping = f"ping -c 1 -W 2 {shape.vip} >/dev/null && echo up"
        assert lab.shell("client", ping).strip() == "up"
        said = lab.stop_director()
        assert f"TCP  {shape.endpoint}" in said
        assert re.search(r"^segmented +[1-9]", said, re.MULTILINE)


def test_a_plug_in_scheduler_decides_on_live_rings():
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        arguments = lab.topology.director_arguments()
        arguments[arguments.index("rr")] = "tests.schedulers.test_plugins:Last"
        lab.start_director([*arguments, "--stats-interval", "0.5"])
        assert {ask(lab, "upload", 10_000)[0].split()[1] for _ in range(5)} == {"rs2"}
        time.sleep(1)
        assert lab.stop_director().count("IP Virtual Server version") >= 2


def test_a_hundred_thousand_hostile_frames_do_no_harm():
    """Random and damaged frames from a neighbour; then real traffic goes on, and nothing grew."""
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        lab.start_director()
        assert ask(lab, "upload", 1000)[0].startswith("same")
        mac = lab.shell("director", "cat /sys/class/net/eth0/address").strip()
        lab.shell(
            "router", f"{sys.executable} -m tests.lab.hostile eth1 {mac} {lab.topology.vip} 100000"
        )
        resident = lab.shell("director", f"grep VmRSS /proc/{lab.director.pid}/status").split()[1]
        lab.shell(
            "router", f"{sys.executable} -m tests.lab.hostile eth1 {mac} {lab.topology.vip} 50000"
        )
        again = lab.shell("director", f"grep VmRSS /proc/{lab.director.pid}/status").split()[1]
        assert int(again) < int(resident) * 1.1 + 10_000
        assert ask(lab, "upload", 1000)[0].startswith("same")
        said = lab.stop_director()
        counted = sum(
            int(line.split()[1])
            for line in said.splitlines()
            if line.split()[:1]
            and line.split()[0] in ("truncated", "bad_header", "not_ip", "martian")
        )
        assert counted > 50_000, said


def test_a_trace_holds_what_came_and_what_left():
    with Lab(topology("dr")) as lab:
        start_stations(lab)
        trace = lab.folder / "trace.pcap"
        lab.start_director([*lab.topology.director_arguments(), "--trace", str(trace)])
        assert ask(lab, "upload", 1000)[0].startswith("same")
        lab.stop_director()
        ttls = {packet[8] for packet in capture.packets(str(trace)) if packet[9] == 6}
        assert ttls == {63, 62}
