"""Schedulers in plain Python: ten lines, and never a danger to the director."""

import pytest

from pylvs.errors import UsageError
from pylvs.plugins import load
from pylvs.schedulers import plugin
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP, World


class Last:
    """Always the server with the highest address."""

    def pick(self, service, servers, flow):
        return max(servers, key=lambda one: one.address, default=None)


class Faulty:
    """Raises, lies, refuses and answers in turn."""

    turn = 0

    def pick(self, service, servers, flow):
        Faulty.turn += 1
        if Faulty.turn % 4 == 1:
            raise RuntimeError("on purpose")
        if Faulty.turn % 4 == 2:
            return "nobody"
        return servers[0] if Faulty.turn % 4 == 3 else None


class Careful(Last):
    """Keeps what it is told."""

    told = []

    def changed(self, service, servers):
        Careful.told.append(len(servers))


class NoPick:
    pass


def world(name, count=3):
    rules = [f"-A -t {VIP}:80 -s tests.schedulers.test_plugins:{name}"]
    return World(rules + [f"-a -t {VIP}:80 -r 10.0.0.{11 + n}:80 -g" for n in range(count)])


def test_a_plug_in_picks():
    made = world("Last")
    for port in range(3):
        ((_, sent),) = made.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
        assert sent[5] == 13


def test_batches_are_invisible_to_a_plug_in():
    frames = [(0, tcp_frame(CLIENT, VIP, 40_000 + n % 5, 80, "SA"[n % 2])) for n in range(30)]
    one, many = world("Last"), world("Last")
    assert [out for frame in frames for out in one.send_all([frame])] == many.send_all(frames)


def test_one_that_raises_or_lies_loses_that_connection_only():
    made = world("Faulty")
    Faulty.turn = 0
    sent = [made.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80)) for port in range(4)]
    assert [len(one) for one in sent] == [0, 0, 1, 1]
    assert sent[3][0][1][34:36] == b"\x03\x03"
    assert made.reason("scheduler_failed") == 2
    assert any("on purpose" in text for text in made.director.plugin_errors)
    assert len(made.connections()) == 1


def test_one_that_cares_is_told_of_changes():
    Careful.told = []
    made = world("Careful", 2)
    made.rule(f"-d -t {VIP}:80 -r 10.0.0.11:80")
    assert Careful.told == [1, 2, 1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best", "unknown"),
        ("no.such.module:Thing", "PYTHONPATH"),
        ("tests.schedulers.test_plugins:Nobody", "has no Nobody"),
        ("tests.schedulers.test_plugins:NoPick", "no method pick"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_a_remedy(name, said):
    with pytest.raises(UsageError, match=said):
        load(plugin.KIND, name)
