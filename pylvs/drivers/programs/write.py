"""What programs write into a frame that they forward, wherever it comes from.

R2  the frame's first byte, within reach        R7  the packet's size
R8  its flow                                    R4, R5 are used
"""

from collections.abc import Callable
from typing import Final

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import R0, R1, R2, R3, R4, R5, R7, R8, Program
from pylvs.drivers.programs.headers import PLAIN_IPV4, Layout, as_read, fold, fold_wide
from pylvs.tables.layouts.shared import FLOW_PLACES, OPEN_FLOW, SHUT
from pylvs.wire import ethernet, ip, ipv4, ipv6

_IP: Final = ethernet.HEADER_SIZE


def reach(program: Program, context: int, begin: int, end: int, size: int, otherwise: str) -> None:
    """Have R2 be where the frame begins, if ``size`` of its packet lie there in one piece.

    ``begin`` and ``end`` are places in what ``context`` points to.  R3 and R4 are lost.
    """
    program.load(4, R2, context, begin).load(4, R3, context, end)
    program.copy(R4, R2).compute(R4, "+", _IP + size).jump_if_register(R4, ">", R3, otherwise)


def leave(
    program: Program, layout: Layout, grow: Callable[[Program, Layout, Layout], None]
) -> None:
    """End with the frame leaving by its flow's interface, in a tunnel's packet if it is for one.

    ``grow`` makes room for another header in front, and has R2 be where the frame begins then.
    """
    program.load(4, R5, R8, FLOW_PLACES["outer"])
    for around in layout.outers:
        program.jump_if(R5, "==", around.family, layout.name(f"grow by {around.family}"))
    _ends(program, layout)
    _redirect(program)
    for around in layout.outers:
        program.label(layout.name(f"grow by {around.family}"))
        grow(program, layout, around)
        _outer(program, layout, around)
        _redirect(program)


def count(program: Program) -> None:
    """Count the packet, and note when it came; registers up to R5 are lost."""
    program.call(bpf.COARSE_TIME_NS).store(8, R8, FLOW_PLACES["used_ns"], R0)
    program.add_to(8, R8, FLOW_PLACES["octets"], R7)
    program.set(R1, 1).add_to(8, R8, FLOW_PLACES["packets"], R1)


def _redirect(program: Program) -> None:
    """Write the MAC addresses, and end with the frame leaving by its flow's interface."""
    for at in (0, 4, 8):
        program.load(4, R4, R8, FLOW_PLACES["link"] + at).store(4, R2, at, R4)
    program.load(4, R1, R8, FLOW_PLACES["interface"]).set(R2, 0).call(bpf.REDIRECT).exit()


def shut(program: Program) -> None:
    """Have what follows be the director's, unless the flow was taken back just now."""
    program.set(R0, OPEN_FLOW).set(R2, SHUT).exchange(4, R8, FLOW_PLACES["state"], R2)


def _ends(program: Program, layout: Layout) -> None:
    """Write addresses and ports."""
    _addresses(program, layout)
    program.load(4, R4, R8, FLOW_PLACES["ports"]).store(4, R2, _IP + layout.header, R4)


def _addresses(program: Program, layout: Layout) -> None:
    for at in range(0, 2 * layout.address_size, 4):
        program.load(4, R4, R8, FLOW_PLACES["addresses"] + at)
        program.store(4, R2, _IP + layout.source + at, R4)


def take_hop(program: Program, layout: Layout) -> None:
    """Take one from the TTL, and mend an IPv4 header's checksum: for that, and new addresses."""
    program.load(1, R4, R2, _IP + layout.hops).compute(R4, "-", 1)
    program.store(1, R2, _IP + layout.hops, R4)
    if layout.is_ipv4:
        _mend_header(program)


def _mend_header(program: Program) -> None:
    """By RFC 1141 for the TTL, by RFC 1624 for addresses."""
    program.load(2, R4, R2, _IP + ipv4.CHECKSUM).swap(R4, 16).compute(R4, "+", 0x100)
    program.copy(R5, R4).compute(R5, "+", 1).compute(R5, ">>", 16).compute_with(R4, "+", R5)
    program.compute(R4, "&", 0xFFFF)
    program.load(4, R5, R8, FLOW_PLACES["rewrites"]).jump_if(R5, "==", 0, "header is right")
    program.compute(R4, "^", 0xFFFF).load(4, R5, R8, FLOW_PLACES["header_difference"])
    program.compute_with(R4, "+", R5)
    fold(program, R4, R5)
    program.compute(R4, "^", 0xFFFF).label("header is right")
    program.swap(R4, 16).store(2, R2, _IP + ipv4.CHECKSUM, R4)


def _outer(program: Program, layout: Layout, around: Layout) -> None:
    """Write a tunnel's header around a packet of ``layout``, as ``forwarding.tunnel`` does."""
    inner = _IP + around.header
    program.store_number(2, R2, ethernet.TYPE, as_read(around.ethertype))
    if layout.is_ipv4:
        program.load(1, R5, R2, inner + ipv4.TOS)
    else:
        program.load(2, R5, R2, inner).swap(R5, 16).compute(R5, ">>", 4).compute(R5, "&", 0xFF)
    named = layout.name(f"congestion in {around.family}")
    program.copy(R4, R5).compute(R4, "&", ip.CONGESTION_EXPERIENCED)
    program.jump_if(R4, "!=", ip.CONGESTION_EXPERIENCED, named)
    program.compute(R5, "^", ip.CONGESTION_EXPERIENCED ^ ip.ECT_0).label(named)
    if around.is_ipv4:
        program.store_number(1, R2, _IP, PLAIN_IPV4).store(1, R2, _IP + ipv4.TOS, R5)
        program.copy(R4, R7).compute(R4, "+", around.header)
        program.store_number(2, R2, _IP + ipv4.IDENTIFICATION, 0)
        program.store_number(2, R2, _IP + ipv4.FRAGMENT, as_read(ipv4.DONT_FRAGMENT))
    else:
        program.compute(R5, "<<", 20).compute(R5, "|", 6 << 28).swap(R5, 32)
        program.store(4, R2, _IP, R5).copy(R4, R7)
    program.swap(R4, 16).store(2, R2, _IP + around.length, R4)
    carried = ipv4.IPIP if layout.is_ipv4 else ipv6.IPV6
    program.store_number(1, R2, _IP + around.protocol, carried)
    program.load(1, R4, R2, inner + layout.hops).store(1, R2, _IP + around.hops, R4)
    _addresses(program, around)
    if around.is_ipv4:
        _sum_header(program)


def _sum_header(program: Program) -> None:
    program.store_number(2, R2, _IP + ipv4.CHECKSUM, 0).set(R4, 0)
    for at in range(0, ipv4.HEADER_SIZE, 4):
        program.load(4, R5, R2, _IP + at).compute_with(R4, "+", R5)
    fold_wide(program, R4, R5)
    program.compute(R4, "^", 0xFFFF).store(2, R2, _IP + ipv4.CHECKSUM, R4)
