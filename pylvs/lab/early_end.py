"""The lab's early end of tunnels: a BPF program that feeds the decapsulator's TUN device.

It takes what is whole and plain of what comes to addresses that the host has at the start.
Fragments, options and frames that stand for many come by the raw socket as ever.  It is some times
as fast, and the host's packet filter does not see the outer packets: so it is for labs.
"""

import contextlib
import os
import socket
import sys
from typing import Final

import pyroute2

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import FRAME_POINTER, R0, R1, R2, R3, R4, R6, Program
from pylvs.drivers.programs.claimed import ADDRESS_SIZE, packed, put_address
from pylvs.drivers.programs.headers import LAYOUTS, Layout, as_read, leave_odd
from pylvs.wire import ethernet, ipv4, ipv6
from pylvs.wire.text import address_of

_PROTOCOLS: Final = {4: ipv4.IPIP, 6: ipv6.IPV6}  # by the version of what is inside
_ETHERNET: Final = 1  # ARPHRD_ETHER
_ADDRESSES: Final = 1 << 12
_EVERYWHERE: Final = 0  # RT_SCOPE_UNIVERSE
_OUTER, _KEY = -40, -56  # on the program's stack: the outer header, and its destination


def assemble(device: int, version: int, addresses: int) -> bytes:
    """Return a tcx program that takes packets of an IP version out of others, for a TUN device.

    ``addresses`` is a map of those that the others are taken at.
    """
    program = Program().copy(R6, R1)
    program.load(4, R2, R6, bpf.TC_CONTEXT_KIND).jump_if(R2, "!=", bpf.KIND_HOST, "left alone")
    program.load(4, R2, R6, bpf.TC_CONTEXT_TAGGED).jump_if(R2, "!=", 0, "left alone")
    program.load(4, R2, R6, bpf.TC_CONTEXT_SEGMENT_SIZE).jump_if(R2, "!=", 0, "left alone")
    program.load(4, R2, R6, bpf.TC_CONTEXT_PROTOCOL)
    for outer in LAYOUTS:
        program.jump_if(R2, "==", as_read(outer.ethertype), outer.name("read"))
    program.label("left alone").set(R0, bpf.TC_NEXT).exit()
    for outer in LAYOUTS:
        _take_out(program, outer, version, addresses)
        program.set(R1, device).set(R2, bpf.INWARDS).call(bpf.REDIRECT).exit()
    return program.assemble()


def _take_out(program: Program, outer: Layout, version: int, addresses: int) -> None:
    lost = outer.name("left alone")
    program.label(outer.name("read")).copy(R1, R6).set(R2, ethernet.HEADER_SIZE)
    program.copy(R3, FRAME_POINTER).compute(R3, "+", _OUTER).set(R4, outer.header)
    program.call(bpf.LOAD_BYTES).jump_if(R0, "!=", 0, lost)
    program.load(1, R2, FRAME_POINTER, _OUTER + outer.protocol)
    program.jump_if(R2, "!=", _PROTOCOLS[version], lost)
    if outer.is_ipv4:
        leave_odd(program, FRAME_POINTER, _OUTER, lost)
    put_address(program, outer, FRAME_POINTER, _OUTER + outer.destination, _KEY)
    program.look_up(addresses, _KEY).jump_if(R0, "==", 0, lost)
    program.copy(R1, R6).set(R2, -outer.header).set(R3, bpf.BEHIND_ETHERNET)
    program.set(R4, 0 if outer.family == version else bpf.FOR_INNER[version])
    program.call(bpf.RESIZE).jump_if(R0, "==", 0, outer.name("taken out"))
    program.label(lost).set(R0, bpf.TC_NEXT).exit().label(outer.name("taken out"))


def attach(device: str, version: int) -> list[int]:
    """Have all Ethernet interfaces run the program; return what has to stay open, if anything."""
    attached: list[int] = []
    with contextlib.ExitStack() as stack:
        try:
            addresses = bpf.Map(bpf.HASH, ADDRESS_SIZE, 1, _ADDRESSES)
            stack.callback(addresses.close)
            with pyroute2.IPRoute() as netlink:
                for one in netlink.get_addr(scope=_EVERYWHERE):
                    text = one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")
                    addresses[packed(address_of(text))] = b"\1"
                links = [one for one in netlink.get_links() if one["ifi_type"] == _ETHERNET]
            assembled = assemble(socket.if_nametoindex(device), version, addresses.descriptor)
            program = bpf.load(assembled, bpf.TYPE_TC)
            stack.callback(os.close, program)
            for one in links:
                attached.append(bpf.attach(program, one["index"], bpf.TYPE_TC))
        except OSError as error:
            print(f"{device}: raw sockets alone ({error.strerror})", file=sys.stderr, flush=True)
    return attached
