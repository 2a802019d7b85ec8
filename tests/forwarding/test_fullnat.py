"""Full NAT: what a server sees in the place of its client, and what PROXY's header tells it."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylvs.control import listing
from pylvs.control.network.surroundings import Heard
from pylvs.errors import RuleError
from pylvs.lab.capture import faults
from pylvs.wire.text import address_of
from tests.conftest import examples
from tests.packets import ethernet, icmp, icmp6, ip_packet, tcp, tcp_frame, udp_frame
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

LOCAL, LOCAL6 = "10.0.0.200", "2001:db8:2::200"
SERVER, SERVER6 = "10.0.0.11", "2001:db8:2::b"
NEAR_SERVERS = bytes.fromhex("0200000002fe")
KINDS = {4: (CLIENT, VIP, SERVER, LOCAL, 28), 6: (CLIENT6, VIP6, SERVER6, LOCAL6, 52)}
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a21")


def world(proxy="", version=4, letter="t", pool=(LOCAL, LOCAL6), servers=1, **options):
    made = World(**options)
    made.manager.own.set_pool(list(map(address_of, pool)))
    made.manager.own.set_local(made.manager.own.local)
    vip = f"[{VIP6}]" if version == 6 else VIP
    made.rule(f"-A -{letter} {vip}:80 -s rr")
    for n in range(servers):
        server = f"[2001:db8:2::{11 + n:x}]" if version == 6 else f"10.0.0.{11 + n}"
        made.rule(f"-a -{letter} {vip}:80 -r {server}:8080 --fullnat {proxy}")
    return made


def from_server(*segment, **options):
    return NEAR_SERVERS + tcp_frame(*segment, **options)[6:]


def icmp_error(source, destination, type_, code, quoted):
    if ":" in source:
        message = icmp6(source, destination, type_, code, 0, quoted)
        return ethernet(ip_packet(source, destination, 58, message))
    return ethernet(ip_packet(source, destination, 1, icmp(type_, code, 0, quoted)))


class Packet:
    """One packet that came out, taken apart."""

    def __init__(self, sent):
        ((self.port, frame),) = sent
        assert faults(frame[14:]) == []
        packet = frame[14:]
        self.version = packet[0] >> 4
        if self.version == 4:
            self.source, self.destination = packet[12:16], packet[16:20]
            segment = packet[20 : struct.unpack("!H", packet[2:4])[0]]
        else:
            self.source, self.destination = packet[8:24], packet[24:40]
            segment = packet[40:]
        self.segment = segment
        self.sport, self.dport, self.seq, self.ack = struct.unpack("!HHII", segment[:12])
        self.payload = segment[(segment[12] >> 4) * 4 :]
        self.options = segment[20 : (segment[12] >> 4) * 4]

    def ends(self):
        return self.source, self.sport, self.destination, self.dport


def raw(address):
    return address_of(address).to_bytes(16 if ":" in address else 4, "big")


def with_options(source, destination, sport, dport, flags, options, seq=0, ack=0):
    """Return a frame with these options of TCP, its checksum right."""
    plain = bytearray(tcp(source, destination, sport, dport, flags, b"", seq, ack))
    plain[12] = (5 + len(options) // 4) << 4
    plain[16:18] = b"\0\0"
    segment = bytes(plain) + options
    ends = raw(source) + raw(destination)
    total = sum(struct.unpack(f"!{len(ends) // 2}H", ends)) + 6 + len(segment)
    total += sum(struct.unpack(f"!{len(segment) // 2}H", segment))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:16] + struct.pack("!H", ~total & 0xFFFF) + segment[18:]
    return ethernet(ip_packet(source, destination, 6, segment))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("letter", ["t", "u"])
def test_both_directions_are_rewritten_at_both_ends(version, letter):
    client, vip, server, local, _ = KINDS[version]
    made = world(version=version, letter=letter)
    build = tcp_frame if letter == "t" else udp_frame
    sent = made.send(build(client, vip, 40_000, 80))
    request = Packet(sent)
    assert request.port == 1
    assert request.ends() == (raw(local), request.sport, raw(server), 8_080)
    assert request.sport >= 1_024
    reply = NEAR_SERVERS + build(server, local, 8_080, request.sport)[6:]
    answer = Packet(made.send(reply, 1))
    assert (answer.port, *answer.ends()) == (0, raw(vip), 80, raw(client), 40_000)
    again = Packet(made.send(build(client, vip, 40_000, 80)))
    assert again.ends() == request.ends()
    stranger = NEAR_SERVERS + build(server, local, 8_081, request.sport)[6:]
    assert not any(frame[26:30] == raw(VIP) for _, frame in made.send(stranger, 1))


def test_clients_have_local_ends_of_their_own_until_they_are_gone():
    made = world(pool=(LOCAL, "10.0.0.201"))
    ends = {
        Packet(made.send(tcp_frame(CLIENT, VIP, port, 80))).ends()[:2]
        for port in range(40_000, 40_200)
    }
    assert len(ends) == 200
    assert {source for source, _ in ends} == {raw(LOCAL), raw("10.0.0.201")}
    assert made.tables.local_buckets.any()
    made.after(120).send_all([])
    assert made.connections() == []
    assert not made.tables.local_buckets.any()


def test_a_listing_tells_local_ends():
    made = world()
    port = Packet(made.send(tcp_frame(CLIENT, VIP, 40_000, 80))).sport
    (row,) = listing.connections(made.manager)
    assert row.local == (address_of(LOCAL), port)
    assert row.client == (address_of(CLIENT), 40_000)


def test_without_a_free_local_end_there_is_no_connection_and_the_others_go_on():
    made = world(servers=2)
    made.tables.pool["first_port"], made.tables.pool["last_port"] = 5_000, 5_003
    made.tables.pool["next_port"] = 5_000
    clients = range(40_000, 40_012)
    sent = [made.send(tcp_frame(CLIENT, VIP, port, 80)) for port in clients]
    assert sum(map(bool, sent)) == 8  # four local ends towards each of two servers
    assert made.reason("no_local_end") == 4
    assert len(made.connections()) == 8
    assert made.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A"))


def test_a_server_needs_a_local_address_of_its_family():
    made = world(pool=(LOCAL,))
    made.rule(f"-A -t [{VIP6}]:80 -s rr")
    with pytest.raises(RuleError, match="local addresses of IPv6"):
        made.rule(f"-a -t [{VIP6}]:80 -r [{SERVER6}]:80 --fullnat")


@pytest.mark.parametrize("version", [4, 6])
def test_errors_are_about_what_each_side_knows(version):
    client, vip, server, local, _ = KINDS[version]
    made = world(version=version)
    ((_, request),) = made.send(tcp_frame(client, vip, 40_000, 80))
    port = Packet([(1, request)]).sport
    # From a router on the servers' side, about the request.
    kind = (3, 1) if version == 4 else (1, 3)
    error = NEAR_SERVERS + icmp_error(server, local, *kind, request[14:])[6:]
    ((out, told),) = made.send(error, 1)
    assert out == 0
    assert faults(told[14:]) == []
    quoted = told[14:][28:] if version == 4 else told[14:][48:]
    head = 20 if version == 4 else 40
    size = 4 if version == 4 else 16
    ends = quoted[head - 2 * size : head]
    assert ends == raw(client) + raw(vip)
    assert struct.unpack("!HH", quoted[head : head + 4]) == (40_000, 80)
    # From a router on the client's side, about the reply.
    reply = from_server(server, local, 8_080, port, "SA")
    ((_, answer),) = made.send(reply, 1)
    source = "198.51.100.1" if version == 4 else "2001:db8:c::1"
    ((out, told),) = made.send(icmp_error(source, vip, *kind, answer[14:]))
    assert out == 1
    assert faults(told[14:]) == []
    quoted = told[14:][28:] if version == 4 else told[14:][48:]
    assert quoted[head - 2 * size : head] == raw(server) + raw(local)
    assert struct.unpack("!HH", quoted[head : head + 4]) == (8_080, port)


def test_a_server_is_told_of_a_reply_that_is_too_large_as_it_sent_it():
    made = world(mtus=(1_400, 1_500))
    port = Packet(made.send(tcp_frame(CLIENT, VIP, 40_000, 80))).sport
    reply = from_server(SERVER, LOCAL, 8_080, port, "A", bytes(1_400))
    ((out, error),) = made.send(reply, 1)
    assert (out, error[34], error[35]) == (1, 3, 4)
    assert error[42 + 12 : 42 + 20] == raw(SERVER) + raw(LOCAL)
    assert struct.unpack("!HH", error[62:66]) == (8_080, port)


class Talk:
    """A TCP connection whose server is to be told its client."""

    def __init__(self, version=4, begin=1_000):
        self.client, self.vip, self.server, self.local, self.size = KINDS[version]
        self.version, self.begin = version, (begin + 1) & 0xFFFF_FFFF
        self.world = world("proxy", version)
        self.port = self.say("S", -1).sport

    def say(self, flags, at, payload=b"", ack=0):
        """Have the client say something at a place in its stream; return what the server gets."""
        number = (self.begin + at) & 0xFFFF_FFFF
        ends = (self.client, self.vip, 40_000, 80)
        return Packet(self.world.send(tcp_frame(*ends, flags, payload, number, ack)))

    def answer(self, flags, acknowledged, options=b""):
        """Have the server acknowledge a place in what it gets; return what the client gets."""
        number = (self.begin + acknowledged) & 0xFFFF_FFFF
        ends = (self.server, self.local, 8_080, self.port)
        frame = with_options(*ends, flags, options, 7_000, number)
        return Packet(self.world.send(NEAR_SERVERS + frame[6:], 1))

    def header(self):
        ends = raw(self.client) + raw(self.vip)
        kind = b"\x11" if self.version == 4 else b"\x21"
        length = struct.pack("!H", len(ends) + 4)
        return SIGNATURE + kind + length + ends + struct.pack("!HH", 40_000, 80)


@pytest.mark.parametrize("version", [4, 6])
class TestProxy:
    def test_the_header_ends_the_handshake_and_the_stream_goes_on_behind_it(self, version):
        talk = Talk(version)
        mss = struct.pack("!BBHI", 2, 4, 1_460, 0x0101_0101)
        back = talk.answer("SA", 0, mss)
        assert back.ack == talk.begin
        assert back.options[:4] == struct.pack("!BBH", 2, 4, 1_460 - talk.size)
        first = talk.say("A", 0, ack=7_001)
        assert (first.payload, first.seq) == (talk.header(), talk.begin)
        assert len(first.payload) == talk.size
        # Not acknowledged yet: who begins at the beginning says it again.
        again = talk.say("PA", 0, b"GET / HTTP/1.0\r\n\r\n", 7_001)
        assert (again.payload, again.seq) == (talk.header() + b"GET / HTTP/1.0\r\n\r\n", talk.begin)
        behind = talk.say("PA", 18, b"more", 7_001)
        assert (behind.payload, behind.seq) == (b"more", talk.begin + talk.size + 18)
        assert talk.answer("A", talk.size + 22).ack == talk.begin + 22
        late = talk.say("A", 0, b"GET", 7_001)
        assert (late.payload, late.seq) == (b"GET", talk.begin + talk.size)
        end = talk.say("FA", 22, b"", 7_001)
        assert (end.payload, end.seq) == (b"", talk.begin + talk.size + 22)

    def test_parts_of_the_header_are_nothing_to_the_client(self, version):
        talk = Talk(version, begin=0xFFFF_FFF0)
        assert talk.answer("SA", 0).ack == talk.begin
        for part in (0, 1, talk.size - 1, talk.size):
            assert talk.answer("A", part).ack == talk.begin
        assert talk.answer("A", talk.size + 5).ack == (talk.begin + 5) & 0xFFFF_FFFF

    def test_a_client_that_only_closes_is_introduced_first(self, version):
        talk = Talk(version)
        talk.answer("SA", 0)
        end = talk.say("FA", 0, b"", 7_001)
        assert (end.payload, end.seq) == (talk.header(), talk.begin)

    def test_what_is_acknowledged_out_of_order_is_shifted_too(self, version):
        talk = Talk(version)
        talk.answer("SA", 0)
        edges = [(talk.begin + talk.size + n) & 0xFFFF_FFFF for n in (100, 200)]
        for pad, align in ((b"\1\1", 0), (b"\1", 1)):
            sack = pad + struct.pack("!BBII", 5, 10, *edges) + b"\0" * align
            back = talk.answer("A", talk.size, sack)
            at = len(pad) + 2
            told = struct.unpack("!II", back.options[at : at + 8])
            assert told == (talk.begin + 100, talk.begin + 200)


@examples(40)
@given(st.data())
def test_a_server_gets_the_header_once_and_then_the_stream(data):
    """Segments cut anywhere, lost and sent again, with acknowledgments in between."""
    version = data.draw(st.sampled_from((4, 6)))
    talk = Talk(version, data.draw(st.sampled_from((1_000, 0xFFFF_FFFF, 0x7FFF_FFF0))))
    talk.answer("SA", 0)
    stream = random.Random(1).randbytes(200)
    got = {}
    received = 0
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, 199))
        size = data.draw(st.integers(0, 200 - at))
        packet = talk.say("A", at, stream[at : at + size], 7_001)
        if data.draw(st.booleans()):  # it arrives
            place = (packet.seq - talk.begin) & 0xFFFF_FFFF
            for n, octet in enumerate(packet.payload):
                assert got.setdefault(place + n, octet) == octet
            while received in got:
                received += 1
            back = talk.answer("A", received)
            assert back.ack == (talk.begin + max(0, received - talk.size)) & 0xFFFF_FFFF
    whole = talk.header() + stream
    assert all(whole[place] == octet for place, octet in got.items())


def test_what_does_not_fit_with_the_header_is_told_to_be_smaller():
    talk = Talk()
    talk.answer("SA", 0)
    ends = (talk.client, talk.vip, 40_000, 80)
    big = tcp_frame(*ends, "A", bytes(1_460), talk.begin, 7_001)
    ((out, error),) = talk.world.send(big)
    assert (out, error[34], error[35]) == (0, 3, 4)
    assert int.from_bytes(error[40:42], "big") == 1_500 - talk.size
    pieces = talk.world.send(tcp_frame(*ends, "A", bytes(1_460), talk.begin, 7_001, fragment=0))
    assert len(pieces) == 2
    fits = talk.say("A", 0, bytes(1_460 - talk.size), 7_001)
    assert fits.payload[: talk.size] == talk.header()


class TestNobodySpeaksInTheHeadersPlace:
    """What a client would have the server take for the header, were it let through."""

    def lost(self, talk, flags, at, payload=b"FORGED"):
        number = (talk.begin + at) & 0xFFFF_FFFF
        ends = (talk.client, talk.vip, 40_000, 80)
        before = talk.world.reason("out_of_turn")
        assert talk.world.send(tcp_frame(*ends, flags, payload, number, 7_001)) == []
        assert talk.world.reason("out_of_turn") == before + 1

    def test_before_the_stream_begins(self):
        talk = Talk()
        self.lost(talk, "A", 0)  # the server has not answered
        talk.answer("SA", 0)
        self.lost(talk, "PA", -1)
        self.lost(talk, "PA", -5, b"FORGED")
        assert talk.say("A", -1, b"x", 7_001).payload == b"x"  # a keepalive: the server has it
        assert talk.say("A", -1, b"", 7_001).payload == b""

    def test_where_another_syn_says_it_begins(self):
        talk = Talk()
        talk.answer("SA", 0)
        talk.say("S", 0x4000_0000)
        assert talk.say("PA", 0, b"FORGED", 7_001).payload == talk.header() + b"FORGED"

    def test_a_spoofed_syn_does_not_end_a_connection(self):
        talk = Talk()
        talk.answer("SA", 0)
        talk.say("A", 0, ack=7_001)
        talk.answer("A", talk.size)
        talk.say("S", 12_345)
        assert talk.say("A", 3, b"more", 7_001).seq == talk.begin + talk.size + 3
        assert talk.answer("A", talk.size + 7).ack == talk.begin + 7

    def test_data_in_a_syn(self):
        talk = Talk()
        self.lost(talk, "S", -1)
        cookie = b"\x22\x02\x01\x01" + b"\x01\xfe\x04\xf9\x89\x01\x01\x01"
        ends = (talk.client, talk.vip, 40_001, 80)
        syn = Packet(talk.world.send(with_options(*ends, "S", cookie)))
        assert syn.options == b"\1" * 12

    def test_a_new_connection_from_the_same_port_begins_anew(self):
        talk = Talk()
        talk.world.tables.director[0]["conn_reuse_mode"] = 0
        talk.answer("SA", 0)
        talk.say("A", 0, ack=7_001)
        talk.answer("A", talk.size)
        talk.begin += 50_000
        talk.say("S", -1)
        assert talk.answer("SA", 0).ack == talk.begin
        assert talk.say("A", 0, b"", 7_001).payload == talk.header()


def test_a_burst_of_long_connections_does_not_stand_in_the_way():
    made = world()
    for port in range(20_000, 20_300):
        assert made.send(tcp_frame(CLIENT, VIP, port, 80))
    made.tables.pool["next_port"][0] -= 300
    ends = {
        Packet(made.send(tcp_frame(CLIENT, VIP, port, 80))).ends()[:2]
        for port in range(30_000, 30_050)
    }
    assert len(ends) == 50
    assert made.reason("no_local_end") == 0


def test_a_client_is_told_that_its_server_cannot_be_reached():
    told = {}
    for method in ("-m", "--fullnat"):
        made = world(servers=0)
        made.rule(f"-a -t {VIP}:80 -r 10.0.0.99:8080 {method}")
        assert made.send(tcp_frame(CLIENT, VIP, 40_000, 80)) == []
        made.manager.around.hear([Heard(1, address_of("10.0.0.99"), 0)])
        sent = [out for n in range(6) for out in made.after(n).send_all([])]
        # But for the checksum in the quoted header, which nobody mends.
        told[method] = [(port, frame[26:36], frame[42:78]) for port, frame in sent]
        assert not any(faults(frame[14:]) for _, frame in sent)
    assert told["-m"]
    assert told["-m"] == told["--fullnat"]


def test_a_late_reply_is_refused_and_opens_nothing():
    made = world(letter="u", servers=0)
    made.rule("-A -u 0.0.0.0/0:any -s rr")
    made.rule(f"-a -u 0.0.0.0/0:any -r {SERVER}:8080 --fullnat")
    port = Packet(made.send(udp_frame(CLIENT, "203.0.113.5", 40_000, 80))).sport
    made.after(301).send_all([])
    assert made.connections() == []
    ((_, refusal),) = made.send(NEAR_SERVERS + udp_frame(SERVER, LOCAL, 8_080, port)[6:], 1)
    assert (refusal[23], refusal[34], refusal[35]) == (1, 3, 3)
    assert made.connections() == []


def test_only_tcp_is_told_its_clients():
    made = world()
    made.rule(f"-A -u {VIP}:53 -s rr")
    with pytest.raises(RuleError, match="only for TCP"):
        made.rule(f"-a -u {VIP}:53 -r {SERVER}:53 --fullnat proxy")
    with pytest.raises(RuleError, match="it is proxy"):
        made.rule(f"-a -t {VIP}:80 -r 10.0.0.12:80 --fullnat toa")
