"""Networks and ranges of ports as services, on a host that routes as well: it is kept out."""

import sys

import pytest

from pylvs.lab.build import Lab
from pylvs.lab.topology import bracketed, topology
from tests.lab.conftest import STATION, start_stations

NETWORKS = {4: "198.18.0.0/24", 6: "2001:db8:77::/64"}
HOSTS = {4: "198.18.0.7", 6: "2001:db8:77::7"}
EVERYBODY = {4: "0.0.0.0/0", 6: "[2000::/3]"}


def ask(lab, action, host, port, *arguments):
    words = [sys.executable, str(STATION), action, host, str(port), *map(str, arguments)]
    return lab.shell("client", " ".join(words)).splitlines()


def pylvs(lab, words, text=""):
    line = f"{sys.executable} -m pylvs {words} <<'END'\n{text}\nEND\n"
    return lab.shell("director", line)


def servers(lab, service, port=":8080"):
    return [
        f"-a {service} -r {bracketed(address) if port else address}{port} -m"
        for address in lab.topology.servers.values()
    ]


@pytest.fixture(scope="module", params=(4, 6), ids=("ipv4", "ipv6"))
def lab(request):
    version = request.param
    with Lab(topology("nat", version)) as built:
        start_stations(built)
        built.shell("director", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        built.shell("director", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        front = "10.133.146.2" if version == 4 else "2001:db8:f::2"
        built.shell("router", f"ip route add {NETWORKS[version]} via {front}")
        back = "192.168.79.0/24" if version == 4 else "2001:db8:b::/64"
        built.shell("router", f"ip route add {back} via {front}")
        built.version = version
        built.start_director(["--iface", "eth0", "--iface", "eth1"])
        yield built
        built.stop_director()


def restore(lab, *services):
    """Make these the table; one on the VIP keeps ports, the others map all to the servers' own."""
    lines = []
    for service in services:
        keeps = lab.topology.vip in service
        lines += [f"-A {service} -s rr", *servers(lab, service, "" if keeps else ":8080")]
    return pylvs(lab, "restore -", "\n".join(lines))


def network(lab):
    text = NETWORKS[lab.version]
    return f"[{text}]" if ":" in text else text


def test_a_network_and_a_range_are_served(lab):
    net, host = network(lab), HOSTS[lab.version]
    restore(lab, f"-t {net}:7000-7999,9000", f"-u {net}:any")
    answers = [
        ask(lab, "upload", host, port, 1_000_000)[0].split() for port in (7_000, 7_999, 9_000)
    ]
    assert [answer[0] for answer in answers] == ["same"] * 3
    assert {answer[1] for answer in answers} == {"rs1", "rs2"}
    assert ask(lab, "download", host, 7_123, 5_000_000) == ["same"]
    answers = ask(lab, "datagram", host, 999, 4, 4_000)  # in fragments
    assert sorted(answer.split()[0] for answer in answers) == ["rs1", "rs1", "rs2", "rs2"]
    assert {answer.split()[2] for answer in answers} == {"4000"}
    listed = pylvs(lab, "ipvsadm -Ln")
    assert f"TCP  {net}:7000-7999,9000 rr" in listed
    assert f"UDP  {net}:any rr" in listed
    saved = pylvs(lab, "ipvsadm -Sn")
    assert pylvs(lab, "restore - --dry-run", saved) == ""
    shown = pylvs(lab, f"service tcp:{net}:7000-7999,9000")
    assert "rs" in shown or lab.topology.servers["rs1"] in shown


def test_servers_that_keep_the_port_answer_through_the_director_alone(lab):
    restore(lab, f"-t {bracketed(lab.topology.vip)}:8000-8090")
    for _ in range(4):
        assert ask(lab, "upload", lab.topology.vip, 8_080, 1_000_000)[0].startswith("same")


def test_ranges_change_into_others_that_overlap_them(lab):
    net, host = network(lab), HOSTS[lab.version]
    restore(lab, f"-t {net}:7000-7999")
    done = restore(lab, f"-t {net}:7500-8500", f"-t {net}:any")
    assert done.splitlines()[0] == f"-D -t {net}:7000-7999"
    for port in (7_499, 7_500, 8_500):
        assert ask(lab, "upload", host, port, 100_000)[0].startswith("same")
    restore(lab)
    assert "7500" not in lab.shell("director", "nft list ruleset")


def test_what_a_wide_service_does_not_take_is_routed_by_the_host(lab):
    """The servers can be spoken to past the director, also in fragments that it has to see."""
    restore(lab, f"-t {EVERYBODY[lab.version]}:7000-7010", f"-u {EVERYBODY[lab.version]}:7000")
    host, server = HOSTS[lab.version], lab.topology.servers["rs1"]
    assert ask(lab, "upload", host, 7_005, 1_000_000)[0].startswith("same")
    assert ask(lab, "datagram", host, 7_000, 2, 4_000)[0].endswith(" 4000")
    # Past the director: to the server itself, whose own packets have no connection.
    answers = [ask(lab, "upload", server, 8_080, 1_000_000)[0] for _ in range(2)]
    assert [answer.split()[:2] for answer in answers] == [["same", "rs1"]] * 2
    assert ask(lab, "datagram", server, 8_080, 2, 4_000)[0].endswith(" 4000")


def test_the_hosts_own_addresses_in_a_network_stay_the_hosts(lab):
    front = "10.133.146.0/24" if lab.version == 4 else "[2001:db8:f::/64]"
    own = "10.133.146.2" if lab.version == 4 else "2001:db8:f::2"
    restore(lab, f"-t {front}:any", f"-u {front}:any")
    words = [sys.executable, str(STATION), "serve", "host", "2222"]
    lab.spawn("director", words, "own.log")
    lab._await_port("director", own, 2_222)
    assert ask(lab, "upload", own, 2_222, 100_000)[0].split()[:2] == ["same", "host"]
    assert ask(lab, "datagram", own, 2_222, 1)[0].startswith("host")
    client = lab.topology.nodes[0].interfaces[0].address.partition("/")[0]
    lab.spawn("client", [sys.executable, str(STATION), "serve", "client", "2223"], "client.log")
    lab._await_port("client", client, 2_223)
    words = f"{sys.executable} {STATION} upload {client} 2223 100000"
    assert lab.shell("director", words).split()[:2] == ["same", "client"]
