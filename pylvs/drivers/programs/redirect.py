"""What XDP forwards by itself: frames that no socket, no tcx and no stack ever sees.

    decide -> interface takes frames from here? checksum finished?    no: on to tcx, by the sockets
                                                                      yes: write, out

Others would lose what is sent so: a veth whose peer has no NAPI, a card without a queue for the
processor.  A frame of an open flow that is not sent goes on whatever it is, a FIN or RST too, so
that it stays behind those that went on before it.
"""

from typing import Final

from pylvs.drivers.programs import bpf, write
from pylvs.drivers.programs.bpf import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Program
from pylvs.drivers.programs.decide import DIRECTORS, TO_TCX, Maps, decide
from pylvs.drivers.programs.headers import LAYOUTS, Layout, fold
from pylvs.tables.layouts.shared import FLOW_PLACES
from pylvs.wire import ethernet, ipv4, transport

_IP: Final = ethernet.HEADER_SIZE


def begin(program: Program, maps: Maps) -> None:
    """Put it into a program whose context is in R9, and the frame's type, as it was read, in R7.

    What follows has R9 as it was, and nothing else.
    """
    program.copy(R6, R9)
    _measure(program)
    program.copy(R9, R0).copy(R2, R7)
    decide(program, maps, by_xdp=True)
    for layout in LAYOUTS:
        _send(program, layout)
    program.label(TO_TCX).set(R0, bpf.XDP_PASS).exit()
    program.label("lost")
    write.shut(program)
    program.set(R0, bpf.XDP_DROP).exit()
    program.label(DIRECTORS).copy(R9, R6)


def _measure(program: Program) -> None:
    """Have R0 be the frame's length; registers up to R5 are lost."""
    program.copy(R1, R6).call(bpf.XDP_LENGTH)


def _send(program: Program, layout: Layout) -> None:
    program.label(layout.name("send")).copy(R7, R9)
    _trim(program, layout)
    write.count(program)
    _reach(program, layout.seen)
    write.take_hop(program, layout)
    _mend_checksum(program, layout)
    write.leave(program, layout, _grow)


def _grow(program: Program, layout: Layout, outer: Layout) -> None:
    program.copy(R1, R6).set(R2, -outer.header).call(bpf.MOVE_BEGIN).jump_if(R0, "!=", 0, "lost")
    _reach(program, outer.header + layout.header)


def _reach(program: Program, size: int) -> None:
    """Have R2 be where the frame begins."""
    write.reach(program, R6, bpf.CONTEXT_BEGIN, bpf.CONTEXT_END, size, "lost")


def _trim(program: Program, layout: Layout) -> None:
    """Cut off what the link has padded a packet with, whose size is in R7."""
    _measure(program)
    program.copy(R2, R7).compute(R2, "+", _IP).compute_with(R2, "-", R0)
    program.jump_if(R2, "==", 0, layout.name("trimmed"))
    program.copy(R1, R6).call(bpf.MOVE_END).jump_if(R0, "!=", 0, DIRECTORS)
    program.label(layout.name("trimmed"))


def _mend_checksum(program: Program, layout: Layout) -> None:
    """Mend the transport's checksum for new addresses and ports (RFC 1624)."""
    done, of_udp = layout.name("mended"), layout.name("of UDP")
    program.load(4, R5, R8, FLOW_PLACES["rewrites"]).jump_if(R5, "==", 0, done)
    program.load(4, R3, R8, FLOW_PLACES["address_difference"])
    program.load(4, R5, R8, FLOW_PLACES["port_difference"]).compute_with(R3, "+", R5)
    program.load(1, R5, R2, _IP + layout.protocol).jump_if(R5, "==", ipv4.UDP, of_udp)
    at = _IP + layout.header
    _mend(program, at + transport.TCP_CHECKSUM)
    program.store(2, R2, at + transport.TCP_CHECKSUM, R4).jump(done).label(of_udp)
    _mend(program, at + transport.UDP_CHECKSUM)
    program.jump_if(R4, "!=", 0, layout.name("not none")).set(R4, 0xFFFF)
    program.label(layout.name("not none")).store(2, R2, at + transport.UDP_CHECKSUM, R4)
    program.label(done)


def _mend(program: Program, at: int) -> None:
    program.load(2, R4, R2, at).compute(R4, "^", 0xFFFF).compute_with(R4, "+", R3)
    fold(program, R4, R5)
    program.compute(R4, "^", 0xFFFF)
