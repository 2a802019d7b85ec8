"""FTP's helper: however a talk is cut into segments, both ends hear one stream, rewritten."""

import itertools
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pylvs.control import settings
from pylvs.tables.layouts import FLAG_HELPED, FLAG_NO_PORT
from pylvs.tables.sizes import TALKS_LIMIT, Limits
from tests.conftest import examples
from tests.packets import tcp_frame
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

SERVER, SERVER6 = "10.0.0.11", "2001:db8:2::b"
PASSIVE = b"227 Entering Passive Mode (10,0,0,11,200,10).\r\n"
REWRITTEN = b"227 Entering Passive Mode (192,0,2,10,200,10).\r\n"


SEEN_AS = {
    PASSIVE: REWRITTEN,
    b"227 ok 10,0,0,11,200,10\r\n": b"227 ok 192,0,2,10,200,10\r\n",
    b"227 (010,000,000,011,200,010)\r\n": b"227 (192,0,2,10,200,10)\r\n",
}
NEAR_SERVERS = bytes.fromhex("0200000002fe")
TEXT = st.lists(
    st.sampled_from([b"\r\n", b"227 (", b"PORT ", b"EPRT |", b"PASV", b"1,", b"|", b"9", b"EPSV "])
    | st.binary(max_size=9)
)


def from_server(*segment):
    """Return a frame for the director's port on the servers' side."""
    return NEAR_SERVERS + tcp_frame(*segment)[6:]


