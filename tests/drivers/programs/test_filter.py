"""The BPF program that knows what is claimed, run by the kernel on frames of ours."""

import os

import pytest

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.claimed import key_of
from pylvs.drivers.programs.filter import Filter, _lets_sockets_share, assemble
from tests import programs
from tests.packets import DIRECTOR_MAC, MAC_A, ethernet, ipv4, ipv6, tcp, udp

MAC = int.from_bytes(DIRECTOR_MAC, "big")
VIP, RIP, HOST, CLIENT = "192.0.2.10", "10.0.0.11", "192.0.2.1", "198.51.100.7"
VIP6, RIP6, CLIENT6 = "2001:db8::10", "2001:db8:1::11", "2001:db8:c::7"
CLAIMS = [
    ("services", f"tcp . {VIP} . 80"),
    ("services6", f"tcp . {VIP6} . 80"),
    ("any_port", "udp . 192.0.2.11"),
    ("servers", f"tcp . {RIP} . 8080"),
    ("servers6", f"udp . {RIP6} . 53"),
    ("any_server", "udp . 10.0.0.12"),
    ("local", HOST),
    ("own", VIP),
    ("services", f"sctp . {VIP} . 80"),
]


@pytest.fixture
def verdict_of():
    """Return a function from a frame to whether the program takes it."""
    if os.geteuid():
        pytest.skip("only root may load programs")
    try:
        made = Filter(xdp=False)
    except PermissionError as error:
        pytest.skip(f"no bpf here: {error}")
    made.replace(CLAIMS)
    program = bpf.load(assemble(MAC, made._map.descriptor, None), bpf.TYPE_TC)

    def verdict(frame):
        answer, left = programs.run(program, frame)
        assert left == frame
        assert answer in (bpf.TC_NEXT, bpf.TC_DROP)
        return answer == bpf.TC_DROP

    verdict.claims = made
    yield verdict
    os.close(program)
    made.close()


def frame4(source, destination, body, protocol=6, mac=DIRECTOR_MAC, **fields):
    return ethernet(ipv4(source, destination, protocol, body, **fields), mac, MAC_A)


def segment(source, destination, ports, **fields):
    return frame4(source, destination, tcp(source, destination, *ports, "S"), **fields)


def datagram(source, destination, ports):
    return frame4(source, destination, udp(source, destination, *ports), 17)


def frame6(source, destination, body, protocol):
    packet = ipv6(source, destination, protocol, body)
    return ethernet(packet, DIRECTOR_MAC, MAC_A, 0x86DD)


def test_services_and_servers_are_taken(verdict_of):
    assert verdict_of(segment(CLIENT, VIP, (40_000, 80)))
    assert verdict_of(segment(RIP, CLIENT, (8080, 40_000)))
    assert verdict_of(datagram(CLIENT, "192.0.2.11", (1, 9)))
    assert verdict_of(datagram("10.0.0.12", CLIENT, (9, 1)))
    assert verdict_of(frame6(CLIENT6, VIP6, tcp(CLIENT6, VIP6, 40_000, 80, "S"), 6))
    assert verdict_of(frame6(RIP6, CLIENT6, udp(RIP6, CLIENT6, 53, 40_000), 17))


@pytest.mark.parametrize(
    "frame",
    [
        segment(CLIENT, VIP, (40_000, 81)),
        segment(CLIENT, VIP, (80, 40_000)),
        segment(VIP, CLIENT, (80, 40_000)),
        datagram(CLIENT, VIP, (40_000, 80)),
        segment(RIP, CLIENT, (40_000, 8080)),
        datagram(RIP, CLIENT, (8080, 40_000)),
        segment(RIP, HOST, (8080, 40_000)),
        datagram("10.0.0.12", HOST, (9, 1)),
        frame6(CLIENT6, VIP6, tcp(CLIENT6, VIP6, 40_000, 81, "S"), 6),
        frame6(VIP6, CLIENT6, tcp(VIP6, CLIENT6, 80, 40_000, "S"), 6),
    ],
    ids=lambda frame: frame[14:54].hex()[24:],
)
def test_other_ports_protocols_and_directions_and_the_hosts_own_are_not(verdict_of, frame):
    assert not verdict_of(frame)


def test_what_others_have_to_look_at_is_left_to_them(verdict_of):
    body = tcp(CLIENT, VIP, 40_000, 80, "S")
    assert not verdict_of(segment(CLIENT, VIP, (40_000, 80), mac=MAC_A))
    assert not verdict_of(frame4(CLIENT, VIP, body, 132))
    assert not verdict_of(frame4(CLIENT, VIP, body, 1))
    whole = segment(CLIENT, VIP, (40_000, 80))
    assert verdict_of(whole)
    for at, byte in ((20, 0x20), (21, 0x01), (14, 0x46), (12, 0x81)):  # fragments, options, tag
        assert not verdict_of(whole[:at] + bytes([byte]) + whole[at + 1 :])
    assert not verdict_of(whole[:37])


def test_what_is_no_longer_claimed_is_no_longer_taken(verdict_of):
    frame = segment(CLIENT, VIP, (40_000, 80))
    verdict_of.claims.update([], CLAIMS[:1])
    assert not verdict_of(frame)
    verdict_of.claims.update(CLAIMS[:1], [])
    assert verdict_of(frame)
    verdict_of.claims.replace([])
    assert not verdict_of(frame)


def test_keys_are_made_of_claims():
    assert key_of("services", "tcp . 192.0.2.10 . 80")[16:] == bytes([6, 0, 0, 80])
    assert key_of("any_server6", "udp . 2001:db8::1")[16:] == bytes([17, 4, 0, 0])
    assert key_of("local", "192.0.2.10")[16:] == bytes([0, 2, 0, 0])
    assert key_of("spans_24", "tcp . 192.0.2.0 . 80-90") is None
    assert key_of("quoted", "0xc000020a") is None


@pytest.mark.parametrize(
    ("release", "may"),
    [
        ("6.14.11-generic", False),
        ("6.15.0", True),
        ("5.19", False),
        ("7.0-rc1", True),
        ("?", False),
    ],
)
def test_generic_xdp_feeds_several_sockets_of_a_queue_only_where_that_is_safe(
    monkeypatch, release, may
):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "", release, "", "")))
    assert _lets_sockets_share() == may
