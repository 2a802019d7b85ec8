"""What begins an interface's tcx program: what sockets left to it leaves by the other interface.

row in the cell -> is it this frame's? -> count -> checksums -> TTL -> what else is new -> out
                                                                    -> outer packet     -> out
"""

from pylvs.drivers.programs import bpf, write
from pylvs.drivers.programs.bpf import FRAME_POINTER, R0, R1, R2, R3, R4, R5, R7, R8, R9, Program
from pylvs.drivers.programs.headers import LAYOUTS, Layout
from pylvs.tables.layouts.shared import FLOW, FLOW_PLACES
from pylvs.tables.sizes import FLOWS_PER_BUCKET
from pylvs.wire import ethernet, ipv4

_NUMBER = -4  # on the stack: of an element of a map
_IP = ethernet.HEADER_SIZE


def begin(program: Program, flows: int, cell: int) -> None:
    """Put it in front of a program whose context is in R9; ``flows`` and ``cell`` are maps."""
    program.store_number(4, FRAME_POINTER, _NUMBER, 0)
    program.look_up(cell, _NUMBER).jump_if(R0, "==", 0, "not of a flow")
    program.load(4, R7, R0, 0).jump_if(R7, "==", 0, "not of a flow").store_number(4, R0, 0, 0)
    program.compute(R7, "-", 1).copy(R2, R7).compute(R2, ">>", FLOWS_PER_BUCKET.bit_length() - 1)
    program.store(4, FRAME_POINTER, _NUMBER, R2)
    program.look_up(flows, _NUMBER).jump_if(R0, "==", 0, "not of a flow")
    program.compute(R7, "&", FLOWS_PER_BUCKET - 1).compute(R7, "*", FLOW.itemsize)
    program.copy(R8, R0).compute_with(R8, "+", R7)
    program.load(8, R2, R8, FLOW_PLACES["ends"]).compute(R2, "&", 0xFF)
    for layout in LAYOUTS:
        program.jump_if(R2, "==", layout.family, layout.name("act"))
    program.jump("not of a flow")
    for layout in LAYOUTS:
        _act(program, layout)
    program.label("lost")  # there was no room in front of it: for the next there is none either
    write.shut(program)
    program.set(R0, bpf.TC_DROP).exit().label("not of a flow")


def _act(program: Program, layout: Layout) -> None:
    program.label(layout.name("act"))
    _reach(program, layout.seen, layout.name("pull"))
    program.jump(layout.name("near")).label(layout.name("pull"))
    program.copy(R1, R9).set(R2, _IP + layout.seen).call(bpf.PULL_DATA)
    _reach(program, layout.seen, "not of a flow")
    program.label(layout.name("near"))
    _check_is_its(program, layout)
    program.load(2, R7, R2, _IP + layout.length).swap(R7, 16).compute(R7, "+", layout.uncounted)
    write.count(program)
    _trim(program, layout)
    # Else the kernel would dissect the packet to choose a queue: a tenth of its time.
    program.copy(R1, R9).load(4, R2, R8, FLOW_PLACES["hash"]).call(bpf.SET_HASH)
    program.load(4, R2, R8, FLOW_PLACES["rewrites"]).jump_if(R2, "==", 0, layout.name("write"))
    _mend_checksum(program, layout, "address", bpf.PSEUDO_HEADER)
    _mend_checksum(program, layout, "port", 0)
    program.label(layout.name("write"))
    _reach(program, layout.seen, "lost")
    write.take_hop(program, layout)
    write.leave(program, layout, _grow)


def _grow(program: Program, layout: Layout, outer: Layout) -> None:
    program.copy(R1, R9).set(R2, outer.header).set(R3, bpf.BEHIND_ETHERNET)
    program.set(R4, bpf.FOR_OUTER[outer.family]).call(bpf.RESIZE).jump_if(R0, "!=", 0, "lost")
    _reach(program, outer.header + layout.header, "lost")


def _reach(program: Program, size: int, otherwise: str) -> None:
    """Have R2 be where the frame begins, if ``size`` of its packet lie there in one piece."""
    write.reach(program, R9, bpf.TC_CONTEXT_BEGIN, bpf.TC_CONTEXT_END, size, otherwise)


def _check_is_its(program: Program, layout: Layout) -> None:
    """Make sure that the frame at R2 is the one whose row was left, whatever came in between."""
    for end, at in (("source", layout.source), ("destination", layout.destination)):
        if layout.is_ipv4:
            _compare(program, 4, _IP + at, f"{end}_low")
        else:
            _compare(program, 8, _IP + at, f"{end}_high")
            _compare(program, 8, _IP + at + 8, f"{end}_low")
    program.load(4, R4, R2, _IP + layout.header).swap(R4, 32)
    program.load(8, R5, R8, FLOW_PLACES["ends"]).compute(R5, ">>", 16)
    program.jump_if_register(R4, "!=", R5, "not of a flow")


def _compare(program: Program, size: int, at: int, word: str) -> None:
    program.load(size, R4, R2, at).swap(R4, 8 * size).load(8, R5, R8, FLOW_PLACES[word])
    program.jump_if_register(R4, "!=", R5, "not of a flow")


def _trim(program: Program, layout: Layout) -> None:
    """Cut off what the link has padded a packet with, whose size is in R7."""
    program.load(4, R1, R9, bpf.TC_CONTEXT_SEGMENT_SIZE)
    program.jump_if(R1, "!=", 0, layout.name("trimmed"))
    program.copy(R2, R7).compute(R2, "+", _IP).load(4, R1, R9, bpf.TC_CONTEXT_SIZE)
    program.jump_if_register(R1, "<=", R2, layout.name("trimmed"))
    program.copy(R1, R9).set(R3, 0).call(bpf.CHANGE_TAIL)
    program.label(layout.name("trimmed"))


def _mend_checksum(program: Program, layout: Layout, what: str, flags: int) -> None:
    """Mend the transport's checksum, finished or not, for new addresses or ports."""
    mended = layout.name(what)
    program.copy(R1, R9).load(4, R2, R8, FLOW_PLACES["checksum_at"]).set(R3, 0)
    program.load(4, R4, R8, FLOW_PLACES[f"{what}_difference"]).set(R5, flags)
    program.load(8, R0, R8, FLOW_PLACES["ends"]).compute(R0, ">>", 8).compute(R0, "&", 0xFF)
    program.jump_if(R0, "!=", ipv4.UDP, mended).set(R5, flags | bpf.ZERO_IS_NONE)
    program.label(mended).call(bpf.MEND_CHECKSUM)
