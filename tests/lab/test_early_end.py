"""The lab's own end of tunnels: its program, run by the kernel on frames of ours."""

import os

import pytest

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.claimed import ADDRESS_SIZE, packed
from pylvs.lab.early_end import assemble
from pylvs.wire.text import address_of
from tests import programs
from tests.packets import ethernet, fragments6, ip_packet, ipv4, tcp

RIPS = {4: "10.0.0.11", 6: "2001:db8:1::11"}
DIPS = {4: "10.0.0.254", 6: "2001:db8:1::fe"}
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
CLIENTS = {4: "198.51.100.7", 6: "2001:db8:c::7"}
PROTOCOLS = {4: 4, 6: 41}
LOOPBACK, LOOPBACKS_MAC = 1, bytes(6)
VERSIONS = [4, 6]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def take_out(version):
    """Return a function from an outer packet to the inner one, or None if it was left alone."""
    if os.geteuid():
        pytest.skip("only root may load programs")
    try:
        addresses = bpf.Map(bpf.HASH, ADDRESS_SIZE, 1, 16)
        program = bpf.load(assemble(LOOPBACK, version, addresses.descriptor), bpf.TYPE_TC)
    except PermissionError as error:
        pytest.skip(f"no bpf here: {error}")
    for text in RIPS.values():
        addresses[packed(address_of(text))] = b"\1"

    def run(packet):
        frame = ethernet(packet, LOOPBACKS_MAC)
        answer, made = programs.run(program, frame)
        if answer == bpf.TC_NEXT:
            assert made == frame
            return None
        assert answer == bpf.TC_REDIRECT
        return made[14:]

    yield run
    os.close(program)
    addresses.close()


def inner_packet(version):
    ends = CLIENTS[version], VIPS[version]
    return ip_packet(*ends, 6, tcp(*ends, 40_000, 80, "A", bytes(range(200))))


@pytest.mark.parametrize("outer", VERSIONS)
def test_what_is_in_a_packet_for_the_host_comes_out(take_out, version, outer):
    inner = inner_packet(version)
    assert take_out(ip_packet(DIPS[outer], RIPS[outer], PROTOCOLS[version], inner)) == inner
    assert take_out(ip_packet(DIPS[outer], VIPS[outer], PROTOCOLS[version], inner)) is None
    assert take_out(ip_packet(DIPS[outer], RIPS[outer], PROTOCOLS[10 - version], inner)) is None
    assert take_out(inner) is None


def test_what_is_cut_or_has_options_is_left_to_the_host(take_out, version):
    inner, protocol = inner_packet(version), PROTOCOLS[version]
    for fragment in (0x2000, 0x0001):
        cut = ipv4(DIPS[4], RIPS[4], protocol, inner, fragment=fragment)
        assert take_out(cut) is None
    assert take_out(ipv4(DIPS[4], RIPS[4], protocol, inner, fragment=0x4000)) == inner
    assert take_out(ipv4(DIPS[4], RIPS[4], protocol, inner, options=bytes(4))) is None
    for piece in fragments6(DIPS[6], RIPS[6], protocol, inner, (64, 64), 1):
        assert take_out(piece) is None
