"""The connection table: limits, reuse of rows, expiry to the millisecond."""

import pytest

from pylvs.engine.director import SWEEP_LIMIT, sweep
from pylvs.frames import NONE
from pylvs.jit import compiled, entrance
from pylvs.tables import connections, states
from pylvs.tables.layouts import CONNECTION
from pylvs.tables.sizes import TICK_MS, Limits
from tests.conftest import BOUNDS_CHECKED, UNCOMPILED
from tests.packets import tcp_frame, udp_frame
from tests.world import CLIENT, VIP, World

UDP = [f"-A -u {VIP}:53 -s rr", f"-a -u {VIP}:53 -r 10.0.0.11:53 -m"]
SMALL = Limits(16, 4, 8, 64, 16)


def test_a_connection_costs_no_more_than_128_bytes_with_its_index():
    tables = World().tables
    assert CONNECTION.itemsize + tables.buckets.itemsize <= 128


def test_a_full_table_refuses_and_counts():
    world = World(UDP, limits=SMALL)
    for port in range(20):
        world.send(udp_frame(CLIENT, VIP, 40_000 + port, 53))
    assert int(world.tables.director[0]["connection_count"]) == 16
    assert world.reason("table_full") == 4
    assert world.send(udp_frame(CLIENT, VIP, 40_003, 53))  # the others go on


def test_room_comes_back_when_connections_expire():
    world = World(UDP, limits=SMALL)
    for _ in range(5):
        for port in range(16):
            assert world.send(udp_frame(CLIENT, VIP, 40_000 + port, 53))
        world.after(300).send_all([])
        assert int(world.tables.director[0]["connection_count"]) == 0


@pytest.mark.parametrize("early", [0.001, 0.064, 1])
def test_a_connection_lives_exactly_as_long_as_its_timeout(early):
    world = World(UDP)
    world.send(udp_frame(CLIENT, VIP, 40_000, 53))
    world.after(300 - early).send_all([])
    assert len(world.connections()) == 1
    world.after(early).send_all([])
    assert world.connections() == []
    assert int(world.tables.servers[0]["inactive"]) == 0


def test_packets_keep_a_connection_alive_and_a_reset_shortens_it():
    world = World([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:80 -m"])
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    for _ in range(5):
        world.after(800).send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))
        if not world.connections():
            break
    assert world.connections() == []  # SYN_RECV lives 60 s
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))
    for _ in range(5):
        world.after(800).send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))
        assert len(world.connections()) == 1
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "R"))
    world.after(9).send_all([])
    assert len(world.connections()) == 1
    world.after(1).send_all([])
    assert world.connections() == []


def test_a_timeout_beyond_the_wheels_horizon_is_kept():
    world = World(["--set 100000 0 50000", *UDP])
    world.send(udp_frame(CLIENT, VIP, 40_000, 53))
    for _ in range(49):
        world.after(1000).send_all([])
    world.after(999.9).send_all([])
    assert len(world.connections()) == 1
    world.after(0.1).send_all([])
    assert world.connections() == []


def test_a_long_silence_is_caught_up_with():
    world = World(UDP)
    for port in range(200):
        world.send(udp_frame(CLIENT, VIP, 30_000 + port, 53))
    world.after(86_400).send_all([])
    assert world.connections() == []


def test_lookups_do_not_wait_for_the_sweep():
    from pylvs.engine.loop import breathe

    world = World(UDP)
    for port in range(100):
        world.send(udp_frame(CLIENT, VIP, 30_000 + port, 53))
    world.after(300)
    world.driver.put(0, udp_frame(CLIENT, VIP, 30_000, 53))
    breathe(world.director, world.driver, world.now_ms)
    assert int(world.tables.services[0]["connections"]) == 101  # due, so a new one was made


