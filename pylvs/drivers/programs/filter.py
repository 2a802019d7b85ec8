"""A BPF program for each interface that knows at once what is claimed for the director.

    to this station, TCP or UDP, whole, no options -> (side, protocol, address, port) claimed?
        yes, for XDP sockets:    to its worker's socket at its queue; nobody else sees it
        yes, for packet rings:   dropped once they have their copy, as the host's nftables would,
                                 in a tenth of the time
        no:                      on to the host, and its nftables

Everything else goes the usual way, where packet rings see it and nftables keep the host off it:
ICMP, ARP, fragments, other stations' frames, spans, firewall marks, FTP's data.  So what is not in
here costs time, never a packet, as long as no other tcx program comes first and takes frames away.
"""

import errno
import logging
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from pylvs.drivers.programs import bpf
from pylvs.drivers.programs.bpf import FRAME_POINTER, R0, R1, R2, R3, R5, R6, R7, R9, Program
from pylvs.drivers.programs.claimed import (
    FROM,
    KEY,
    PORT,
    PROTOCOL,
    PROTOCOLS,
    TO,
    TO_HOST,
    ask,
    key_of,
    packed,
    put_address,
)
from pylvs.drivers.programs.fanout import Fanout
from pylvs.drivers.programs.headers import LAYOUTS, Layout, as_read, leave_odd
from pylvs.drivers.programs.offload import Offload, hindrance
from pylvs.drivers.xdp import MTU_MAX
from pylvs.errors import HostError
from pylvs.wire import ethernet, ipv4, ipv6, transport
from pylvs.wire.text import address_of

log = logging.getLogger("pylvs")

_CAPACITY: Final = 1 << 20
_QUEUES_LIMIT: Final = 1_024
_U32: Final = struct.Struct("<I")
_NO_TCX: Final = "its programs cannot be attached; tcx is there from Linux 6.6 on"
_Entry = tuple[bpf.Map, bytes]

_KEY_AT: Final = -24  # on the program's stack


def assemble(
    mac: int,
    claimed: int,
    sockets: int | None,
    offload: Offload | None = None,
    fanout: Fanout | None = None,
    workers: int = 1,
) -> bytes:
    """Return an interface's program; ``claimed`` and ``sockets`` are maps.

    Without sockets it is for what comes after the packet rings.  Either may forward by itself.
    ``sockets`` has one for each of several workers in a row, which ``fanout`` chooses from; without
    it a queue's frames are one worker's.
    """
    program = Program().copy(R9, R1)
    if sockets is None:
        if offload is not None:
            offload.begin(program)
        program.load(4, R2, R9, bpf.TC_CONTEXT_TAGGED).jump_if(R2, "!=", 0, "pass")
        program.load(4, R6, R9, bpf.TC_CONTEXT_BEGIN).load(4, R3, R9, bpf.TC_CONTEXT_END)
    else:
        program.load(4, R6, R1, bpf.CONTEXT_BEGIN).load(4, R3, R1, bpf.CONTEXT_END)
        program.copy(R2, R6).compute(R2, "+", ethernet.HEADER_SIZE + MTU_MAX).jump_if_register(
            R3, ">", R2, "pass"
        )
    _need(program, ipv4.HEADER_SIZE)
    for at in (0, 2, 4):
        part = (mac >> 32 - 8 * at) & 0xFFFF
        program.load(2, R2, R6, at).jump_if(R2, "!=", as_read(part), "pass")
    program.load(2, R2, R6, ethernet.TYPE)
    if sockets is not None and offload is not None:
        program.copy(R7, R2)
        offload.redirect(program)
        program.load(4, R6, R9, bpf.CONTEXT_BEGIN).load(4, R3, R9, bpf.CONTEXT_END)
        _need(program, ipv4.HEADER_SIZE)
        program.load(2, R2, R6, ethernet.TYPE)
    program.jump_if(R2, "==", as_read(ethernet.IPV4), "ipv4")
    program.jump_if(R2, "!=", as_read(ethernet.IPV6), "pass")
    _need(program, ipv6.HEADER_SIZE)
    chooses = sockets is not None and fanout is not None
    _look_up(program, claimed, 6, chooses)
    program.label("ipv4")
    leave_odd(program, R6, ethernet.HEADER_SIZE, "pass")
    _look_up(program, claimed, 4, chooses)
    if sockets is None:
        program.label("take").set(R0, bpf.TC_DROP).exit()
        return program.label("pass").set(R0, bpf.TC_NEXT).exit().assemble()
    if fanout is None:
        program.label("take").load(4, R5, R9, bpf.CONTEXT_QUEUE)
    else:
        _hash_client(program, fanout)
    program.compute(R5, "%", workers).load(4, R2, R9, bpf.CONTEXT_QUEUE)
    program.compute(R2, "*", workers).compute_with(R2, "+", R5)
    program.load_map(R1, sockets).set(R3, bpf.XDP_PASS).call(bpf.REDIRECT_MAP).exit()
    return program.label("pass").set(R0, bpf.XDP_PASS).exit().assemble()


