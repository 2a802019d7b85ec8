"""Every forwarding method with real stacks at both ends, offloads as the system has them."""

import re
import shutil
import signal
import sys
import time

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import DRIVERS, KINDS, ask, rules, start_director, start_stations

MEGABYTE = 1_000_000


def client(lab):
    return lab.topology.nodes[0].interfaces[0].address.partition("/")[0]


def seen(lab):
    """Return what servers see in the place of the client: itself, but by full NAT."""
    return lab.topology.local or client(lab)


def test_tcp_connections_take_turns(lab):
    answers = [ask(lab, "upload", 10)[0] for _ in range(10)]
    sought = seen(lab)
    assert sorted(answers) == [f"same rs1 {sought}"] * 5 + [f"same rs2 {sought}"] * 5


def test_udp_flows_take_turns_and_the_server_sees_the_client(lab):
    answers = ask(lab, "datagram", 10)
    sought = seen(lab)
    assert sorted(answers) == [f"rs1 {sought} 10"] * 5 + [f"rs2 {sought} 10"] * 5


def test_fifty_megabytes_arrive_whole(lab):
    assert ask(lab, "upload", 50 * MEGABYTE)[0].startswith("same")


def test_fifty_megabytes_come_back_whole(lab):
    assert ask(lab, "download", 50 * MEGABYTE) == ["same"]


def test_large_datagrams_arrive(lab):
    size = 1_400
    assert ask(lab, "datagram", 1, size)[0].endswith(f" {seen(lab)} {size}")


def test_a_closed_connection_makes_place_for_the_next_from_the_same_port(lab):
    shape = lab.topology
    script = (  # from a port that no other connection of the client's is given
        "import socket,struct\n"
        "for _ in range(5):\n"
        f"    s=socket.socket(socket.AF_INET{'6' if ':' in shape.vip else ''})\n"
        "    s.setsockopt(1,2,1); s.setsockopt(1,13,struct.pack('ii',1,0))\n"
        f"    s.bind(('{client(lab)}',25678)); s.connect(('{shape.vip}',{shape.port})); s.close()\n"
        "print('done')\n"
    )
    assert lab.shell("client", f'{sys.executable} -c "{script}"').strip() == "done"


def test_the_host_never_answers_for_the_director(lab):
    """A port of the VIP without a service stays silent: the VIP is no address of the host's."""
    line = f"ping -c 1 -W 2 {lab.topology.vip} >/dev/null && echo answered"
    assert lab.shell("client", line).strip() == "answered"
    tables = lab.shell("director", "nft list tables") if shutil.which("nft") else ""
    assert "table netdev pylvs" in tables


@pytest.mark.parametrize("mode", ["nat", "dr", "tun"])
def test_weights_are_kept_to_exactly(mode):
    with Lab(topology(mode)) as lab:
        start_stations(lab)
        start_director(lab, rules(lab, "wrr", (1, 3)))
        answers = [ask(lab, "upload", 1)[0].split()[1] for _ in range(12)]
        lab.stop_director()
    assert (answers.count("rs1"), answers.count("rs2")) == (3, 9)


@pytest.mark.parametrize(("mode", "version", "driver", "workers"), KINDS)
def test_tcpdump_finds_every_checksum_right(mode, version, driver, workers):
    if not shutil.which("tcpdump"):
        pytest.skip("tcpdump is not installed")
    with Lab(topology(mode, version)) as lab:
        start_stations(lab)
        for node in ("client", *lab.topology.servers):
            lab.shell(node, f"{sys.executable} -m pylvs.lab.offloads eth0")
        start_director(lab, rules(lab), "--driver", driver, "--workers", str(workers))
        dump = ["tcpdump", "-Z", "root", "-U", "--immediate-mode", "-i", "eth0", "ip or ip6", "-w"]
        recorders = [
            lab.spawn(node, [*dump, f"{lab.folder}/{node}.pcap"], f"{node}.dump")
            for node in ("client", "rs1")
        ]
        time.sleep(1)
        for _ in range(2):
            ask(lab, "upload", 100_000)
            ask(lab, "datagram", 2, 33)
        time.sleep(0.5)
        for recorder in recorders:
            recorder.send_signal(signal.SIGTERM)
            recorder.wait(10)
        for node in ("client", "rs1"):
            text = lab.shell(
                "client", f"tcpdump -Z root -nn -vv -r {lab.folder}/{node}.pcap 2>/dev/null"
            )
            assert text.count("cksum") > 20 or (version == 6 and text.count("correct") > 20)
            # "bad" alone will not do: a right checksum may read 0xabad.
            assert not re.findall(r".*(?:incorrect|\bbad\b).*", text)
        lab.stop_director()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_vip_that_is_the_hosts_own_is_claimed_too(driver):
    """ip_forward=1 and a local VIP: no reset from the host, and its other ports stay its own."""
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        lab.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        lab.shell("director", f"ip address add {lab.topology.vip}/32 dev lo")
        start_director(lab, rules(lab), "--driver", driver)
        assert ask(lab, "upload", 1000)[0].startswith("same")
        assert (
            lab.shell("client", f"ping -c1 -W2 {lab.topology.vip} >/dev/null && echo up").strip()
            == "up"
        )
        refused = f"curl -sS --max-time 3 http://{lab.topology.vip}:81/ 2>/dev/null; echo $?"
        if shutil.which("curl"):
            assert lab.shell("client", refused).strip() == "7"  # refused at once
        # The director's host still talks to a real server's service port itself.
        address = lab.topology.servers["rs1"]
        probe = f"import socket; socket.create_connection(('{address}', 8080), 3); print('reached')"
        assert lab.shell("director", f'{sys.executable} -c "{probe}"').strip() == "reached"
        lab.stop_director()


