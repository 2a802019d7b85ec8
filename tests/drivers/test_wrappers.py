"""Drivers around drivers: a capture of everything, and faults by a seeded chance."""

import dpkt

from pylvs.drivers.faults import Faults
from pylvs.drivers.pcap import Writer, read
from pylvs.drivers.tracer import Tracer
from pylvs.engine.director import OWN_MEMORY
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP, PlainMemory, World

NAT = [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m"]


def wrapped(wrap):
    """Return a world whose driver is wrapped; frames are put into and taken from the inner one."""
    world = World(NAT)
    inner = world.driver
    outer = wrap(inner)
    outer.attach(PlainMemory(world.director), OWN_MEMORY)
    outer.put, outer.sent = inner.put, inner.sent
    world.driver = outer
    return world, inner


def test_a_tracer_records_what_came_and_what_left(tmp_path):
    path = tmp_path / "trace.pcap"
    with open(path, "wb") as file:
        world, inner = wrapped(lambda driver: Tracer(driver, Writer(file), clock=lambda: 12.5))
        frame = tcp_frame(CLIENT, VIP, 40_000, 80)
        world.send(frame)
    recorded = list(read(str(path)))
    assert [seconds for seconds, _ in recorded] == [12.5, 12.5]
    assert recorded[0][1] == frame
    assert recorded[1][1] == inner.sent[0][1]
    assert dpkt.ethernet.Ethernet(recorded[1][1]).data.data.dport == 8080


def test_faults_lose_and_damage_a_share_and_no_more():
    world, inner = wrapped(lambda driver: Faults(driver, lose=300, damage=200, seed=1))
    for port in range(1_000):
        inner.put(0, tcp_frame(CLIENT, VIP, 20_000 + port, 80))
    while inner.waiting:
        world.send_all([])
    lost = world.reason("truncated")
    assert 240 < lost < 380
    assert 500 < world.reason("forwarded") < 760


def test_the_same_seed_does_the_same_harm():
    outcomes = []
    for _ in range(2):
        world, inner = wrapped(lambda driver: Faults(driver, lose=100, damage=400, seed=7))
        for port in range(200):
            inner.put(0, tcp_frame(CLIENT, VIP, 20_000 + port, 80))
        world.send_all([])
        outcomes.append([frame for _, frame in inner.sent])
    assert outcomes[0] == outcomes[1]
