"""Whose a frame is: the director's, or a program's, which forwards it as its flow says.

    headers -> key -> bucket, four places -> open? plain? fits?      no:  "the director's"
                                                                     yes: "send", for each version

A packet socket's program is made of it, which takes frames for its ring or leaves them to tcx, with
their row in the cell (``act``); and XDP's, which sends them itself (``redirect``).

SYN, FIN and RST shut their flow here, so that none of them is overtaken by a later packet.  What is
odd in itself, a fragment, say, comes up alone: others of its flow may overtake it.

    R6  the context            R8  the packet's size, then the flow
    R7  left alone             R9  the frame's length, then the packet's size
    R5  the flow's place in its bucket, once it is found
"""

from typing import Final, NamedTuple

from pylvs.drivers.programs import bpf, write
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
from pylvs.drivers.programs.headers import LAYOUTS, Layout, as_read, fold_wide, leave_odd
from pylvs.tables.connections.flows import GENERATION_ROW
from pylvs.tables.layouts.shared import FLOW, FLOW_PLACES, OPEN_FLOW, VACANT, WARMING
from pylvs.tables.sizes import FLOW_BITS, FLOWS_PER_BUCKET, HASH_BITS
from pylvs.wire import ethernet, ipv4, transport

WORDS: Final = ("source_low", "destination_low", "source_high", "destination_high", "ends")
"""Of a flow's key, in the order of the seeds."""

# On the program's stack: the packet, from its IP header on, its key, and some numbers.
_PACKET: Final = -72
_KEY: Final = {name: _PACKET - 8 * (number + 1) for number, name in enumerate(WORDS)}
_BUCKET, _NUMBER, _PLACE = -120, -124, -136
_FAMILY: Final = -144
"""A constant on each way, by which the verifier tells how much of the packet was read."""

DIRECTORS: Final = "the director's"
TO_TCX: Final = "to tcx"
"""Labels that follow: what no program sends, and what XDP leaves to sockets and tcx to decide."""
_PLAIN: Final = transport.SYN | transport.FIN | transport.RST | transport.ACK
_TAKE_IT, _LEAVE_IT = -1, 0  # of the frame, all or nothing


class Maps(NamedTuple):
    """What a program looks into, and the keys of its hash."""

    flows: int
    counts: int
    seeds: tuple[int, ...]


def assemble(maps: Maps, cell: int, shortest: int, longest: int | None) -> bytes:
    """Return a packet socket's program; ``cell`` is a map.

    The socket is there for frames longer than ``shortest`` and up to ``longest`` bytes: all others
    are another socket's, whose program decides.
    """
    program = Program().copy(R6, R1)
    program.load(4, R9, R6, bpf.TC_CONTEXT_SIZE).jump_if(R9, "<=", shortest, "not for this one")
    if longest is not None:
        program.jump_if(R9, ">", longest, "not for this one")
    program.store_number(4, FRAME_POINTER, _NUMBER, 0)
    program.look_up(cell, _NUMBER).jump_if(R0, "==", 0, DIRECTORS)
    program.copy(R7, R0).store_number(4, R7, 0, 0)
    program.load(4, R2, R6, bpf.TC_CONTEXT_TAGGED).jump_if(R2, "!=", 0, DIRECTORS)
    program.load(4, R2, R6, bpf.TC_CONTEXT_KIND).jump_if(R2, "!=", bpf.KIND_HOST, DIRECTORS)
    program.load(4, R2, R6, bpf.TC_CONTEXT_PROTOCOL)
    decide(program, maps, by_xdp=False)
    for layout in LAYOUTS:
        program.label(layout.name("send"))
    program.load(4, R2, FRAME_POINTER, _BUCKET)
    program.compute(R2, "*", FLOWS_PER_BUCKET).compute_with(R2, "+", R5)
    program.compute(R2, "+", 1).store(4, R7, 0, R2)
    program.label("not for this one").set(R0, _LEAVE_IT).exit()
    return program.label(DIRECTORS).set(R0, _TAKE_IT).exit().assemble()


def decide(program: Program, maps: Maps, by_xdp: bool) -> None:
    """Have a program decide about the frame whose type, as it was read, is in R2."""
    for layout in LAYOUTS:
        program.jump_if(R2, "==", as_read(layout.ethertype), layout.name("read"))
    program.jump(DIRECTORS)
    for layout in LAYOUTS:
        _read(program, layout, bpf.XDP_LOAD_BYTES if by_xdp else bpf.LOAD_BYTES)
    _find(program, maps)
    _check_open(program, maps.flows)
    for layout in LAYOUTS:
        _check_plain(program, layout, by_xdp)
    program.label("shut")
    write.shut(program)
    program.jump(DIRECTORS)