@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_left_of_a_director_that_was_killed(driver):
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    with Lab(topology("dr")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--driver", driver)
        lab.director.kill()
        lab.director.wait(5)
        assert "pylvs" in lab.shell("director", "nft list tables")
        assert "xdp" not in lab.shell("director", "ip link show eth0")
        start_director(lab, rules(lab), "--driver", driver)
        assert ask(lab, "upload", 1)[0].startswith("same")
        lab.stop_director()
        assert lab.shell("director", "nft list tables") == ""


def test_a_second_director_in_the_namespace_is_refused():
    with Lab(topology("dr")) as lab:
        start_director(lab, rules(lab))
        line = (
            f"{sys.executable} -m pylvs run --iface eth0 --rules {lab.folder}/rules 2>&1; echo $?"
        )
        said = lab.shell("director", line)
        assert "already runs" in said
        assert said.strip().endswith("1")
        lab.stop_director()


def test_a_vip_in_use_is_refused():
    with Lab(topology("dr")) as lab:
        lab.shell("router", f"ip address add {lab.topology.vip}/24 dev eth1")
        arguments = " ".join(lab.topology.director_arguments())
        said = lab.shell("director", f"{sys.executable} -m pylvs run {arguments} 2>&1; echo $?")
        assert "is in use" in said
        assert said.strip().endswith("1")


def test_routes_macs_and_mtu_are_followed_live(lab):
    """A real server gets another MAC, and says so: traffic goes on."""
    if lab.topology.mode == "tun":
        pytest.skip("the same code as dr; one tunnel would have to be rebuilt")
    for notify in ("ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"):
        lab.shell("rs1", f"echo 1 > /proc/sys/net/{notify}")
    lab.shell("rs1", "ip link set eth0 address 02:00:00:00:99:01")
    lab.shell("rs1", f"ip route replace default via {gateway(lab)}")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if {ask(lab, "datagram", 1)[0].split()[0] for _ in range(2)} == {"rs1", "rs2"}:
                return
        except Exception as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"rs1 was not reached again: {last}")


@pytest.mark.parametrize(
    ("driver", "workers"), [("packet", 1), ("xdp", 1), ("packet", 2), ("xdp", 2)]
)
def test_an_interface_that_is_deleted_and_made_again_is_taken_up_again(driver, workers):
    """As when a container's network is plugged in anew; the other interface goes on meanwhile."""
    with Lab(topology("nat"), queues=workers) as lab:
        start_stations(lab)
        start_director(lab, rules(lab), "--driver", driver, "--workers", str(workers))
        assert ask(lab, "upload", 1000)[0].startswith("same")
        for _ in range(2):
            lab.shell("director", "ip link del eth1")
            time.sleep(1)
            assert lab.director.poll() is None
            assert '"eth1"' not in lab.shell("director", "nft list table netdev pylvs")
            ping = f"ping -c 1 -W 2 {lab.topology.vip} >/dev/null && echo answered"
            assert lab.shell("client", ping).strip() == "answered"
            lab._plug("director", "eth1", "back", "192.168.79.1/24")
            answers = {ask(lab, "upload", 100_000)[0].split()[1] for _ in range(4)}
            assert answers == {"rs1", "rs2"}
            assert '"eth1"' in lab.shell("director", "nft list table netdev pylvs")
        assert lab.log("director.log").count("interface eth1 is back") == 2
        lab.stop_director()


def gateway(lab):
    return next(node.gateway for node in lab.topology.nodes if node.name == "rs1")
