"""The program that chooses workers, run by the kernel on frames of ours."""

import errno
import ipaddress
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.filter import Filter
from pylvs.wire.text import address_of
from tests import programs
from tests.conftest import examples
from tests.packets import (
    arp,
    ethernet,
    fragments6,
    icmp,
    icmp6,
    ip_packet,
    ipv4,
    ipv6,
    sctp,
    tcp,
    udp,
)

VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
SERVERS = {4: "10.0.0.11", 6: "2001:db8:1::11"}
ROUTERS = {4: "10.0.0.1", 6: "2001:db8:1::1"}
DIPS = {4: "10.0.0.254", 6: "2001:db8:1::fe"}
POOL = {4: "10.0.0.200", 6: "2001:db8:1::c8"}
FULL_NATS = {4: "10.0.0.12", 6: "2001:db8:1::12"}
TUNNELS = {4: 4, 6: 41}
HASHES = 1 << 24  # as many workers, so that a worker is a hash
LONGEST = 108


@pytest.fixture(scope="module")
def worker_of():
    """Return a function from a packet to what its worker is chosen by."""
    if os.geteuid():
        pytest.skip("only root may load programs")
    try:
        made = Filter(xdp=False, workers=HASHES)
    except PermissionError as error:
        pytest.skip(f"no bpf here: {error}")
    made.replace(
        [
            ("senders", SERVERS[4]),
            ("senders6", SERVERS[6]),
            ("own", VIPS[4]),
            ("services", f"tcp . {VIPS[4]} . 80"),
            ("any_port6", f"udp . {VIPS[6]}"),
        ],
        pool=map(address_of, POOL.values()),
    )

    def worker(packet):
        place = programs.run(made.fanout.program(LONGEST), ethernet(packet))[0]
        assert place % 2 == (len(packet) + 14 > LONGEST)  # which of the worker's two rings
        return place // 2

    worker.claims = made
    yield worker
    made.close()


class Way:
    """Packets of one connection that go one way: from an address and port to another."""

    def __init__(self, family, protocol, source, destination, ports):
        self.family, self.protocol, self.ends = family, protocol, (source, destination)
        if protocol == 132:
            self.body = sctp(*ports, (0, bytes(60)))
        else:
            make = tcp if protocol == 6 else udp
            rest = ("A", bytes(40)) if protocol == 6 else (bytes(52),)
            self.body = make(*self.ends, *ports, *rest)
        self.whole = ip_packet(*self.ends, protocol, self.body)

    def pieces(self, ident):
        """Return the packet in three."""
        if self.family == 6:
            return fragments6(*self.ends, self.protocol, self.body, (24, 24), ident)
        cuts = [(0x2000, self.body[:24]), (0x2003, self.body[24:48]), (0x0006, self.body[48:])]
        return [
            ipv4(*self.ends, self.protocol, body, ident=ident, fragment=fragment)
            for fragment, body in cuts
        ]

    def error(self, kind, quoted=b""):
        """Return an ICMP error that a router sends about the packet, or what it became."""
        source, destination = ROUTERS[self.family], self.ends[0]
        quoted = quoted or self.whole
        if self.family == 6:
            return ipv6(source, destination, 58, icmp6(source, destination, kind, 0, 0, quoted))
        return ipv4(source, destination, 1, icmp(kind, 0, 0, quoted[:96]))


PORTS = st.integers(1_024, 65_535)
IDENTIFICATIONS = st.integers(1, 65_535)
ERRORS = {4: (3, 4, 11, 12), 6: (1, 2, 3, 4)}
FAMILIES = st.sampled_from([4, 6])
PROTOCOLS = st.sampled_from([6, 17, 132])


def clients(data, family):
    return str(data.draw(st.ip_addresses(v=family)))


@examples(150)
@given(data=st.data(), family=FAMILIES, protocol=PROTOCOLS, port=PORTS, ident=IDENTIFICATIONS)
def test_a_masqueraded_connection_has_one_worker(worker_of, data, family, protocol, port, ident):
    client, vip, server = clients(data, family), VIPS[family], SERVERS[family]
    request = Way(family, protocol, client, vip, (port, 80))
    forwarded = Way(family, protocol, client, server, (port, 8080))
    answer = Way(family, protocol, server, client, (8080, port))
    translated = Way(family, protocol, vip, client, (80, port))
    kind = data.draw(st.sampled_from(ERRORS[family]))
    packets = [request.whole, answer.whole, forwarded.error(kind), translated.error(kind)]
    packets += request.pieces(ident) + answer.pieces(ident)
    assert len(set(map(worker_of, packets))) == 1


