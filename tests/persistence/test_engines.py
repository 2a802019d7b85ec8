"""Persistence engines: SIP's Call-ID, and keys of one's own in plain Python."""

import numpy as np
import pytest

from pylvs.control import listing
from pylvs.control.ipvsadm import proc, render
from pylvs.errors import RuleError, UsageError
from pylvs.jit import entrance
from pylvs.persistence import plugin, sip
from pylvs.plugins import load
from tests.packets import tcp_frame, udp_frame
from tests.world import CLIENT, CLIENT6, MACS, VIP, VIP6, World

find_call_id = entrance(sip.find_call_id)


def call_id_of(message):
    at, size = find_call_id(np.frombuffer(b"...." + message, np.uint8), 4, 4 + len(message))
    return (b"...." + message)[at : at + size] if size else None


def invite(call_id, line_end=b"\r\n"):
    lines = [b"INVITE sip:bob@192.0.2.10 SIP/2.0", b"Via: SIP/2.0/UDP c", b"Call-ID: " + call_id]
    return line_end.join([*lines, b"CSeq: 1 INVITE", b"", b""])


class Third:
    """Clients are told apart by the third octet of what they send."""

    def key(self, service, flow, payload):
        return payload[2:3] if payload else None


class Faulty:
    """Raises, and lies."""

    def key(self, service, flow, payload):
        if payload == b"raise":
            raise RuntimeError("on purpose")
        return "text" if payload == b"text" else bytes(256)


class NoKey:
    pass


def world(engine, vip=VIP, terms="-p 100 -s rr"):
    shown = f"[{vip}]" if ":" in vip else vip
    net = "2001:db8:2::" if ":" in vip else "10.0.0."
    rules = [f"-A -u {shown}:5060 {terms} --pe {engine}"]
    for n in (11, 12):
        server = f"[{net}{n:x}]:5060" if ":" in vip else f"{net}{n}:5060"
        rules.append(f"-a -u {shown}:5060 -r {server} -m")
    return World(rules)


def went_to(sent):
    ((_, frame),) = sent
    return frame[5]


@pytest.mark.parametrize(
    ("message", "call_id"),
    [
        (invite(b"abc@host"), b"abc@host"),
        (invite(b"abc@host", b"\n"), b"abc@host"),
        (invite(b"abc@host", b"\r"), b"abc@host"),
        (b"OPTIONS\r\ncall-id:x\r\n", b"x"),
        (b"OPTIONS\r\nCALL-ID \t: \t x\r\n", b"x"),
        (b"OPTIONS\r\ni: x@y\r\n", b"x@y"),
        (b"OPTIONS\r\nI:x\r\n", b"x"),
        (b"OPTIONS\r\nip: x\r\nCall-ID: y\r\n", b"y"),
        (b"OPTIONS\r\nCall-ID: x@\r\nCall-ID: y\r\n", b"y"),
        (b"OPTIONS\r\nCall-ID:\r\n x\r\n", b"x"),
        (b"OPTIONS\r\nVia: a\r\n Call-ID: x\r\n\r\n", None),
        (b"Call-ID: x\r\n", None),
        (b"OPTIONS\r\nCall-ID: x", None),
        (b"OPTIONS\r\nCall-ID: x y\r\n", None),
        (b"OPTIONS\r\nCall-ID:\r\nVia: a\r\n", None),
        (b"OPTIONS\r\nCall-ID", None),
        (b"OPTIONS\r\n\r\nCall-ID: body\r\n", b"body"),
        (b"", None),
        (b"\r\n", None),
    ],
)
def test_a_call_id_is_found_as_linux_finds_it(message, call_id):
    assert call_id_of(message) == call_id


@pytest.mark.parametrize(("vip", "client"), [(VIP, CLIENT), (VIP6, CLIENT6)])
def test_calls_of_one_client_go_their_own_ways_and_stay_there(vip, client):
    made = world("sip", vip)
    first = went_to(made.send(udp_frame(client, vip, 5060, 5060, invite(b"one@a"))))
    other = went_to(made.send(udp_frame(client, vip, 5061, 5060, invite(b"two@a"))))
    assert first != other
    for port in range(6000, 6004):
        assert went_to(made.send(udp_frame(client, vip, port, 5060, invite(b"one@a")))) == first


def test_a_call_belongs_to_its_client():
    made = world("sip")
    sent = [
        made.send(udp_frame(f"198.51.100.{n}", VIP, 5060, 5060, invite(b"one@a"))) for n in (1, 2)
    ]
    assert went_to(sent[0]) != went_to(sent[1])


def test_what_has_no_call_id_is_dropped():
    made = world("sip")
    assert made.send(udp_frame(CLIENT, VIP, 5060, 5060, b"\r\n\r\n")) == []
    assert made.reason("no_key") == 1
    assert made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"x" * 256))) == []
    assert went_to(made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"x" * 255))))


def started(made, n, port, message):
    """A real server speaks first; return the packet's source address as its client sees it."""
    sent = made.send(from_server(n, port, message), 1)
    return ".".join(map(str, sent[0][1][26:30])) if sent else ""


def from_server(n, port, message):
    frame = udp_frame(f"10.0.0.{n}", CLIENT, 5060, port, message)
    return MACS[1].to_bytes(6, "big") + frame[6:]


