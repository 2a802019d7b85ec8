"""L3DSR: a request leaves as if its client had sent it to the server, marked."""

import pytest

from pylvs.control import listing
from pylvs.control.config import schema, services
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.rules import parse_line, parse_text
from pylvs.control.model import MarkRule
from pylvs.errors import RuleError, UsageError
from tests.packets import (
    ethernet,
    icmp,
    icmp6,
    ip_packet,
    ipv4,
    sctp,
    tcp_frame,
    udp_frame,
)
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

DSCP = 10
SERVER, SERVER6 = "10.0.0.11", "2001:db8:2::b"
MACS = bytes.fromhex("02000000020b0200000002fe")


def world():
    rules = []
    for letter in ("t", "u", "-sctp-service"):
        port = 53 if letter == "u" else 80
        rules.append(f"-A -{letter} {VIP}:{port} -s rr")
        rules.append(f"-a -{letter} {VIP}:{port} -r {SERVER}:{port} --l3dsr {DSCP}")
        rules.append(f"-A -{letter} [{VIP6}]:{port} -s rr")
        rules.append(f"-a -{letter} [{VIP6}]:{port} -r [{SERVER6}]:{port} --l3dsr {DSCP}")
    return World(rules)


def sent_for(frame):
    ((port, sent),) = world().send(frame)
    assert port == 1
    return sent


def sctp_frame(source, destination, **ip):
    body = ip_packet(source, destination, 132, sctp(40_000, 80, (1, bytes(16))), **ip)
    return ethernet(body)


@pytest.mark.parametrize("ecn", range(4))
@pytest.mark.parametrize("tos", [0, 0xB8, 0xFC])
@pytest.mark.parametrize(
    "make",
    [
        lambda source, destination, **ip: tcp_frame(source, destination, 40_000, 80, **ip),
        lambda source, destination, **ip: udp_frame(source, destination, 40_000, 53, **ip),
        sctp_frame,
    ],
    ids=["tcp", "udp", "sctp"],
)
def test_it_is_what_the_client_would_have_sent_to_the_server(make, tos, ecn):
    came = make(CLIENT, VIP, tos=tos | ecn)
    assert sent_for(came) == MACS + make(CLIENT, SERVER, tos=DSCP << 2 | ecn, ttl=63)[12:]
    came = make(CLIENT6, VIP6, traffic=tos | ecn, label=0x12345)
    leaves = make(CLIENT6, SERVER6, traffic=DSCP << 2 | ecn, label=0x12345, hops=63)
    assert sent_for(came) == MACS + leaves[12:]


def test_a_datagram_without_a_checksum_is_given_one():
    came = udp_frame(CLIENT, VIP, 40_000, 53, checksum=False)
    assert sent_for(came) == MACS + udp_frame(CLIENT, SERVER, 40_000, 53, tos=40, ttl=63)[12:]


def test_an_error_about_a_reply_goes_the_same_way_and_quotes_what_it_did():
    made = world()
    made.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    quote = tcp_frame(VIP, CLIENT, 80, 40_000)[14:42]
    router = "198.51.100.99"

    def frame(destination, **ip):
        return ethernet(ipv4(router, destination, 1, icmp(3, 4, 1_400, quote), **ip))

    ((_, sent),) = made.send(frame(VIP))
    assert sent == MACS + frame(SERVER, tos=40, ttl=63)[12:]

    made.send(tcp_frame(CLIENT6, VIP6, 40_000, 80))
    quote = tcp_frame(VIP6, CLIENT6, 80, 40_000)[14:74]

    def wide(destination, **ip):
        error = icmp6(router6, destination, 2, 0, 1_400, quote)
        return ethernet(ip_packet(router6, destination, 58, error, **ip))

    router6 = "2001:db8:f::1"
    ((_, sent),) = made.send(wide(VIP6))
    assert sent == MACS + wide(SERVER6, traffic=40, hops=63)[12:]


def test_a_marks_service_keeps_the_clients_port():
    made = World(["-A -f 5 -s rr", f"-a -f 5 -r {SERVER}:8080 --l3dsr {DSCP}"])
    made.manager.around.set_mark_rules([MarkRule(5)])
    ((_, sent),) = made.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    assert sent == MACS + tcp_frame(CLIENT, SERVER, 40_000, 80, tos=40, ttl=63)[12:]


def test_connections_keep_their_mark_when_the_method_changes():
    made = world()
    made.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    made.rule(f"-e -t {VIP}:80 -r {SERVER}:80 -g")
    ((_, sent),) = made.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A", b"", 1_001, 1))
    assert sent[15] == DSCP << 2
    ((_, sent),) = made.send(tcp_frame(CLIENT, VIP, 40_001, 80))
    assert sent[15] == 0
    assert [row.servers[0].dscp for row in listing.read(made.manager)][:1] == [0]


def test_rules_documents_and_listings_know_it():
    rules = [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVER}:80 --l3dsr 10 -w 1"]
    made = World(rules)
    rows = listing.read(made.manager)
    assert render.saved(rows).splitlines() == rules
    assert "-> 10.0.0.11:80                 L3DSR   1" in render.table(rows)
    stated = made.manager.copy_services()
    documents = [services.document_of(one) for one in stated.values()]
    assert schema.plain(documents[0])["servers"][0] == {
        "server": "10.0.0.11:80",
        "method": "l3dsr",
        "dscp": 10,
    }
    assert services.read(documents) == (stated, [])
    assert [render.command(one) for one in parse_text(rules, "x")] == rules
    documents[0].servers[0].dscp = 0
    assert [str(fault.problem) for fault in services.read(documents)[1]] == [
        "goes with method l3dsr, which needs one"
    ]


@pytest.mark.parametrize("dscp", ["0", "64", "x", "-1"])
def test_a_mark_is_1_to_63(dscp):
    with pytest.raises(RuleError, match="DSCP"):
        parse_line(f"-a -t {VIP}:80 -r {SERVER} --l3dsr {dscp}".split())


def test_on_the_command_line_mode_and_mark_go_together():
    from pylvs.cli.services import commands_of

    (_, add) = commands_of((f"{VIP}:80",), (SERVER,), "l3dsr", None, None, dscp=5)
    assert add.server.dscp == 5
    for mode, dscp in (("l3dsr", None), ("dr", 5), (None, 5)):
        with pytest.raises(UsageError, match="go together"):
            commands_of((f"{VIP}:80",), (SERVER,), mode, None, None, dscp=dscp)
