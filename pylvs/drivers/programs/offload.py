"""Programs that forward the flows in the director's table: no ring, no copy, nobody woken.

    packet sockets ask first, what to take            then tcx, what becomes of it
    ------------------------------------------        ------------------------------------
    plain? in the table, open, of this age?  -- row -> addresses, ports, checksums, MACs, TTL;
    no: a copy for the ring, as ever                   counted; on to the other interface

Packet sockets come before tcx, and both have to be of one mind about a frame, or it leaves twice or
never.  So it is the sockets' program that decides; it leaves the row for tcx in a cell of the
processor's own, on which a frame is done with before the next one's turn comes.

The table is a map of the kernel's, mapped over the director's own (``tables.flows``): neither side
asks the other anything.  What a program may not send by itself it leaves to the director, and with
SYN, FIN and RST the flow's later packets too, so that nothing is overtaken.
"""

import os
import socket
from typing import Any, Final

from pylvs.drivers import linux
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
from pylvs.tables.connections.flows import GENERATION_ROW
from pylvs.tables.shared import FLOW, OPEN_FLOW, SHUT, VACANT, WARMING
from pylvs.tables.sizes import FLOW_BITS, FLOW_ROWS, FLOWS_PER_BUCKET, HASH_BITS
from pylvs.wire import ethernet, ipv4, ipv6, transport

_WORDS: Final = ("source_low", "destination_low", "source_high", "destination_high", "ends")
"""Of a flow's key, in the order of the seeds."""
_AT: Final = {name: int(place[1]) for name, place in (FLOW.fields or {}).items()}
_BUCKET_SIZE: Final = FLOWS_PER_BUCKET * FLOW.itemsize

# On the stack of the program that decides: the packet, from its IP header on, and its key.
_PACKET: Final = -72
_KEY: Final = {name: _PACKET - 8 * (number + 1) for number, name in enumerate(_WORDS)}
_BUCKET: Final = -120
_NUMBER: Final = -124  # of an element of a map
_PLACE: Final = -136  # of the flow in its bucket
_FAMILY: Final = -144  # a constant on each way, by which the verifier tells what was read

_PLAIN: Final = transport.SYN | transport.FIN | transport.RST | transport.ACK
_TAKE_IT, _LEAVE_IT = -1, 0  # of the packet, all or nothing


class _Layout:
    """Where a family's headers have what the programs need, from the IP header on."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.is_ipv4 = family == 4
        self.header = ipv4.HEADER_SIZE if self.is_ipv4 else ipv6.HEADER_SIZE
        self.source = ipv4.SOURCE if self.is_ipv4 else ipv6.SOURCE
        self.destination = ipv4.DESTINATION if self.is_ipv4 else ipv6.DESTINATION
        self.hops = ipv4.TTL if self.is_ipv4 else ipv6.HOP_LIMIT
        self.protocol = ipv4.PROTOCOL if self.is_ipv4 else ipv6.NEXT_HEADER
        self.length = ipv4.TOTAL_LENGTH if self.is_ipv4 else ipv6.PAYLOAD_LENGTH
        self.ethertype = ethernet.IPV4 if self.is_ipv4 else ethernet.IPV6
        self.seen = self.header + transport.TCP_HEADER_SIZE
        """Bytes that are read of a packet; a shorter one is the director's."""


_LAYOUTS: Final = (_Layout(4), _Layout(6))


def _native(number: int, size: int = 2) -> int:
    """Return a number as a load of the network's bytes has it."""
    return int.from_bytes(number.to_bytes(size, "big"), "little")