def test_a_server_may_speak_first():
    made = world("sip")
    assert started(made, 12, 5060, invite(b"one@a")) == VIP
    assert went_to(made.send(udp_frame(CLIENT, VIP, 5060, 5060, b"in its connection"))) == 12
    assert went_to(made.send(udp_frame(CLIENT, VIP, 6060, 5060, invite(b"one@a")))) == 12
    assert started(made, 11, 7060, invite(b"one@a")) == VIP  # the call has moved
    assert went_to(made.send(udp_frame(CLIENT, VIP, 8060, 5060, invite(b"one@a")))) == 11


def test_who_has_no_business_to_speak_first_is_only_forwarded():
    made = world("sip")
    assert started(made, 11, 5060, b"no message") == "10.0.0.11"
    assert started(made, 13, 5060, invite(b"one@a")) == ""
    assert made.reason("routed") == made.reason("not_ours") == 1
    assert made.connections() == []


def test_a_datagram_of_a_server_that_is_scheduled_by_itself_leaves_the_template_only():
    made = world("sip", terms="-p 100 -s rr -o")
    assert started(made, 12, 5060, invite(b"one@a")) == VIP
    assert len(made.connections()) == 1


def test_without_persistence_a_server_may_say_anything_first():
    made = world("sip", terms="-s rr")
    assert started(made, 12, 5060, b"no message") == VIP
    assert len(made.connections()) == 1


def test_keys_go_with_their_templates():
    made = world("sip", terms="-p 3 -s rr -o")
    for turn in range(3):
        for n in range(50):
            made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"call-%d" % n)))
        assert len(made.connections()) == 50
        assert int(made.tables.director[0]["keys_seen"]) == 50, turn
        made.after(4).send_all([])
        assert made.connections() == []
    assert (made.tables.key_buckets == -1).all()


def test_templates_are_listed_with_their_call_ids():
    made = world("sip")
    made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"one@a")))
    made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"one@a")))
    rows = list(listing.connections(made.manager))
    text = render.connections(rows, {"persistent-conn"})
    assert text.splitlines()[1].endswith("destination        pe name          pe_data")
    server = rows[0].server[0] & 0xFF
    line = f"UDP 01:40  NONE        198.51.100.7:0     192.0.2.10:5060  10.0.0.{server}:5060     "
    assert f"{line}sip              one@a\n" in text
    ours = (
        f"UDP C6336407 0000 C000020A 13C4 0A0000{server:02X} 13C4 NONE            100 sip one@a\n"
    )
    assert ours in proc.connections(rows)


def test_an_engine_comes_and_goes_with_an_edit():
    made = world("sip")
    made.send(udp_frame(CLIENT, VIP, 5060, 5060, invite(b"one@a")))
    made.rule(f"-E -u {VIP}:5060 -p 100 -s rr")
    assert made.send(udp_frame(CLIENT, VIP, 5062, 5060, b"no message"))
    assert int(made.tables.director[0]["starter_count"]) == 0
    made.rule(f"-E -u {VIP}:5060 -p 100 -s rr --pe sip")
    made.rule(f"-D -u {VIP}:5060")
    assert int(made.tables.director[0]["starter_count"]) == 0
    made.after(500).send_all([])
    assert made.connections() == []
    with pytest.raises(RuleError, match="Scheduler or persistence engine not found"):
        made.rule(f"-A -u {VIP}:5060 -p 100 --pe none")


def test_a_key_of_ones_own():
    made = world(f"{__name__}:Third")
    sent = [
        went_to(made.send(udp_frame(CLIENT, VIP, 4000 + n, 5060, b"xy%d" % (n % 2))))
        for n in range(6)
    ]
    assert sent == [11, 12] * 3 or sent == [12, 11] * 3
    assert made.send(udp_frame(CLIENT, VIP, 4000, 5060)) != []  # its connection is known
    assert made.send(udp_frame(CLIENT, VIP, 4100, 5060, b"")) == []
    assert made.reason("no_key") == 1
    frames = [(0, udp_frame(CLIENT, VIP, 4200 + n, 5060, b"ab%d" % (n % 5))) for n in range(40)]
    one, many = (world(f"{__name__}:Third") for _ in range(2))
    assert [out for frame in frames for out in one.send_all([frame])] == many.send_all(frames)


def test_a_faulty_engine_loses_one_connection_and_is_told_of():
    made = world(f"{__name__}:Faulty")
    for payload in (b"raise", b"text", b"long"):
        assert made.send(udp_frame(CLIENT, VIP, 4000, 5060, payload)) == []
    assert made.reason("scheduler_failed") == 3
    assert any("on purpose" in error for error in made.director.plugin_errors)


def test_tcp_has_keys_of_ones_own_too():
    made = World([f"-A -t {VIP}:80 -p 100 -s rr --pe {__name__}:Third"])
    made.rule(f"-a -t {VIP}:80 -r 10.0.0.11:80 -m")
    assert went_to(made.send(tcp_frame(CLIENT, VIP, 4000, 80, "S", payload=b"abc"))) == 11
    assert made.send(tcp_frame(CLIENT, VIP, 4001, 80)) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best", "unknown; built in: sip;"),
        (f"{__name__}:Nobody", "has no Nobody"),
        (f"{__name__}:NoKey", "no method key"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_a_remedy(name, said):
    with pytest.raises(UsageError, match=said):
        load(plugin.KIND, name)
