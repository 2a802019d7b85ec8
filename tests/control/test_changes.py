"""A whole table as a difference: what is the same is not touched, and it is all or nothing."""

import itertools

import pytest

from pylvs.control import listing
from pylvs.control.changes import Changer, Guard, UnclaimedError
from pylvs.control.ipvsadm import render
from pylvs.control.ipvsadm.rules import parse_line, parse_text
from pylvs.control.model import Table, Timeouts, difference
from pylvs.errors import HostError, RuleError, UsageError
from pylvs.tables.sizes import Limits
from tests.packets import tcp_frame
from tests.world import CLIENT, VIP, World

SMALL = Limits(16, 4, 8, 64, 16)


def table(*rules):
    made = Table()
    for command in parse_text(rules, "rules"):
        made.apply(command)
    return made.services


def said(commands):
    return [render.command(one) for one in commands]


OLD = (
    f"-A -t {VIP}:80 -s rr",
    f"-a -t {VIP}:80 -r 10.0.0.11:80 -m -w 1",
    f"-a -t {VIP}:80 -r 10.0.0.12:80 -m -w 1",
    f"-A -u {VIP}:53 -s wlc",
)
NEW = (
    f"-A -t {VIP}:80 -s wrr -p 60",
    f"-a -t {VIP}:80 -r 10.0.0.12:80 -m -w 3 -x 9 -y 2",
    f"-a -t {VIP}:80 -r 10.0.0.13:80 -i --tun-type gue --tun-port 6080 -w 1",
    "-A -f 5 -s sh -b sh-port",
)


def test_only_what_differs_is_said():
    assert said(difference(table(*OLD), table(*OLD))) == []
    assert said(difference(table(*OLD), table(*NEW))) == [
        f"-D -u {VIP}:53",
        f"-E -t {VIP}:80 -s wrr -p 60",
        f"-a -t {VIP}:80 -r 10.0.0.13:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
        f"-e -t {VIP}:80 -r 10.0.0.12:80 -m -w 3 -x 9 -y 2",
        f"-d -t {VIP}:80 -r 10.0.0.11:80",
        "-A -f 5 -s sh -b sh-port",
    ]


def test_what_is_said_says_it_again():
    for before, after in ((OLD, NEW), (NEW, OLD), ((), NEW), (OLD, ())):
        lines = said(difference(table(*before), table(*after)))
        made = Table()
        for command in parse_text((*before, *lines), "rules"):
            made.apply(command)
        assert made.services == table(*after)


def test_a_table_is_replaced_and_connections_stay():
    world = World(OLD)
    changer = Changer(world.manager)
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    (before,) = world.connections()
    kept = "10.0.0.11" if before[-1] == "10.0.0.11" or "10.0.0.11" in str(before) else "10.0.0.12"
    wanted = table(f"-A -t {VIP}:80 -s wlc", f"-a -t {VIP}:80 -r {kept}:80 -m -w 7")
    changer.replace(wanted, Timeouts(tcp=700))
    assert world.manager.table.services == wanted
    assert world.manager.table.timeouts.tcp == 700
    assert len(world.connections()) == 1
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))


def test_a_dry_run_changes_nothing():
    world = World(OLD)
    assert Changer(world.manager).replace(table(*NEW), dry_run=True)
    assert world.manager.table.services == table(*OLD)


def test_what_can_be_told_ahead_is_told_all_at_once():
    world = World(OLD, limits=SMALL)
    wanted = table(
        f"-A -t {VIP}:1 -s nobody",
        f"-A -t {VIP}:2 -s no.such:One",
        *(f"-A -t {VIP}:{n} -s rr" for n in range(3, 6)),
    )
    with pytest.raises(UsageError) as caught:
        Changer(world.manager).replace(wanted)
    told = str(caught.value)
    assert "nobody" in told
    assert "no.such" in told
    assert "5 services are more" in told
    assert world.manager.table.services == table(*OLD)


def refuse(patch, manager, chosen):
    """Have a manager refuse the commands that are chosen."""
    apply_all = manager.apply_all

    def carry_out(commands, call):
        no = RuleError("no more", 255)
        return [no if chosen(one) else apply_all([one], call)[0] for one in commands]

    patch.setattr(manager, "apply_all", carry_out)


def test_a_refusal_half_way_undoes_what_was_done(monkeypatch):
    world = World(OLD)
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    numbers = itertools.count(1)
    refuse(monkeypatch, world.manager, lambda _: next(numbers) == 4)
    with pytest.raises(UsageError, match="left as it is: no more"):
        Changer(world.manager).replace(table(*NEW))
    assert world.manager.table.services == table(*OLD)
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))


class Trouble(Guard):
    def __init__(self, when):
        self.when = when

    def before(self, commands):
        if self.when == "before":
            raise HostError("cannot claim")

    def after(self, _):
        return "cannot follow\n" if self.when == "after" else ""


def test_what_the_host_refuses_is_told():
    world = World(OLD)
    with pytest.raises(HostError, match="cannot claim"):
        Changer(world.manager, guard=Trouble("before")).replace(table(*NEW))
    assert world.manager.table.services == table(*OLD)
    with pytest.raises(HostError, match="cannot follow"):
        Changer(world.manager, guard=Trouble("after")).replace(table(*NEW))
    assert world.manager.table.services == table(*NEW)


