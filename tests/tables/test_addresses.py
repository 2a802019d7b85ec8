"""Whole addresses decide, whatever 32 bits of them a connection is looked up by."""

import pytest

from pylvs.jit import entrance
from pylvs.tables.addresses import key_of
from pylvs.wire.text import address_of, address_text, halves, joined
from tests.packets import packed, tcp_frame
from tests.world import VIP6, World

key = entrance(key_of)
CLIENTS = [f"2001:db8:c::{n:x}" for n in range(1, 9)]
NAT = [
    f"-A -t [{VIP6}]:80 -s rr",
    *(f"-a -t [{VIP6}]:80 -r [2001:db8:2::{n:x}]:8080 -m" for n in (11, 12)),
]


def blind(world):
    """Have all IPv6 addresses fall together."""
    for number in range(2, 6):
        world.tables.director[0][f"seed_{number}"] = 0
    return world


def test_clients_whose_folds_are_the_same_are_told_apart():
    world = blind(World(NAT))
    servers = {}
    for client in CLIENTS:
        ((_, sent),) = world.send(tcp_frame(client, VIP6, 40_000, 80))
        servers[client] = sent[38:54]
    assert len(set(servers.values())) == 2
    for client in CLIENTS:
        ((_, sent),) = world.send(tcp_frame(client, VIP6, 40_000, 80, "A"))
        assert sent[38:54] == servers[client]
    assert int(world.tables.director[0]["connection_count"]) == len(CLIENTS)


def test_replies_go_to_the_client_and_come_from_the_server_they_say():
    world = blind(World(NAT))
    ((_, sent),) = world.send(tcp_frame(CLIENTS[0], VIP6, 40_000, 80))
    chosen = address_text(int.from_bytes(sent[38:54], "big"))
    other = next(one for one in ("2001:db8:2::b", "2001:db8:2::c") if one != chosen)
    to = bytes.fromhex("0200000002fe")
    for server, client, translated in (
        (other, CLIENTS[0], False),
        (chosen, CLIENTS[1], False),
        (chosen, CLIENTS[0], True),
    ):
        reply = tcp_frame(server, client, 8080, 40_000, "SA")
        ((_, sent),) = world.send(to + reply[6:], 1)
        assert (sent[22:38] == packed(VIP6)) == translated
        assert world.reason("replied") == translated


def test_persistent_clients_are_told_apart_by_their_prefix():
    world = blind(World([f"-A -t [{VIP6}]:80 -s rr -p 60 -M 64", *NAT[1:]]))
    servers = [
        world.send(tcp_frame(client, VIP6, 40_000, 80))[0][1][38:54]
        for client in ("2001:db8:c::1", "2001:db8:c::2", "2001:db8:d::1", "2001:db8:c:0:9::1")
    ]
    assert servers[0] == servers[1] == servers[3] != servers[2]


@pytest.mark.parametrize(
    "text", ["2001:db8::1", "ffff::ffff", "::1:0:0:1", "192.0.2.1", "255.0.0.1"]
)
def test_halves_make_the_address_again(text):
    address = address_of(text)
    assert joined(*halves(address)) == address
    assert address_text(address) == text


@pytest.mark.parametrize(
    "text", ["::", "::1", "::1.2.3.4", "2001:db8::1%eth0", "2001:db8::g", "[::1]"]
)
def test_what_is_no_stations_ipv6_address_is_refused(text):
    with pytest.raises(ValueError, match="is no"):
        address_of(text)


def test_the_fold_is_keyed_and_leaves_ipv4_alone():
    world = World()
    wide = halves(address_of("2001:db8::1"))
    before = key(world.tables.all[0], wide)
    assert 0 <= before < 2**32
    world.tables.director[0]["seed_5"] ^= 0x1234_5678_9ABC_DEF1
    assert key(world.tables.all[0], wide) != before
    assert key(world.tables.all[0], (0, 0xC0000201)) == 0xC0000201