def _need(program: Program, header: int) -> None:
    """Let what is too short for an IP header and ports pass."""
    size = ethernet.HEADER_SIZE + header + transport.PORTS_SIZE
    program.copy(R2, R6).compute(R2, "+", size).jump_if_register(R2, ">", R3, "pass")


def _look_up(program: Program, claimed: int, family: int, chooses: bool) -> None:
    """Jump to ``take`` if either end of a packet is claimed, else to ``pass``.

    ``chooses``: to ``taken to`` or ``taken from``, of this version, by which end it is.
    """
    layout = next(one for one in LAYOUTS if one.family == family)
    ready = f"ports of IPv{family}"
    program.load(1, R2, R6, ethernet.HEADER_SIZE + layout.protocol).jump_if(
        R2, "==", PROTOCOLS["tcp"], ready
    )
    program.jump_if(R2, "!=", PROTOCOLS["udp"], "pass").label(ready)
    program.store(1, FRAME_POINTER, _KEY_AT + PROTOCOL, R2).copy(R7, R2)
    for side, address, port in (
        (TO, layout.destination, transport.DESTINATION_PORT),
        (FROM, layout.source, transport.SOURCE_PORT),
    ):
        then = layout.name("taken to" if side == TO else "taken from") if chooses else "take"
        put_address(program, layout, R6, ethernet.HEADER_SIZE + address, _KEY_AT)
        program.load(2, R2, R6, ethernet.HEADER_SIZE + layout.header + port)
        program.store(2, FRAME_POINTER, _KEY_AT + PORT, R2)
        ask(program, claimed, _KEY_AT, side, then)
        program.store_number(2, FRAME_POINTER, _KEY_AT + PORT, 0)
        ask(program, claimed, _KEY_AT, side + 1, then)
        if side == TO:
            program.store_number(1, FRAME_POINTER, _KEY_AT + PROTOCOL, 0)
            ask(program, claimed, _KEY_AT, TO_HOST, "pass")
            program.store(1, FRAME_POINTER, _KEY_AT + PROTOCOL, R7)
    program.jump("pass")


def _hash_client(program: Program, fanout: Fanout) -> None:
    """Have R5 be the hash of the client's end of a packet that was taken."""
    for layout in LAYOUTS:
        program.label(layout.name("taken to"))
        program.look_up(fanout.pool.descriptor, _KEY_AT)
        program.jump_if(R0, "!=", 0, layout.name("taken from"))
        _put_end(program, layout, layout.source, transport.SOURCE_PORT)
        program.label(layout.name("taken from"))
        _put_end(program, layout, layout.destination, transport.DESTINATION_PORT)
    program.label("hash").copy(R1, FRAME_POINTER).compute(R1, "+", _KEY_AT)
    fanout.hash_end(program)