def decide(
    flows: int, cell: int, seeds: tuple[int, ...], shortest: int, longest: int | None
) -> bytes:
    """Return a packet socket's program: to take a frame, or to leave it to tcx.

    Of the length of frames that the socket is there for, as ``packet_ring.take`` has it; all others
    are another socket's.  ``flows`` and ``cell`` are maps.
    """
    program = Program().copy(R6, R1)
    program.load(4, R9, R6, bpf.TC_CONTEXT_SIZE).jump_if(R9, "<=", shortest, "not for this one")
    if longest is not None:
        program.jump_if(R9, ">", longest, "not for this one")
    program.store_number(4, FRAME_POINTER, _NUMBER, 0)
    program.copy(R2, FRAME_POINTER).compute(R2, "+", _NUMBER).load_map(R1, cell)
    program.call(bpf.MAP_LOOKUP).jump_if(R0, "==", 0, "take")
    program.copy(R7, R0).store_number(4, R7, 0, 0)
    program.load(4, R2, R6, bpf.TC_CONTEXT_TAGGED).jump_if(R2, "!=", 0, "take")
    program.load(4, R2, R6, bpf.TC_CONTEXT_KIND).jump_if(R2, "!=", bpf.KIND_HOST, "take")
    program.load(4, R2, R6, bpf.TC_CONTEXT_PROTOCOL)
    for layout in _LAYOUTS:
        program.jump_if(R2, "==", _native(layout.ethertype), f"IPv{layout.family}")
    program.jump("take")
    for layout in _LAYOUTS:
        _read_key(program, layout)
    _find(program, flows, seeds)
    _judge(program, flows)
    for layout in _LAYOUTS:
        _judge_size(program, layout)
    program.label("leave to tcx")
    program.load(4, R2, FRAME_POINTER, _BUCKET).compute(R2, "<<", 2).compute_with(R2, "+", R5)
    program.compute(R2, "+", 1).store(4, R7, 0, R2)
    program.label("not for this one").set(R0, _LEAVE_IT).exit()
    return program.label("take").set(R0, _TAKE_IT).exit().assemble()


def _read_key(program: Program, layout: _Layout) -> None:
    """Read a packet's headers and put its key on the stack, if a flow may have it."""
    program.label(f"IPv{layout.family}")
    program.copy(R1, R6).set(R2, ethernet.HEADER_SIZE).copy(R3, FRAME_POINTER)
    program.compute(R3, "+", _PACKET).set(R4, layout.seen)
    program.call(bpf.LOAD_BYTES).jump_if(R0, "!=", 0, "take")
    if layout.is_ipv4:
        _check_ipv4(program)
    else:
        program.load(1, R2, FRAME_POINTER, _PACKET).compute(R2, "&", 0xF0)
        program.jump_if(R2, "!=", 0x60, "take")
    program.load(2, R8, FRAME_POINTER, _PACKET + layout.length).swap(R8, 16)
    if not layout.is_ipv4:
        program.compute(R8, "+", ipv6.HEADER_SIZE)
    program.jump_if(R8, ">=", layout.seen, f"long enough {layout.family}").jump("take")
    program.label(f"long enough {layout.family}")
    program.compute(R9, "-", ethernet.HEADER_SIZE).jump_if_register(R8, ">", R9, "take")
    program.load(1, R4, FRAME_POINTER, _PACKET + layout.protocol)
    program.jump_if(R4, "==", ipv4.TCP, f"ports {layout.family}")
    program.jump_if(R4, "!=", ipv4.UDP, "take").label(f"ports {layout.family}")
    for end in ("source", "destination"):
        at = _PACKET + getattr(layout, end)
        for half in ("high", "low"):
            key = _KEY[f"{end}_{half}"]
            if not layout.is_ipv4:
                for part in (0, 4):
                    program.load(4, R2, FRAME_POINTER, at + part).swap(R2, 32)
                    if part == 0:
                        program.copy(R3, R2).compute(R3, "<<", 32)
                program.compute_with(R2, "|", R3).store(8, FRAME_POINTER, key, R2)
                at += 8
            elif half == "high":
                program.set(R2, 0).store(8, FRAME_POINTER, key, R2)
            else:
                program.load(4, R2, FRAME_POINTER, at).swap(R2, 32)
                program.store(8, FRAME_POINTER, key, R2)
    program.load(4, R2, FRAME_POINTER, _PACKET + layout.header).swap(R2, 32)
    program.compute(R2, "<<", 16).copy(R3, R4).compute(R3, "<<", 8)
    program.compute_with(R2, "|", R3).compute(R2, "|", layout.family)
    program.store(8, FRAME_POINTER, _KEY["ends"], R2)
    program.copy(R9, R8).store_number(8, FRAME_POINTER, _FAMILY, layout.family)
    program.jump("find") if layout.is_ipv4 else None