def test_a_removed_servers_connections_come_back_with_it():
    world = World([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:80 -m"])
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    world.rule(f"-d -t {VIP}:80 -r 10.0.0.11:80")
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A")) == []
    assert world.reason("server_gone") == 1
    world.rule(f"-a -t {VIP}:80 -r 10.0.0.11:80 -m")
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))
    assert int(world.tables.servers[0]["active"]) == 1


def test_a_removed_server_without_connections_gives_its_row_back():
    world = World(limits=SMALL, rules=[f"-A -t {VIP}:80 -s rr"])
    for n in range(40):
        world.rule(f"-a -t {VIP}:80 -r 10.0.0.{11 + n % 20}:80 -m")
        world.rule(f"-d -t {VIP}:80 -r 10.0.0.{11 + n % 20}:80")
    for _ in range(4):  # remembered for two minutes, looked at once a minute
        world.after(60).send_all([])
    assert not world.tables.servers["used"].any()


def test_a_removed_server_returns_to_its_service_as_itself_and_to_no_other():
    """Two services with the same servers, of which many are remembered at a time."""
    world = World([f"-A -t {VIP}:80 -s rr", f"-A -t {VIP}:81 -s rr"])
    names = [(port, f"10.0.0.{n}") for n in range(1, 31) for port in (80, 81)]
    key = {}
    for port, address in names:
        world.rule(f"-a -t {VIP}:{port} -r {address}:{port} -m -w {port}")
    seen = int(world.tables.director[0]["servers_seen"])
    for row in range(seen):
        server = world.tables.servers[row]
        key[int(server["virtual_port"]), int(server["address_low"])] = row
        server["connections"] = row + 1
    for port, address in names:
        world.rule(f"-d -t {VIP}:{port} -r {address}:{port}")
    for port, address in reversed(names):
        world.rule(f"-a -t {VIP}:{port} -r {address}:{port} -m")
    for row in range(seen):
        server = world.tables.servers[row]
        assert key[int(server["virtual_port"]), int(server["address_low"])] == row
        assert server["connections"] == row + 1
    assert int(world.tables.director[0]["servers_seen"]) == seen


@compiled
def half_open(tables, count, begin_ms, step_ms):
    """Insert what SYNs of random clients leave, so many each millisecond for a minute."""
    for number in range(count):
        row = connections.allocate(tables)
        entry = tables.connections[row]
        entry.client_address = (number * 0x9E37_79B1) & 0xFFFF_FFFF
        entry.client_port = number & 0xFFFF
        entry.virtual_port = 80
        entry.protocol = 6
        entry.state = states.SR
        entry.conn_flags = 0
        entry.server = NONE
        entry.control = NONE
        entry.controls = 0
        entry.timeout_ms = 60_000
        connections.insert(tables, row, begin_ms + number // step_ms)


def test_a_million_half_open_connections_go_when_their_time_is_up():
    """Each within a tick of it, by breaths that look at no more rows than any does."""
    count = 6_000 if UNCOMPILED or BOUNDS_CHECKED else 1_020_000
    world = World(limits=Limits(connections=1 << 20))
    director, begin_ms = world.tables.director[0], world.now_ms
    world.send_all([])  # the wheel turns
    entrance(half_open)(world.tables.all[0], count, begin_ms, count // 60_000 or 1)
    assert director["connection_count"] == count
    made_ms = count // (count // 60_000 or 1)
    for after_ms in range(60_000, 60_000 + made_ms + 2 * TICK_MS, 500):
        breaths = 0
        while not sweep(world.tables.all, begin_ms + after_ms, False):
            breaths += 1
        due = min(count, max(0, after_ms - 60_000) * (count // made_ms))
        late = due - (count - int(director["connection_count"]))
        assert late <= 2 * TICK_MS * count // made_ms
        assert breaths <= 2 + 2 * (count // 120 + 1_024) // SWEEP_LIMIT
    sweep(world.tables.all, begin_ms + 60_000 + made_ms + 1_000, True)
    assert director["connection_count"] == 0
    assert int(world.tables.director[0]["high_water"]) == count
