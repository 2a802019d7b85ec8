"""The host's network as the director needs it: links, addresses, routes and neighbours by netlink.

One thread of its own (pyroute2 does not live in a running event loop).  It reads everything once,
then listens for the kernel's notifications; what one is about is read again, whole.  (The bare
socket only says that something changed: pyroute2's own would buffer notifications out of poll's
sight.)
"""

import errno
import logging
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pylvs.control.manager import Manager
from pylvs.control.network.neighbours import FAMILIES, KINDS, Neighbours
from pylvs.control.network.redirects import Redirects
from pylvs.control.network.surroundings import Route
from pylvs.drivers.base import Port
from pylvs.engine import mailbox
from pylvs.engine.loop import Engine
from pylvs.frames import NONE
from pylvs.wire.text import address_of, mac_of

log = logging.getLogger("pylvs.network")

_GLOBAL_SCOPE: Final = 0
_IFF_UP: Final = 1
_IFA_F_SECONDARY, _IFA_F_DADFAILED, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
_PASSING: Final = _IFA_F_SECONDARY | _IFA_F_DEPRECATED | _IFA_F_TENTATIVE
_TABLES: Final = (254, 255)  # main, local
_REFRESH_S: Final = 10.0
_RETRY_S: Final = 1.0  # should a notification have been lost
_GROUPS: Final = (
    0x01 | 0x04 | 0x10 | 0x40 | 0x100 | 0x400
)  # links, neighbours; addresses and routes of IPv4, of IPv6
_SO_RCVBUFFORCE: Final = 33
_ROOM: Final = 1 << 23  # for notifications: those of ten thousand neighbours
_SETTLE_S: Final = 0.05  # changes come in bursts; read again once they pause


_Primary = dict[tuple[int, int], int]
"""An address by interface index and family."""


def _address_or_none(text: str | None) -> int:
    """Return an address as an int, 0 for none or one like ::1 that nobody sends to."""
    try:
        return address_of(text) if text else 0
    except ValueError:
        return 0


def _flags_of(address: Any) -> int:
    flags = address.get_attr("IFA_FLAGS")  # more than fit into the header's own
    return int(address["flags"] if flags is None else flags)


def _reluctance(address: Any) -> tuple[bool, bool]:
    return address["scope"] != _GLOBAL_SCOPE, _flags_of(address) & _PASSING != 0