@examples(50)
@given(data=st.data(), family=FAMILIES, outer=FAMILIES, port=PORTS)
def test_an_error_about_a_tunnel_is_its_clients(worker_of, data, family, outer, port):
    request = Way(family, 6, clients(data, family), VIPS[family], (port, 80))
    inside = ip_packet(DIPS[outer], FULL_NATS[outer], TUNNELS[family], request.whole)
    sent = Way(outer, 6, DIPS[outer], FULL_NATS[outer], (1, 1))
    assert worker_of(sent.error(ERRORS[outer][0], inside)) == worker_of(request.whole)


@examples(50)
@given(data=st.data(), port=PORTS, kind=st.sampled_from([(4, 6), (6, 17)]))
def test_a_server_may_be_a_client_of_another_service(worker_of, data, port, kind):
    family, protocol = kind
    service, other = VIPS[family], clients(data, family)
    request = Way(family, protocol, SERVERS[family], service, (port, 80))
    answer = Way(family, protocol, service, SERVERS[family], (80, port))
    assert worker_of(request.whole) == worker_of(answer.error(ERRORS[family][0]))
    outward = Way(family, protocol, SERVERS[family], other, (port, 80))  # and of no service at all
    inward = Way(family, protocol, other, SERVERS[family], (80, port))
    assert worker_of(outward.whole) == worker_of(inward.whole) != worker_of(request.whole)


@examples(50)
@given(family=FAMILIES, port=PORTS, ident=IDENTIFICATIONS)
def test_what_comes_back_to_full_nats_own_addresses_is_one_workers(worker_of, family, port, ident):
    answer = Way(family, 6, FULL_NATS[family], POOL[family], (80, port))
    asked = Way(family, 6, POOL[family], FULL_NATS[family], (port, 80))
    packets = [answer.whole, asked.error(ERRORS[family][0]), *answer.pieces(ident)]
    assert len(set(map(worker_of, packets))) == 1


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("workers", [2, 3, 16])
def test_connections_are_shared_evenly(worker_of, workers, family):
    """By many clients, by one client's many ports, and of what one server answers full NAT."""
    network = ipaddress.ip_address({4: "11.1.0.0", 6: "2001:db8:c::"}[family])
    kinds = [
        [Way(family, 6, str(network + one), VIPS[family], (9_000, 80)) for one in range(960)],
        [Way(family, 6, ROUTERS[family], VIPS[family], (one, 80)) for one in range(40_000, 40_960)],
        [Way(family, 6, FULL_NATS[family], POOL[family], (80, one)) for one in range(5_000, 5_960)],
    ]
    for ways in kinds:
        counts = [0] * workers
        for way in ways:
            counts[worker_of(way.whole) % workers] += 1
        assert max(counts) < 3 * len(ways) / workers
        assert min(counts) > len(ways) / workers / 3


def test_what_is_cut_short_goes_by_its_addresses(worker_of):
    client, vip = "198.51.100.7", VIPS[4]
    expected = worker_of(ipv4(client, vip, 47, bytes(20)))
    assert expected != worker_of(ipv4("198.51.100.8", vip, 47, bytes(20)))
    for body, protocol in (
        (b"\x01", 6),
        (icmp(3, 0, 0, bytes(5)), 1),
        (icmp(8, 0, 0, ipv4(vip, client, 6, bytes(20))), 1),  # a ping, which quotes nothing
    ):
        assert worker_of(ipv4(client, vip, protocol, body)) == expected
    for body in (bytes(3), b"\x06" + bytes(7)):
        assert worker_of(ipv6(ROUTERS[6], VIPS[6], 44, body)) == worker_of(
            ipv6(ROUTERS[6], VIPS[6], 47, bytes(20))
        )


def test_what_is_no_ip_is_the_first_ones(worker_of):
    frame = arp(1, bytes(6), "10.0.0.1", bytes(6), "10.0.0.2")
    assert programs.run(worker_of.claims.fanout.program(LONGEST), frame)[0] == 0
    assert programs.run(worker_of.claims.fanout.program(LONGEST), frame + bytes(1_500))[0] == 1


def test_a_server_that_is_none_any_more_is_a_client_like_others(worker_of):
    to = [Way(4, 6, SERVERS[4], f"11.0.0.{one}", (8080, 40_000)).whole for one in range(1, 20)]
    assert len(set(map(worker_of, to))) > 1
    worker_of.claims.update([], [("senders", SERVERS[4])])
    assert len(set(map(worker_of, to))) == 1
    worker_of.claims.update([("senders", SERVERS[4])], [])
    assert len(set(map(worker_of, to))) > 1


def test_a_program_that_is_refused_leaves_it_to_the_kernels_hash(worker_of, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    made = Filter(xdp=False, workers=2)
    monkeypatch.setattr(bpf, "load", refuse)
    made.share({LONGEST})
    assert made.fanout is None
    made.replace([("senders", SERVERS[4])], pool=[address_of(POOL[4])])
    made.close()
