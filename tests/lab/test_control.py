"""A running director takes ipvsadm's commands, and no connection notices."""

import json
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from pylvs.control.network.system import NEEDED, NEEDED_FOR_BPF
from pylvs.drivers.programs import bpf
from pylvs.lab.build import Lab
from pylvs.lab.topology import topology
from tests.lab.conftest import ask, rules, start_director, start_stations

IPVSADM = f"{sys.executable} -m pylvs.control.client"
METHODS = {"nat": "-m", "dr": "-g", "tun": "-i"}


def ipvsadm(lab, words, text=""):
    return lab.shell("director", f"{IPVSADM} {words} 2>&1 <<'END'\n{text}\nEND\necho $?").split(
        "\n"
    )


@pytest.mark.parametrize("mode", ["nat", "dr"])
def test_an_empty_director_is_given_its_table_and_loses_it_again(mode):
    with Lab(topology(mode)) as lab:
        start_stations(lab)
        words = lab.topology.director_arguments()
        lab.start_director(words[: words.index("--vip")])
        shape = lab.topology
        service = f"-t {shape.vip}:{shape.port}"
        assert ipvsadm(lab, f"-A {service} -s rr")[0] == "0"
        for address in shape.servers.values():
            server = f"-r {address}:{shape.server_port} {METHODS[mode]}"
            assert ipvsadm(lab, f"-a {service} {server}")[0] == "0"
        answers = sorted(ask(lab, "upload", 100_000)[0].split()[1] for _ in range(4))
        assert answers == ["rs1", "rs1", "rs2", "rs2"]
        listed = ipvsadm(lab, "-Ln")
        assert listed[3] == f"TCP  {shape.vip}:{shape.port} rr"
        saved = "\n".join(ipvsadm(lab, "-Sn")[:3])
        claimed = lab.shell("director", "nft list tables; nft list table netdev pylvs")
        assert f"tcp . {shape.vip} . {shape.port}" in claimed
        assert ipvsadm(lab, "-C")[0] == "0"
        assert f"tcp . {shape.vip}" not in lab.shell("director", "nft list table netdev pylvs")
        assert ipvsadm(lab, "-R", saved)[0] == "0"
        assert ask(lab, "upload", 100_000)[0].startswith("same")
        lab.stop_director()


def test_changes_cost_no_connection_but_those_of_what_was_removed():
    """Fifty megabytes in both directions while the table around them changes all the time."""
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab, "wlc"))
        shape = lab.topology
        address = next(iter(shape.servers.values()))
        service = f"-t {shape.vip}:{shape.port}"
        commands = []
        for n in range(150):
            commands += [
                f"-e {service} -r {address}:{shape.server_port} -m -w {n % 3}",
                f"-E {service} -s {('rr', 'wlc', 'sed', 'lblc')[n % 4]}",
                f"-a {service} -r 192.168.79.{200 + n % 50}:9 -m -w 0",
                f"-A -t {shape.vip}:{1000 + n} -s mh",
                f"-a -t {shape.vip}:{1000 + n} -r {address}:{shape.server_port} -m",
                f"-d {service} -r 192.168.79.{200 + n % 50}:9",
                f"-D -t {shape.vip}:{1000 + n}",
            ]
        results: list[str] = []

        def transfer(action: str) -> None:
            for _ in range(3):
                results.append(ask(lab, action, 20_000_000)[0])

        threads = [threading.Thread(target=transfer, args=(one,)) for one in ("upload", "download")]
        for thread in threads:
            thread.start()
        changed = 0
        while any(thread.is_alive() for thread in threads):
            assert ipvsadm(lab, "-R", "\n".join(commands))[0] == "0"
            changed += len(commands)
        for thread in threads:
            thread.join()
        assert [result.split()[0] for result in results] == ["same"] * 6
        assert changed >= len(commands)
        lab.stop_director()


def test_the_directors_of_two_namespaces_have_their_own_tables():
    with Lab(topology("dr")) as lab:
        start_director(lab, rules(lab))
        refused = lab.shell("rs1", f"{IPVSADM} -Ln 2>&1; echo $?")
        assert "no director runs in this network namespace" in refused
        assert refused.endswith("2\n")
        lab.stop_director()
        assert "no director runs" in lab.shell("director", f"{IPVSADM} -Ln 2>&1; echo $?")


