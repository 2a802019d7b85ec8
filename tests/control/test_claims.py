"""The nftables table: what is in it for which services."""

import pytest

from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.manager import Manager
from pylvs.control.network.claims import Claims, claims_of, elements_of, ruleset
from pylvs.errors import HostError
from tests.packets import number
from tests.world import World


def text_for(lines, local=()):
    manager: Manager = World(lines).manager
    services = manager.table.services.values()
    addresses = frozenset(map(number, local))
    claims = {claim for service in services for claim in claims_of(service, addresses)}
    elements = {one for claim in claims for one in elements_of(claim)}
    elements |= {("local", one) for one in local}
    return ruleset(["eth0", "eth1"], elements)


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


def test_all_that_ftps_data_may_come_from_and_go_to_is_claimed():
    text = text_for(
        [
            "-A -t 192.0.2.10:21",
            "-a -t 192.0.2.10:21 -r 10.0.0.11:21 -m",
            "-a -t 192.0.2.10:21 -r 10.0.0.12:2121 -m",
            "-a -t 192.0.2.10:21 -r 10.0.0.13 -g",
        ]
    )
    elements = [
        "tcp . 10.0.0.11 . 1024-65535, tcp . 10.0.0.11 . 20, tcp . 10.0.0.12 . 1024-65535",
        "tcp . 192.0.2.10 . 1024-65535, tcp . 192.0.2.10 . 20",
    ]
    for listed in elements:
        assert f"elements = {{ {listed} }};" in text
    assert "10.0.0.13" not in text


def test_without_services_nothing_is_claimed():
    text = text_for([])
    assert "set services { type inet_proto . ipv4_addr . inet_service; }" in text
    assert parse_line(["-C"]).verb == "C"


class Recorder:
    """In the place of nftables: keeps what it is told."""

    def __init__(self):
        self.texts = []

    def run(self, text):
        self.texts.append(text)


@pytest.fixture
def claims():
    made = Claims(nftables=Recorder())
    made.replace(["eth0"], {}, frozenset())
    made._nftables.texts.clear()
    return made


def told(claims, world):
    """Have the claims follow what was changed, and return what nftables was told."""
    changed = world.manager.take_changed()
    claims.update((key, claims_of(service, frozenset())) for key, service in changed)
    texts, claims._nftables.texts = claims._nftables.texts, []
    return "".join(texts).splitlines()


def test_a_service_more_or_less_is_an_element_more_or_less(claims):
    world = World(["-A -t 192.0.2.10:80"])
    assert sorted(told(claims, world)) == [
        "add element ip pylvs services { tcp . 192.0.2.10 . 80 }",
        "add element netdev pylvs own { 192.0.2.10 }",
        "add element netdev pylvs services { tcp . 192.0.2.10 . 80 }",
    ]
    world.rule("-A -u 192.0.2.10:53")
    assert all("own" not in line for line in told(claims, world))
    world.rule("-D -t 192.0.2.10:80")
    assert sorted(told(claims, world)) == [
        "delete element ip pylvs services { tcp . 192.0.2.10 . 80 }",
        "delete element netdev pylvs services { tcp . 192.0.2.10 . 80 }",
    ]
    world.rule("-C")
    assert "delete element netdev pylvs own { 192.0.2.10 }" in told(claims, world)


def test_servers_of_two_services_are_claimed_until_the_last_is_gone(claims):
    world = World()
    for port in (80, 81):
        world.rule(f"-A -t 192.0.2.10:{port}")
        world.rule(f"-a -t 192.0.2.10:{port} -r 10.0.0.11:8080 -m")
    lines = told(claims, world)
    assert "add element netdev pylvs quoted { 0x0a00000b }" in lines
    world.rule("-e -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 5")
    assert told(claims, world) == []
    world.rule("-d -t 192.0.2.10:80 -r 10.0.0.11:8080")
    assert told(claims, world) == []
    world.rule("-d -t 192.0.2.10:81 -r 10.0.0.11:8080")
    assert sorted(told(claims, world)) == [
        "delete element netdev pylvs quoted { 0x0a00000b }",
        "delete element netdev pylvs senders { 10.0.0.11 }",
        "delete element netdev pylvs servers { tcp . 10.0.0.11 . 8080 }",
    ]


def test_what_came_and_went_meanwhile_is_not_told(claims):
    world = World(["-A -t 192.0.2.10:80", "-D -t 192.0.2.10:80"])
    assert told(claims, world) == []


class Broken:
    """nftables that refuses."""

    def run(self, text):
        raise HostError("refused")


def test_what_nftables_refused_is_tried_again(claims):
    world = World(["-A -t 192.0.2.10:80"])
    changed = world.manager.take_changed()
    changes = [(key, claims_of(service, frozenset())) for key, service in changed]
    works, claims._nftables = claims._nftables, Broken()
    with pytest.raises(HostError):
        claims.update(changes)
    claims._nftables = works
    claims.update(changes)
    assert "services" in works.texts[-1]


def test_what_a_command_under_way_has_claimed_outlives_a_replacement(claims):
    pending = frozenset({("own", "192.0.2.30")})
    claims.update([(1234, pending)])
    claims.replace(["eth0"], {}, frozenset())
    assert claims._nftables.texts[-1] == "add element netdev pylvs own { 192.0.2.30 }\n"
    claims.update([(1234, frozenset())])
    assert claims._nftables.texts[-1] == "delete element netdev pylvs own { 192.0.2.30 }\n"
    assert claims._by_service == {}
    assert not claims._users
