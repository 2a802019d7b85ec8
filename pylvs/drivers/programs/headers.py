"""Where a packet's headers have what programs need, for both versions of IP, and sums over them."""

from typing import Final

from pylvs.drivers.programs.bpf import R2, Program
from pylvs.wire import ethernet, ipv4, ipv6, transport


class Layout:
    """One version's, from the IP header on."""

    def __init__(self, family: int) -> None:
        is_ipv4 = family == 4
        self.family = family
        self.is_ipv4 = is_ipv4
        self.header = ipv4.HEADER_SIZE if is_ipv4 else ipv6.HEADER_SIZE
        self.source = ipv4.SOURCE if is_ipv4 else ipv6.SOURCE
        self.destination = ipv4.DESTINATION if is_ipv4 else ipv6.DESTINATION
        self.address_size = self.destination - self.source
        self.hops = ipv4.TTL if is_ipv4 else ipv6.HOP_LIMIT
        self.protocol = ipv4.PROTOCOL if is_ipv4 else ipv6.NEXT_HEADER
        self.length = ipv4.TOTAL_LENGTH if is_ipv4 else ipv6.PAYLOAD_LENGTH
        self.uncounted = 0 if is_ipv4 else ipv6.HEADER_SIZE
        """Bytes of the packet that ``length`` leaves out."""
        self.ethertype = ethernet.IPV4 if is_ipv4 else ethernet.IPV6
        self.seen = self.header + transport.TCP_HEADER_SIZE
        """Bytes that are read of a packet; a shorter one is the director's."""

    @property
    def outers(self) -> tuple["Layout", ...]:
        """Return what its packets may leave in: around IPv6, IPv4 has no DF to copy."""
        return tuple(one for one in LAYOUTS if self.is_ipv4 or not one.is_ipv4)

    def name(self, label: str) -> str:
        """Return a label of this version's own."""
        return f"{label} {self.family}"


LAYOUTS: Final = (Layout(4), Layout(6))
PLAIN_IPV4: Final = 0x45
"""How an IPv4 header without options begins."""


def as_read(number: int) -> int:
    """Return 16 bits of the network's as the machine reads them, little-endian as x86-64 is."""
    return int.from_bytes(number.to_bytes(2, "big"), "little")


def leave_odd(program: Program, source: int, at: int, otherwise: str) -> None:
    """Jump if the IPv4 header at source + at has options, or is a fragment's; R2 is lost."""
    program.load(1, R2, source, at).jump_if(R2, "!=", PLAIN_IPV4, otherwise)
    program.load(2, R2, source, at + ipv4.FRAGMENT)
    program.jump_if(R2, "&", as_read(ipv4.MORE_FRAGMENTS | ipv4.FRAGMENT_OFFSET), otherwise)


def fold(program: Program, total: int, other: int) -> None:
    """Fold a one's complement sum below 2**20 in register ``total`` to 16 bits."""
    for _ in range(2):
        program.copy(other, total).compute(other, ">>", 16)
        program.compute(total, "&", 0xFFFF).compute_with(total, "+", other)


def fold_wide(program: Program, total: int, other: int) -> None:
    """Fold one below 2**36 likewise."""
    program.copy(other, total).compute(other, ">>", 16)
    program.compute(total, "&", 0xFFFF).compute_with(total, "+", other)
    fold(program, total, other)
