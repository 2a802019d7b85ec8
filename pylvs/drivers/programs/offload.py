"""The kernel forwards the flows in the director's table: no ring, no copy, nobody woken.

    packet sockets ask first, what to take (decide)      then tcx, what becomes of it (act)
    ------------------------------------------------     ----------------------------------------
    plain? in the table, open, of this age?    -- row -> addresses, ports, checksums, MACs, TTL;
    no: a copy for the ring, as ever                     counted; on to the other interface

Packet sockets come before tcx, and both have to be of one mind about a frame, or it leaves twice or
never.  So it is the sockets' program that decides; it leaves the row for tcx in a cell of the
processor's own, on which a frame is done with before the next one's turn comes.

XDP comes before both, and sends by itself what it can (redirect); the rest of a flow it lets pass.

The table is a map of the kernel's, mapped over the director's own (``tables.flows``): neither side
asks the other anything.
"""

import os
import pathlib
import socket
from typing import Any, Final

from pylvs.drivers import linux
from pylvs.drivers.programs import act, bpf, decide, redirect
from pylvs.drivers.programs.bpf import Program
from pylvs.tables.connections.flows import GENERATION_MASK, GENERATION_ROW
from pylvs.tables.layouts.shared import FLOW
from pylvs.tables.sizes import FLOW_BITS, FLOW_ROWS, FLOWS_PER_BUCKET

_REAL_TIME: Final = pathlib.Path("/sys/kernel/realtime")
_CLOCKS: Final = pathlib.Path("/proc/self/timens_offsets")


def hindrance() -> str:
    """Return what keeps a kernel that has bpf from forwarding by itself, or nothing."""
    if _REAL_TIME.exists() and _REAL_TIME.read_text(encoding="ascii").strip() == "1":
        return "on a real-time kernel frames may interrupt each other between two programs"
    lines = _CLOCKS.read_text(encoding="ascii").splitlines() if _CLOCKS.exists() else []
    for name, *offset in map(str.split, lines):
        if name == "monotonic" and any(map(int, offset)):
            return "the clock of this time namespace is not the kernel's"
    return ""


class Offload:
    """The maps that programs and director share; raises OSError where there is no bpf for it."""

    def __init__(self) -> None:
        size, count = FLOWS_PER_BUCKET * FLOW.itemsize, FLOW_ROWS // FLOWS_PER_BUCKET
        self.flows = bpf.Map(bpf.ARRAY, 4, size, count, shared=True)
        self.counts = bpf.Map(bpf.ARRAY, 4, 1 << FLOW_BITS, 1, shared=True)
        self.cell = bpf.Map(bpf.ARRAY_A_CPU, 4, 4, 1)
        self.seeds: tuple[int, ...] = ()
        self._tables: Any = None

    def share(self, tables: Any) -> None:
        """Have the kernel's maps take the place of ``tables.flows`` and counts, empty yet."""
        director = tables.director[0]
        self.seeds = tuple(int(director[f"seed_{number}"]) for number in range(len(decide.WORDS)))
        linux.map_over(tables.flows, self.flows.descriptor)
        linux.map_over(tables.flow_counts, self.counts.descriptor)
        director["offloads"] = 1
        self._tables = tables

    def stop(self) -> None:
        """Have everything come up again, from now on."""
        if self._tables is not None:
            self._tables.director[0]["offloads"] = 0
        self.distrust()

    def distrust(self) -> None:
        """Have what was offered up to now come up."""
        if self._tables is None:
            return
        row = self._tables.flows[GENERATION_ROW]
        row["generation"] = (int(row["generation"]) + 1) & GENERATION_MASK

    def begin(self, program: Program) -> None:
        """Begin a tcx program with what forwards."""
        act.begin(program, self.flows.descriptor, self.cell.descriptor)

    def redirect(self, program: Program) -> None:
        """Have an XDP program forward likewise, as ``redirect.begin`` has it."""
        redirect.begin(program, self._maps())

    def _maps(self) -> decide.Maps:
        return decide.Maps(self.flows.descriptor, self.counts.descriptor, self.seeds)

    def decide(self, shortest: int, longest: int | None) -> bytes:
        """Return the program of a packet socket for frames of these lengths."""
        return decide.assemble(self._maps(), self.cell.descriptor, shortest, longest)

    def take(self, opened: socket.socket, shortest: int, longest: int | None) -> None:
        """Have a packet socket take what is no open flow's; raises OSError."""
        program = bpf.load(self.decide(shortest, longest), bpf.TYPE_SOCKET)
        try:
            opened.setsockopt(socket.SOL_SOCKET, linux.SO_ATTACH_BPF, program)
        finally:
            os.close(program)

    def close(self) -> None:
        self.flows.close()
        self.counts.close()
        self.cell.close()