def test_what_does_not_fit_is_refused_and_leaves_servers_and_timeouts():
    """Two of three rows are to be other servers: there is no room for a third and fourth."""
    rules = (
        f"-A -t {VIP}:80 -s rr",
        f"-a -t {VIP}:80 -r 10.0.0.11:80 -m",
        f"-a -t {VIP}:80 -r 10.0.0.12:80 -m",
        f"-A -t {VIP}:81 -s rr",
        f"-a -t {VIP}:81 -r 10.0.0.13:81 -m",
    )
    world = World(rules, limits=Limits(64, 4, 3, 64, 16))
    for port in range(8):  # connections, so that rows of removed servers are not given to others
        world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
        world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 81))
    before = world.manager.copy_services()
    wanted = table(
        f"-A -t {VIP}:80 -s rr",
        f"-a -t {VIP}:80 -r 10.0.0.14:80 -m",
        f"-A -t {VIP}:81 -s rr",
        f"-a -t {VIP}:81 -r 10.0.0.13:81 -m",
        f"-a -t {VIP}:81 -r 10.0.0.15:81 -m",
    )
    with pytest.raises(UsageError, match="left as it is: Memory allocation problem"):
        Changer(world.manager).replace(wanted, Timeouts(tcp=77))
    assert world.manager.table.services == before
    assert world.manager.table.timeouts == Timeouts()
    assert world.tables.timeouts[0, 1] == 900_000
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))


def test_a_table_that_fits_only_once_the_old_one_is_gone_is_taken():
    rules = [f"-A -t {VIP}:80 -s rr"]
    rules += [f"-a -t {VIP}:80 -r 10.0.0.{n}:80 -m" for n in (1, 2, 3)]
    world = World(rules, limits=Limits(64, 4, 3, 64, 16))
    wanted = table(rules[0], *(f"-a -t {VIP}:80 -r 10.0.1.{n}:80 -m" for n in (1, 2, 3)))
    Changer(world.manager).replace(wanted)
    assert world.manager.table.services == wanted


class Recorder(Guard):
    """Notes in what order things are done."""

    def __init__(self, fails=""):
        self.told, self.fails = [], fails

    def before(self, commands):
        self.told.append(("before", [one.verb for one in commands]))

    def after(self, _):
        self.told.append("after")
        return "not claimed\n" if self.fails == "after" else ""


def test_what_is_undone_is_claimed_again_first(monkeypatch):
    world = World(OLD)
    guard = Recorder()
    wanted = {**table(*OLD[:2]), **table("-A -t 192.0.2.77:80 -s rr")}
    with monkeypatch.context() as patch:
        refuse(patch, world.manager, lambda one: one.verb == "A")
        with pytest.raises(HostError, match="could not be undone: no more"):
            Changer(world.manager, guard=guard).replace(wanted)
    Changer(world.manager).replace(table(*OLD))
    guard.told.clear()
    refuse(monkeypatch, world.manager, lambda one: one.verb == "A")
    wanted = {**table(*OLD), **table("-A -t 192.0.2.77:80 -s rr")}
    with pytest.raises(UsageError, match="left as it is: no more"):
        Changer(world.manager, guard=guard).replace(wanted)
    assert guard.told[:2] == [("before", ["A"]), "after"]


def test_that_the_host_does_not_follow_is_told_with_what_was_done():
    world = World(OLD)
    with pytest.raises(UnclaimedError, match="not claimed") as caught:
        Changer(world.manager, guard=Recorder("after")).replace(table(*NEW))
    assert caught.value.commands
    assert world.manager.table.services == table(*NEW)


def test_what_the_director_has_no_room_for_takes_what_depends_on_it_along():
    world = World((), limits=SMALL)
    rules = [f"-A -t {VIP}:{port} -s rr" for port in range(1, 6)]
    rules += [f"-a -t {VIP}:{port} -r 10.0.0.11:80 -m -w 1" for port in (5, 4)]
    rules += [f"-D -t {VIP}:1", f"-A -t {VIP}:5 -s rr", f"-a -t {VIP}:5 -r 10.0.0.11:80 -m -w 1"]
    status, told = Changer(world.manager).change([parse_line(rule.split()) for rule in rules])
    assert told.splitlines() == ["Memory allocation problem", "Service not defined"]
    assert status == 0
    assert world.tables.director[0]["own_count"] == 1
    left = table(*rules[1:4], rules[6], *rules[8:])
    assert world.manager.table.services == left
    listed = {row.key: [one.key for one in row.servers] for row in listing.read(world.manager)}
    assert listed == {key: list(service.servers) for key, service in left.items()}


def test_addresses_of_services_without_room_are_not_the_directors():
    world = World((), limits=SMALL)
    rules = [f"-A -t 192.0.2.{n}:80 -s rr" for n in range(1, 8)]
    _, told = Changer(world.manager).change([parse_line(rule.split()) for rule in rules])
    assert told == "Memory allocation problem\n" * 3
    assert world.tables.director[0]["own_count"] == 4
    commands = [f"-D -t 192.0.2.{n}:80" for n in range(1, 5)]
    assert Changer(world.manager).change([parse_line(one.split()) for one in commands]) == (0, "")
    assert world.tables.director[0]["own_count"] == 0


def test_a_listing_has_room_for_what_came_while_it_made_some():
    made = World([f"-A -t {VIP}:80 -s rr"])
    later = iter([f"-A -t {VIP}:81 -s rr", f"-a -t {VIP}:81 -r 10.0.0.11:80 -m"])

    def call(function):
        for rule in itertools.islice(later, 1):
            made.rule(rule)
        return function()

    rows = listing.read(made.manager, call)
    assert [(row.key.port, len(row.servers)) for row in rows] == [(80, 0), (81, 1)]
