"""Unfinished checksums and GSO frames: right in every method, whole packets inside a tunnel."""

import struct

import numpy as np
import pytest

from pylvs.drivers.loopback import Loopback
from pylvs.forwarding import segments
from pylvs.lab.capture import faults
from tests.packets import ethernet, internet_checksum, ipv4, number, packed, tcp, tcp_frame, udp
from tests.world import CLIENT, VIP, World

RULES = {
    "nat": [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11:8080 -m"],
    "dr": [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11 -g"],
    "tun": [f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r 10.0.0.11 -i"],
    "udp tun": [f"-A -u {VIP}:80 -s rr", f"-a -u {VIP}:80 -r 10.0.0.11 -i"],
}
PAYLOAD = bytes(range(251)) * 20


class Offloading(Loopback):
    """The in-memory driver, receiving frames as a sender with offloads leaves them."""

    offload = (0, 0, 0)

    def receive(self, frames, limit):
        count = super().receive(frames, limit)
        for row in range(count):
            start, kind, size = self.offload
            frames[row]["checksum_start"] = start
            frames[row]["checksum_field"] = 16 if kind != segments.GSO_UDP_L4 else 6
            frames[row]["segment_kind"] = kind
            frames[row]["segment_size"] = size
        return count

    def transmit(self, frames, leaving):
        self.offloads = [
            (
                int(frames[int(frames[k]["leaves"])]["checksum_start"]),
                int(frames[int(frames[k]["leaves"])]["segment_size"]),
            )
            for k in range(leaving)
        ]
        return super().transmit(frames, leaving)


def world(mode):
    made = World(RULES[mode])
    made.driver.__class__ = Offloading
    if mode != "udp tun":
        made.send(tcp_frame(CLIENT, VIP, 40_000, 80))
    return made


def unfinished(frame, field):
    """Put into the checksum's place what a kernel leaves there: the pseudo-header's sum."""
    packet = frame[14:]
    size = len(packet) - 20
    pseudo = packet[12:20] + struct.pack("!BBH", 0, packet[9], size)
    partial = ~internet_checksum(pseudo) & 0xFFFF
    at = 34 + field
    return frame[:at] + struct.pack("!H", partial) + frame[at + 2 :]


def finished(frame, field):
    """Do what the receiving hardware does: sum from the transport header on, and complement."""
    packet = frame[14:]
    check = internet_checksum(packet[20 : int.from_bytes(packet[2:4], "big")])
    at = 34 + field
    return frame[:at] + struct.pack("!H", check) + frame[at + 2 :]


def big_frame(flags="PA"):
    return tcp_frame(CLIENT, VIP, 40_000, 80, flags, PAYLOAD, seq=1001, ack=1)


@pytest.mark.parametrize("mode", ["nat", "dr"])
def test_an_unfinished_checksum_stays_unfinished_and_comes_out_right(mode):
    made = world(mode)
    made.driver.offload = (34, segments.GSO_TCPV4, 1_000)
    ((_, sent),) = made.send(unfinished(big_frame(), 16))
    assert made.driver.offloads == [(34, 1_000)]
    assert faults(finished(sent, 16)[14:]) == []


def test_a_tunnel_finishes_the_checksum_of_an_ordinary_frame():
    made = world("tun")
    made.driver.offload = (34, segments.GSO_NONE, 0)
    small = tcp_frame(CLIENT, VIP, 40_000, 80, "PA", b"hello", seq=1001, ack=1)
    ((_, sent),) = made.send(unfinished(small, 16))
    assert sent[34:] == small[14:22] + b"\x3f" + sent[43:46] + small[26:]
    assert faults(sent[14:]) == []


@pytest.mark.parametrize("flags", ["A", "PA", "FPA"])
def test_a_tunnel_cuts_a_gso_frame_into_whole_segments(flags):
    made = world("tun")
    size = 1_000
    made.driver.offload = (34, segments.GSO_TCPV4, size)
    sent = [frame for _, frame in made.send(unfinished(big_frame(flags), 16))]
    assert len(sent) == -(-len(PAYLOAD) // size)
    whole = b""
    for n, frame in enumerate(sent):
        assert faults(frame[14:]) == []
        inner = frame[34:]
        whole += inner[40:]
        assert int.from_bytes(inner[24:28], "big") == 1001 + n * size
        assert int.from_bytes(inner[4:6], "big") == 0x1234 + n
        last = n == len(sent) - 1
        assert bool(inner[33] & 1) == ("F" in flags and last)
        assert bool(inner[33] & 8) == ("P" in flags and last)
    assert whole == PAYLOAD
    assert made.driver.offloads == [(0, 0)] * len(sent)


def test_a_tunnel_cuts_udp_segments_too():
    made = world("udp tun")
    made.driver.offload = (34, segments.GSO_UDP_L4, 500)
    frame = ethernet(ipv4(CLIENT, VIP, 17, udp(CLIENT, VIP, 40_000, 80, PAYLOAD)))
    sent = [one for _, one in made.send(unfinished(frame, 6))]
    assert len(sent) == -(-len(PAYLOAD) // 500)
    assert all(faults(one[14:]) == [] for one in sent)
    assert b"".join(one[62:] for one in sent) == PAYLOAD


def test_segments_too_large_for_the_tunnel_are_refused_to_the_sender():
    made = world("tun")
    made.driver.offload = (34, segments.GSO_TCPV4, 1_460)
    ((port, error),) = made.send(unfinished(big_frame(), 16))
    assert (port, error[34], error[35]) == (0, 3, 4)
    assert int.from_bytes(error[40:42], "big") == 1_480
    assert faults(error[14:]) == []


def test_segments_that_find_no_room_are_counted():
    made = world("tun")
    made.driver.offload = (34, segments.GSO_TCPV4, 3)
    assert made.send(unfinished(big_frame(), 16)) == []
    assert made.reason("scratch_full") == 1


def test_udp_without_a_checksum_leaves_nat_with_a_computed_one():
    made = World([f"-A -u {VIP}:53 -s rr", f"-a -u {VIP}:53 -r 10.0.0.11:5353 -m"])
    for payload in (b"", b"x", b"hello!"):
        datagram = udp(CLIENT, VIP, 40_000, 53, payload, checksum=False)
        ((_, sent),) = made.send(ethernet(ipv4(CLIENT, VIP, 17, datagram)))
        assert sent[40:42] != b"\0\0"
        assert faults(sent[14:]) == []


def test_a_wrong_checksum_stays_wrong_by_the_same_amount():
    made = world("nat")
    good = tcp_frame(CLIENT, VIP, 40_000, 80, "A", b"data", seq=1001, ack=1)
    bad = bytearray(good)
    bad[50:52] = struct.pack("!H", int.from_bytes(good[50:52], "big") ^ 0x0100)
    ((_, right),) = made.send(good)
    ((_, wrong),) = made.send(bytes(bad))
    assert faults(right[14:]) == []
    assert faults(wrong[14:]) == ["TCP"]


def test_the_translated_packet_is_the_one_a_sender_would_have_built():
    made = world("nat")
    ((_, sent),) = made.send(tcp_frame(CLIENT, VIP, 40_000, 80, "A", b"data", seq=1001, ack=1))
    segment = tcp(CLIENT, "10.0.0.11", 40_000, 8080, "A", b"data", seq=1001, ack=1)
    assert sent[14:] == ipv4(CLIENT, "10.0.0.11", 6, segment, ttl=63)
    assert np.frombuffer(packed(VIP), ">u4")[0] == number(VIP)