class Network:
    """Keeps ports, routes, neighbours and local addresses of the director as the host has them.

    All callbacks come in this thread: ``on_change`` after anything but a neighbour changed,
    ``on_loss`` when the interface of a port is gone, and ``on_return`` when there is another of its
    name.  ``redirects`` tell to whom XDP may send.
    """

    def __init__(
        self,
        engine: Engine,
        manager: Manager,
        ports: list[Port],
        redirects: Redirects | None = None,
    ) -> None:
        self._engine = engine
        self._manager = manager
        self._row_by_name = {port.name: row for row, port in enumerate(ports)}
        self._row_by_index: dict[int, int] = {}
        self._index_by_row: dict[int, int] = {}
        self._bound: dict[int, int] = {}  # port: index of the interface its ring is bound to
        self._netlink = IPRoute()
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._events.setblocking(False)
        try:
            self._events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        except PermissionError:  # in a user namespace there is as much as the system lets everybody
            self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        self._found: Any = None  # what was read the last time
        self._changed_at = 0.0  # of the first change not read yet
        self._stopping = threading.Event()
        self._neighbours = Neighbours(engine, manager, lambda: self._row_by_index)
        self._redirects = redirects
        self._thread = threading.Thread(target=self._run, name="pylvs-network", daemon=True)
        self.on_change: Callable[[], None] = lambda: None
        self.on_loss: Callable[[int], None] = lambda _: None
        self.on_return: Callable[[int], None] = lambda _: None

    def start(self) -> None:
        """Read everything, then begin to follow changes."""
        self._events.bind((0, _GROUPS))
        self.read()
        self._bound = dict(self._index_by_row)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; doing it again changes nothing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._netlink.close()
        self._neighbours.close()
        if self._redirects is not None:
            self._redirects.close()
        self._events.close()

    def present(self) -> list[int]:
        """Return the ports that have an interface now."""
        return sorted(self._index_by_row)

    def interfaces(self) -> list[int]:
        """Return the indices of the ports' interfaces, as far as they are there."""
        return list(self._row_by_index)

    def ask(self) -> None:
        """Have the next hops resolved that the director wants; callable from any thread."""
        self._neighbours.ask()

    def _read_neighbours(self) -> None:
        for family in FAMILIES.values():
            self._neighbours.read(self._netlink.get_neighbours(family=family))

    def read(self) -> bool:
        """Read links, addresses and routes, and give them to the director; return if any changed.

        A router's advertisement is told as a change of every address it is about: of its lifetime.
        """
        links = self._read_links()
        addresses, primary = self._read_addresses()
        routes = self._read_routes(links, primary)
        self._read_redirects()
        found = (links, dict(self._index_by_row), addresses, primary, routes)
        if found == self._found:
            return False

        def give() -> None:
            ports = self._manager.director.tables.ports
            for row, (mac, mtu, is_up) in links.items():
                if is_up and not ports[row]["up"]:
                    self._manager.director.tables.own["announced"] = 0
                ports[row]["mac"] = mac
                ports[row]["mtu"] = mtu
                ports[row]["up"] = is_up
                ports[row]["interface"] = self._index_by_row[row]
                ports[row]["address"] = primary.get((self._index_by_row[row], 4), 0)
            for row in set(self._row_by_name.values()) - links.keys():
                ports[row]["up"] = False
            self._manager.own.set_local(addresses)
            self._manager.around.set_routes(routes)

        self._engine.call(give)
        self._found = found
        return True

    def forget(self) -> None:
        """Take whatever is read next for a change: what this one asked for was not done."""
        self._found = None

    def _read_links(self) -> dict[int, tuple[int, int, bool]]:
        links = {}
        row_by_index = {}
        for link in self._netlink.get_links():
            row = self._row_by_name.get(link.get_attr("IFLA_IFNAME"))
            if row is None:
                continue
            row_by_index[link["index"]] = row
            mac = mac_of(link.get_attr("IFLA_ADDRESS"))
            links[row] = (mac, int(link.get_attr("IFLA_MTU")), bool(link["flags"] & _IFF_UP))
        # Whole at once: other threads ask which interfaces are there.
        self._row_by_index = row_by_index
        self._index_by_row = {row: index for index, row in row_by_index.items()}
        return links

    def _read_redirects(self) -> None:
        """Note which ports take frames from XDP, and have what was sent there come up first."""
        if self._redirects is None:
            return
        able = self._redirects.read(self._row_by_index)
        tables = self._manager.director.tables

        def give() -> None:
            for row, index in self._index_by_row.items():
                if tables.ports[row]["redirects"] != able.get(index, 0):
                    tables.ports[row]["redirects"] = able.get(index, 0)
                    mailbox.distrust(tables.all)

        self._engine.call(give)

    def _compare_interfaces(self) -> None:
        """Notice interfaces that were deleted, and others in their place."""
        for row, index in list(self._bound.items()):
            if self._index_by_row.get(row) != index:
                del self._bound[row]
                self._engine.call(partial(self._manager.around.fail_all, row))
                self.on_loss(row)
        for row, index in self._index_by_row.items():
            if row not in self._bound:
                self.on_return(row)
                self._bound[row] = index

    @staticmethod
    def _of(number: int, messages: Iterable[Any]) -> list[Any]:
        """Return the messages of one family: a kernel that lacks it answers with the others'."""
        return [message for message in messages if message["family"] == number]

    def _read_addresses(self) -> tuple[frozenset[int], "_Primary"]:
        """Return all local addresses, and the first one of each interface and family.

        One that is not its link's alone is preferred, and one that is there to stay: neither
        secondary (as IPv6's privacy addresses are), nor deprecated, nor still to be confirmed.
        """
        every = set()
        primary: _Primary = {}
        for family, number in FAMILIES.items():
            messages = self._of(number, self._netlink.get_addr(family=number))
            for message in sorted(messages, key=_reluctance):
                if _flags_of(message) & _IFA_F_DADFAILED:
                    continue  # another station has it
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                address = _address_or_none(text)
                if address:
                    every.add(address)
                    primary.setdefault((message["index"], family), address)
        return frozenset(every), primary

    def _read_routes(
        self, links: dict[int, tuple[int, int, bool]], primary: "_Primary"
    ) -> list[Route]:
        return [
            route for family in FAMILIES for route in self._read_routes_of(family, links, primary)
        ]

    def _read_routes_of(
        self, family: int, links: dict[int, tuple[int, int, bool]], primary: "_Primary"
    ) -> list[Route]:
        routes = []
        number = FAMILIES[family]
        for message in self._of(number, self._netlink.get_routes(family=number)):
            if message.get_attr("RTA_TABLE") not in _TABLES:
                continue
            hop = message
            if message.get_attr("RTA_MULTIPATH"):
                hop = message.get_attr("RTA_MULTIPATH")[0]
            index = hop.get_attr("RTA_OIF") or hop.get("oif", 0)
            row = self._row_by_index.get(index, NONE)
            metrics = message.get_attr("RTA_METRICS")
            mtu = metrics.get_attr("RTAX_MTU") if metrics else None
            source = message.get_attr("RTA_PREFSRC")
            gateway = hop.get_attr("RTA_GATEWAY")
            routes.append(
                Route(
                    network=_address_or_none(message.get_attr("RTA_DST")),
                    prefix=message["dst_len"],
                    gateway=_address_or_none(gateway),
                    source=_address_or_none(source) or primary.get((index, family), 0),
                    port=row,
                    mtu=mtu or (links[row][1] if row in links else 65_535),
                    kind=message["type"],
                    metric=message.get_attr("RTA_PRIORITY") or 0,
                    family=family,
                )
            )
        return routes

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read_neighbours()
                self._follow()
            except (OSError, NetlinkError) as error:  # the kernel dropped notifications, say
                log.warning("netlink: %s; reading everything again", error)
                self.forget()
                time.sleep(_RETRY_S)
                self._changed_at = time.monotonic()

    def _follow(self) -> None:
        """Follow notifications until told to stop."""
        refresh = time.monotonic() + _REFRESH_S
        retry = time.monotonic() + _RETRY_S
        poller = select.poll()
        poller.register(self._events.fileno(), select.POLLIN)
        if self._redirects is not None:
            poller.register(self._redirects.events.fileno(), select.POLLIN)
        while not self._stopping.is_set():
            self._neighbours.resolve_wanted()
            now = time.monotonic()
            if now >= retry:
                retry = now + _RETRY_S
                self._neighbours.resolve()
            if now >= refresh:
                refresh = now + _REFRESH_S
                self._neighbours.refresh()
            if self._changed_at and now - self._changed_at >= _SETTLE_S:
                self._changed_at = 0.0
                if self.read():
                    self._compare_interfaces()
                    self.on_change()
            if poller.poll(10):
                if self._redirects is not None and self._redirects.drain():
                    self._read_redirects()
                told = self._drain()
                self._neighbours.resolve_wanted()  # before an old failure of theirs is told
                self._neighbours.follow(told)

    def _drain(self) -> list[bytes]:
        """Take every waiting notification; return those of neighbours, and note the others."""
        told: list[bytes] = []
        while True:
            try:
                data = self._events.recv(65_536)
            except BlockingIOError:
                return told
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("notifications were lost: reading the network again")
                self._read_neighbours()
                self._changed_at = self._changed_at or time.monotonic()
                continue
            if int.from_bytes(data[4:6], sys.byteorder) in KINDS:
                told.append(data)
            else:
                self._changed_at = self._changed_at or time.monotonic()