def _read(program: Program, layout: Layout, load_bytes: int) -> None:
    """Read a packet's headers and put its key on the stack; R9 becomes its size."""
    program.label(layout.name("read"))
    program.copy(R1, R6).set(R2, ethernet.HEADER_SIZE).copy(R3, FRAME_POINTER)
    program.compute(R3, "+", _PACKET).set(R4, layout.seen)
    program.call(load_bytes).jump_if(R0, "!=", 0, DIRECTORS)
    if layout.is_ipv4:
        _check_ipv4(program)
    else:
        program.load(1, R2, FRAME_POINTER, _PACKET).compute(R2, "&", 0xF0)
        program.jump_if(R2, "!=", 0x60, DIRECTORS)
    program.load(2, R8, FRAME_POINTER, _PACKET + layout.length).swap(R8, 16)
    program.compute(R8, "+", layout.uncounted).set(R2, layout.seen)
    program.jump_if_register(R2, ">", R8, DIRECTORS)
    program.compute(R9, "-", ethernet.HEADER_SIZE).jump_if_register(R8, ">", R9, DIRECTORS)
    program.load(1, R4, FRAME_POINTER, _PACKET + layout.protocol)
    program.jump_if(R4, "==", ipv4.TCP, layout.name("key"))
    program.jump_if(R4, "!=", ipv4.UDP, DIRECTORS).label(layout.name("key"))
    for end in ("source", "destination"):
        _put_address(program, layout, end)
    program.load(4, R2, FRAME_POINTER, _PACKET + layout.header).swap(R2, 32)
    program.compute(R2, "<<", 16).compute(R4, "<<", 8).compute_with(R2, "|", R4)
    program.compute(R2, "|", layout.family).store(8, FRAME_POINTER, _KEY["ends"], R2)
    program.copy(R9, R8).set(R2, layout.family).store(8, FRAME_POINTER, _FAMILY, R2).jump("find")


def _check_ipv4(program: Program) -> None:
    """Take what has options or is a fragment, and what has a wrong checksum, for the director."""
    leave_odd(program, FRAME_POINTER, _PACKET, DIRECTORS)
    program.set(R3, 0)
    for at in range(0, ipv4.HEADER_SIZE, 4):
        program.load(4, R2, FRAME_POINTER, _PACKET + at).compute_with(R3, "+", R2)
    fold_wide(program, R3, R2)
    program.jump_if(R3, "!=", 0xFFFF, DIRECTORS)


def _put_address(program: Program, layout: Layout, end: str) -> None:
    """Put an address into the key, in the halves that the director knows it by."""
    at = _PACKET + (layout.source if end == "source" else layout.destination)
    if layout.is_ipv4:
        program.store_number(8, FRAME_POINTER, _KEY[f"{end}_high"], 0)
        program.load(4, R2, FRAME_POINTER, at).swap(R2, 32)
        program.store(8, FRAME_POINTER, _KEY[f"{end}_low"], R2)
        return
    for half, begin in (("high", at), ("low", at + 8)):  # the stack is aligned, they need not be
        program.load(4, R3, FRAME_POINTER, begin).swap(R3, 32).compute(R3, "<<", 32)
        program.load(4, R2, FRAME_POINTER, begin + 4).swap(R2, 32).compute_with(R2, "|", R3)
        program.store(8, FRAME_POINTER, _KEY[f"{end}_{half}"], R2)


def _find(program: Program, maps: Maps) -> None:
    """Find the flow of the key on the stack: R8 where it is, R5 its place in its bucket.

    An empty bucket is told by its count: looking at its places would wait for memory four times.
    """
    program.label("find").set(R1, 0)
    for word, seed in zip(WORDS, maps.seeds, strict=True):
        program.load(8, R2, FRAME_POINTER, _KEY[word]).set_wide(R3, seed)
        program.compute_with(R2, "*", R3).compute_with(R1, "+", R2)
    program.compute(R1, ">>", HASH_BITS - FLOW_BITS).store(4, FRAME_POINTER, _BUCKET, R1)
    program.store_number(4, FRAME_POINTER, _NUMBER, 0)
    program.look_up(maps.counts, _NUMBER).jump_if(R0, "==", 0, DIRECTORS)
    program.load(4, R2, FRAME_POINTER, _BUCKET).compute(R2, "&", (1 << FLOW_BITS) - 1)
    program.compute_with(R0, "+", R2).load(1, R2, R0).jump_if(R2, "==", 0, DIRECTORS)
    program.look_up(maps.flows, _BUCKET).jump_if(R0, "==", 0, DIRECTORS)
    for place in range(FLOWS_PER_BUCKET):
        missed, begin = f"not in place {place}", place * FLOW.itemsize
        program.load(4, R2, R0, begin + FLOW_PLACES["state"]).jump_if(R2, "==", VACANT, missed)
        for word in reversed(WORDS):
            program.load(8, R2, R0, begin + FLOW_PLACES[word]).load(
                8, R3, FRAME_POINTER, _KEY[word]
            )
            program.jump_if_register(R2, "!=", R3, missed)
        program.copy(R8, R0).compute(R8, "+", begin).set(R5, place).jump("found").label(missed)
    program.jump(DIRECTORS)


