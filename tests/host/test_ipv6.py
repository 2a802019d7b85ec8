"""IPv6's own: neighbours found and told, headers behind headers, fragments, routes of two kinds."""

import struct

import pytest

from pylvs.control.model import MarkRule
from pylvs.lab.capture import faults
from pylvs.wire.text import address_of
from tests.packets import (
    DIRECTOR_MAC,
    MAC_A,
    ethernet,
    fragments6,
    icmp6,
    ipv6,
    packed,
    tcp,
    tcp_frame,
    udp,
)
from tests.world import CLIENT, CLIENT6, VIP, VIP6, World

ROUTER = "2001:db8:1::1"
NAT = [f"-A -t [{VIP6}]:80 -s rr", f"-a -t [{VIP6}]:80 -r [2001:db8:2::b]:8080 -m"]
DR = [f"-A -t [{VIP6}]:80 -s rr", f"-a -t [{VIP6}]:80 -r [2001:db8:2::b]:80 -g"]
UDP = [f"-A -u [{VIP6}]:53 -s rr", f"-a -u [{VIP6}]:53 -r [2001:db8:2::b]:5353 -m"]
GROUP_MAC = bytes.fromhex("3333ff000010")
ALL_NODES_MAC = bytes.fromhex("333300000001")


def solicitation(target=VIP6, source=ROUTER, hops=255, mac=GROUP_MAC, option=b"\1\1" + MAC_A):
    group = f"ff02::1:ff00:{target.rpartition(':')[2]}"
    message = icmp6(source, group, 135, 0, 0, packed(target) + option)
    return ethernet(ipv6(source, group, 58, message, hops=hops), mac, MAC_A)


class TestNeighbours:
    def test_a_solicitation_for_a_vip_is_answered_to_the_asker(self):
        ((port, answer),) = World(NAT).send(solicitation())
        assert port == 0
        assert answer[:14] == MAC_A + DIRECTOR_MAC + b"\x86\xdd"
        assert (answer[21], answer[54]) == (255, 136)
        assert answer[22:54] == packed(VIP6) + packed(ROUTER)
        assert answer[58] == 0x60  # solicited, overriding
        assert answer[62:] == packed(VIP6) + b"\2\1" + DIRECTOR_MAC
        assert faults(answer[14:]) == []

    def test_who_looks_for_a_duplicate_is_told_with_everybody(self):
        ((_, answer),) = World(NAT).send(solicitation(source="::", option=b""))
        assert answer[:6] == ALL_NODES_MAC
        assert (answer[38:54], answer[58]) == (packed("ff02::1"), 0x20)

    @pytest.mark.parametrize(
        "frame",
        [
            solicitation(target="2001:db8:1::77"),
            solicitation(hops=64),
            solicitation()[:-1],
            solicitation()[:57] + b"\xff" + solicitation()[58:],
        ],
        ids=["another's", "through a router", "cut off", "wrong checksum"],
    )
    def test_others_are_left_alone(self, frame):
        assert World(NAT).send(frame) == []

    def test_a_vip_that_is_the_hosts_is_the_hosts(self):
        assert World(NAT, local=(VIP6,)).send(solicitation()) == []

    def test_without_a_host_stack_the_director_finds_next_hops_itself(self):
        world = World(NAT, own_arp=True)
        ((port, question),) = world.send(tcp_frame(CLIENT6, VIP6, 40_000, 80))
        assert (port, question[:6], question[54]) == (1, bytes.fromhex("3333ff00000b"), 135)
        own = "fe80::ff:fe00:2fe"
        assert question[22:54] == packed(own) + packed("ff02::1:ff00:b")
        assert question[62:] == packed("2001:db8:2::b") + b"\1\1" + bytes.fromhex("0200000002fe")
        assert faults(question[14:]) == []
        mac = bytes.fromhex("02000000020b")
        tells = packed("2001:db8:2::b") + b"\2\1" + mac
        answer = icmp6("2001:db8:2::b", own, 136, 0, 0x60000000, tells)
        packet = ipv6("2001:db8:2::b", own, 58, answer, hops=255)
        ((port, released),) = world.send(ethernet(packet, bytes.fromhex("0200000002fe"), mac), 1)
        assert (port, released[:6], released[12:14]) == (1, mac, b"\x86\xdd")
        assert faults(released[14:]) == []

    def test_groups_are_nobodys(self):
        frame = tcp_frame(CLIENT6, VIP6, 40_000, 80)
        world = World(NAT)
        assert world.send(ALL_NODES_MAC + frame[6:]) == []
        assert world.reason("other_host") == 1


def with_header(kind, content, protocol=6, flags="S"):
    segment = tcp(CLIENT6, VIP6, 40_000, 80, flags)
    return ethernet(ipv6(CLIENT6, VIP6, kind, bytes([protocol, 0]) + content + segment))