def _put_end(program: Program, layout: Layout, address: int, port: int) -> None:
    put_address(program, layout, R6, ethernet.HEADER_SIZE + address, _KEY_AT)
    program.load(2, R2, R6, ethernet.HEADER_SIZE + layout.header + port).jump("hash")


def _lets_sockets_share() -> bool:
    """Whether frames by generic XDP may go to several sockets of a queue.

    Before Linux 6.15 two processors that receive from it would take the same chunk.
    """
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and tuple(map(int, numbers.groups())) >= (6, 15)


class _Attached:
    """One interface's programs; of XDP natively if its driver can, with its queues' sockets."""

    def __init__(
        self,
        name: str,
        mac: int,
        claimed: bpf.Map,
        offload: Offload | None,
        xdp: bool,
        fanout: Fanout | None,
        workers: int,
    ) -> None:
        self.station = socket.if_nametoindex(name), mac
        self.sockets = bpf.Map(bpf.SOCKETS, 4, 4, _QUEUES_LIMIT * workers) if xdp else None
        self._links: list[int] = []
        try:
            if self.sockets is None or offload is not None:
                # Nobody may take a frame away that packet sockets count on this program for.
                how = bpf.AHEAD if offload is not None else 0
                program = assemble(mac, claimed.descriptor, None, offload)
                self._attach(program, bpf.TYPE_TC, how)
            if self.sockets is not None:
                maps = claimed.descriptor, self.sockets.descriptor
                assembled = partial(assemble, mac, *maps, offload, workers=workers)
                self._attach_xdp(name, assembled, fanout)
        except BaseException:
            self.close()
            raise

    def _attach(self, program: bytes, kind: int, how: int) -> None:
        loaded = bpf.load(program, kind)
        try:
            self._links.append(bpf.attach(loaded, self.station[0], kind, how))
        finally:
            os.close(loaded)

    def _attach_xdp(
        self, name: str, assembled: Callable[..., bytes], fanout: Fanout | None
    ) -> None:
        try:
            self._attach(assembled(fanout=fanout), bpf.TYPE_XDP, bpf.ATTACH_NATIVE)
            log.info("%s: XDP, native", name)
        except OSError as error:
            if not _lets_sockets_share():
                fanout = None
            self._attach(assembled(fanout=fanout), bpf.TYPE_XDP, bpf.ATTACH_GENERIC)
            log.info("%s: XDP, generic: natively %s", name, error.strerror)

    def close(self) -> None:
        for link in self._links:
            os.close(link)
        if self.sockets:
            self.sockets.close()


