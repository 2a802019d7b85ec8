"""What the director does in the host's place: ARP, ping, ICMP errors, resets, plain forwarding."""

import pytest

from pylvs.lab.capture import faults
from pylvs.tables.sizes import Limits
from tests.packets import (
    DIRECTOR_MAC,
    MAC_A,
    arp,
    ethernet,
    icmp,
    ipv4,
    number,
    tcp_frame,
    udp_frame,
)
from tests.world import CLIENT, VIP, World

NAT = [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m"]
TUN = [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11 -i"]


def ping(body=b"data", destination=VIP, **fields):
    return ethernet(ipv4(CLIENT, destination, 1, icmp(8, 0, 0x12340001, body), **fields))


def test_a_ping_to_a_vip_of_our_own_is_answered():
    ((port, answer),) = World(NAT).send(ping(tos=0x10))
    assert (port, answer[34], answer[15], answer[22]) == (0, 0, 0x10, 64)
    assert answer[42:] == b"data"
    assert faults(answer[14:]) == []


def test_a_ping_to_a_vip_that_is_the_hosts_is_the_hosts():
    assert World(NAT, local=(VIP,)).send(ping()) == []


def test_a_ping_with_a_wrong_checksum_is_not_answered():
    broken = bytearray(ping())
    broken[-1] ^= 1
    assert World(NAT).send(bytes(broken)) == []


def test_arp_for_a_vip_is_answered_with_the_ports_mac():
    world = World(NAT)
    ((port, answer),) = world.send(arp(1, MAC_A, "192.0.2.1", bytes(6), VIP))
    assert port == 0
    assert answer[:12] == MAC_A + DIRECTOR_MAC
    assert answer[20:22] == b"\0\x02"
    assert answer[22:28] == DIRECTOR_MAC


@pytest.mark.parametrize("target", ["192.0.2.254", "192.0.2.77"])
def test_arp_for_somebody_else_is_left_alone(target):
    world = World(NAT)
    assert world.send(arp(1, MAC_A, "192.0.2.1", bytes(6), target)) == []
    assert world.reason("arp_other") == 1


def test_arp_for_a_vip_that_is_the_hosts_is_the_hosts():
    assert World(NAT, local=(VIP,)).send(arp(1, MAC_A, "192.0.2.1", bytes(6), VIP)) == []


def test_without_a_host_stack_the_director_resolves_next_hops_itself():
    world = World(NAT, own_arp=True)
    ((port, request),) = world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    assert (port, request[:6], request[12:14]) == (1, b"\xff" * 6, b"\x08\x06")
    server_mac = bytes.fromhex("02000000020b")
    reply = arp(
        2,
        server_mac,
        "10.0.0.11",
        bytes.fromhex("0200000002fe"),
        "10.0.0.254",
        destination=bytes.fromhex("0200000002fe"),
    )
    ((port, released),) = world.send(reply, 1)
    assert (port, released[:6]) == (1, server_mac)
    assert faults(released[14:]) == []


def test_frames_wait_only_so_long_and_only_so_many():
    world = World(NAT, own_arp=True)
    for port in range(140):
        world.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80))
    assert world.reason("waiting") == 101
    assert world.reason("wait_full") == 39
    asked = 0
    for _ in range(10):
        asked += len(world.after(1).send_all([]))
    assert asked == 2 + 3  # three requests in all, and as many for the router to the clients
    assert world.reason("wait_timeout") == 2 * 101  # and the errors that could not be told them
    assert int(world.tables.director[0]["held_count"]) == 0


def test_a_used_up_ttl_is_told_to_the_sender_with_the_packet_as_it_came():
    frame = tcp_frame(CLIENT, VIP, 40_000, 80, ttl=1)
    ((port, error),) = World(NAT).send(frame)
    assert (port, error[34], error[35]) == (0, 11, 0)
    assert error[42:] == frame[14:]
    assert faults(error[14:]) == []


def test_a_reply_with_a_used_up_ttl_is_told_from_the_directors_own_address():
    world = World(NAT)
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    reply = tcp_frame("10.0.0.11", CLIENT, 8080, 40_000, "SA", ttl=1)
    ((port, error),) = world.send(bytes.fromhex("0200000002fe") + reply[6:], 1)
    assert (port, error[34]) == (1, 11)
    assert error[26:30] == bytes([10, 0, 0, 254])


def test_a_packet_too_big_for_the_tunnel_is_refused_with_the_right_mtu():
    world = World(TUN)
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    fits = tcp_frame(CLIENT, VIP, 40_000, 80, "A", bytes(1440), seq=1001, ack=1)
    ((port, _),) = world.send(fits)
    assert port == 1
    big = tcp_frame(CLIENT, VIP, 40_000, 80, "A", bytes(1441), seq=1001, ack=1)
    ((port, error),) = world.send(big)
    assert (port, error[34], error[35]) == (0, 3, 4)
    assert int.from_bytes(error[40:42], "big") == 1480
    assert len(error) == 14 + 576
    pieces = world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A", bytes(1441), fragment=0))
    assert [len(piece) - 14 for _, piece in pieces] == [1500, 21]
    assert world.reason("fragmented") == 2 + 1  # and the packet in whose place they left


def test_stray_segments_are_reset_and_resets_are_not():
    world = World(NAT)
    ((_, reset),) = world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "FA", b"xy", seq=7, ack=9))
    assert reset[47] == 4
    assert int.from_bytes(reset[38:42], "big") == 9
    ((_, reset),) = world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "F", b"xy", seq=7))
    assert reset[47] == 0x14
    assert int.from_bytes(reset[42:46], "big") == 7 + 2 + 1
    assert faults(reset[14:]) == []
    assert world.send(tcp_frame(CLIENT, VIP, 40_000, 80, "R")) == []