def sound(frame):
    """Whether the TCP checksum in an IPv4 frame is right."""
    packet = frame[14:]
    segment = packet[20 : int.from_bytes(packet[2:4], "big")]
    total = sum(struct.unpack("!6H", packet[12:20] + struct.pack("!HH", 6, len(segment))))
    total += sum(
        struct.unpack(f"!{(len(segment) + 1) // 2}H", segment + b"\0" * (len(segment) % 2))
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


class Talk:
    """A client, a server and the director between them, who checks what each end sees."""

    def __init__(self, world=None, client_port=40_000, server=SERVER, server_begins=5_000):
        self.address = server
        self.world = world or World([f"-A -t {VIP}:21 -s rr", f"-a -t {VIP}:21 -r {SERVER}:21 -m"])
        self.client_port = client_port
        self.client_next, self.server_next = 1_000, server_begins
        self.heard_by = {"client": b"", "server": b""}
        self.expected = {"client": server_begins + 1, "server": 1_001}  # what it hears next
        self.client("S")
        self.client_next += 1
        self.server("SA")
        self.server_next += 1
        self.client("A")

    def client(self, flags, payload=b"", seq=None):
        seq = self.client_next if seq is None else seq
        ack = 0 if flags == "S" else self.expected["client"]
        frame = tcp_frame(CLIENT, VIP, self.client_port, 21, flags, payload, seq, ack)
        return self._deliver("server", self.world.send(frame))

    def server(self, flags, payload=b"", seq=None):
        seq = self.server_next if seq is None else seq
        frame = from_server(
            self.address, CLIENT, 21, self.client_port, flags, payload, seq, self.client_next
        )
        return self._deliver("client", self.world.send(frame, port=1))

    def _deliver(self, end, sent):
        """Let an end hear what left: what is new of it, in order."""
        for _, frame in sent:
            assert sound(frame)
            total = int.from_bytes(frame[16:18], "big")
            payload = frame[54 : 14 + total]
            seq = int.from_bytes(frame[38:42], "big")
            if frame[47] & 0x02 or not payload:
                continue
            known = self.expected[end] - seq
            assert known >= 0, "a gap"
            self.heard_by[end] += payload[known:]
            self.expected[end] += max(0, len(payload) - known)
        return sent

    def ask(self, line, cuts=()):
        for part in cut(line, cuts):
            self.client("PA", part)
            self.client_next += len(part)

    def say(self, line, cuts=(), again=()):
        """Send a line in parts; those of these numbers are sent twice."""
        for number, part in enumerate(cut(line, cuts)):
            self.server("PA", part)
            if number in again:
                self.server("PA", part)
            self.server_next += len(part)
        self.client("A")

    def acknowledged(self):
        """Return what the server is told that its client has heard up to."""
        ((_, frame),) = self.client("A")
        return int.from_bytes(frame[42:46], "big")

    def opens(self, client_port, virtual_port):
        """Return where a client's SYN goes, or None."""
        sent = self.world.send(tcp_frame(CLIENT, VIP, client_port, virtual_port))
        to_server = [frame for port, frame in sent if port == 1]
        if not to_server:
            return None
        return ".".join(map(str, to_server[0][30:34])), int.from_bytes(to_server[0][36:38], "big")


def cut(line, cuts):
    places = [0, *sorted({place % len(line) for place in cuts} - {0}), len(line)]
    return [line[a:b] for a, b in itertools.pairwise(places)]


@examples(60)
@given(
    st.lists(st.integers(0, 60), max_size=4),
    st.lists(st.integers(0, 60), max_size=4),
    st.sampled_from(list(SEEN_AS)),
)
@example([1, 2, 3], [27, 30], PASSIVE)
def test_in_whatever_pieces_it_comes_one_stream_is_heard(asked, answered, reply):
    talk = Talk()
    talk.say(b"220 welcome\r\n")
    talk.ask(b"PASV\r\n", asked)
    talk.say(reply, answered)
    assert talk.heard_by["client"] == b"220 welcome\r\n" + SEEN_AS[reply]
    assert talk.opens(41_000, 51_210) == (SERVER, 51_210)
    talk.ask(b"TYPE I\r\n")
    talk.say(b"200 ok\r\n")
    assert talk.heard_by["client"].endswith(b"200 ok\r\n")
    assert talk.heard_by["server"] == b"PASV\r\nTYPE I\r\n"
    assert talk.acknowledged() == talk.server_next


@examples(60)
@given(st.lists(st.integers(0, 60), max_size=2), st.integers(0, 2))
def test_what_is_sent_again_is_rewritten_again(cuts, again):
    talk = Talk()
    talk.ask(b"PASV\r\n")
    parts = len(cut(PASSIVE, cuts))
    talk.say(PASSIVE, cuts, {again} if parts == 1 else ())
    talk.server("PA", PASSIVE, seq=talk.server_next - len(PASSIVE))
    assert talk.heard_by["client"] == REWRITTEN
    talk.say(b"200 ok\r\n")
    assert talk.heard_by["client"] == REWRITTEN + b"200 ok\r\n"
    assert talk.acknowledged() == talk.server_next


def test_a_reply_whose_beginning_was_lost_is_seen_once_it_comes_again():
    talk = Talk()
    talk.ask(b"PASV\r\n")
    assert talk.server("PA", PASSIVE[:10]) == []
    assert talk.world.reason("held_back") == 1
    talk.server("PA", PASSIVE)  # the server sends it again, with what it has since
    assert talk.heard_by["client"] == REWRITTEN


def test_a_part_that_comes_again_alone_is_let_go():
    talk = Talk()
    talk.ask(b"PASV\r\n")
    assert talk.server("PA", PASSIVE[:10]) == []
    talk.server("PA", PASSIVE[:10])
    assert talk.heard_by["client"] == PASSIVE[:10]


def test_what_a_server_repeats_of_its_clients_words_is_no_reply():
    """A segment sent again may begin in the middle of a line."""
    talk = Talk()
    talk.ask(b"USER 229 x(|||22|)\r\nEPSV\r\n")
    echo = b"331 Password required for 229 x(|||22|)\r\n"
    talk.server("PA", echo)
    talk.server("PA", echo[26:], seq=talk.server_next + 26)
    talk.server_next += len(echo)
    talk.server("PA", b"29 x(|||22|)\r\n", seq=talk.server_next - 14)
    assert talk.opens(41_000, 22) is None
    talk.say(b"229 ok (|||51210|)\r\n")
    assert talk.opens(41_000, 51_210) == (SERVER, 51_210)


def test_who_only_knocks_keeps_nobody_from_being_heard():
    world = World(
        [f"-A -t {VIP}:21 -s rr", f"-a -t {VIP}:21 -r {SERVER}:21 -m"],
        limits=Limits(connections=6_000),
    )
    knocks = [tcp_frame(CLIENT, VIP, 1_024 + n, 21) for n in range(TALKS_LIMIT + 200)]
    for at in range(0, len(knocks), 128):
        world.send_all([(0, frame) for frame in knocks[at : at + 128]])
    talk = Talk(world)
    talk.ask(b"PASV\r\n")
    talk.say(PASSIVE)
    assert talk.heard_by["client"] == REWRITTEN


def test_a_new_talk_by_the_ports_of_an_old_one_is_new():
    rules = [f"-A -t {VIP}:21 -s rr -p 900", f"-a -t {VIP}:21 -r {SERVER}:21 -m"]
    world = World(rules)
    old = Talk(world)
    old.ask(b"PASV\r\n")
    old.say(PASSIVE)
    old.client("FA")
    old.client_next += 1
    old.server("FA")
    old.server_next += 1
    old.client("A")
    new = Talk(world, server_begins=0xF000_0000)
    new.ask(b"PASV\r\n")
    new.say(PASSIVE)
    assert new.heard_by["client"] == REWRITTEN
    assert new.acknowledged() == new.server_next


def test_of_two_servers_that_name_one_port_the_last_is_meant():
    other = "10.0.0.12"
    rules = [f"-A -t {VIP}:21 -s rr"]
    rules += [f"-a -t {VIP}:21 -r {one}:21 -m" for one in (other, SERVER)]
    world = World(rules)
    talks = [Talk(world, 40_000, SERVER), Talk(world, 40_001, other)]
    for talk in (*talks, talks[0]):
        talk.ask(b"EPSV\r\n")
        talk.say(b"229 ok (|||30000|)\r\n")
    assert talks[0].opens(41_000, 30_000) == (SERVER, 30_000)
    assert talks[0].opens(41_001, 30_000) == (other, 30_000)


def test_from_below_its_data_port_a_server_is_the_hosts():
    world = Talk().world
    for port, sent in ((22, 0), (20, 1), (1_023, 0), (1_024, 1)):
        assert len(world.send(from_server(SERVER, CLIENT, port, 9, "A"), port=1)) == sent


def test_nobody_but_who_asked_makes_a_reply_mean_anything():
    talk = Talk()
    talk.say(PASSIVE)
    talk.ask(b"NOOP PASV\r\n")
    talk.ask(b"PASVX\r\n")
    talk.say(PASSIVE)
    assert talk.heard_by["client"] == PASSIVE * 2
    assert talk.opens(41_000, 51_210) is None
    talk.ask(b"PASV\r\n")
    talk.say(b"500 227 Entering (10,0,0,11,200,10)\r\n")
    assert talk.opens(41_000, 51_210) is None


@pytest.mark.parametrize(
    ("line", "port"),
    [
        (b"PORT 198,51,100,7,160,40\r\n", 41_000),
        (b"port 198,51,100,7,160,40\r\n", 41_000),
        (b"EPRT |1|198.51.100.7|41000|\r\n", 41_000),
        (b"EPRT !1!198.51.100.7!41000!\r\n", 41_000),
        (b"PORT 198,51,100,7,160\r\n", 0),
        (b"PORT 198,51,100,7,256,40\r\n", 0),
        (b"PORT 198,51,100,7,1600,40\r\n", 0),
        (b"EPRT |1|198.51.100.7|65536|\r\n", 0),
        (b"EPRT |1|198.51.100.7|4100a|\r\n", 0),
        (b"EPRT |1|198.51.100.7\r\n", 0),
        (b"PORT\r\n", 0),
        (b"PORT " + b"1" * 90 + b",160,40\r\n", 0),
    ],
)
@pytest.mark.parametrize("cuts", [(), (3, 12)])
def test_an_active_clients_port_is_known_to_the_server(line, port, cuts):
    talk = Talk()
    talk.ask(line, cuts)
    assert [one[0] for one in talk.world.connections()] == [40_000, *([port] if port else [])]
    sent = talk.world.send(from_server(SERVER, CLIENT, 20, 41_000, "S"), port=1)
    seen = [(".".join(map(str, one[26:30])), int.from_bytes(one[34:36], "big")) for _, one in sent]
    assert seen == [(VIP if port else SERVER, 20)]


def test_ipv6_has_no_use_for_addresses_in_replies():
    rules = [f"-A -t [{VIP6}]:21 -s rr", f"-a -t [{VIP6}]:21 -r [{SERVER6}]:21 -m"]
    world = World(rules)

    def client(flags, payload=b"", seq=1_000, port=21, source=40_000):
        return world.send(tcp_frame(CLIENT6, VIP6, source, port, flags, payload, seq, 5_001))

    def server(flags, payload=b"", seq=5_000):
        return world.send(
            from_server(SERVER6, CLIENT6, 21, 40_000, flags, payload, seq, 1_001), port=1
        )

    client("S")
    server("SA")
    client("A", seq=1_001)
    client("PA", b"EPSV\r\n", 1_001)
    ((_, sent),) = server("PA", b"229 Extended (|||51210|)\r\n", 5_001)
    assert sent.endswith(b"229 Extended (|||51210|)\r\n")
    assert len(client("S", port=51_210, source=41_000)) == 1
    assert world.reason("forwarded") == 4


class TestWhatIsExpected:
    def talk(self):
        talk = Talk()
        talk.ask(b"PASV\r\n")
        talk.say(PASSIVE)
        return talk

    def waiting(self, world):
        return int(world.tables.director[0]["awaited_count"])

    def test_it_is_one_connection_that_comes(self):
        talk = self.talk()
        assert self.waiting(talk.world) == 1
        assert talk.opens(41_000, 51_210)
        assert self.waiting(talk.world) == 0
        assert talk.opens(41_001, 51_210) is None

    def test_it_is_the_clients_alone(self):
        talk = self.talk()
        sent = talk.world.send(tcp_frame("198.51.100.8", VIP, 41_000, 51_210))
        assert all(port == 0 for port, _ in sent)

    def test_what_does_not_come_is_forgotten_and_what_spoke_of_it_waits(self):
        talk = self.talk()
        assert len(talk.world.connections()) == 2
        talk.world.after(121).send_all([])
        assert [one[0] for one in talk.world.connections()] == [40_000]
        assert self.waiting(talk.world) == 0

    def test_the_control_connection_outlives_its_data(self):
        talk = self.talk()
        assert talk.opens(41_000, 51_210)
        talk.world.send(
            from_server(SERVER, CLIENT, 51_210, 41_000, "SA", b"", 7_000, 1_001), port=1
        )
        talk.world.send(tcp_frame(CLIENT, VIP, 41_000, 51_210, "A", b"", 1_001, 7_001))
        talk.client("FA")
        talk.client_next += 1
        talk.server("FA")
        talk.server_next += 1
        talk.client("A")
        talk.world.after(125).send_all([])
        assert [one[0] for one in talk.world.connections()] == [40_000, 41_000]
        talk.world.after(900).send_all([])
        assert talk.world.connections() == []

    def test_both_are_forgotten_at_once(self):
        talk = self.talk()
        assert talk.opens(41_000, 51_210)
        key = next(iter(talk.world.manager.table.services))
        row = talk.world.manager.server_rows(key)[0]
        assert talk.world.manager.forget(row, False, 0)[0] == 2
        assert talk.world.connections() == []


def test_without_the_helper_nothing_is_read():
    world = World([f"-A -t {VIP}:21 -s rr", f"-a -t {VIP}:21 -r {SERVER}:21 -m"])
    settings.apply(world.tables.director[0], "ftp_helper", 0)
    talk = Talk(world)
    talk.ask(b"PASV\r\n")
    talk.say(PASSIVE)
    assert talk.heard_by["client"] == PASSIVE


def test_more_talks_than_can_be_remembered_go_on_unheard():
    world = World([f"-A -t {VIP}:21 -s rr", f"-a -t {VIP}:21 -r {SERVER}:21 -m"])
    tables = world.tables
    count = len(tables.talks)  # as if all were busy
    tables.talks["connection"] = tables.details[:count] = range(count)
    tables.connections["expires_ms"][:count] = 1 << 50
    tables.connections["conn_flags"][:count] = FLAG_HELPED
    tables.director[0]["high_water"] = count
    tables.director[0]["connections_limit"] = count + 8
    first = Talk(world)
    tables.talks["connection"][100] = -1
    second = Talk(world, 40_001)
    for talk in (first, second):
        talk.ask(b"PASV\r\n")
        talk.say(PASSIVE)
    assert first.heard_by["client"] == PASSIVE
    assert second.heard_by["client"] == REWRITTEN


@examples(60)
@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=60), st.integers(-80, 80)), max_size=12)
)
def test_nothing_that_is_said_does_any_harm(said):
    talk = Talk()
    talk.ask(b"PASV\r\n")
    for by_client, payload, offset in said:
        payload = (
            payload.replace(b"a", b"\r\n227 (1,")
            .replace(b"b", b"PORT 1,1,1,1,")
            .replace(b"c", b"|")
        )
        if by_client:
            frame = tcp_frame(
                CLIENT, VIP, 40_000, 21, "PA", payload, (talk.client_next + offset) % 2**32, 5_001
            )
            talk.world.send(frame)
        else:
            seq = (talk.server_next + offset) % 2**32
            frame = from_server(SERVER, CLIENT, 21, 40_000, "PA", payload, seq, 1_001)
            for _, sent in talk.world.send(frame, port=1):
                assert sound(sent)
    rows = talk.world.tables.connections[: int(talk.world.tables.director[0]["high_water"])]
    waiting = [row for row in rows if row["expires_ms"] and int(row["conn_flags"]) & FLAG_NO_PORT]
    assert len(waiting) == int(talk.world.tables.director[0]["awaited_count"])