class TestHeaders:
    @pytest.mark.parametrize("kind", [0, 60, 43])
    def test_a_segment_behind_others_is_found_and_they_are_kept(self, kind):
        content = bytes([0, 0, 0, 0, 0, 0]) if kind == 43 else bytes([1, 4, 0, 0, 0, 0])
        ((_, sent),) = World(NAT).send(with_header(kind, content))
        assert sent[54:62] == bytes([6, 0]) + content
        assert sent[62:66] == struct.pack("!HH", 40_000, 8080)
        segment = tcp(CLIENT6, "2001:db8:2::b", 40_000, 8080)
        assert sent[62:] == segment

    def test_an_option_that_must_be_known_and_is_not_is_told(self):
        ((port, error),) = World(NAT).send(with_header(0, bytes([0x80, 4, 0, 0, 0, 0])))
        assert (port, error[54], error[55], error[58:62]) == (0, 4, 2, b"\0\0\0\x2a")
        assert faults(error[14:]) == []

    @pytest.mark.parametrize("option", [bytes([0x40, 4]) + bytes(4), bytes([1, 4, 0, 9, 0, 0])])
    def test_one_that_says_so_and_padding_that_is_none_are_dropped(self, option):
        world = World(NAT)
        assert world.send(with_header(0, option)) == []
        assert world.reason("bad_options") == 1

    def test_more_headers_than_are_looked_behind_are_nobodys(self):
        chain = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9
        world = World(NAT)
        assert world.send(ethernet(ipv6(CLIENT6, VIP6, 60, chain + bytes(40)))) == []
        assert world.reason("not_ours") == 1


class TestFragments:
    def test_they_are_put_together_and_leave_as_small_as_they_came(self):
        body = udp(CLIENT6, VIP6, 40_000, 53, bytes(range(250)) * 8)
        pieces = fragments6(CLIENT6, VIP6, 17, body, (1_448,))
        world = World(UDP)
        assert world.send(ethernet(pieces[1])) == []
        sent = [frame for _, frame in world.send(ethernet(pieces[0]))]
        assert [len(frame) for frame in sent] == [len(piece) + 14 for piece in pieces]
        whole = b"".join(frame[62:] for frame in sent)
        assert whole == udp(CLIENT6, "2001:db8:2::b", 40_000, 5353, bytes(range(250)) * 8)

    def test_one_alone_leaves_without_its_fragment_header(self):
        body = udp(CLIENT6, VIP6, 40_000, 53, b"alone")
        ((_, sent),) = World(UDP).send(ethernet(*fragments6(CLIENT6, VIP6, 17, body, ())))
        assert sent[20] == 17
        assert sent[54:] == udp(CLIENT6, "2001:db8:2::b", 40_000, 5353, b"alone")

    def test_an_overlap_kills_the_packet(self):
        body = udp(CLIENT6, VIP6, 40_000, 53, bytes(400))
        first, second = fragments6(CLIENT6, VIP6, 17, body, (200,))
        overlap = fragments6(CLIENT6, VIP6, 17, body, (192,))[1]
        world = World(UDP)
        assert world.send_all([(0, ethernet(one)) for one in (first, overlap, second)]) == []
        assert world.reason("fragments_bad") == 1

    def test_who_sent_some_of_one_is_told_after_a_minute(self):
        body = udp(CLIENT6, VIP6, 40_000, 53, bytes(400))
        world = World(UDP)
        assert world.send(ethernet(fragments6(CLIENT6, VIP6, 17, body, (200,))[0])) == []
        assert world.after(59).send_all([]) == []
        ((_, error),) = world.after(2).send_all([])
        assert (error[54], error[55]) == (3, 1)

    def test_a_first_one_without_its_transport_header_opens_nothing(self):
        segment = tcp(CLIENT6, VIP6, 40_000, 80)
        world = World(DR)
        assert world.send(ethernet(fragments6(CLIENT6, VIP6, 6, segment, (8,))[0])) == []
        assert world.reason("truncated") == 1

    def test_what_a_nat_server_sends_to_others_in_fragments_goes_on(self):
        body = udp("2001:db8:2::b", CLIENT6, 9, 9, bytes(2_000))
        pieces = fragments6("2001:db8:2::b", CLIENT6, 17, body, (1_448,))
        to = bytes.fromhex("0200000002fe")
        world = World(NAT)
        world.tables.director[0]["ip_forward"] = 1
        sent = [out for one in pieces for out in world.send(ethernet(one, to), 1)]
        assert [len(frame) for _, frame in sent] == [len(piece) + 14 for piece in pieces]
        assert all(port == 0 for port, _ in sent)

    def test_a_firewall_marks_service_takes_them_too(self):
        world = World(["-A -f 5 -6 -s rr", "-a -f 5 -6 -r 2001:db8:2::b -g"])
        network = address_of("2001:db8:5::")
        rule = MarkRule(5, destination=network, destination_prefix=64, family=6)
        world.manager.around.set_mark_rules([rule])
        body = udp(CLIENT6, "2001:db8:5::1", 9, 53, bytes(2_000))
        pieces = fragments6(CLIENT6, "2001:db8:5::1", 17, body, (1_448,))
        assert len([out for one in pieces for out in world.send(ethernet(one))]) == 2

    @pytest.mark.parametrize("front", [43, 60, 51])
    def test_headers_in_front_of_the_fragment_header_stay(self, front):
        body = udp(CLIENT6, VIP6, 40_000, 53, bytes(range(200)))
        size = 0 if front != 51 else 1
        head = bytes([44, size, 0 if front != 60 else 1, 0 if front != 60 else 4]) + bytes(4)
        head += bytes(4 if front == 51 else 0)
        frames = []
        for piece in fragments6(CLIENT6, VIP6, 17, body, (96,)):
            frames.append(ethernet(ipv6(CLIENT6, VIP6, front, head + piece[40:])))
        world = World(UDP)
        sent = [out for frame in frames for out in world.send(frame)]
        assert sent, dict(enumerate(world.tables.reasons))
        assert world.reason("forwarded") or world.reason("fragmented")


