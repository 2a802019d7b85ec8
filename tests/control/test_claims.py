"""The nftables table: what is in it for which services."""

from pylvs.control.manager import Manager
from pylvs.control.network.claims import ruleset
from pylvs.control.rules import parse_line
from tests.packets import number
from tests.world import World


def text_for(lines, local=()):
    manager: Manager = World(lines).manager
    return ruleset(["eth0", "eth1"], manager.table.services.values(), map(number, local))


def test_services_and_masqueraded_servers_are_claimed():
    text = text_for(
        [
            "-A -t 192.0.2.10:80",
            "-a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m",
            "-a -t 192.0.2.10:80 -r 10.0.0.12 -g",
            "-A -u 192.0.2.20:53",
        ],
        local=["192.0.2.20"],
    )
    assert "tcp . 192.0.2.10 . 80, udp . 192.0.2.20 . 53" in text
    assert "tcp . 10.0.0.11 . 8080" in text
    assert "10.0.0.12" not in text
    assert "set own { type ipv4_addr; elements = { 192.0.2.10 }; }" in text
    assert text.count('device "eth') == 2


def test_without_services_nothing_is_claimed():
    text = text_for([])
    assert "set services { type inet_proto . ipv4_addr . inet_service;  }" in text
    assert parse_line(["-C"]).verb == "C"