def _check_ipv4(program: Program) -> None:
    """Take what has options or is a fragment, and what has a wrong checksum, for the director."""
    program.load(1, R2, FRAME_POINTER, _PACKET).jump_if(R2, "!=", 0x45, "take")
    program.load(2, R2, FRAME_POINTER, _PACKET + ipv4.FRAGMENT)
    program.jump_if(R2, "&", _native(ipv4.MORE_FRAGMENTS | ipv4.FRAGMENT_OFFSET), "take")
    program.set(R3, 0)
    for at in range(0, ipv4.HEADER_SIZE, 4):
        program.load(4, R2, FRAME_POINTER, _PACKET + at).compute_with(R3, "+", R2)
    _fold(program, R3, R2, 32)
    program.jump_if(R3, "!=", 0xFFFF, "take")


def _fold(program: Program, total: int, other: int, bits: int) -> None:
    """Fold a one's complement sum to 16 bits; it has a few more than ``bits``."""
    if bits > 16:
        program.copy(other, total).compute(other, ">>", 32).compute(total, "<<", 32)
        program.compute(total, ">>", 32).compute_with(total, "+", other)
    for _ in range(3 if bits > 16 else 2):
        program.copy(other, total).compute(other, ">>", 16)
        program.compute(total, "&", 0xFFFF).compute_with(total, "+", other)


def _find(program: Program, flows: int, seeds: tuple[int, ...]) -> None:
    """Find the flow of the key on the stack: R8 where it is, R5 its place in its bucket."""
    program.label("find").set(R1, 0)
    for word, seed in zip(_WORDS, seeds, strict=True):
        program.load(8, R2, FRAME_POINTER, _KEY[word]).set_wide(R3, seed)
        program.compute_with(R2, "*", R3).compute_with(R1, "+", R2)
    program.compute(R1, ">>", HASH_BITS - FLOW_BITS).store(4, FRAME_POINTER, _BUCKET, R1)
    program.copy(R2, FRAME_POINTER).compute(R2, "+", _BUCKET).load_map(R1, flows)
    program.call(bpf.MAP_LOOKUP).jump_if(R0, "==", 0, "take")
    for place in range(FLOWS_PER_BUCKET):
        missed = f"not in place {place}"
        begin = place * FLOW.itemsize
        program.load(4, R2, R0, begin + _AT["state"]).jump_if(R2, "==", VACANT, missed)
        for word in reversed(_WORDS):
            program.load(8, R2, R0, begin + _AT[word]).load(8, R3, FRAME_POINTER, _KEY[word])
            program.jump_if_register(R2, "!=", R3, missed)
        program.copy(R8, R0).compute(R8, "+", begin).set(R5, place).jump("found").label(missed)
    program.jump("take")