@pytest.mark.parametrize("target", ["::192.0.2.10", "::1"])
def test_what_looks_like_ipv4_is_not_taken_for_it(target):
    world = World(["-A -t 192.0.2.10:80 -s rr", "-a -t 192.0.2.10:80 -r 10.0.0.11 -g", *NAT])
    assert world.send(tcp_frame(CLIENT6, target, 40_000, 80)) == []
    assert world.send(solicitation(target="2001:db8::1")[:62] + packed(target) + bytes(8)) == []
    assert world.reason("martian") == 1


def test_what_is_too_big_for_the_path_is_told_as_ipv6_does():
    world = World(DR, mtus=(1500, 1280))
    world.send(tcp_frame(CLIENT6, VIP6, 40_000, 80))
    ((port, error),) = world.send(tcp_frame(CLIENT6, VIP6, 40_000, 80, "A", bytes(1300)))
    assert (port, error[54], error[55]) == (0, 2, 0)
    assert int.from_bytes(error[58:62], "big") == 1280
    assert len(error) == 14 + 1280
    assert faults(error[14:]) == []


def test_a_route_of_one_kind_is_none_for_the_other():
    """Without an IPv4 default route an IPv4 client is not answered by IPv6's."""
    world = World(["-A -t 192.0.2.10:80 -s rr"])
    routes = [one for one in world._routes((), (1500, 1500)) if one.family == 6 or one.prefix]
    world.manager.around.set_routes(routes)
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80)) == []
    assert world.send(tcp_frame(CLIENT6, VIP6, 40_000, 80)) == []


@pytest.mark.parametrize(
    "tunnel", ["", " --tun-type gue --tun-port 6080 --tun-csum", " --tun-type gre --tun-csum"]
)
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_either_ip_goes_into_either(inner, outer, tunnel):
    client, vip = (CLIENT, VIP) if inner == 4 else (CLIENT6, VIP6)
    service = f"{vip}:80" if inner == 4 else f"[{vip}]:80"
    server = "10.0.0.11:80" if outer == 4 else "[2001:db8:2::b]:80"
    world = World([f"-A -t {service} -s rr", f"-a -t {service} -r {server} -i{tunnel}"])
    frame = tcp_frame(client, vip, 40_000, 80)
    ((port, sent),) = world.send(frame)
    assert port == 1
    assert sent[12:14] == (b"\x08\x00" if outer == 4 else b"\x86\xdd")
    header = 34 if outer == 4 else 54
    protocol = sent[23] if outer == 4 else sent[20]
    carried = 4 if inner == 4 else 41
    between = {"": 0, " --tun-type gue": 12, " --tun-type gre": 8}[tunnel[:15]]
    assert protocol == {0: carried, 12: 17, 8: 47}[between]
    if between == 12:
        assert sent[header + 8 : header + 10] == bytes([0, carried])
    if between == 8:
        assert sent[header + 2 : header + 4] == (b"\x08\x00" if inner == 4 else b"\x86\xdd")
    ttl = 22 if inner == 4 else 21
    want = bytearray(frame)
    want[ttl] -= 1
    got = bytearray(sent[header + between :])
    if inner == 4:
        got[10:12] = want[24:26]  # its checksum is looked at below
    assert got == want[14:]
    assert faults(sent[14:]) == []
    size = int.from_bytes(sent[16:18] if outer == 4 else sent[18:20], "big")
    assert len(sent) == size + (14 if outer == 4 else 54)
