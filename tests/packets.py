"""Frames built by hand, checksums from RFC 1071 as written: shares nothing with the code."""

import ipaddress
import struct

MAC_A = bytes.fromhex("020000000101")
DIRECTOR_MAC = bytes.fromhex("0200000001fe")


def internet_checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def number(address: str) -> int:
    return int(ipaddress.IPv4Address(address))


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def pseudo_header(source, destination, protocol, size):
    """Return what a transport checksum covers beside its segment; IPv6's is RFC 8200's, 8.1."""
    ends = packed(source) + packed(destination)
    if len(ends) == 8:
        return ends + struct.pack("!BBH", 0, protocol, size)
    return ends + struct.pack("!IHBB", size, 0, 0, protocol)


def tcp(source, destination, sport, dport, flags="S", payload=b"", seq=1000, ack=0):
    """Return a TCP segment with its checksum."""
    bits = sum({"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}[letter] for letter in flags)
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, bits, 64240, 0, 0)
    pseudo = pseudo_header(source, destination, 6, len(head) + len(payload))
    check = internet_checksum(pseudo + head + payload)
    return head[:16] + struct.pack("!H", check) + head[18:] + payload


def udp(source, destination, sport, dport, payload=b"", checksum=True):
    """Return a UDP datagram; a checksum that comes out zero is sent as all ones."""
    size = 8 + len(payload)
    head = struct.pack("!HHHH", sport, dport, size, 0)
    if not checksum:
        return head + payload
    pseudo = pseudo_header(source, destination, 17, size)
    check = internet_checksum(pseudo + head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", check) + payload


def crc32c(data: bytes) -> int:
    """Return SCTP's checksum, a bit at a time (RFC 9260, appendix A)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return ~crc & 0xFFFF_FFFF


def sctp(sport, dport, *chunks):
    """Return an SCTP packet; each chunk is (type, value)."""
    body = b"".join(
        struct.pack("!BBH", kind, 0, 4 + len(value)) + value + bytes(-len(value) % 4)
        for kind, value in chunks
    )
    head = struct.pack("!HHI", sport, dport, 0x1234)
    return head + struct.pack("<I", crc32c(head + bytes(4) + body)) + body


def icmp(type_, code, rest=0, body=b""):
    head = struct.pack("!BBHI", type_, code, 0, rest)
    return head[:2] + struct.pack("!H", internet_checksum(head + body)) + head[4:] + body


def ipv4(
    source, destination, protocol, body, ttl=64, tos=0, ident=0x1234, fragment=0x4000, options=b""
):
    header = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | header // 4,
        tos,
        header + len(body),
        ident,
        fragment,
        ttl,
        protocol,
        0,
        packed(source),
        packed(destination),
    )
    head += options
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + body


def ipv6(source, destination, protocol, body, hops=64, traffic=0, label=0):
    """Return a packet; extension headers are part of ``body``, ``protocol`` is the first's."""
    first = 6 << 28 | traffic << 20 | label
    head = struct.pack("!IHBB", first, len(body), protocol, hops)
    return head + packed(source) + packed(destination) + body


def fragments6(source, destination, protocol, body, sizes, ident=0x1234, **ip):
    """Return the fragments of a payload, of these sizes but for the last, which takes the rest."""
    pieces, at = [], 0
    for size in (*sizes, len(body)):
        piece = body[at : at + size]
        more = at + len(piece) < len(body)
        head = struct.pack("!BBHI", protocol, 0, at | more, ident)
        pieces.append(ipv6(source, destination, 44, head + piece, **ip))
        at += len(piece)
        if not more:
            break
    return pieces


def icmp6(source, destination, type_, code, rest=0, body=b""):
    head = struct.pack("!BBHI", type_, code, 0, rest)
    whole = pseudo_header(source, destination, 58, len(head) + len(body)) + head + body
    return head[:2] + struct.pack("!H", internet_checksum(whole)) + head[4:] + body


def ethernet(body, destination=DIRECTOR_MAC, source=MAC_A, kind=0):
    kind = kind or (0x86DD if body[0] >> 4 == 6 else 0x0800)
    return destination + source + struct.pack("!H", kind) + body


def ip_packet(source, destination, protocol, body, **ip):
    """Return a packet of the addresses' version."""
    make = ipv6 if ":" in source else ipv4
    return make(source, destination, protocol, body, **ip)


def tcp_frame(source, destination, sport, dport, flags="S", payload=b"", seq=1000, ack=0, **ip):
    segment = tcp(source, destination, sport, dport, flags, payload, seq, ack)
    return ethernet(ip_packet(source, destination, 6, segment, **ip))


def udp_frame(source, destination, sport, dport, payload=b"hello", checksum=True, **ip):
    datagram = udp(source, destination, sport, dport, payload, checksum)
    return ethernet(ip_packet(source, destination, 17, datagram, **ip))


def arp(operation, sender_mac, sender, target_mac, target, destination=b"\xff" * 6):
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body += sender_mac + packed(sender) + target_mac + packed(target)
    return ethernet(body, destination, sender_mac, 0x0806)
