"""Addresses as people write them, as control has them, and as the tables hold them.

Control's is an int: IPv4's is below 2**32, IPv6's is not.  The tables' is a pair (``wire.ip``).
"""

import socket
from collections.abc import Iterable

_HALF = 1 << 64
PORT_RANGES_LIMIT = 256
"""How many ranges a list of ports may have."""


def address_of(text: str) -> int:
    """Return an address as an int; raises ValueError.

    IPv4 in ``inet_aton`` syntax, as ipvsadm takes it (``10.1`` is 10.0.0.1), except that a bare
    number is no address.  IPv6 without brackets or zone; none of ``::/96``, which looks like IPv4.
    """
    if ":" in text:
        return _ipv6_of(text)
    if text.isdigit():
        raise ValueError(f"{text!r} is not an IP address")
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None


def _ipv6_of(text: str) -> int:
    try:
        address = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None
    if not is_ipv6(address):
        raise ValueError(f"{text!r} is no station's address")
    return address


def is_ipv6(address: int) -> bool:
    return address >> 32 != 0


def family_of(address: int) -> int:
    """Return 4 or 6."""
    return 6 if is_ipv6(address) else 4


def address_text(address: int) -> str:
    address = int(address)
    if is_ipv6(address):
        return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))
    return socket.inet_ntoa(address.to_bytes(4, "big"))


def host_text(address: int) -> str:
    """Return an address as it stands before a port: IPv6's in brackets."""
    text = address_text(address)
    return f"[{text}]" if is_ipv6(address) else text


def endpoint_text(address: int, port: int) -> str:
    return f"{host_text(address)}:{port}"


def network_text(address: int, prefix: int) -> str:
    """Return a network as it stands before ports: ``192.0.2.0/24``, ``[2001:db8::/64]``."""
    text = f"{address_text(address)}/{prefix}"
    return f"[{text}]" if is_ipv6(address) else text


def ports_text(ports: Iterable[tuple[int, int]]) -> str:
    """Return ranges of ports: ``80,443,8000-8999``, or ``any``."""
    ranges = (str(low) if low == high else f"{low}-{high}" for low, high in ports)
    text = ",".join(ranges)
    return "any" if text == "0-65535" else text


def is_unicast(address: int) -> bool:
    """Whether an address can be one host's."""
    if is_ipv6(address):  # nor is one its link's alone, or IPv4's in disguise (::ffff:0:0/96)
        return address >> 120 != 0xFF and address >> 118 != 0x3FA and address >> 32 != 0xFFFF
    return 0 < address < 0xE000_0000


def halves(address: int) -> tuple[int, int]:
    """Return the pair that the tables hold."""
    if address < 1 << 32:
        return 0, address
    return _signed(address >> 64), _signed(address & (_HALF - 1))


def _signed(half: int) -> int:
    return half - _HALF if half >= _HALF >> 1 else half


def joined(high: int, low: int) -> int:
    """Return the address whose halves these are."""
    return (int(high) % _HALF) << 64 | int(low) % _HALF


def mask_of(prefix: int, family: int) -> int:
    """Return the mask of a prefix's length, within the family's own bits."""
    bits = 128 if family == 6 else 32
    return ((1 << bits) - 1) ^ ((1 << (bits - prefix)) - 1)


def mac_of(text: str) -> int:
    """Return ``02:00:00:00:00:01`` as an int below 2**48; raises ValueError."""
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) not in (1, 2) for part in parts):
        raise ValueError(f"{text!r} is not a MAC address")
    return int.from_bytes(bytes(int(part, 16) for part in parts), "big")


def mac_text(mac: int) -> str:
    return ":".join(f"{byte:02x}" for byte in int(mac).to_bytes(6, "big"))


def octets_text(octets: bytes) -> str:
    r"""Return octets as printable ASCII, the others as ``\xNN``."""
    return "".join(chr(one) if 0x20 <= one < 0x7F else f"\\x{one:02x}" for one in octets)
