"""Names of hosts and services, both ways, on a system whose resolver the test is."""

import socket

import pytest

from pylvs.control.ipvsadm import executor
from pylvs.control.ipvsadm.names import SystemNames
from tests.packets import number
from tests.world import VIP, World

HOSTS = {"www.example": VIP, "rs1.example": "10.0.0.11", "rs6.example": "2001:db8:2::b"}
PORTS = {("http", "tcp"): 80, ("http-alt", "tcp"): 8080, ("domain", "udp"): 53}


def unknown(*_):
    raise OSError("unknown")


@pytest.fixture(autouse=True)
def _resolver(monkeypatch):
    by_address = {address: name for name, address in HOSTS.items()}
    by_port = {(port, protocol): name for (name, protocol), port in PORTS.items()}

    def find(table, key):
        return table[key] if key in table else unknown()

    def addresses_of(name, _, family):
        text = find(HOSTS, name)
        if (family == socket.AF_INET6) != (":" in text):
            unknown()
        return [(family, 0, 0, "", (text, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", addresses_of)
    monkeypatch.setattr(socket, "gethostbyaddr", lambda text: (find(by_address, text), [], []))
    monkeypatch.setattr(socket, "getservbyname", lambda *pair: find(PORTS, pair))
    monkeypatch.setattr(socket, "getservbyport", lambda *pair: find(by_port, pair))


@pytest.fixture
def run():
    one = executor.Executor(World().manager, resolves=True)
    return lambda line, text="": one.run(line.split(), text)


def test_what_is_named_is_found_and_listed_by_name(run):
    assert run("-A -t www.example:http -s rr") == executor.Result()
    assert run("-a -t www.example:http -r rs1.example:http-alt -m") == executor.Result()
    assert run("-a -t www.example:http -r rs6.example -i") == executor.Result()
    listed = run("-L").output.splitlines()
    assert "  -> [rs6.example]:http           Tunnel " in listed[5]
    assert listed[3] == "TCP  www.example:http rr"
    assert listed[4].startswith("  -> rs1.example:http-alt         Masq ")
    assert f"TCP  {VIP}:80 rr" in run("-Ln").output
    saved = run("-S").output
    assert saved.splitlines()[1] == "-a -t www.example:http -r rs1.example:http-alt -m -w 1"
    assert run("-C") == run("-R", saved) == executor.Result()
    assert run("-Sn").output.splitlines()[1] == f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m -w 1"


def test_what_has_no_name_stays_a_number(run):
    run("-A -u 192.0.2.99:54 -s rr")
    run(f"-A -u {VIP}:domain -s rr")
    assert "UDP  192.0.2.99:54 rr\n" in run("-L").output
    assert "UDP  www.example:domain rr\n" in run("-L").output


@pytest.mark.parametrize("service", ["nobody.example:80", "www.example:gopher", "5:80"])
def test_an_unknown_name_is_refused_as_ipvsadm_does(run, service):
    refused = run(f"-A -t {service}")
    assert refused == executor.Result(2, "", "illegal virtual server address[:port] specified\n")


def test_each_name_is_asked_for_once_a_listing(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "gethostbyaddr", lambda text: asked.append(text) or unknown())
    names = SystemNames()
    assert [names.host(number(VIP)) for _ in range(3)] == [VIP] * 3
    assert asked == [VIP]
