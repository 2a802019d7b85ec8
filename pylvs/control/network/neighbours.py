"""Next hops, resolved by the host's own ARP and neighbour discovery.

    wanted        ->  "use this entry", "how does it stand?"  ->  kernel  ->  the director's table
    notification  ->  "how does it stand?"                    ->

Messages go many at a time: a director with a thousand real servers asks for a thousand entries.
"""

import errno
import itertools
import logging
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from pylvs.control.manager import Manager
from pylvs.control.network.surroundings import Heard
from pylvs.engine.loop import Engine
from pylvs.tables.layouts.network import ASKED, KNOWN
from pylvs.wire.text import address_of, address_text, family_of, mac_of

log = logging.getLogger("pylvs.network")

FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NEW, _DELETED, _ASK = 28, 29, 30  # RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH
KINDS: Final = (_NEW, _DELETED, _ASK)
_ERROR: Final = 2  # NLMSG_ERROR
_REQUEST: Final = 0x001  # NLM_F_*
_MAKE: Final = _REQUEST | 0x100 | 0x400  # replace what there is, create what there is not
_NTF_USE: Final = 0x01
_NUD_FAILED: Final = 0x20
_NUD_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable ... noarp, permanent
_TOGETHER: Final = 64  # entries asked about at a time, and heard of in one breath
_NDA_DST: Final = 1
_HEAD: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ENTRY: Final = struct.Struct("=BxxxiHBBHH")  # ndmsg: family, interface, state, flags, type; nlattr

_Entry = tuple[int, int]
"""A port's row and an address."""


_Item = TypeVar("_Item")


class Neighbours:
    """Keeps the director's next hops as the host's neighbour table has them.

    Used by one thread; only ``ask`` may be called by any.
    """

    def __init__(
        self, engine: Engine, manager: Manager, ports: Callable[[], Mapping[int, int]]
    ) -> None:
        """``ports`` returns the ports' rows by the indices of their interfaces."""
        self._engine = engine
        self._manager = manager
        self._ports = ports
        self._marshal = MarshalRtnl()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._asked = threading.Event()
        self._told: set[str] = set()  # what the kernel has refused, until it refuses nothing

    def close(self) -> None:
        self._socket.close()

    def ask(self) -> None:
        """Have the next hops resolved that the director wants."""
        self._asked.set()

    def resolve_wanted(self) -> None:
        """Do what was asked for."""
        if self._asked.is_set():
            self._asked.clear()
            self.resolve()

    def resolve(self) -> None:
        """Have every next hop resolved that waits for it; one may have been known all along."""
        self._send(self._engine.call(partial(self._manager.around.next_hops, ASKED)), use=True)

    def refresh(self) -> None:
        """Keep the known next hops of servers fresh: to the host they are in use."""
        self._send(self._engine.call(partial(self._manager.around.next_hops, KNOWN)), use=True)

    def read(self, messages: Iterable[Any]) -> None:
        """Take over entries of the host's table."""
        heard = [one for one in map(self._heard, messages) if one]
        for some in _pieces(heard):
            self._engine.call(partial(self._manager.around.hear, some))

    def follow(self, notifications: Iterable[bytes]) -> None:
        """Ask how the entries stand that were told to have changed."""
        changed = {
            entry: None for data in notifications for entry in map(self._entry, self._parse(data))
        }
        self._send([entry for entry in changed if entry], use=False)

    def _parse(self, data: bytes) -> Iterable[Any]:
        return [one for one in self._marshal.parse(data) if one["header"]["type"] in KINDS]

    def _entry(self, message: Any) -> _Entry | None:
        """Return what a message is about, unless it is of no concern here."""
        port = self._ports().get(message["ifindex"])
        destination = message.get_attr("NDA_DST")
        if port is None or message["family"] not in FAMILIES.values() or destination is None:
            return None
        try:
            return port, address_of(destination)
        except ValueError:  # one like ::1, which nobody sends to
            return None

    def _heard(self, message: Any) -> Heard | None:
        entry = self._entry(message)
        mac = message.get_attr("NDA_LLADDR")
        if entry and message["state"] & _NUD_USABLE and mac:
            return Heard(*entry, mac_of(mac))
        if entry and message["state"] & _NUD_FAILED:
            return Heard(*entry, 0)
        return None

    def _send(self, entries: Iterable[_Entry], use: bool) -> None:
        """Ask how entries stand, and have them used first; take the answers over."""
        indices = {port: index for index, port in self._ports().items()}
        refused: dict[str, int] = {}
        for some in _pieces([entry for entry in entries if entry[0] in indices]):
            requests = []
            for number, (port, address) in enumerate(some):
                if use:
                    requests.append(_request(_NEW, number, indices[port], address))
                requests.append(_request(_ASK, number, indices[port], address))
            self._socket.send(b"".join(requests))
            self.read(itertools.chain.from_iterable(map(self._parse, self._answers(some, refused))))
        if use:
            self._tell(refused)

    def _answers(self, asked: Sequence[_Entry], refused: dict[str, int]) -> Iterable[bytes]:
        """Return what the kernel has answered: at once, while it was sent to.

        Notes why it would not use an entry; that one is gone is not a fault.
        """
        answers: list[bytes] = []
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return answers
            if int.from_bytes(data[4:6], sys.byteorder) != _ERROR:
                answers.append(data)
                continue
            number = _HEAD.unpack_from(data)[3]
            code = -int.from_bytes(data[16:20], sys.byteorder, signed=True)
            if code != errno.ENOENT and number < len(asked):
                refused.setdefault(os.strerror(code), asked[number][1])

    def _tell(self, refused: dict[str, int]) -> None:
        """Log each reason once, with the first address it was given for."""
        for why, address in refused.items():
            if why not in self._told:
                log.warning("cannot have %s resolved: %s", address_text(address), why)
        self._told = self._told | set(refused) if refused else set()


def _pieces(items: Sequence[_Item]) -> Iterable[Sequence[_Item]]:
    return (items[at : at + _TOGETHER] for at in range(0, len(items), _TOGETHER))


def _request(kind: int, number: int, index: int, address: int) -> bytes:
    """Return a message about one entry: a thirtieth of the time that pyroute2 takes to make it."""
    family = family_of(address)
    packed = address.to_bytes(16 if family == 6 else 4, "big")
    flags, use = (_MAKE, _NTF_USE) if kind == _NEW else (_REQUEST, 0)
    body = _ENTRY.pack(FAMILIES[family], index, 0, use, 0, 4 + len(packed), _NDA_DST) + packed
    return _HEAD.pack(_HEAD.size + len(body), kind, flags, number, 0) + body