def _check_open(program: Program, flows: int) -> None:
    """See whether the flow is open, and of this generation."""
    program.label("found").load(4, R2, R8, FLOW_PLACES["state"])
    program.jump_if(R2, "==", OPEN_FLOW, "open").jump_if(R2, "!=", WARMING, DIRECTORS)
    program.set(R2, 1).add_to(4, R8, FLOW_PLACES["passed"], R2).jump(DIRECTORS)
    program.label("open").store(8, FRAME_POINTER, _PLACE, R5)
    program.store_number(4, FRAME_POINTER, _NUMBER, GENERATION_ROW // FLOWS_PER_BUCKET)
    program.look_up(flows, _NUMBER).jump_if(R0, "==", 0, DIRECTORS)
    program.load(4, R2, R0, FLOW_PLACES["generation"]).load(4, R3, R8, FLOW_PLACES["generation"])
    program.jump_if_register(R2, "!=", R3, DIRECTORS).load(8, R5, FRAME_POINTER, _PLACE)
    program.load(8, R2, FRAME_POINTER, _FAMILY)
    for layout in LAYOUTS:
        program.jump_if(R2, "==", layout.family, layout.name("check"))
    program.jump(DIRECTORS)


def _check_plain(program: Program, layout: Layout, by_xdp: bool) -> None:
    """Take for the director what a program may not send: by flags, checksum, size and TTL."""
    at = _PACKET + layout.header
    program.label(layout.name("check"))
    if by_xdp:
        program.call(bpf.PROCESSOR).load(4, R2, R8, FLOW_PLACES["redirects"])
        program.jump_if_register(R0, ">=", R2, TO_TCX)
        _check_finished(program, layout, TO_TCX)
        program.set(R1, 0)
    else:
        program.load(4, R1, R6, bpf.TC_CONTEXT_SEGMENT_SIZE)
    program.load(1, R2, FRAME_POINTER, _PACKET + layout.protocol)
    program.jump_if(R2, "==", ipv4.UDP, layout.name("UDP"))
    program.load(1, R2, FRAME_POINTER, at + transport.FLAGS).compute(R2, "&", _PLAIN)
    program.jump_if(R2, "!=", transport.ACK, "shut")
    program.load(1, R2, FRAME_POINTER, at + transport.DATA_OFFSET).compute(R2, ">>", 4)
    program.compute(R2, "*", 4).jump(layout.name("fits"))
    program.label(layout.name("UDP")).load(2, R2, FRAME_POINTER, at + transport.UDP_CHECKSUM)
    program.jump_if(R2, "!=", 0, layout.name("has a checksum"))
    program.load(4, R2, R8, FLOW_PLACES["rewrites"]).jump_if(R2, "!=", 0, DIRECTORS)
    program.label(layout.name("has a checksum")).set(R2, transport.UDP_HEADER_SIZE)
    # A frame that stands for many is as large as the largest of them, with its headers.
    program.label(layout.name("fits")).compute(R2, "+", layout.header).compute_with(R2, "+", R1)
    program.jump_if(R1, "!=", 0, layout.name("segments")).copy(R2, R9)
    program.label(layout.name("segments")).load(4, R3, R8, FLOW_PLACES["mtu"])
    program.jump_if_register(R2, ">", R3, DIRECTORS)
    program.load(1, R2, FRAME_POINTER, _PACKET + layout.hops).jump_if(R2, "<=", 1, DIRECTORS)
    program.load(4, R3, R8, FLOW_PLACES["outer"])
    if not by_xdp:
        program.jump_if(R3, "==", 0, layout.name("send")).jump_if(R1, "!=", 0, "shut")
        _check_finished(program, layout, DIRECTORS)
    if layout.is_ipv4:  # without DF it needs an identification, which the director counts
        program.jump_if(R3, "!=", layout.family, layout.name("send"))
        program.load(2, R2, FRAME_POINTER, _PACKET + ipv4.FRAGMENT)
        program.jump_if(R2, "&", as_read(ipv4.DONT_FRAGMENT), layout.name("send")).jump("shut")
    else:
        program.jump(layout.name("send"))


def _check_finished(program: Program, layout: Layout, otherwise: str) -> None:
    """Jump if the checksum is the sum of the pseudo-header alone: its sender left it unfinished.

    One in 65,536 right ones looks the same: no flow may be shut for it.  R3 is left alone, and R1
    is not.
    """
    at = _PACKET + layout.header
    program.copy(R1, R9).compute(R1, "-", layout.header).swap(R1, 16)
    program.load(1, R2, FRAME_POINTER, _PACKET + layout.protocol).copy(R4, R2)
    program.compute(R2, "<<", 8).compute_with(R1, "+", R2)
    for begin in range(layout.source, layout.source + 2 * layout.address_size, 4):
        program.load(4, R2, FRAME_POINTER, _PACKET + begin).compute_with(R1, "+", R2)
    fold_wide(program, R1, R2)
    program.load(2, R2, FRAME_POINTER, at + transport.TCP_CHECKSUM)
    program.jump_if(R4, "==", ipv4.TCP, layout.name("compared"))
    program.load(2, R2, FRAME_POINTER, at + transport.UDP_CHECKSUM)
    program.label(layout.name("compared")).jump_if_register(R1, "==", R2, otherwise)
