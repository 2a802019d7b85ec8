"""Which worker a frame goes to: its connection's, whichever way it goes.

    IP header -> its connection's client, and the port there        -> hash -> worker
                 from a masqueraded server, but not to a service, and
                 to what full NAT sends from:   the destination
                 all others:                    the source
                 an ICMP error:                 the other way round, of the packet that it quotes
                 a later piece:                 where its packet's first one went

Packet sockets have the whole program (PACKET_FANOUT), which also tells a worker's two rings apart;
XDP's looks at claimed ends alone and hashes them likewise (``filter``).  By the kernel's own hash
the two ways of a translated connection would part, and a packet's pieces from the packets around
it.  Nothing depends on it but time and order: the tables are all workers'.  So it need not be right
about what is rare: pieces that come before the first one, IPv6's extension headers but for
fragments.  Full NAT's two ways are each one worker's, but not the same: what comes back does not
tell the client.
"""

import os
from typing import Final, NamedTuple

from pylvs.drivers.packet_ring import LARGE, RINGS_PER_PORT
from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import (
    FRAME_POINTER,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Program,
)
from pylvs.drivers.programs.claimed import (
    ADDRESS_SIZE,
    PORT,
    PROTOCOL,
    TO,
    TO_ANY_PORT,
    ask,
    put_address,
)
from pylvs.drivers.programs.headers import LAYOUTS, Layout, as_read
from pylvs.wire import ethernet, icmp, ipv4, ipv6, transport

_PIECES: Final = 4_096  # packets whose first piece has come
_SERVERS: Final = 1 << 20
_POOL: Final = 1 << 12

# On the program's stack.  Ends, identification and protocol are a packet's key, all of its pieces'.
_PACKET, _SOURCE, _DESTINATION, _IDENTIFICATION, _PROTOCOL = -96, -56, -40, -24, -20
_PORTS, _IS_FIRST, _HASH = -12, -8, -4
_KEY: Final = _PACKET  # of a claim, once the packet has been read
_PIECE_SIZE: Final = _PROTOCOL + 4 - _SOURCE
_HASH_SHIFT: Final = 40

_DONE: Final = ("as it goes", "as it went", "as it goes")
"""How a client is told, by depth: of the packet, of what an error quotes, of what was tunnelled."""
_CARRIED: Final = {4: ipv4.IPIP, 6: ipv6.IPV6}
_FRAGMENTS: Final = {
    4: (ipv4.FRAGMENT_OFFSET, ipv4.MORE_FRAGMENTS),
    6: (ipv6.FRAGMENT_OFFSET, ipv6.MORE_FRAGMENTS),
}
_WITH_PORTS: Final = (ipv4.TCP, ipv4.UDP, ipv4.SCTP)
_ERRORS: Final = (
    icmp.UNREACHABLE,
    icmp.SOURCE_QUENCH,
    icmp.TIME_EXCEEDED,
    icmp.PARAMETER_PROBLEM,
)
"""IPv4's; IPv6's types tell by themselves."""


class _End(NamedTuple):
    """One of a packet's ends: its name, and where on the stack it is."""

    name: str
    address: int
    port: int


_FROM: Final = _End("source", _SOURCE, _PORTS + transport.SOURCE_PORT)
_TO: Final = _End("destination", _DESTINATION, _PORTS + transport.DESTINATION_PORT)