class Filter:
    """The interfaces' programs and the keys that they all look for; raises OSError without bpf.

    ``xdp``: they feed XDP sockets.  ``offloads``: they forward what the director lets them, once
    ``offload`` has its tables.  Several ``workers`` share frames by ``fanout``.  What is attached
    goes with the process, however it ends.
    """

    def __init__(
        self, xdp: bool, offloads: bool = False, must_offload: bool = False, workers: int = 1
    ) -> None:
        self.xdp = xdp
        self._must_offload = must_offload
        self.offload = Offload() if offloads else None
        self._map = bpf.Map(bpf.HASH, KEY.size, 1, _CAPACITY)
        self.fanout = Fanout(self._map.descriptor, workers) if workers > 1 else None
        self._workers = workers
        self._held: set[_Entry] = set()
        self._is_full = False
        self._is_given_up = False
        self._attached: dict[str, _Attached] = {}
        if why := hindrance():
            self.give_up_offload(why)

    def attach(self, name: str, mac: int) -> None:
        """Have an interface run its program, unless it does; raises OSError."""
        if self._is_given_up:
            return
        attached = self._attached.get(name)
        if attached is not None:
            if attached.station == (socket.if_nametoindex(name), mac):
                return
            if self.xdp:
                if self.offload is not None:
                    self.offload.distrust()  # nobody is there to forward what sockets leave
                attached.close()  # there can be one only
                attached = None
                del self._attached[name]
        rest = self.xdp, self.fanout, self._workers
        try:
            self._attached[name] = _Attached(name, mac, self._map, self.offload, *rest)
        except OSError as error:
            if not self.xdp or self.offload is None:
                raise
            self._attached[name] = _Attached(name, mac, self._map, None, *rest)
            log.debug("%s: %s", name, error)
            self.give_up_offload(_NO_TCX)
        if attached is not None:
            attached.close()

    def share(self, longest: Iterable[int]) -> None:
        """Load what shares frames among workers, while that is allowed.

        ``longest`` are the bytes that the interfaces' small rings take.  Refused, it is the
        kernel's own hash that does.
        """
        if self.fanout is None:
            return
        try:
            for size in longest:
                self.fanout.program(size)
        except OSError as error:
            log.info("no BPF program for workers (%s): the kernel's hash does", error.strerror)
            self.fanout.close()
            self.fanout = None

    def feed(self, name: str, queue: int, worker: int, descriptor: int) -> None:
        """Have a worker's share of what is claimed of a queue go to a socket; raises OSError."""
        sockets = self._attached[name].sockets
        assert sockets is not None
        sockets[_U32.pack(queue * self._workers + worker)] = _U32.pack(descriptor)

    def replace(self, elements: Iterable[tuple[str, str]], pool: Iterable[int] = ()) -> None:
        """Look for these claims and no others; ``pool`` is what full NAT sends from."""
        entries = {entry for one in elements for entry in self._entries(*one)}
        if self.fanout is not None:
            entries |= {(self.fanout.pool, packed(address)) for address in pool}
        self._change(entries - self._held, self._held - entries)

    def update(self, added: Iterable[tuple[str, str]], removed: Iterable[tuple[str, str]]) -> None:
        self._change(
            *([entry for one in each for entry in self._entries(*one)] for each in (added, removed))
        )

    def _entries(self, name: str, element: str) -> Iterator[_Entry]:
        """Yield where programs are told of a claim."""
        key = key_of(name, element)
        if key is not None:
            yield self._map, key
        if self.fanout is not None and name.removesuffix("6") == "senders":
            yield self.fanout.servers, packed(address_of(element))

    def _change(self, added: Iterable[_Entry], removed: Iterable[_Entry]) -> None:
        for entry in removed:
            self._held.discard(entry)
            known, key = entry
            try:
                del known[key]
            except KeyError:
                pass  # there was no room for it
            except OSError as error:
                self._give_up(error)
                return
        for entry in added:
            self._held.add(entry)
            known, key = entry
            try:
                known[key] = b"\1"
            except OSError as error:
                if error.errno not in (errno.E2BIG, errno.ENOMEM):
                    self._give_up(error)
                    return
                if not self._is_full:
                    log.warning("the table of the BPF programs is full; the rest takes longer")
                self._is_full = True

    def _give_up(self, error: OSError) -> None:
        """Go on without: what programs would look for is not to be changed any more."""
        if self.xdp:
            raise HostError(f"bpf refuses what --driver xdp needs: {error.strerror}") from None
        log.warning("bpf refuses changes (%s): nftables does its work", error.strerror)
        self._must_offload = False  # it was had at the start; to go on is better than to insist
        self.give_up()

    def give_up(self) -> None:
        """Leave it all to nftables from now on; raises HostError if that must not be."""
        self._is_given_up = True
        self.give_up_offload(_NO_TCX)
        self._detach()

    def give_up_offload(self, why: object) -> None:
        """Have the director forward everything from now on; raises HostError likewise."""
        if self.offload is None:
            return
        if self._must_offload:
            raise HostError(f"--offload on is not to be had: {why}")
        log.info("the kernel forwards nothing by itself: %s", why)
        self.offload.stop()
        self.offload.close()
        self.offload = None

    def _detach(self) -> None:
        for one in self._attached.values():
            one.close()
        self._attached.clear()

    def close(self) -> None:
        self._detach()
        self._map.close()
        for one in (self.offload, self.fanout):
            if one is not None:
                one.close()