def test_what_a_killed_director_had_restored_halfway_is_gone_with_it():
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        start_director(lab, rules(lab))
        shape = lab.topology
        text = "".join(f"-A -t {shape.vip}:{port} -s rr\n" for port in range(1_000, 60_000))
        restore = subprocess.Popen(
            ["ip", "netns", "exec", lab.namespace("director"), *IPVSADM.split(), "-R"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert restore.stdin is not None
        restore.stdin.write(text)
        restore.stdin.close()
        while len(ipvsadm(lab, "-Ln")) < 200:
            pass
        lab.director.kill()
        lab.director.wait(5)
        assert restore.wait(10) != 0
        start_director(lab, rules(lab))
        assert ask(lab, "upload", 1_000)[0].startswith("same")
        tables = lab.shell("director", "nft list table netdev pylvs")
        assert f"{shape.vip} . 1000" not in tables
        lab.stop_director()
        assert lab.shell("director", "nft list tables") == ""


def has_bpf():
    try:
        bpf.Map(bpf.ARRAY, 4, 4, 1).close()
    except OSError:
        return False
    return True


def pylvs(lab, words):
    return lab.shell("director", f"{sys.executable} -m pylvs {words} 2>&1; echo $?")


def test_a_director_follows_its_file_and_drains_a_server():
    """A transfer goes on while the file is read again, with faults and without."""
    with Lab(topology("nat")) as lab:
        start_stations(lab)
        shape = lab.topology
        words = lab.topology.director_arguments()
        ports = [words[at + 1] for at, word in enumerate(words) if word == "--iface"]
        path = lab.folder / "pylvs.toml"
        service = f"tcp:{shape.vip}:{shape.port}"
        servers = [f"{address}:{shape.server_port}" for address in shape.servers.values()]

        def state(weights: list[object], more: str = "") -> None:
            text = f"[director]\ninterfaces = {json.dumps(ports)}\n{more}\n"
            text += f'[[services]]\nservice = "{service}"\nscheduler = "wrr"\n'
            for server, weight in zip(servers, weights, strict=False):
                text += f'[[services.servers]]\nserver = "{server}"\nmethod = "nat"\n'
                text += f"weight = {weight}\n"
            path.write_text(text, encoding="ascii")

        state([1, 1])
        lab.start_director(["-c", str(path)])
        results: list[str] = []
        transfer = threading.Thread(
            target=lambda: results.append(ask(lab, "download", 50_000_000)[0])
        )
        transfer.start()
        for weights, told in (([5, 2], "2 changes made"), ([5], "1 change made")):
            state(weights)
            assert told in pylvs(lab, "reload")
        state([1, "'x'"])
        refused = pylvs(lab, "reload")
        assert "services[0].servers[1].weight: give int, not 'x'" in refused
        assert refused.endswith("2\n")
        state([1, 1], 'gateway = "192.0.2.1"')
        assert "director.gateway: a change of it takes a restart" in pylvs(lab, "reload")
        assert pylvs(lab, "config show").count("[[services.servers]]") == 1
        state([1, 1])
        lab.director.send_signal(signal.SIGHUP)
        while pylvs(lab, "config show").count("[[services.servers]]") == 1:
            assert lab.director.poll() is None
        transfer.join()
        assert results[0].split()[0] == "same"

        tasks = pathlib.Path(f"/proc/{lab.director.pid}/task")
        held = {line for one in tasks.glob("*/status") for line in one.read_text().splitlines()}
        kept = {int(line.split()[1], 16) for line in held if line.startswith("CapEff")}
        assert kept == {sum(1 << one for one in (NEEDED_FOR_BPF if has_bpf() else NEEDED))}

        keeps = pylvs(lab, f"drain {service} {servers[0]} --deadline 0s --then reset --json")
        assert '"left": 0' in keeps
        assert keeps.endswith("0\n")
        answers = {ask(lab, "upload", 1_000)[0].split()[1] for _ in range(4)}
        assert answers == {"rs2"}
        lab.stop_director()
