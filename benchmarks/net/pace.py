"""The program that makes the generator's frames, at a pace, inside the kernel.

    time, next frame's time -> too early: nothing; else write the frame, vary it, send it

A call that has the kernel run it takes 20 ms however few frames it is for, so the pace cannot be
kept from outside.
"""

import struct
from typing import Final, NamedTuple

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import R0, R1, R2, R3, R6, R7, R8, R9, Program

STATE: Final = struct.Struct("<QQQ")
"""The map's only value: when the next frame is due, nanoseconds between two, frames sent."""
_LATE_NS: Final = 200_000
"""A pace that was interrupted goes on from here; what was missed is not made up for."""
_KEY_AT: Final = -4


class Spread(NamedTuple):
    """A place in a frame that gets 16 random bits, or less, and where they are taken off again.

    What stands there is all ones less the bits, so that checksums over both stay right.
    """

    place: int
    taken_off: tuple[int, ...]
    mask: int = 0xFFFF


def assemble(frame: bytes, spreads: tuple[Spread, ...], state: int) -> bytes:
    """Return a program that writes ``frame``, whatever was made of it before, and sends it.

    ``state`` is a map with one ``STATE``.  Of spreads there may be two: there are 32 random bits.
    """
    assert len(frame) % 2 == 0
    program = Program()
    program.load(4, R6, R1, bpf.CONTEXT_BEGIN).load(4, R3, R1, bpf.CONTEXT_END)
    program.copy(R2, R6).compute(R2, "+", len(frame)).jump_if_register(R2, ">", R3, "nothing")
    program.store_number(4, bpf.FRAME_POINTER, _KEY_AT, 0)
    program.look_up(state, _KEY_AT).jump_if(R0, "==", 0, "nothing").copy(R7, R0)
    program.load(8, R9, R7, 8).jump_if(R9, "==", 0, "write")
    program.call(bpf.TIME_NS).load(8, R8, R7, 0)
    program.jump_if_register(R8, ">", R0, "nothing")
    program.copy(R3, R8).compute(R3, "+", _LATE_NS)
    program.jump_if_register(R3, ">", R0, "in time").copy(R8, R0)
    program.label("in time").compute_with(R8, "+", R9).store(8, R7, 0, R8)
    program.label("write").load(8, R3, R7, 16).compute(R3, "+", 1).store(8, R7, 16, R3)
    for at in range(0, len(frame) & ~3, 4):
        program.store_number(4, R6, at, int.from_bytes(frame[at : at + 4], "little"))
    if len(frame) % 4:
        at = len(frame) & ~3
        program.store_number(2, R6, at, int.from_bytes(frame[at:], "little"))
    if spreads:
        program.call(bpf.RANDOM_U32)
    for place, taken_off, mask in spreads:
        program.copy(R2, R0).compute(R2, "&", mask).swap(R2, 16)
        program.store(2, R6, place, R2).compute(R2, "^", 0xFFFF)
        for at in taken_off:
            program.store(2, R6, at, R2)
        program.compute(R0, ">>", 16)
    program.set(R0, bpf.XDP_TX).exit()
    return program.label("nothing").set(R0, bpf.XDP_DROP).exit().assemble()
