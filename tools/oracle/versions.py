"""What random scenarios say in IPv4 and in IPv6: addresses, headers, errors, fragments."""

import random
import struct
from typing import Any, Final

from tests.packets import icmp, icmp6, ipv4, ipv6
from tools.guest import ADDRESSES, ADDRESSES_6, VIP_6, VIPS

_OPTIONS: Final = (
    bytes([1, 1, 1, 1]),
    bytes([7, 7, 4, 0, 0, 0, 0, 1]),
    bytes([7, 7, 8, 1, 2, 3, 4, 1]),
    bytes([148, 4, 0, 0]),
    bytes([68, 8, 5, 0, 0, 0, 0, 0]),
    bytes([68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    bytes([131, 7, 4, 198, 51, 100, 99, 1]),
    bytes([7, 40, 4, 0]),
)
_PIECES_MAX: Final = 30


class Version4:
    """IPv4."""

    number = 4
    clients = ("198.51.100.7", "198.51.100.8", "203.0.113.9", "203.0.113.200")
    routers = ("198.51.100.254", "10.0.0.1")
    director = ADDRESSES[1]
    vips = VIPS
    elsewhere = "192.0.2.99"
    icmp = 1
    masks = " -M 255.255.255.0"
    mtus = (1_000, 1_500, 1_500)

    @staticmethod
    def server(n: int) -> str:
        return f"10.0.0.{n}"

    @staticmethod
    def endpoint(address: str, port: int) -> str:
        return f"{address}:{port}"

    def header(self, rng: random.Random, plain: bool = False) -> dict[str, Any]:
        header: dict[str, Any] = {
            "ttl": rng.choice((64, 64, 64, 128, 2, 1)),
            "tos": rng.choice((0, 0, 0, 0xB8, 2, 3)),
            "ident": rng.randint(1, 65_535),
            "fragment": 0x4000 if rng.random() < 0.7 else 0,
        }
        if not plain and rng.random() < 0.06:
            header["options"] = rng.choice(_OPTIONS)
        return header

    def packet(
        self, rng: random.Random, ends: tuple[str, str], protocol: int, body: bytes, plain: bool
    ) -> bytes:
        return ipv4(*ends, protocol, body, **self.header(rng, plain))

    def error(self, rng: random.Random, ends: tuple[str, str], quote: bytes) -> bytes:
        kinds = ((3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (5, 1), (11, 0), (11, 1), (12, 0), (0, 0))
        kind, code = rng.choice(kinds)
        rest = rng.choice((1_400, 1_000, 576, 300, 0)) if (kind, code) == (3, 4) else 0
        body = icmp(kind, code, rest, quote[: rng.choice((28, 28, 48, 96, 548, 24, 20, 12))])
        if rng.random() < 0.06:
            body = body[:2] + bytes([body[2] ^ 0x55]) + body[3:]
        return ipv4(*ends, 1, body, **self.header(rng))

    @staticmethod
    def echo(_: tuple[str, str], number: int, body: bytes) -> bytes:
        return icmp(8, 0, number, body)

    @staticmethod
    def outer(ends: tuple[str, str], inner: bytes, tunnel: str) -> bytes:
        """Return a packet of the director's with another one in a tunnel."""
        return ipv4(*ends, *_in_tunnel(4, 0x0800, inner, tunnel))

    def fragments(
        self, rng: random.Random, ends: tuple[str, str], protocol: int, segment: bytes
    ) -> list[bytes]:
        header = self.header(rng, plain=True)
        df = header.pop("fragment") if rng.random() < 0.3 else 0
        header.pop("fragment", None)
        step = rng.choice((8, 24, 200, 600, 1_480)) & ~7
        begins = range(0, max(1, len(segment)), step)
        pieces = []
        for begin in begins:
            piece = segment[begin : begin + step]
            more = 0x2000 if begin + step < len(segment) else 0
            field = df | more | begin >> 3
            pieces.append(ipv4(*ends, protocol, piece, fragment=field, **header))
        pieces = pieces[:_PIECES_MAX]
        fate = rng.random()
        if fate < 0.25:
            pieces.reverse()
        elif fate < 0.35:
            rng.shuffle(pieces)
        elif fate < 0.42:
            pieces.insert(rng.randrange(len(pieces)), rng.choice(pieces))
        elif fate < 0.47:
            pieces.pop(rng.randrange(len(pieces)))
        elif fate < 0.52 and begins:
            overlap = ipv4(*ends, protocol, bytes(24), fragment=0x2001, **header)
            pieces.insert(rng.randrange(len(pieces)), overlap)
        return pieces


def _in_tunnel(carried: int, ethertype: int, inner: bytes, tunnel: str) -> tuple[int, bytes]:
    """Return the protocol and the body of an outer packet."""
    if "gue" in tunnel:
        return 17, struct.pack("!HHHHBBH", 40_000, 6_080, 12 + len(inner), 0, 0, carried, 0) + inner
    if "gre" in tunnel:
        return 47, struct.pack("!HH", 0, ethertype) + inner
    return carried, inner


class Version6:
    """IPv6.  Fragments always make a whole packet: the kernel waits a minute for the others."""

    number = 6
    clients = ("2001:db8:c::7", "2001:db8:c::8", "2001:db8:d::9", "2001:db8:d:1::c8")
    routers = ("2001:db8:c::fe", "2001:db8:2::1")
    director = ADDRESSES_6[1]
    vips = (VIP_6, VIP_6)
    elsewhere = "2001:db8:1::99"
    icmp = 58
    masks = " -M 64"
    mtus = (1_300, 1_500, 1_500)

    @staticmethod
    def server(n: int) -> str:
        return f"2001:db8:2::{n:x}"

    @staticmethod
    def endpoint(address: str, port: int) -> str:
        return f"[{address}]:{port}"

    def header(self, rng: random.Random) -> dict[str, Any]:
        return {
            "hops": rng.choice((64, 64, 64, 128, 2, 1)),
            "traffic": rng.choice((0, 0, 0, 0xB8, 2, 3)),
            "label": rng.choice((0, 0x12345)),
        }

    def _extended(self, rng: random.Random, protocol: int, body: bytes) -> tuple[int, bytes]:
        """Put an extension header in front now and then."""
        option = rng.choice(
            (
                bytes([1, 4, 0, 0, 0, 0]),
                bytes([5, 2, 0, 0, 1, 0]),
                bytes([0x3E, 4, 1, 2, 3, 4]),
                bytes([0x7E, 4, 1, 2, 3, 4]),
                bytes([0xBE, 4, 1, 2, 3, 4]),
                bytes([0xFE, 4, 1, 2, 3, 4]),
                bytes([1, 4, 0, 0, 1, 0]),
                bytes([1, 9, 0, 0, 0, 0]),
            )
        )
        kind = rng.choice((0, 0, 60, 60, 43))
        if kind == 43:
            return 43, bytes([protocol, 0, rng.choice((0, 4)), 0, 0, 0, 0, 0]) + body
        return kind, bytes([protocol, 0]) + option + body

    def packet(
        self, rng: random.Random, ends: tuple[str, str], protocol: int, body: bytes, plain: bool
    ) -> bytes:
        if not plain and rng.random() < 0.1:
            protocol, body = self._extended(rng, protocol, body)
            if rng.random() < 0.2:
                protocol, body = self._extended(rng, protocol, body)
        return ipv6(*ends, protocol, body, **self.header(rng))

    def error(self, rng: random.Random, ends: tuple[str, str], quote: bytes) -> bytes:
        kinds = ((1, 0), (1, 3), (1, 4), (2, 0), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (129, 0))
        kind, code = rng.choice((*kinds, (100, 0), (127, 3)))
        rest = rng.choice((1_400, 1_280, 1_000, 0)) if kind == 2 else 0
        body = icmp6(
            *ends, kind, code, rest, quote[: rng.choice((1_232, 96, 60, 48, 44, 43, 40, 20))]
        )
        if rng.random() < 0.06:
            body = body[:2] + bytes([body[2] ^ 0x55]) + body[3:]
        return ipv6(*ends, 58, body, **self.header(rng))

    @staticmethod
    def echo(ends: tuple[str, str], number: int, body: bytes) -> bytes:
        return icmp6(*ends, 128, 0, number, body)

    @staticmethod
    def outer(ends: tuple[str, str], inner: bytes, tunnel: str) -> bytes:
        return ipv6(*ends, *_in_tunnel(41, 0x86DD, inner, tunnel))

    def fragments(
        self, rng: random.Random, ends: tuple[str, str], protocol: int, segment: bytes
    ) -> list[bytes]:
        header, ident = self.header(rng), rng.randint(1, 1 << 31)
        # Of small ones Linux keeps the sizes, if its network card's driver lets it.
        step = rng.choice((200, 600, 1_400, 1_448)) & ~7
        first = b""
        if rng.random() < 0.15:
            first = bytes([44, 0, 1, 4, 0, 0, 0, 0])  # in front of every fragment
        pieces = []
        for begin in range(0, max(1, len(segment)), step):
            piece = segment[begin : begin + step]
            more = int(begin + step < len(segment))
            field = struct.pack("!BBHI", protocol, 0, begin | more, ident)
            kind = 0 if first else 44
            pieces.append(ipv6(*ends, kind, first + field + piece, **header))
        fate = rng.random()
        if fate < 0.25:
            pieces.reverse()
        elif fate < 0.35:
            rng.shuffle(pieces)
        elif fate < 0.42:
            last = pieces.pop()
            pieces.insert(rng.randrange(len(pieces) + 1), rng.choice([*pieces, last]))
            pieces.append(last)
        return pieces
