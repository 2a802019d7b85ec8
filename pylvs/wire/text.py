"""Addresses as people write them, and as the tables hold them."""

import socket


def address_of(text: str) -> int:
    """Return an IPv4 address as a host-order int; raises ValueError.

    ``inet_aton`` syntax, as ipvsadm takes it (``10.1`` is 10.0.0.1), except that a bare number
    is no address.
    """
    if text.isdigit():
        raise ValueError(f"{text!r} is not an IPv4 address")
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except OSError:
        raise ValueError(f"{text!r} is not an IPv4 address") from None


def address_text(address: int) -> str:
    return socket.inet_ntoa(int(address).to_bytes(4, "big"))


def mac_of(text: str) -> int:
    """Return ``02:00:00:00:00:01`` as an int below 2**48; raises ValueError."""
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) not in (1, 2) for part in parts):
        raise ValueError(f"{text!r} is not a MAC address")
    return int.from_bytes(bytes(int(part, 16) for part in parts), "big")


def mac_text(mac: int) -> str:
    return ":".join(f"{byte:02x}" for byte in int(mac).to_bytes(6, "big"))
