"""What is claimed, as programs look for it: a map's keys, of one end of packets each."""

import struct
from typing import Final

from pylvs.drivers.programs.bpf import FRAME_POINTER, R0, R2, Program
from pylvs.drivers.programs.headers import Layout
from pylvs.wire import ipv4
from pylvs.wire.text import address_of, is_ipv6

TO, TO_ANY_PORT, TO_HOST, FROM, FROM_ANY_PORT = range(5)
"""Which end a key is about, and whether its protocol and port count."""

KEY: Final = struct.Struct(">16sBBH")
"""address, protocol, side, port; IPv4's address is mapped into IPv6's"""
ADDRESS_SIZE: Final = 16
PROTOCOL, SIDE, PORT = 16, 17, 18
"""Where a key has what follows its address."""
PROTOCOLS: Final = {"tcp": ipv4.TCP, "udp": ipv4.UDP}
_MAPPED: Final = bytes(10) + b"\xff\xff"
_SIDES: Final = {
    "services": TO,
    "any_port": TO_ANY_PORT,
    "local": TO_HOST,
    "servers": FROM,
    "any_server": FROM_ANY_PORT,
}
"""The sets of claims that a program looks for, of nftables' rules in their order."""


def key_of(name: str, element: str) -> bytes | None:
    """Return the key of a claim, an element of a set in the host's nftables; None if it has none.

    ``services``, ``tcp . 192.0.2.10 . 80``: TO, 6, that address and port.
    """
    side = _SIDES.get(name.removesuffix("6"))
    if side == TO_HOST:
        return KEY.pack(packed(address_of(element)), 0, side, 0)
    protocol, *words = element.split(" . ")
    if side is None or protocol not in PROTOCOLS:
        return None
    port = int(words[1]) if len(words) == 2 else 0
    return KEY.pack(packed(address_of(words[0])), PROTOCOLS[protocol], side, port)


def packed(address: int) -> bytes:
    """Return an address as keys have it."""
    if is_ipv6(address):
        return address.to_bytes(ADDRESS_SIZE, "big")
    return _MAPPED + address.to_bytes(4, "big")


def ask(program: Program, claimed: int, at: int, side: int, then: str) -> None:
    """Jump if the key on the stack, about that side, is in the map; registers up to R5 are lost."""
    program.store_number(1, FRAME_POINTER, at + SIDE, side)
    program.look_up(claimed, at).jump_if(R0, "!=", 0, then)


def put_address(program: Program, layout: Layout, base: int, at: int, to: int) -> None:
    """Put the address at ``base`` + ``at`` on the stack, as keys have it; R2 is lost."""
    if layout.is_ipv4:
        program.store_number(8, FRAME_POINTER, to, 0)
        program.store_number(4, FRAME_POINTER, to + 8, int.from_bytes(b"\0\0\xff\xff", "little"))
    begin = ADDRESS_SIZE - layout.address_size
    for part in range(0, layout.address_size, 4):
        program.load(4, R2, base, at + part).store(4, FRAME_POINTER, to + begin + part, R2)
