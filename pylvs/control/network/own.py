"""The director's own addresses: the VIPs, and what else it answers for where it plays the host."""

import bisect
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pylvs.control.model import ServiceKey
from pylvs.errors import UsageError
from pylvs.wire import transport
from pylvs.wire.text import family_of, halves, joined

if TYPE_CHECKING:
    from pylvs.engine.director import Director


_POOL_PORTS: Final = (transport.UNPRIVILEGED, 65_535)


class OwnAddresses:
    """Which addresses are the director's, kept sorted in its table.  Used between breaths."""

    def __init__(self, director: "Director") -> None:
        self._tables = director.tables
        self.local: frozenset[int] = frozenset()
        """The host's addresses: it answers ARP and pings for a VIP among them."""
        self.stations: frozenset[int] = frozenset()
        """Addresses of the director's own beside the VIPs: a TAP device's DIP, full NAT's."""
        self.pool: tuple[int, ...] = ()
        """The addresses that full NAT sends from."""
        self.adopts_vips = True
        """Whether a service's address is the director's; if not, only routes make it so."""
        self._vips: Counter[int] = Counter()  # how many services each has
        self._rows: list[tuple[int, int]] = []  # what the table's rows hold

    def set_pool(self, addresses: Sequence[int]) -> None:
        """Say which addresses full NAT sends from; before there is any connection."""
        tables = self._tables
        low, high = _POOL_PORTS
        if len(addresses) > len(tables.pool):
            raise UsageError(f"{len(addresses)} local addresses are more than the director holds")
        ordered = sorted(addresses, key=family_of)
        for row, address in enumerate(ordered):
            entry = tables.pool[row]
            entry["address_high"], entry["address_low"] = halves(address)
            entry["first_port"], entry["last_port"] = low, high
            # Not the first: what was spoken of before a restart may not have ended yet.
            entry["next_port"] = low + int(tables.director[0]["dice"]) % (high - low)
        tables.director[0]["pool_count"] = len(ordered)
        tables.director[0]["ipv4_pool_count"] = sum(family_of(one) == 4 for one in ordered)
        self.pool = tuple(ordered)
        self.stations |= frozenset(addresses)

    def set_local(self, addresses: frozenset[int]) -> None:
        """Say which addresses are the host's."""
        self.local = addresses
        tables = self._tables
        known = {
            joined(own["address_high"], own["address_low"])
            for own in tables.own[tables.own["announced"] == 1]
        }
        tables.director[0]["own_count"] = 0
        self._rows.clear()
        self._add((set(self._vips) if self.adopts_vips else set()) | self.stations, known)

    def follow(self, added: Iterable[ServiceKey], removed: Iterable[ServiceKey]) -> None:
        """Services came and went, and addresses with their first and last one.

        There is room for every service's.
        """
        came, went = ([key.vip for key in keys if key.vip] for keys in (added, removed))
        self._vips.update(came)
        self._vips.subtract(went)
        gone = {vip for vip in went if not self._vips[vip]}
        for vip in gone:
            del self._vips[vip]
        if self.adopts_vips:
            self._remove(gone - self.stations)
            self._add(set(came) - gone)

    def addresses(self) -> list[int]:
        """Return the addresses that the director answers for itself."""
        own = self._used()
        own = own[own["answers_arp"] == 1]
        return [joined(one["address_high"], one["address_low"]) for one in own]

    def has_unannounced(self) -> bool:
        """Whether some own address still has to be announced."""
        own = self._used()
        return bool(((own["announced"] == 0) & (own["answers_arp"] == 1)).any())

    def _used(self) -> Any:
        tables = self._tables
        return tables.own[: int(tables.director[0]["own_count"])]

    def _octets(self) -> Any:
        """Return the table as bytes, uint8[rows, size], which move faster than records."""
        table = self._tables.own
        return table.view(np.uint8).reshape(len(table), -1)

    def _add(self, addresses: set[int], announced: Container[int] = ()) -> None:
        """Put addresses in their places among the others, all in one go, and tell of each."""
        rows = self._rows
        pairs = {halves(address): address for address in addresses}
        new = [pair for pair in sorted(pairs) if not self._has(pair)]
        places = [bisect.bisect_left(rows, pair) for pair in new]
        if new:
            self._write(np.insert(self._octets()[: len(rows)], places, 0, axis=0))
        for moved, (place, pair) in enumerate(zip(places, new, strict=True)):
            rows.insert(place + moved, pair)
            address, entry = pairs[pair], self._tables.own[place + moved]
            entry["address_high"], entry["address_low"] = pair
            entry["announced"] = address in announced
            entry["in_pool"] = address in self.pool
            entry["answers_arp"] = entry["answers_ping"] = address not in self.local

    def _remove(self, addresses: set[int]) -> None:
        """Take addresses out of the table, all in one go."""
        rows = self._rows
        pairs = filter(self._has, map(halves, addresses))
        places = [bisect.bisect_left(rows, pair) for pair in pairs]
        if places:
            self._write(np.delete(self._octets()[: len(rows)], places, axis=0))
        for place in sorted(places, reverse=True):
            del rows[place]

    def _has(self, pair: tuple[int, int]) -> bool:
        place = bisect.bisect_left(self._rows, pair)
        return self._rows[place : place + 1] == [pair]

    def _write(self, octets: Any) -> None:
        """Have the table be these rows."""
        director, table = self._tables.director[0], self._octets()
        table[: len(octets)] = octets
        table[len(octets) : int(director["own_count"])] = 0
        director["own_count"] = len(octets)
