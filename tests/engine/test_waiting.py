"""A next hop that does not answer: what Linux 6.1 sent and counted, asked with the same frames."""

import pytest

from pylvs.control import listing
from pylvs.control.network.surroundings import Heard
from tests.packets import arp, number, tcp_frame
from tests.world import VIP, World

SYN = bytes.fromhex(
    "0200000001fe0200000001010800450000281234400040063c57c6336407c000020a"
    "9c400050000003e8000000005002faf028340000"
)
DATAGRAM = bytes.fromhex(
    "0200000001fe0200000001010800450000211234400040113c53c6336407c000020a9c410035000d334668656c6c6f"
)
TOLD_BY_NAT = (
    "0200000001010200000001fe080045c00044d18400004001bc2fc000020ac6336407030131b700000000"
    "45000028123440003f063d57c6336407c000020a9c400050000003e8000000005002faf0dfdb0000",
    "0200000001010200000001fe080045c0003dd18500004001bc35c000020ac6336407030131bb00000000"
    "45000021123440003f113d53c6336407c000020a9c410035000deaed68656c6c6f",
)
TOLD_BY_DR = (
    "0200000001010200000001fe080045c00044d24900004001ba76c00002fec63364070301e95e00000000"
    "45000028123440003f063d57c6336407c000020a9c400050000003e8000000005002faf028340000",
    "0200000001010200000001fe080045c0003dd24a00004001ba7cc00002fec63364070301e96200000000"
    "45000021123440003f113d53c6336407c000020a9c410035000d334668656c6c6f",
)
UNKNOWN_SERVER = "10.0.0.99"
UNKNOWN_CLIENT = "192.0.2.77"


def unnumbered(frame):
    """Return the frame without its identification and header checksum."""
    return frame[:18] + frame[20:24] + frame[26:]


def world_with(method):
    return World(
        [
            f"-A -t {VIP}:80 -s rr",
            f"-a -t {VIP}:80 -r {UNKNOWN_SERVER}:80 {method}",
            f"-A -u {VIP}:53 -s rr",
            f"-a -u {VIP}:53 -r {UNKNOWN_SERVER}:53 {method}",
        ],
        local=(VIP,),
    )


def counted(world):
    return [
        (one.counters.in_packets, one.counters.out_packets, one.counters.out_bytes)
        for one in listing.read(world.manager)
    ]


@pytest.mark.parametrize(
    ("method", "told", "bytes_out"),
    [("-m", TOLD_BY_NAT, (68, 61)), ("-g", TOLD_BY_DR, (68, 61)), ("-i", (), (40, 33))],
)
def test_a_client_is_told_that_its_server_cannot_be_reached(method, told, bytes_out):
    world = world_with(method)
    assert world.send_all([(0, SYN), (0, DATAGRAM)]) == []
    world.manager.around.hear([Heard(1, number(UNKNOWN_SERVER), 0)])
    errors = world.send_all([])
    assert [(port, unnumbered(frame)) for port, frame in errors] == [
        (0, unnumbered(bytes.fromhex(text))) for text in told
    ]
    assert counted(world) == [(1, 1, size) for size in bytes_out]
    assert world.reason("wait_timeout") == 2
    assert world.after(10).send_all([]) == []


def test_a_masqueraded_server_is_told_that_its_client_cannot_be_reached():
    world = World([f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m"], local=(VIP,))
    world.send(
        bytes.fromhex(
            "0200000001fe020000000101080045000028123440004006a444c000024dc000020a"
            "9c400050000003e8000000005002faf090210000"
        )
    )
    reply = bytes.fromhex(
        "0200000002fe02000000020b0800450000284321400040062b570a00000bc000024d"
        "1f909c4000001388000003e95012fe8811b00000"
    )
    assert world.send(reply, 1) == []
    world.manager.around.hear([Heard(0, number(UNKNOWN_CLIENT), 0)])
    ((port, error),) = world.send_all([])
    assert port == 1
    assert unnumbered(error) == unnumbered(
        bytes.fromhex(
            "02000000020b0200000002fe080045c000441de700003f0190fdc000020a0a00000b0301623100000000"
            "45000028432140003f062c570a00000bc000024d1f909c4000001388000003e95012fe8878f00000"
        )
    )
    (service,) = listing.read(world.manager)
    assert (service.counters.in_packets, service.counters.in_bytes) == (2, 108)


def test_a_plain_packet_of_a_routers_is_told_about_as_it_is():
    world = World(local=(VIP,))
    world.tables.director[0]["hosted"] = 1
    frame = tcp_frame("198.51.100.7", UNKNOWN_SERVER, 40_000, 80)
    assert world.send(frame) == []
    world.manager.around.hear([Heard(1, number(UNKNOWN_SERVER), 0)])
    ((port, error),) = world.send_all([])
    assert (port, error[26:30], error[34:36]) == (0, bytes([192, 0, 2, 254]), b"\3\1")


def test_one_silent_next_hop_leaves_room_for_the_others():
    world = world_with("-g")
    world.rule(f"-A -t {VIP}:81 -s rr")
    world.rule(f"-a -t {VIP}:81 -r 10.0.0.98 -g")
    for client in range(102):
        world.send(tcp_frame("198.51.100.7", VIP, 40_000 + client, 80))
    assert (world.reason("waiting"), world.reason("wait_full")) == (101, 1)
    assert world.send(tcp_frame("198.51.100.7", VIP, 50_000, 81)) == []
    assert world.reason("waiting") == 102
    world.manager.around.hear([Heard(1, number("10.0.0.98"), 0x02_00_00_00_02_62)])
    ((port, frame),) = world.send_all([])
    assert (port, frame[5]) == (1, 0x62)


def test_a_stream_of_packets_does_not_keep_the_first_from_being_told_about():
    """Each new packet has the next hop asked for again; what waits was lost all the same."""
    world = world_with("-g")
    world.send(SYN)
    world.manager.around.hear([Heard(1, number(UNKNOWN_SERVER), 0)])
    later = tcp_frame("198.51.100.7", VIP, 40_001, 80)
    assert len(world.send(later)) == 1
    assert world.after(1).send_all([]) == []
    assert len(world.after(5).send_all([])) == 1  # nobody said a word about it


def test_the_directors_own_packets_are_nobodys_loss():
    """A reset to a client behind a silent next hop is not worth an error to oneself."""
    world = World([f"-A -t {VIP}:80 -s rr"], local=(VIP,))
    world.tables.director[0]["hosted"] = 1
    world.send(tcp_frame(UNKNOWN_CLIENT, VIP, 40_000, 81))
    assert world.reason("waiting") == 1
    world.manager.around.hear([Heard(0, number(UNKNOWN_CLIENT), 0)])
    assert world.send_all([]) == []
    assert world.reason("wait_timeout") == 1


def test_a_late_arp_reply_lets_frames_go_in_the_order_they_came():
    world = World(
        [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11 -g"], local=(VIP,), own_arp=True
    )
    world.send(tcp_frame("198.51.100.7", VIP, 40_000, 80))
    world.after(2.5).send(tcp_frame("198.51.100.7", VIP, 40_001, 80))
    mac, own = bytes.fromhex("02000000020b"), bytes.fromhex("0200000002fe")
    released = world.send(arp(2, mac, "10.0.0.11", own, "10.0.0.254", destination=own), 1)
    assert [int.from_bytes(frame[34:36], "big") for _, frame in released] == [40_000, 40_001]