class Fanout:
    """The programs, and what they know; raises OSError without bpf.

    ``claimed`` is a map of all claims.  Keys of its own maps are addresses: of masqueraded
    ``servers``, and of the ``pool`` that full NAT sends from.
    """

    def __init__(self, claimed: int, workers: int) -> None:
        self._claimed = claimed
        self._workers = workers
        self.servers = bpf.Map(bpf.HASH, ADDRESS_SIZE, 1, _SERVERS)
        self.pool = bpf.Map(bpf.HASH, ADDRESS_SIZE, 1, _POOL)
        self._pieces = bpf.Map(bpf.RECENT, _PIECE_SIZE, 4, _PIECES)
        self._seeds = [int.from_bytes(os.urandom(8), "little") | 1 for _ in range(4)]
        self._programs: dict[int, int] = {}

    def program(self, longest: int) -> int:
        """Return the program, loaded, of an interface whose small rings take ``longest`` bytes.

        It answers with a place in a group that each worker joined with two sockets in a row, the
        second for frames that are longer.
        """
        if longest not in self._programs:
            self._programs[longest] = bpf.load(self._assemble(longest), bpf.TYPE_SOCKET)
        return self._programs[longest]

    def _assemble(self, longest: int) -> bytes:
        program = Program().copy(R6, R1).set(R7, 0).set(R2, 0)
        for at in (_IDENTIFICATION, _PROTOCOL, _PORTS, _IS_FIRST):
            program.store(4, FRAME_POINTER, at, R2)
        program.load(4, R2, R6, bpf.TC_CONTEXT_PROTOCOL)
        for layout in LAYOUTS:
            program.jump_if(R2, "==", as_read(layout.ethertype), _begin(layout, 0))
        program.label("anybody").set(R0, 0).jump("hashed")
        for depth in range(len(_DONE)):
            for layout in LAYOUTS:
                _read(program, layout, depth)
        program.label("later piece")
        program.look_up(self._pieces.descriptor, _SOURCE).jump_if(R0, "==", 0, "as it goes")
        program.load(4, R0, R0).jump("hashed")
        program.label("as it goes")
        self._choose(program, _FROM, _TO)
        program.label("as it went")
        self._choose(program, _TO, _FROM)
        for end in (_FROM, _TO):
            program.label(end.name).copy(R1, FRAME_POINTER).compute(R1, "+", end.address)
            program.load(2, R2, FRAME_POINTER, end.port).jump("hash")
        self._note(program)
        program.label("hashed").compute(R0, "%", self._workers).compute(R0, "*", RINGS_PER_PORT)
        program.load(4, R2, R6, bpf.TC_CONTEXT_SIZE)  # without the link's header
        program.jump_if(R2, "<=", longest - ethernet.HEADER_SIZE, "placed").compute(R0, "+", LARGE)
        return program.label("placed").exit().assemble()

    def _choose(self, program: Program, near: _End, far: _End) -> None:
        """Go on by the end that is the client's, of a packet from near to far; R8 its protocol."""
        program.look_up(self.pool.descriptor, far.address).jump_if(R0, "!=", 0, far.name)
        program.look_up(self.servers.descriptor, near.address).jump_if(R0, "==", 0, near.name)
        for half in (0, 8):
            program.load(8, R2, FRAME_POINTER, far.address + half)
            program.store(8, FRAME_POINTER, _KEY + half, R2)
        program.store(1, FRAME_POINTER, _KEY + PROTOCOL, R8)
        program.load(2, R2, FRAME_POINTER, far.port).store(2, FRAME_POINTER, _KEY + PORT, R2)
        ask(program, self._claimed, _KEY, TO, near.name)
        program.store_number(2, FRAME_POINTER, _KEY + PORT, 0)
        ask(program, self._claimed, _KEY, TO_ANY_PORT, near.name)
        program.jump(far.name)

    def _note(self, program: Program) -> None:
        """Have R0 be an end's hash, noted for the pieces that follow."""
        program.label("hash")
        self.hash_end(program)
        program.store(4, FRAME_POINTER, _HASH, R5)
        program.load(4, R2, FRAME_POINTER, _IS_FIRST).jump_if(R2, "==", 0, "noted")
        program.copy(R2, FRAME_POINTER).compute(R2, "+", _SOURCE)
        program.copy(R3, FRAME_POINTER).compute(R3, "+", _HASH)
        program.load_map(R1, self._pieces.descriptor).set(R4, 0).call(bpf.MAP_UPDATE)
        program.label("noted").load(4, R0, FRAME_POINTER, _HASH)

    def hash_end(self, program: Program) -> None:
        """Have R5 be the hash of the address at R1, and of the port, as it was read, in R2.

        R0, R3 and R4 are lost.
        """
        program.swap(R2, 16).load(8, R3, R1).load(8, R4, R1, 8).swap(R3, 64).swap(R4, 64)
        program.set(R5, 0)
        *seeds, last = self._seeds
        for word, seed in zip((R2, R3, R4), seeds, strict=True):
            program.set_wide(R0, seed).compute_with(word, "*", R0).compute_with(R5, "+", word)
        # Neighbours' hashes are a step apart, which another multiplication hides.
        program.copy(R0, R5).compute(R0, ">>", 32).compute_with(R5, "^", R0)
        program.set_wide(R0, last).compute_with(R5, "*", R0).compute(R5, ">>", _HASH_SHIFT)

    def close(self) -> None:
        for program in self._programs.values():
            os.close(program)
        for one in (self.servers, self.pool, self._pieces):
            one.close()


