"""Full NAT with servers that are told their clients, by the PROXY protocol."""

import shutil
import signal
import sys
import time

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import bracketed, topology
from tests.lab.conftest import STATION, ask

PROXY_PORT = 8_081


def rules(lab, server_port):
    shape = lab.topology
    lines = [f"-A -t {shape.endpoint} -s rr"]
    for address in shape.servers.values():
        server = f"-r {bracketed(address)}:{server_port} --fullnat proxy"
        lines.append(f"-a -t {shape.endpoint} {server}")
    return "\n".join(lines) + "\n"


def start_director(lab, server_port):
    path = lab.folder / "rules"
    path.write_text(rules(lab, server_port), encoding="ascii")
    lab.start_director(["--iface", "eth0", "--local", lab.topology.local, "--rules", str(path)])


@pytest.mark.parametrize("version", [4, 6])
def test_servers_know_their_clients_and_get_every_byte(version):
    with Lab(topology("fullnat", version)) as lab:
        shape = lab.topology
        for node, address in shape.servers.items():
            words = [sys.executable, str(STATION), "serve", node, str(PROXY_PORT), "proxy"]
            lab.spawn(node, words, f"{node}.log")
            lab._await_port(node, address, PROXY_PORT)
        start_director(lab, PROXY_PORT)
        client = shape.nodes[0].interfaces[0].address.partition("/")[0]
        for size in (1, 1_460, 100_000, 20_000_000):
            (answer,) = ask(lab, "upload", size)
            assert answer.split()[0] == "same"
            assert answer.split()[2:] == [client, shape.vip, "80"]
        assert ask(lab, "download", 20_000_000) == ["same"]
        # As cards do not help: every segment by itself, and every checksum looked at.
        for node in ("client", *shape.servers):
            lab.shell(node, f"{sys.executable} -m pylvs.lab.offloads eth0")
        dump = lab.spawn("rs1", _tcpdump(lab), "dump.log") if shutil.which("tcpdump") else None
        time.sleep(1)
        assert ask(lab, "upload", 1_000_000)[0].startswith("same")
        assert ask(lab, "upload", 1_000_000)[0].startswith("same")
        time.sleep(0.5)
        if dump:
            dump.send_signal(signal.SIGTERM)
            dump.wait(10)
            read = f"tcpdump -Z root -nn -vv -r {lab.folder}/rs1.pcap 2>/dev/null"
            told = lab.shell(
                "client", f"{read} | grep -c correct; {read} | grep -c incorrect; true"
            )
            right, wrong = map(int, told.split())
            assert right > 100
            assert wrong == 0
        listed = lab.shell("director", f"{sys.executable} -m pylvs ipvsadm -Ln")
        assert "FullNAT" in listed
        saved = lab.shell("director", f"{sys.executable} -m pylvs ipvsadm -Sn")
        assert "--fullnat proxy" in saved
        lab.stop_director()


def _tcpdump(lab):
    dump = ["tcpdump", "-Z", "root", "-U", "--immediate-mode", "-i", "eth0", "tcp"]
    return [*dump, "-w", f"{lab.folder}/rs1.pcap"]


def test_nginx_believes_the_header():
    nginx = shutil.which("nginx")
    if not nginx:
        pytest.skip("nginx is not installed")
    with Lab(topology("fullnat")) as lab:
        shape = lab.topology
        for node, address in shape.servers.items():
            path = lab._write_nginx(node, PROXY_PORT)
            text = path.read_text(encoding="ascii")
            text = text.replace(f"listen {PROXY_PORT};", f"listen {PROXY_PORT} proxy_protocol;")
            text = text.replace(f"listen [::]:{PROXY_PORT};", "")
            text = text.replace(f'"{node}\\n"', '"$proxy_protocol_addr $remote_addr\\n"')
            path.write_text(text, encoding="ascii")
            lab.spawn(node, [nginx, "-e", "stderr", "-c", str(path)], f"{node}.log")
            lab._await_port(node, address, PROXY_PORT)
        start_director(lab, PROXY_PORT)
        client = shape.nodes[0].interfaces[0].address.partition("/")[0]
        assert lab.fetch(4) == [client, shape.local] * 4
        lab.stop_director()


def test_a_local_address_that_somebody_has_is_refused():
    with Lab(topology("fullnat")) as lab:
        shape = lab.topology
        start = (
            f"{sys.executable} -m pylvs run --iface eth0 --vip {shape.endpoint} --rs 192.168.79.129"
        )
        run = f"{start} --mode fullnat --local %s 2>&1; echo $?"
        own = lab.shell("director", run % "192.168.0.9")
        assert "this host's own address" in own
        router = lab.shell("director", run % "192.168.0.253")
        assert "is in use" in router
        without = lab.shell("director", f"{start} --mode fullnat 2>&1; echo $?")
        assert "--local" in without
        assert (own[-2], router[-2], without[-2]) == ("1", "1", "2")
