"""What the kernel forwards by itself, with real stacks at both ends and their own offloads."""

import json
import sys
import threading
import time

import pytest

from pylvs.drivers.programs import bpf
from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, rules, start_director, start_stations

MEGABYTE = 1_000_000
KINDS = [
    (mode, version, "packet", workers)
    for mode in ("nat", "dr")
    for version in (4, 6)
    for workers in (1, 2)
]
KINDS += [(mode, version, "xdp", 1) for mode in ("nat", "dr") for version in (4, 6)]
KINDS += [("nat", 4, "xdp", 2)]


@pytest.fixture(autouse=True, scope="module")
def _bpf_is_allowed():
    try:
        bpf.Map(bpf.ARRAY, 4, 4, 1).close()
    except OSError as error:
        pytest.skip(f"no bpf here: {error}")


def pylvs(lab, words):
    return lab.shell("director", f"{sys.executable} -m pylvs {words}")


def stats(lab):
    return json.loads(pylvs(lab, "stats --json"))


@pytest.mark.parametrize(("mode", "version", "driver", "workers"), KINDS)
def test_much_of_a_transfer_is_the_kernels_and_all_of_it_is_counted(mode, version, driver, workers):
    size = 30 * MEGABYTE
    with Lab(topology(mode, version), queues=workers) as lab:
        start_stations(lab)
        options = ("--offload", "on", "--driver", driver, "--workers", str(workers))
        start_director(lab, rules(lab), *options)
        assert ask(lab, "upload", size, 1)[0].startswith("same")
        assert ask(lab, "download", size) == ["same"]
        told = stats(lab)
        carried = told["reasons"]["forwarded"] + told["reasons"].get("replied", 0)
        assert told["offload"]["packets"] > carried / 5  # the download is soon over
        assert told["counters"]["in_packets"] == told["reasons"]["forwarded"]
        assert told["counters"]["in_bytes"] > size
        assert told["reasons"].get("other_host", 0) < 100  # nothing is heard as it leaves
        if mode == "nat":
            assert told["counters"]["out_bytes"] > size
        state = pylvs(lab, "connection --json")
        assert {one["state"] for one in json.loads(state)["connections"]} <= {
            "FIN_WAIT",
            "TIME_WAIT",
            "CLOSE_WAIT",
            "CLOSE",
        }
        assert told["offload"]["flows"] == 0  # they have ended
        lab.stop_director()


@pytest.mark.parametrize("driver", ["packet", "xdp"])
@pytest.mark.parametrize("mode", ["nat", "dr"])
def test_changes_on_the_way_cost_a_transfer_nothing(mode, driver):
    """Rules, the server's MAC, an interface that goes down for a moment."""
    with Lab(topology(mode)) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "on", "--driver", driver)
        results = []
        size = 40 * MEGABYTE
        transfer = threading.Thread(target=lambda: results.extend(ask(lab, "upload", size, 4)))
        transfer.start()
        shape = lab.topology
        server = f"{shape.servers['rs1']}:{shape.server_port}"
        method = {"nat": "-m", "dr": "-g"}[mode]
        for turn in range(10):
            time.sleep(0.2)
            pylvs(lab, f"ipvsadm -e -t {shape.endpoint} -r {server} {method} -w {turn % 3 + 1}")
        lab.shell("rs1", "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify")
        lab.shell("rs1", "ip link set eth0 address 02:00:00:00:99:01")
        lab.shell("director", "ip link set eth0 down; ip link set eth0 up")
        restore_routes(lab)
        transfer.join()
        assert results[0].startswith("same")
        assert stats(lab)["offload"]["packets"] > 100
        lab.stop_director()


def restore_routes(lab):
    """Put back what went with an interface."""
    for node in lab.topology.nodes:
        if node.name == "director" and node.gateway:
            lab.shell("director", f"ip route replace default via {node.gateway}")
        if node.name == "rs1":
            lab.shell("rs1", f"ip route replace default via {node.gateway}")