def _begin(layout: Layout, depth: int) -> str:
    return layout.name(f"at {depth}")


def _load(program: Program, base: int, to: int, size: int, otherwise: str) -> None:
    """Copy bytes of the packet to the stack, from the place in register ``base`` on."""
    program.copy(R1, R6).copy(R2, base).copy(R3, FRAME_POINTER).compute(R3, "+", to)
    program.set(R4, size).set(R5, bpf.FROM_NETWORK_HEADER).call(bpf.LOAD_BYTES_FROM)
    program.jump_if(R0, "!=", 0, otherwise)


def _read(program: Program, layout: Layout, depth: int) -> None:
    """Read the IP header at R7, and what is behind it: R9 where that is, R8 what."""
    done = _DONE[depth]
    behind, ports = (layout.name(f"{one} {depth}") for one in ("behind", "ports"))
    program.label(_begin(layout, depth))
    _load(program, R7, _PACKET, layout.header, _DONE[depth - 1] if depth else "anybody")
    for at, to in ((layout.source, _SOURCE), (layout.destination, _DESTINATION)):
        put_address(program, layout, FRAME_POINTER, _PACKET + at, to)
    program.load(1, R8, FRAME_POINTER, _PACKET + layout.protocol).copy(R9, R7)
    if layout.is_ipv4:
        program.load(1, R2, FRAME_POINTER, _PACKET).compute(R2, "&", 0x0F).compute(R2, "<<", 2)
        program.compute_with(R9, "+", R2)
        program.load(2, R2, FRAME_POINTER, _PACKET + ipv4.IDENTIFICATION)
        program.load(2, R3, FRAME_POINTER, _PACKET + ipv4.FRAGMENT)
    else:
        program.compute(R9, "+", ipv6.HEADER_SIZE).jump_if(R8, "!=", ipv6.FRAGMENT, behind)
        _load(program, R9, _PACKET, ipv6.FRAGMENT_SIZE, done)
        program.load(1, R8, FRAME_POINTER, _PACKET).compute(R9, "+", ipv6.FRAGMENT_SIZE)
        program.load(4, R2, FRAME_POINTER, _PACKET + ipv6.FRAGMENT_IDENTIFICATION)
        program.load(2, R3, FRAME_POINTER, _PACKET + ipv6.FRAGMENT_FIELD)
    program.swap(R3, 16)
    offset, more = _FRAGMENTS[layout.family]
    if depth:
        program.jump_if(R3, "&", offset, done)  # there are no ports
    else:
        program.store(4, FRAME_POINTER, _IDENTIFICATION, R2)
        program.store(4, FRAME_POINTER, _PROTOCOL, R8).jump_if(R3, "&", offset, "later piece")
        program.compute(R3, "&", more).store(4, FRAME_POINTER, _IS_FIRST, R3)
    program.label(behind)
    for protocol in _WITH_PORTS:
        program.jump_if(R8, "==", protocol, ports)
    if depth == 0:
        _read_error(program, layout)
    if depth == 1:
        program.copy(R7, R9)
        for inner in LAYOUTS:
            program.jump_if(R8, "==", _CARRIED[inner.family], _begin(inner, 2))
    program.jump(done).label(ports)
    _load(program, R9, _PORTS, transport.PORTS_SIZE, done)
    program.jump(done)


def _read_error(program: Program, layout: Layout) -> None:
    """Go on with what an ICMP error quotes, if it is one."""
    kind = ipv4.ICMP if layout.is_ipv4 else ipv6.ICMP
    program.jump_if(R8, "!=", kind, _DONE[0])
    _load(program, R9, _PACKET, 1, _DONE[0])
    program.load(1, R2, FRAME_POINTER, _PACKET)
    program.copy(R7, R9).compute(R7, "+", icmp.HEADER_SIZE)
    if layout.is_ipv4:
        for error in _ERRORS:
            program.jump_if(R2, "==", error, _begin(layout, 1))
    else:
        program.jump_if(R2, "<=", icmp.V6_INFORMATION_BEGIN - 1, _begin(layout, 1))
