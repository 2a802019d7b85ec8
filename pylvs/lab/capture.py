"""What arrives at a node, with every checksum looked at.

Run as ``python -m pylvs.lab.capture INTERFACE FILE`` inside the node; ends on SIGTERM.
"""

import signal
import socket
import sys
import time
from collections.abc import Iterator

import dpkt

from pylvs.drivers import pcap
from pylvs.wire.text import address_text


def record(interface: str, path: str) -> None:
    """Write what ``interface`` receives to ``path`` until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        open(path, "wb", buffering=0) as file,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as tap,
    ):
        tap.bind((interface, 0x0003))
        writer = pcap.Writer(file)
        print("recording", flush=True)
        while True:
            frame, where = tap.recvfrom(65_600)
            if where[2] != socket.PACKET_OUTGOING:
                writer.write(time.time(), frame)


def _sum(data: bytes) -> int:
    """Return the folded one's complement sum; 0xFFFF over a right checksum and what it covers."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


_TUNNELS = (dpkt.ip.IP_PROTO_IPIP, dpkt.ip.IP_PROTO_IP6)
_NAMES = {
    dpkt.ip.IP_PROTO_TCP: "TCP",
    dpkt.ip.IP_PROTO_UDP: "UDP",
    dpkt.ip.IP_PROTO_ICMP6: "ICMPv6",
}


def faults(packet: bytes) -> list[str]:
    """Return what is wrong with a packet's checksums, inner ones included.

    Of IPv6 only those of packets without extension headers are looked at.
    """
    if packet[0] >> 4 == 6:
        header, protocol, addresses = 40, packet[6], packet[8:40]
        size = header + int.from_bytes(packet[4:6], "big")
        wrong = []
    else:
        header, protocol, addresses = (packet[0] & 0xF) * 4, packet[9], packet[12:20]
        size = int.from_bytes(packet[2:4], "big")
        wrong = [] if _sum(packet[:header]) == 0xFFFF else ["IPv4 header"]
    body = packet[header:size]
    if protocol in _TUNNELS:
        return wrong + [f"inner {fault}" for fault in faults(body)]
    if protocol in _NAMES:
        pseudo = addresses + bytes([0, protocol]) + len(body).to_bytes(2, "big")
        none = protocol == dpkt.ip.IP_PROTO_UDP and body[6:8] == b"\0\0"
        if not none and _sum(pseudo + body) != 0xFFFF:
            wrong.append(_NAMES[protocol])
    elif protocol == dpkt.ip.IP_PROTO_ICMP and _sum(body) != 0xFFFF:
        wrong.append("ICMP")
    return wrong


def describe(packet: bytes) -> str:
    """Return one line about a packet."""
    if packet[0] >> 4 == 6:
        ip = dpkt.ip6.IP6(packet)
        hops, protocol = f"hops {ip.hlim}", ip.nxt
    else:
        ip = dpkt.ip.IP(packet)
        hops, protocol = f"ttl {ip.ttl}", ip.p
    source, destination = (address_text(int.from_bytes(end, "big")) for end in (ip.src, ip.dst))
    ends = f"{source} > {destination} {hops}"
    if protocol in _TUNNELS:
        return f"{ends} IPIP ( {describe(bytes(ip.data))} )"
    if isinstance(ip.data, dpkt.tcp.TCP):
        tcp = ip.data
        letters = "".join(
            letter
            for bit, letter in ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (16, "."))
            if tcp.flags & bit
        )
        return f"{ends} TCP {tcp.sport} > {tcp.dport} [{letters}] {len(tcp.data)} bytes"
    return f"{ends} protocol {protocol}"


def packets(path: str) -> Iterator[bytes]:
    """Yield the IP packets of a capture, but neighbour discovery's, without link padding."""
    for _, frame in pcap.read(path):
        if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
            yield frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        elif frame[12:14] == b"\x86\xdd" and len(frame) > 54 and not _is_discovery(frame):
            yield frame[14 : 54 + int.from_bytes(frame[18:20], "big")]


def _is_discovery(frame: bytes) -> bool:
    return frame[20] == 0 or (frame[20] == dpkt.ip.IP_PROTO_ICMP6 and frame[54] in range(130, 138))


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