def test_errors_are_limited_to_each_destination_and_in_all():
    world = World([f"-A -u {VIP}:53 -s rr"])
    world.tables.director[0]["unlimited"] = 0
    for port in range(10):
        world.send(udp_frame(CLIENT, VIP, 40_000 + port, 53))
    assert world.reason("error_sent") == 6
    assert world.reason("rate_limited") == 4
    world.after(2).send(udp_frame(CLIENT, VIP, 40_000, 53))
    assert world.reason("error_sent") == 7
    for host in range(100):
        world.send(udp_frame(f"203.0.113.{host}", VIP, 40_000, 53))
    assert world.reason("error_sent") == 7 + 49
    resets = World(NAT)
    resets.tables.director[0]["unlimited"] = 0
    for port in range(60):
        resets.send(tcp_frame(CLIENT, VIP, 40_000 + port, 80, "A", ack=1))
    assert resets.reason("reset_sent") == 50


def test_a_servers_packet_without_connection_is_routed_on_untranslated():
    world = World(NAT)
    frame = bytes.fromhex("0200000002fe") + tcp_frame("10.0.0.11", CLIENT, 8080, 9, "A")[6:]
    ((port, sent),) = world.send(frame, 1)
    assert port == 0
    assert sent[26:30] == bytes([10, 0, 0, 11])
    assert sent[22] == 63
    world.tables.director[0]["ip_forward"] = 0
    assert world.send(frame, 1) == []


def test_a_connection_without_a_way_to_its_server_is_refused():
    world = World([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 172.16.0.9:80 -m"])
    world.manager.around.set_routes([one for one in world._routes((), (1500, 1500)) if one.prefix])
    world._know(0, "192.0.2.7", 0x02_00_00_00_00_07)
    ((port, error),) = world.send(tcp_frame("192.0.2.7", VIP, 40_000, 80))
    assert (port, error[34], error[35]) == (0, 3, 1)
    assert world.reason("no_route") == 1


def test_next_hops_make_place_for_others_but_servers_never_do():
    world = World(NAT, own_arp=True, limits=Limits(connections=4096, neighbours=16))
    for n in range(2, 60):
        world.after(4).send(tcp_frame(f"192.0.2.{n}", VIP, 40_000, 80, "A", ack=1))
    assert world.reason("no_route") == 0
    known = {int(row["address_low"]) for row in world.tables.neighbours}
    assert number("10.0.0.11") in known


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x02" * 6 + bytes(60), "other_host"),
        (DIRECTOR_MAC + MAC_A + b"\x88\xcc" + bytes(40), "not_ip"),
        (DIRECTOR_MAC + MAC_A + b"\x86\xdd" + bytes(40), "bad_header"),
        (DIRECTOR_MAC + MAC_A + b"\x86\xdd\x60" + bytes(30), "truncated"),
        (DIRECTOR_MAC + MAC_A + b"\x86\xdd\x60" + bytes(39), "martian"),
        (DIRECTOR_MAC + MAC_A + b"\x81\x00" + bytes(40), "tagged"),
        (tcp_frame("127.0.0.1", VIP, 1, 80), "martian"),
        (tcp_frame("224.0.0.5", VIP, 1, 80), "martian"),
        (tcp_frame(CLIENT, VIP, 1, 80, fragment=0x2000), "fragment"),
        (tcp_frame(CLIENT, VIP, 1, 80, options=bytes([131, 3, 4, 0])), "options"),
        (tcp_frame(CLIENT, VIP, 1, 81), "not_ours"),
        (ethernet(ipv4(CLIENT, VIP, 47, bytes(30))), "not_ours"),
        (ethernet(ipv4(CLIENT, VIP, 1, icmp(3, 1, 0, bytes(28)))), "not_ours"),
    ],
)
def test_what_is_not_the_directors_is_named_and_left(frame, reason):
    world = World(NAT)
    assert world.send(frame) == []
    assert world.reason(reason) == 1


def test_without_a_host_stack_known_next_hops_are_asked_again():
    """A station that was replaced is found within half a minute, one that is gone in 3 s more."""
    world = World(NAT, own_arp=True)
    world.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    own = bytes.fromhex("0200000002fe")

    def answer(last):
        mac = bytes([2, 0, 0, 0, 2, last])
        return world.send(arp(2, mac, "10.0.0.11", own, "10.0.0.254", destination=own), 1)

    answer(0x0B)
    assert world.after(29).send_all([]) == []
    ((port, question),) = world.after(1).send_all([])
    assert (port, question[:6]) == (1, bytes.fromhex("02000000020b"))
    assert question[38:42] == bytes([10, 0, 0, 11])
    syn = tcp_frame(CLIENT, VIP, 40_001, 80)
    assert world.send(syn)[0][1][5] == 0x0B  # used meanwhile
    answer(0x0C)
    assert world.send(tcp_frame(CLIENT, VIP, 40_002, 80))[0][1][5] == 0x0C
    for seconds in (30, 1, 1):
        assert len(world.after(seconds).send_all([])) == 1
    assert world.after(1).send_all([]) == []
    world.send(tcp_frame(CLIENT, VIP, 40_003, 80))
    assert world.reason("waiting") == 2  # the first of all, and this one
    assert world.after(60).send_all([]) != []
