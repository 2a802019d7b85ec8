"""Hash schedulers: published hash values, and tables that other implementations make too."""

import hashlib

import numpy as np
import pytest

from pylvs.jit import entrance
from pylvs.schedulers.hashing import hash_32
from pylvs.schedulers.maglev import SLOTS, hash_u32
from tests.packets import number, tcp_frame
from tests.world import CLIENT, VIP, World

golden_hash = entrance(hash_32)
siphash = entrance(hash_u32)
KEY = np.uint64(2_654_435_761)


@pytest.mark.parametrize(
    ("address", "eight", "ten"),
    [
        ("10.0.0.1", 39, 159),
        ("192.168.1.100", 89, 357),
        ("255.255.255.255", 158, 632),
        ("0.0.0.0", 0, 0),
    ],
)
def test_the_hash_of_32_bits_is_linuxs(address, eight, ten):
    assert golden_hash(number(address), 8) == eight
    assert golden_hash(number(address), 10) == ten


@pytest.mark.parametrize(
    ("address", "port", "slot"),
    [
        ("10.0.0.1", 0, 3711),
        ("10.0.0.2", 0, 1884),
        ("10.0.0.3", 0, 3741),
        ("10.0.0.1", 40_000, 2940),
    ],
)
def test_maglev_hashes_by_siphash_1_3(address, port, slot):
    assert siphash(KEY, number(address) + port) % SLOTS == slot


@pytest.mark.parametrize(
    ("weights", "digest"),
    [
        ((1, 1, 1), "8d2ccf328d40ae9d9ef7b64326fb3eef73aa5bde0613f0e27bbc5fea5ac22f5c"),
        ((4, 3, 2), "6d6618cf7b6d2f46bb13dff2b54cab88bb643d43c18858771ebdc6ca8d832c3f"),
    ],
)
def test_maglevs_table_is_the_kernels(weights, digest):
    world = World([f"-A -t {VIP}:80 -s mh"])
    for n, weight in enumerate(weights, 1):
        world.rule(f"-a -t {VIP}:80 -r 192.168.10.{n}:80 -m -w {weight}")
    tables = world.tables
    begin = int(tables.services[0]["slots_begin"])
    rows = tables.slots[begin : begin + SLOTS]
    letters = "".join(
        chr(ord("A") + int(tables.servers[int(row)]["address_low"]) % 256 - 1) for row in rows
    )
    assert hashlib.sha256(letters.encode()).hexdigest() == digest


def test_tables_of_services_that_go_are_used_again():
    world = World()
    for _ in range(600):  # of 4,096 blocks, sixteen each
        world.rule(f"-A -t {VIP}:80 -s mh")
        world.rule(f"-E -t {VIP}:80 -s sh")
        world.rule(f"-D -t {VIP}:80")
    assert (world.tables.slot_owners == -1).all()


class TestLocality:
    RULES = (f"-A -t {VIP}:80 -s lblc", f"-A -t {VIP}:81 -s lblcr")

    def world(self):
        world = World(self.RULES)
        for port in (80, 81):
            for n in (11, 12):
                world.rule(f"-a -t {VIP}:{port} -r 10.0.0.{n} -g -w 5")
        return world

    @pytest.mark.parametrize("port", [80, 81])
    def test_a_destination_keeps_its_server_until_that_is_crowded(self, port):
        world = self.world()
        picked = [world.send(tcp_frame(CLIENT, VIP, 40_000 + n, port))[0][1][5] for n in range(8)]
        assert picked == [12] * 6 + [11] * 2

    def test_entries_are_forgotten_when_they_were_unused_for_long(self):
        world = self.world()
        world.tables.director[0]["lblc_expiration"] = 60
        world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
        world.send(tcp_frame(CLIENT, VIP, 40_000, 81))
        assert int(world.tables.services[0]["cached"]) == 1
        for _ in range(31):  # every thirtieth look, once a minute, is for old entries
            world.after(60).send_all([])
        assert int(world.tables.services[0]["cached"]) == 0
        assert int(world.tables.services[1]["cached"]) == 1
        world.rule(f"-D -t {VIP}:81")
        assert not world.tables.cache["used"].any()
        assert not world.tables.members["used"].any()


def test_two_choices_draw_by_weight_and_take_the_less_loaded():
    world = World([f"-A -t {VIP}:80 -s twos"])
    for n, weight in ((11, 1), (12, 8), (13, 0)):
        world.rule(f"-a -t {VIP}:80 -r 10.0.0.{n} -g -w {weight}")
    picked = [world.send(tcp_frame(CLIENT, VIP, 30_000 + n, 80))[0][1][5] for n in range(900)]
    assert picked.count(13) == 0
    assert 60 < picked.count(11) < 140  # a share of weight: 100