def _judge(program: Program, flows: int) -> None:
    """See whether the flow is open, and whether its packet is one of those it is open for."""
    program.label("found").load(4, R2, R8, _AT["state"])
    program.jump_if(R2, "==", OPEN_FLOW, "open").jump_if(R2, "!=", WARMING, "take")
    program.set(R2, 1).add_to(4, R8, _AT["passed"], R2).jump("take")
    program.label("open").store(8, FRAME_POINTER, _PLACE, R5)
    program.store_number(4, FRAME_POINTER, _NUMBER, GENERATION_ROW // FLOWS_PER_BUCKET)
    program.copy(R2, FRAME_POINTER).compute(R2, "+", _NUMBER).load_map(R1, flows)
    program.call(bpf.MAP_LOOKUP).jump_if(R0, "==", 0, "take")
    program.load(4, R2, R0, _AT["generation"]).load(4, R3, R8, _AT["generation"])
    program.jump_if_register(R2, "!=", R3, "take")
    program.load(8, R5, FRAME_POINTER, _PLACE)
    program.load(8, R2, FRAME_POINTER, _FAMILY).jump_if(R2, "==", 6, "size 6")


def _judge_size(program: Program, layout: _Layout) -> None:
    """Look at flags, TTL, size and checksum, which some packets leave to the director by."""
    family, at = layout.family, _PACKET + layout.header
    program.label(f"size {family}") if family == 6 else None
    program.load(4, R1, R6, bpf.TC_CONTEXT_SEGMENT_SIZE)
    program.load(1, R2, FRAME_POINTER, _PACKET + layout.protocol)
    program.jump_if(R2, "==", ipv4.UDP, f"UDP {family}")
    program.load(1, R2, FRAME_POINTER, at + transport.FLAGS).compute(R2, "&", _PLAIN)
    program.jump_if(R2, "==", transport.ACK, f"plain {family}")
    program.store_number(4, R8, _AT["state"], SHUT).jump("take").label(f"plain {family}")
    # Of a frame that stands for many: as large as the largest of them is.
    program.load(1, R2, FRAME_POINTER, at + transport.DATA_OFFSET).compute(R2, ">>", 4)
    program.compute(R2, "<<", 2).jump(f"hops {family}").label(f"UDP {family}")
    program.load(2, R2, FRAME_POINTER, at + transport.UDP_CHECKSUM)
    program.jump_if(R2, "!=", 0, f"has a checksum {family}")
    program.load(4, R2, R8, _AT["rewrites"]).jump_if(R2, "!=", 0, "take")
    program.label(f"has a checksum {family}").set(R2, transport.UDP_HEADER_SIZE)
    program.label(f"hops {family}")
    program.compute(R2, "+", layout.header).compute_with(R2, "+", R1)
    program.jump_if(R1, "!=", 0, f"segments {family}").copy(R2, R9).label(f"segments {family}")
    program.load(4, R3, R8, _AT["mtu"]).jump_if_register(R2, ">", R3, "take")
    program.load(1, R2, FRAME_POINTER, _PACKET + layout.hops).jump_if(R2, "<=", 1, "take")
    program.jump("leave to tcx") if family == 4 else None


def act(program: Program, flows: int, cell: int) -> None:
    """Begin a tcx program, whose context is in R9: forward what the sockets left to it."""
    program.store_number(4, FRAME_POINTER, _NUMBER, 0)
    program.copy(R2, FRAME_POINTER).compute(R2, "+", _NUMBER).load_map(R1, cell)
    program.call(bpf.MAP_LOOKUP).jump_if(R0, "==", 0, "not of a flow")
    program.load(4, R7, R0, 0).jump_if(R7, "==", 0, "not of a flow").store_number(4, R0, 0, 0)
    program.compute(R7, "-", 1).copy(R2, R7).compute(R2, ">>", 2)
    program.store(4, FRAME_POINTER, _NUMBER, R2)
    program.copy(R2, FRAME_POINTER).compute(R2, "+", _NUMBER).load_map(R1, flows)
    program.call(bpf.MAP_LOOKUP).jump_if(R0, "==", 0, "not of a flow")
    program.compute(R7, "&", FLOWS_PER_BUCKET - 1).compute(R7, "<<", 8)
    program.copy(R8, R0).compute_with(R8, "+", R7)
    program.load(8, R2, R8, _AT["ends"]).compute(R2, "&", 0xFF).jump_if(R2, "==", 6, "act 6")
    for layout in _LAYOUTS:
        _act(program, layout)
    program.label("not of a flow")


def _act(program: Program, layout: _Layout) -> None:
    family, ip = layout.family, ethernet.HEADER_SIZE
    needed = ip + layout.seen
    program.label(f"act {family}") if family == 6 else None
    program.load(4, R2, R9, bpf.TC_CONTEXT_BEGIN).load(4, R3, R9, bpf.TC_CONTEXT_END)
    program.copy(R4, R2).compute(R4, "+", needed).jump_if_register(R4, "<=", R3, f"near {family}")
    program.copy(R1, R9).set(R2, needed).call(bpf.PULL_DATA)
    program.load(4, R2, R9, bpf.TC_CONTEXT_BEGIN).load(4, R3, R9, bpf.TC_CONTEXT_END)
    program.copy(R4, R2).compute(R4, "+", needed).jump_if_register(R4, ">", R3, "not of a flow")
    program.label(f"near {family}")
    _check_is_its(program, layout)
    program.load(2, R7, R2, ip + layout.length).swap(R7, 16)
    if not layout.is_ipv4:
        program.compute(R7, "+", ipv6.HEADER_SIZE)
    program.set(R1, 1).add_to(8, R8, _AT["packets"], R1).add_to(8, R8, _AT["octets"], R7)
    program.load(4, R1, R9, bpf.TC_CONTEXT_SEGMENT_SIZE).jump_if(R1, "!=", 0, f"whole {family}")
    program.compute(R7, "+", ip).load(4, R1, R9, bpf.TC_CONTEXT_SIZE)
    program.jump_if_register(R1, "<=", R7, f"whole {family}")  # else the link has padded it
    program.copy(R1, R9).copy(R2, R7).set(R3, 0).call(bpf.CHANGE_TAIL).label(f"whole {family}")
    program.call(bpf.COARSE_TIME_NS).store(8, R8, _AT["used_ns"], R0)
    # Else the kernel would dissect the packet to choose a queue: a tenth of its time.
    program.copy(R1, R9).load(4, R2, R8, _AT["hash"]).call(bpf.SET_HASH)
    program.load(4, R2, R8, _AT["rewrites"]).jump_if(R2, "==", 0, f"as it is {family}")
    for difference, flags in (("address", bpf.PSEUDO_HEADER), ("port", 0)):
        program.copy(R1, R9).load(4, R2, R8, _AT["checksum_at"]).set(R3, 0)
        program.load(4, R4, R8, _AT[f"{difference}_difference"]).set(R5, flags)
        program.load(8, R0, R8, _AT["ends"]).compute(R0, ">>", 8).compute(R0, "&", 0xFF)
        program.jump_if(R0, "!=", ipv4.UDP, f"{difference} {family}")
        program.set(R5, flags | bpf.ZERO_IS_NONE).label(f"{difference} {family}")
        program.call(bpf.MEND_CHECKSUM)
    program.label(f"as it is {family}")
    program.load(4, R2, R9, bpf.TC_CONTEXT_BEGIN).load(4, R3, R9, bpf.TC_CONTEXT_END)
    program.copy(R4, R2).compute(R4, "+", needed).jump_if_register(R4, ">", R3, f"lost {family}")
    _write(program, layout)
    program.load(4, R1, R8, _AT["interface"]).set(R2, 0).call(bpf.REDIRECT).exit()
    program.label(f"lost {family}").set(R0, bpf.TC_DROP).exit()


def _check_is_its(program: Program, layout: _Layout) -> None:
    """Make sure that the frame at R2 is the one whose row was left, whatever came in between."""
    ip = ethernet.HEADER_SIZE
    for end in ("source", "destination"):
        at = ip + getattr(layout, end)
        for half in ("high", "low") if not layout.is_ipv4 else ("low",):
            if layout.is_ipv4:
                program.load(4, R4, R2, at).swap(R4, 32)
            else:
                program.load(8, R4, R2, at).swap(R4, 64)
                at += 8
            program.load(8, R5, R8, _AT[f"{end}_{half}"])
            program.jump_if_register(R4, "!=", R5, "not of a flow")
    program.load(4, R4, R2, ip + layout.header).swap(R4, 32)
    program.load(8, R5, R8, _AT["ends"]).compute(R5, ">>", 16)
    program.jump_if_register(R4, "!=", R5, "not of a flow")


def _write(program: Program, layout: _Layout) -> None:
    """Write at R2 what becomes of the frame."""
    ip = ethernet.HEADER_SIZE
    for at in (0, 4, 8):
        program.load(4, R4, R8, _AT["link"] + at).store(4, R2, at, R4)
    for at in range(0, 2 * (layout.destination - layout.source), 4):
        program.load(4, R4, R8, _AT["addresses"] + at).store(4, R2, ip + layout.source + at, R4)
    program.load(4, R4, R8, _AT["ports"]).store(4, R2, ip + layout.header, R4)
    program.load(1, R4, R2, ip + layout.hops).compute(R4, "-", 1)
    program.store(1, R2, ip + layout.hops, R4)
    if not layout.is_ipv4:
        return
    program.load(2, R4, R2, ip + ipv4.CHECKSUM).swap(R4, 16).compute(R4, "+", 0x100)
    program.copy(R5, R4).compute(R5, "+", 1).compute(R5, ">>", 16).compute_with(R4, "+", R5)
    program.compute(R4, "&", 0xFFFF)
    program.load(4, R5, R8, _AT["rewrites"]).jump_if(R5, "==", 0, "header is right")
    program.compute(R4, "^", 0xFFFF).load(4, R5, R8, _AT["header_difference"])
    program.compute_with(R4, "+", R5)
    _fold(program, R4, R5, 16)
    program.compute(R4, "^", 0xFFFF).label("header is right")
    program.swap(R4, 16).store(2, R2, ip + ipv4.CHECKSUM, R4)


class Offload:
    """The maps that programs and director share; raises OSError where there is no bpf for it."""

    def __init__(self) -> None:
        self.flows = bpf.Map(bpf.ARRAY, 4, _BUCKET_SIZE, FLOW_ROWS // FLOWS_PER_BUCKET, shared=True)
        self._cell = bpf.Map(bpf.ARRAY_A_CPU, 4, 4, 1)
        self._seeds: tuple[int, ...] = ()
        self._tables: Any = None

    def share(self, tables: Any) -> None:
        """Have the kernel's map take the place of ``tables.flows``, which is empty yet."""
        director = tables.director[0]
        self._seeds = tuple(int(director[f"seed_{number}"]) for number in range(len(_WORDS)))
        linux.map_over(tables.flows, self.flows.descriptor)
        director["offloads"] = 1
        self._tables = tables

    def stop(self) -> None:
        """Have everything come up again, from now on."""
        if self._tables is not None:
            self._tables.director[0]["offloads"] = 0
            self._tables.flows[GENERATION_ROW]["generation"] += 1

    def begin(self, program: Program) -> None:
        """Begin a tcx program with what forwards."""
        act(program, self.flows.descriptor, self._cell.descriptor)

    def take(self, opened: socket.socket, shortest: int, longest: int | None) -> None:
        """Have a packet socket take what is no open flow's; raises OSError."""
        maps = self.flows.descriptor, self._cell.descriptor
        program = bpf.load(decide(*maps, self._seeds, shortest, longest), bpf.TYPE_SOCKET)
        try:
            opened.setsockopt(socket.SOL_SOCKET, linux.SO_ATTACH_BPF, program)
        finally:
            os.close(program)

    def close(self) -> None:
        self.flows.close()
        self._cell.close()