def test_a_removed_servers_packets_stop():
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "on")
        shape = lab.topology
        script = (
            "import socket,time\n"
            f"s=socket.create_connection(('{shape.vip}',{shape.port}),5)\n"
            "for n in range(40):\n"
            "    s.sendall(bytes(100)); time.sleep(0.05)\n"
        )
        client = lab.spawn("client", [sys.executable, "-c", script], "client.log")
        time.sleep(1)
        assert stats(lab)["offload"]["packets"] > 0
        for address in shape.servers.values():
            pylvs(lab, f"ipvsadm -d -t {shape.endpoint} -r {address}:{shape.server_port}")
        before = stats(lab)
        time.sleep(0.5)
        after = stats(lab)
        assert after["offload"]["packets"] == before["offload"]["packets"]
        assert after["reasons"]["server_gone"] > 0
        client.wait(20)
        lab.stop_director()


def test_without_it_everything_goes_through_the_director():
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "off")
        assert ask(lab, "upload", 5 * MEGABYTE)[0].startswith("same")
        assert stats(lab)["offload"] == {"flows": 0, "packets": 0}
        lab.stop_director()


SEEN_LEAVING = """
import socket, sys
one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
one.bind((sys.argv[1], 3))
while True:
    frame, (_, _, kind, *_) = one.recvfrom(2048)
    if kind == socket.PACKET_OUTGOING and frame[int(sys.argv[2])] == socket.IPPROTO_UDP:
        print("leaves", flush=True)
"""


def switch_gro(lab, on):
    """Have the director's interfaces take frames from XDP, as cards do, or no longer."""
    for one in ("eth0", "eth1"):
        lab.shell("switch", gro_of(f"director.{one}", on))


def gro_of(interface, on):
    """Return the shell line that turns it on or off."""
    line = f"from pylvs.lab.offloads import switch; switch('{interface}', 0x2C, {on})"
    return f'{sys.executable} -c "{line}"'


@pytest.mark.parametrize("version", [4, 6])
def test_xdp_sends_itself_as_long_as_the_interface_takes_it(version):
    """What is redirected no packet socket sees leaving."""
    with Lab(topology("nat", version)) as lab:
        start_stations(lab)
        for node in ("client", "rs1", "rs2"):
            lab.shell(node, f"{sys.executable} -m pylvs.lab.offloads eth0")
        switch_gro(lab, 1)
        start_director(lab, rules(lab), "--offload", "on", "--driver", "xdp")
        protocol = 14 + (9 if version == 4 else 6)
        words = [sys.executable, "-c", SEEN_LEAVING, "eth1", str(protocol)]
        lab.spawn("director", words, "leaving")
        assert ask(lab, "talk", 300) == ["300"]
        assert stats(lab)["offload"]["packets"] > 500
        by_director = lab.log("leaving").count("leaves")
        assert by_director < 50
        switch_gro(lab, 0)
        assert int(ask(lab, "talk", 300)[0]) == 300
        assert lab.log("leaving").count("leaves") > 250 + by_director
        results = []
        talk = threading.Thread(target=lambda: results.extend(ask(lab, "talk", 500)))
        switch_gro(lab, 1)
        talk.start()
        time.sleep(0.8)
        switch_gro(lab, 0)  # on the way
        talk.join()
        assert int(results[0]) > 490
        lab.stop_director()


@pytest.mark.parametrize("driver", ["packet", "xdp"])
@pytest.mark.parametrize("version", [4, 6])
def test_tunnels_end_at_real_decapsulators(version, driver):
    """Of packets that are whole: what their sender leaves unfinished is the director's."""
    with Lab(topology("tun", version)) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--offload", "on", "--driver", driver)
        assert ask(lab, "upload", 5 * MEGABYTE)[0].startswith("same")
        assert stats(lab)["offload"]["packets"] < 100
        lab.shell("client", f"{sys.executable} -m pylvs.lab.offloads eth0")
        assert ask(lab, "upload", 20 * MEGABYTE)[0].startswith("same")
        before = stats(lab)["offload"]["packets"]
        assert before > 1_000
        lab.shell("switch", gro_of("director.eth0", 1))
        assert ask(lab, "talk", 300) == ["300"]
        assert stats(lab)["offload"]["packets"] - before > 250
        lab.stop_director()
