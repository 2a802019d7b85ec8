"""Drops small frames where they come in, for as long as it runs: the end of a flood.

    python -m benchmarks.net.sink INTERFACE SIZE       drops IP packets below SIZE, says ready

Of a real server nothing is measured, so nothing of its stack is to take time.
"""

import signal
import socket
import sys
from typing import Final

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import R0, R1, R2, R3, R4, Program

_ETHERNET: Final = 14


def main(interface: str, size: int) -> None:
    program = Program()
    program.load(4, R2, R1, bpf.TC_CONTEXT_BEGIN).load(4, R3, R1, bpf.TC_CONTEXT_END)
    program.copy(R4, R2).compute(R4, "+", _ETHERNET).jump_if_register(R4, ">", R3, "pass")
    program.load(1, R4, R2, 12).jump_if(R4, "!=", 0x08, "pass")  # IPv4 or ARP
    program.load(1, R4, R2, 13).jump_if(R4, "!=", 0x00, "pass")  # IPv4
    program.compute(R2, "+", _ETHERNET + size).jump_if_register(R2, "<=", R3, "pass")
    program.set(R0, bpf.TC_DROP).exit().label("pass").set(R0, bpf.TC_NEXT).exit()
    loaded = bpf.load(program.assemble(), bpf.TYPE_TC)
    bpf.attach(loaded, socket.if_nametoindex(interface), bpf.TYPE_TC, bpf.AHEAD)
    print("ready", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
