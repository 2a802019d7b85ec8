"""A capture through the director: no root, no clock but the capture's, the same bytes every time.

IN.pcap -> loopback driver -> direct -> OUT.pcap, each frame stamped with the time of its cause
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from pylvs.control import listing
from pylvs.control.manager import Manager
from pylvs.control.model import Command, ServiceKey
from pylvs.control.network.surroundings import Heard, Route, local_route
from pylvs.drivers import linux, pcap
from pylvs.drivers.base import SLOT_SIZE, Port
from pylvs.drivers.loopback import Loopback
from pylvs.engine.director import OWN_MEMORY, Director
from pylvs.engine.loop import breathe
from pylvs.errors import UsageError
from pylvs.frames import HEADROOM
from pylvs.tables.layouts.network import ASKED
from pylvs.tables.sizes import Limits
from pylvs.wire.text import family_of, is_ipv6

SEED: Final = (
    *(0x1E37_79B9_7F4A_7C15, 0x42B2_AE3D_27D4_EB2F),
    *(0x3C6E_F372_FE94_F82B, 0x510E_527F_ADE6_82D1, 0x1F83_D9AB_FB41_BD6B, 0x5BE0_CD19_137E_2179),
)
"""Fixed keys: a replay is no target for a flood, and its output must not vary."""

_MADE_UP_MAC: Final = 0x0200_0000_0000


class Host(NamedTuple):
    """An interface of the director in the capture; the address an int, ``mac`` below 2**48."""

    address: int
    prefix: int
    mac: int


def _macs_seen(frames: Iterable[bytes]) -> dict[int, int]:
    """Return the MAC each address was first seen to send from."""
    seen: dict[int, int] = {}
    for frame in frames:
        mac = int.from_bytes(frame[6:12], "big")
        if frame[12:14] == b"\x08\x00" and len(frame) >= 34:
            seen.setdefault(int.from_bytes(frame[26:30], "big"), mac)
        elif frame[12:14] == b"\x86\xdd" and len(frame) >= 54:
            seen.setdefault(int.from_bytes(frame[22:38], "big"), mac)
        elif frame[12:14] == b"\x08\x06" and len(frame) >= 42:
            seen.setdefault(int.from_bytes(frame[28:32], "big"), mac)
    return seen


def _director_mac(frames: Iterable[bytes], services: list[ServiceKey]) -> int:
    """Return the MAC that the first packet to a service's address was addressed to."""
    for frame in frames:
        wide = frame[12:14] == b"\x86\xdd"
        destination = int.from_bytes(frame[38:54] if wide else frame[30:34], "big")
        is_ip = wide or frame[12:14] == b"\x08\x00"
        if is_ip and any(key.holds(destination) for key in services):
            return int.from_bytes(frame[:6], "big")
    return _MADE_UP_MAC


class Replay:
    """One capture and one table."""

    def __init__(
        self,
        path: str,
        commands: list[Command],
        hosts: list[Host],
        neighbours: dict[int, int],
        mtu: int = 1_500,
        local: Sequence[int] = (),
    ) -> None:
        self.frames = list(pcap.read(path))
        raw = [frame for _, frame in self.frames]
        keys = [one.service for one in commands if one.verb == "A" and one.service]
        if not hosts:
            vips = {key.vip for key in keys} - {0}
            hosts = [Host(min(vips, default=0), 0, _director_mac(raw, keys))]
        self._macs = _macs_seen(raw) | neighbours
        self._ports = [Port(f"port {row}", host.mac, mtu) for row, host in enumerate(hosts)]
        self._row_by_mac = {host.mac: row for row, host in enumerate(hosts)}
        self.driver = Loopback(self._ports)
        begin = linux.page_up(OWN_MEMORY)
        reservation = linux.Reservation(begin + self.driver.memory_size)
        self.driver.attach(reservation, begin)
        self.director = Director(Limits(), memory=reservation.array, seed=SEED)
        self.manager = Manager(self.director)
        self._now_ms = 0
        self.manager.clock = lambda: self._now_ms
        # Who is told its interfaces can play the host around them, too.
        self.director.tables.director[0]["hosted"] = any(host.prefix for host in hosts)
        self.manager.own.set_pool(local)
        self._describe(hosts, mtu)
        self.manager.apply(*commands)

    def _describe(self, hosts: list[Host], mtu: int) -> None:
        for row, host in enumerate(hosts):
            port = self.director.tables.ports[row]
            port["mac"], port["mtu"], port["up"] = host.mac, mtu, 1
            port["address"] = 0 if is_ipv6(host.address) else host.address
        routes = [
            Route(
                host.address, host.prefix, 0, host.address, row, mtu, family=family_of(host.address)
            )
            for row, host in enumerate(hosts)
        ]
        for family in (4, 6):
            source = next((one.address for one in hosts if family_of(one.address) == family), 0)
            routes.append(Route(0, 0, 0, source, 0, mtu, metric=1, family=family))
        local = frozenset(host.address for host in hosts if host.prefix)
        routes += [local_route(address) for address in local]
        self.manager.own.set_local(local)
        self.manager.around.set_routes(routes)

    def run(self, writer: pcap.Writer, on_progress: Callable[[int], None] = lambda _: None) -> int:
        """Replay the capture and return how many frames were written."""
        written = 0
        now_ms = 0
        first = self.frames[0][0] if self.frames else 0.0
        for number, (seconds, frame) in enumerate(self.frames):
            if len(frame) > SLOT_SIZE - HEADROOM:
                raise UsageError(
                    f"frame {number + 1} is {len(frame)} bytes long, more than any MTU"
                )
            now_ms = max(now_ms, 1_000 + int((seconds - first) * 1_000))  # never backwards
            self._now_ms = now_ms
            destination = int.from_bytes(frame[:6], "big")
            self.driver.put(self._row_by_mac.get(destination, 0), frame)
            breathe(self.director, self.driver, now_ms, exact=True)
            while self._resolve():
                breathe(self.director, self.driver, now_ms)
            for _, sent in self.driver.sent:
                writer.write(seconds, sent)
            written += len(self.driver.sent)
            self.driver.sent.clear()
            on_progress(number + 1)
        return written

    def _resolve(self) -> bool:
        """Answer for every next hop that is asked for; return whether any was."""
        asked = self.manager.around.next_hops(ASKED)
        self.manager.around.hear(
            Heard(port, address, self._macs.get(address, _MADE_UP_MAC | address & 0xFFFF_FFFF))
            for port, address in asked
        )
        return bool(asked)

    def listing(self) -> list[listing.ServiceRow]:
        return listing.read(self.manager)

    def reasons(self) -> dict[str, int]:
        return listing.reasons(self.manager)
