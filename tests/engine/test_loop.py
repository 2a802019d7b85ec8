"""The engine's thread: calls between breaths, announcements, failures, its end."""

import time

import pytest

from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.manager import Manager
from pylvs.drivers import linux
from pylvs.drivers.base import Port
from pylvs.drivers.loopback import Loopback
from pylvs.engine.director import OWN_MEMORY, Director
from pylvs.engine.loop import Engine
from pylvs.frames import Reason
from pylvs.tables.sizes import Limits
from tests.packets import DIRECTOR_MAC, tcp_frame
from tests.world import VIP, World


@pytest.fixture
def engine():
    driver = Loopback([Port("only", int.from_bytes(DIRECTOR_MAC, "big"))])
    begin = linux.page_up(OWN_MEMORY)
    reservation = linux.Reservation(begin + driver.memory_size)
    director = Director(Limits(64, 4, 4, 8, 8), memory=reservation.array)
    driver.attach(reservation, begin)
    made = Engine(director, [driver], reservation)
    port = director.tables.ports[0]
    port["mac"], port["up"] = driver.ports[0].mac, 1
    manager = Manager(director)
    manager.apply(parse_line(f"-A -t {VIP}:80".split()))
    manager.own.set_local(frozenset())
    yield made
    made.stop()


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_calls_run_in_the_engines_thread_and_bring_results_and_errors_back(engine):
    import threading

    assert engine.call(threading.get_ident) == threading.get_ident()  # not started yet
    engine.start()
    assert engine.call(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0)


def test_own_addresses_are_announced(engine):
    engine.start()
    engine.announce()
    wait_for(lambda: engine.workers[0].driver.sent)
    ((_, frame),) = engine.workers[0].driver.sent
    assert frame[:6] == b"\xff" * 6
    assert frame[28:32] == frame[38:42] == bytes([192, 0, 2, 10])


def test_frames_are_directed_while_it_runs(engine):
    engine.start()
    engine.workers[0].driver.put(0, tcp_frame("198.51.100.7", VIP, 40_000, 80))
    reasons = engine.director.tables.reasons
    wait_for(lambda: reasons.sum())
    assert int(reasons[Reason.NO_SERVER]) == 1


def test_a_failing_driver_ends_it_and_is_told(engine):
    def broken(frames, limit):
        raise OSError("on purpose")

    engine.workers[0].driver.receive = broken
    engine.start()
    wait_for(lambda: engine.failure is not None)
    assert engine.call(lambda: 5) == 5


def test_a_frame_larger_than_a_slot_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        World().driver.put(0, bytes(70_000))
