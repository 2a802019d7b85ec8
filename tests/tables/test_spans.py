"""Services that span ports and networks: the same found as by looking at each of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.control.ipvsadm.rules import parse_line, parse_service
from pylvs.control.model import ALL_PORTS
from pylvs.control.network.surroundings import Route
from pylvs.errors import RuleError
from pylvs.frames import NONE
from pylvs.jit import entrance
from pylvs.tables.layouts.network import LOCAL_ADDRESS
from pylvs.tables.services import spans
from pylvs.tables.sizes import PORT_PAGES_LIMIT
from pylvs.wire.text import address_of, family_of, halves
from tests.conftest import examples
from tests.packets import number, tcp_frame, udp_frame
from tests.world import CLIENT, CLIENT6, VIP, World

find = entrance(spans.find)
is_within = entrance(spans.is_within)

HOSTS = ("192.0.2.10", "192.0.2.11", "192.0.3.1", "198.51.100.1", "2001:db8:1::10", "2001:db8:2::1")
NETWORKS = (
    *("192.0.2.10", "192.0.2.10/31", "192.0.2.0/24", "192.0.2.0/23", "0.0.0.0/0"),
    *("[2001:db8:1::10]", "[2001:db8:1::/64]", "[2001:db8::/32]", "[2000::/3]"),
)
PORTS = ("any", "80-90", "0-255", "256-1023,2000", "85-70000", "81,443", "1-65535", "255-256")
places = st.tuples(st.sampled_from(NETWORKS), st.sampled_from(PORTS[:4] + PORTS[5:]))
destinations = [
    (host, port)
    for host in HOSTS
    for port in (0, 79, 80, 81, 85, 90, 255, 256, 443, 1023, 1024, 2000, 65_535)
]


def best(services, address, port):
    """Return the service that spans a destination best: the longest prefix, ranges before all."""
    found = [key for key in services if key.covers(address, port)]
    found.sort(key=lambda key: (-key.prefix_length, key.ports == ALL_PORTS))
    return found[0] if found else None


def found_by(world, address, port, protocol=6):
    row = find(world.tables.all[0], family_of(address), protocol, halves(address), port)
    if row == NONE:
        return None
    return next(service.key for service, at in world.manager.stated() if at == row)


@examples(120)
@given(st.lists(st.tuples(st.sampled_from("AAAD"), places), max_size=25))
def test_what_is_found_is_what_looking_at_each_finds(steps):
    world = World()
    for verb, (network, ports) in steps:
        try:
            world.rule(f"-{verb} -t {network}:{ports}" + (" -s rr" if verb == "A" else ""))
        except RuleError as error:
            if not re.search("exists|overlaps|No such service", str(error)):
                raise
    services = list(world.manager.table.services)
    for host, port in destinations:
        address = address_of(host)
        expected = best([key for key in services if key.spans], address, port)
        assert found_by(world, address, port) == expected
        assert found_by(world, address, port, protocol=17) is None
        within = any(not key.vip and key.holds(address) for key in services)
        assert bool(is_within(world.tables.all[0], halves(address))) == within
    for key in services:
        world.rule(f"-D -t {key.where}")
    state = world.tables.director[0]
    assert (state["ipv4_prefix_count"], state["ipv6_prefix_count"]) == (0, 0)
    assert (world.tables.span_buckets == NONE).all()
    assert _free_pages(world) == int(state["pages_seen"])


def _free_pages(world):
    count, page = 0, int(world.tables.director[0]["free_page"])
    while page != NONE:
        count += 1
        page = int(world.tables.port_pages[page, 0])
    return count


def test_names_are_the_same_however_they_are_written():
    def name(text):
        return parse_service(text, 6).where

    assert name("192.0.2.10:443,80,81,90-100,95-120") == "192.0.2.10:80-81,90-120,443"
    assert name("192.0.2.77/24:80") == "192.0.2.0/24:80"
    assert name("192.0.2.10/32:80-80") == "192.0.2.10:80"
    assert name("192.0.2.0/24:0") == "192.0.2.0/24:any"
    assert name("[2001:db8:1::9/64]:any") == "[2001:db8:1::/64]:any"
    assert not parse_service("192.0.2.10/32:80", 6).spans


def test_what_spans_the_same_is_refused():
    world = World(["-A -t 192.0.2.0/24:80-90 -s rr", "-A -t 192.0.2.0/24:any -s rr"])
    with pytest.raises(RuleError, match=r"overlaps with TCP 192\.0\.2\.0/24:80-90"):
        world.rule("-A -t 192.0.2.0/24:85,99 -s rr")
    with pytest.raises(RuleError, match="already exists"):
        world.rule("-A -t 192.0.2.5/24:80-90 -s rr")
    world.rule("-A -u 192.0.2.0/24:80-90 -s rr")
    world.rule("-A -t 192.0.2.0/25:80-90 -s rr")


def test_a_full_table_of_ranges_refuses_the_service_and_keeps_the_others():
    world = World(["-A -t 192.0.2.10:80-90 -s rr", "-a -t 192.0.2.10:80-90 -r 10.0.0.11 -g"])
    world.tables.director[0]["pages_seen"] = PORT_PAGES_LIMIT - 1
    with pytest.raises(RuleError, match="Memory"):
        world.rule("-A -t 192.0.2.11:80-90 -s rr")
    assert len(world.manager.table.services) == 1
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 85))
    world.tables.director[0]["pages_seen"] = 100
    world.rule("-A -t 192.0.2.11:80-90 -s rr")


class TestTraffic:
    def test_a_range_of_ports_keeps_the_port_or_maps_all_to_one(self):
        world = World(
            [
                f"-A -t {VIP}:8000-8999 -s rr",
                f"-a -t {VIP}:8000-8999 -r 10.0.0.11 -m",
                f"-a -t {VIP}:8000-8999 -r 10.0.0.12:80 -m",
            ]
        )
        ((_, one),) = world.send(tcp_frame(CLIENT, VIP, 40_000, 8_123))
        ((_, other),) = world.send(tcp_frame(CLIENT, VIP, 40_001, 8_124))
        ends = {(frame[33], int.from_bytes(frame[36:38], "big")) for frame in (one, other)}
        assert ends in ({(11, 8_123), (12, 80)}, {(11, 8_124), (12, 80)})
        port = 40_000 if one[33] == 12 else 40_001
        reply = tcp_frame("10.0.0.12", CLIENT, 80, port, "SA")
        ((_, reply),) = world.send(bytes.fromhex("0200000002fe") + reply[6:], 1)
        assert reply[26:36] == bytes([192, 0, 2, 10, 198, 51, 100, 7]) + (
            8_123 if port == 40_000 else 8_124
        ).to_bytes(2, "big")
        assert world.send(tcp_frame(CLIENT, VIP, 40_002, 9_000)) == []

    def test_a_network_is_served_where_nobody_has_the_address(self):
        world = World(
            [
                "-A -u 203.0.113.0/24:53,5353 -s rr",
                "-a -u 203.0.113.0/24:53,5353 -r 10.0.0.11 -g",
                "-A -t [2001:db8:9::/64]:80 -s rr",
                "-a -t [2001:db8:9::/64]:80 -r [2001:db8:2::b]:80 -g",
            ]
        )
        for host in ("203.0.113.0", "203.0.113.7", "203.0.113.255"):
            ((port, frame),) = world.send(udp_frame(CLIENT, host, 40_000, 5_353))
            assert (port, frame[5]) == (1, 11)
            assert frame[30:34] == bytes(map(int, host.split(".")))
        assert world.send(udp_frame(CLIENT, "203.0.114.1", 40_000, 53)) == []
        ((port, _),) = world.send(tcp_frame(CLIENT6, "2001:db8:9::77", 40_000, 80))
        assert port == 1

    def test_persistence_is_to_all_that_a_service_spans(self):
        world = World(
            [
                "-A -t 203.0.113.0/24:80,443 -s rr -p 100",
                *(f"-a -t 203.0.113.0/24:80,443 -r 10.0.0.{n} -g" for n in (11, 12, 13)),
                "-A -t 203.0.113.0/24:8080-8081 -s rr -p 100",
                *(f"-a -t 203.0.113.0/24:8080-8081 -r 10.0.0.{n} -g" for n in (14, 15)),
            ]
        )

        def servers(ports):
            sent = [
                world.send(tcp_frame(CLIENT, f"203.0.113.{n}", 40_000 + n, port))
                for n, port in enumerate(ports)
            ]
            return {frame[5] for ((_, frame),) in sent}

        first, other = servers((80, 443, 80)), servers((8_080, 8_081))
        assert len(first) == len(other) == 1
        assert first <= {11, 12, 13}
        assert other <= {14, 15}
        assert servers((443,)) == first

    def test_a_closer_service_goes_before_a_wider_one(self):
        world = World(
            [
                line
                for n, where in enumerate(
                    (
                        f"{VIP}:80",
                        f"{VIP}:80-90",
                        f"{VIP}:any",
                        "192.0.2.0/24:80-99",
                        "0.0.0.0/0:any",
                    )
                )
                for line in (f"-A -t {where} -s rr", f"-a -t {where} -r 10.0.0.{11 + n} -g")
            ]
        )

        def server(host, port):
            ((_, frame),) = world.send(tcp_frame(CLIENT, host, 40_000, port))
            return frame[5]

        assert [server(VIP, port) for port in (80, 81, 91)] == [11, 12, 13]
        assert [server("192.0.2.11", port) for port in (80, 100)] == [14, 15]
        assert server("203.0.113.1", 22) == 15

    def test_the_hosts_own_addresses_stay_the_hosts(self):
        """But one that is a VIP itself, and those that are local as a whole network."""
        world = World(
            [
                line
                for where in ("192.0.2.0/24:any", "10.0.0.254:8000-8001", "203.0.113.0/24:any")
                for line in (f"-A -t {where} -s rr", f"-a -t {where} -r 10.0.0.11 -g")
            ]
        )
        world.tables.director[0]["hosted"] = 0
        assert world.send(tcp_frame(CLIENT, "192.0.2.254", 40_000, 22)) == []
        assert world.send(tcp_frame(CLIENT, "192.0.2.254", 443, 50_000, "SA")) == []
        assert world.send(tcp_frame(CLIENT, "192.0.2.253", 40_000, 22))
        assert world.send(tcp_frame(CLIENT, "10.0.0.254", 40_000, 8_000))
        network = Route(number("203.0.113.0"), 24, kind=LOCAL_ADDRESS)
        world.manager.around.set_routes([*world._routes((), (1500, 1500)), network])
        assert world.send(tcp_frame(CLIENT, "203.0.113.9", 40_000, 22))

    def test_an_ftp_service_does_not_take_a_range_of_high_ports(self):
        world = World(
            [
                *(f"-A -t {VIP}:21 -s rr -p 100", f"-a -t {VIP}:21 -r 10.0.0.11 -g"),
                *(f"-A -t {VIP}:8000-8001 -s rr", f"-a -t {VIP}:8000-8001 -r 10.0.0.12 -g"),
            ]
        )
        ((_, frame),) = world.send(tcp_frame(CLIENT, VIP, 40_000, 8_001))
        assert frame[5] == 12


def test_a_command_names_a_service_by_what_it_spans():
    key = parse_line("-A -t 192.0.2.10:http,8000-8001 -s rr".replace("http", "80").split()).service
    assert key.where == "192.0.2.10:80,8000-8001"
    assert key.covers(number("192.0.2.10"), 8_001)
    assert not key.covers(number("192.0.2.10"), 8_002)
