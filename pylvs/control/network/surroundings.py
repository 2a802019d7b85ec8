"""What surrounds the director, written into its tables: routes, firewall marks, next hops."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pylvs.control.model import MarkRule
from pylvs.engine import mailbox
from pylvs.engine.director import Director
from pylvs.errors import UsageError
from pylvs.frames import NONE
from pylvs.tables.layouts.network import KNOWN, LOCAL_ADDRESS, UNICAST
from pylvs.wire.text import family_of, halves, joined, mask_of

log = logging.getLogger("pylvs")


class Route(NamedTuple):
    """One route; addresses are ints, ``port`` a row in PORT or ``NONE``."""

    network: int
    prefix: int
    gateway: int = 0
    source: int = 0
    port: int = NONE
    mtu: int = 1_500
    kind: int = UNICAST
    metric: int = 0
    mark: int = 0
    family: int = 4


class Heard(NamedTuple):
    """How a next hop stands: its MAC, or 0 if it does not answer."""

    port: int
    address: int
    mac: int


def local_route(address: int, mark: int = 0) -> Route:
    """Return the route that makes an address the director's own."""
    family = family_of(address)
    prefix = 128 if family == 6 else 32
    return Route(address, prefix, kind=LOCAL_ADDRESS, mark=mark, family=family)


def _put(entry: Any, name: str, address: int) -> None:
    """Write an address into a table's record."""
    entry[f"{name}_high"], entry[f"{name}_low"] = halves(address)


def _network(network: int, prefix: int, family: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a network and its mask, each as the tables hold it."""
    mask = mask_of(prefix, family)
    return halves(network & mask), halves(mask)


class Surroundings:
    """What the host's network is like, and what its rules mark; used between breaths."""

    def __init__(self, director: Director) -> None:
        self._director = director

    def set_routes(self, routes: Sequence[Route]) -> None:
        """Replace the routing table."""
        tables = self._director.tables
        ordered = sorted(
            routes,
            key=lambda route: (
                route.family,
                bool(route.mark) or (route.kind != LOCAL_ADDRESS) * 2,
                -route.prefix,
                route.metric,
            ),
        )
        limit = int(tables.director[0]["paths_limit"])
        if len(ordered) > limit:
            dropped = len(ordered) - limit
            log.error(
                "%d routes are more than the director holds: the widest are left out", dropped
            )
            ordered = ordered[:limit]
        for row, route in enumerate(ordered):
            entry = tables.paths[row]
            network, mask = _network(route.network, route.prefix, route.family)
            entry["network_high"], entry["network_low"] = network
            entry["mask_high"], entry["mask_low"] = mask
            _put(entry, "gateway", route.gateway)
            _put(entry, "source", route.source)
            entry["port"] = route.port
            entry["mtu"] = route.mtu
            entry["kind"] = route.kind
            entry["mark"] = route.mark
            entry["family"] = route.family
        tables.director[0]["path_count"] = len(ordered)
        tables.director[0]["ipv4_path_count"] = sum(route.family == 4 for route in ordered)
        mailbox.aim_all(tables.all)

    def override_source(self, address: int) -> None:
        """Have all routes of an address's family lead away from it, whatever they say."""
        tables = self._director.tables
        rows = tables.paths[: int(tables.director[0]["path_count"])]
        chosen = rows["family"] == family_of(address)
        rows["source_high"][chosen], rows["source_low"][chosen] = halves(address)
        mailbox.distrust(tables.all)

    def set_mark_rules(self, rules: Sequence[MarkRule]) -> None:
        """Replace what gives packets a firewall mark; the last rule that matches one counts."""
        tables = self._director.tables
        if len(rules) > len(tables.mark_rules):
            raise UsageError(f"{len(rules)} mark rules are more than the director holds")
        for row, rule in enumerate(rules):
            entry = tables.mark_rules[row]
            entry["mark"], entry["protocol"] = rule.mark, rule.protocol
            entry["first_port"], entry["last_port"] = rule.ports
            entry["family"] = rule.family
            for end in ("source", "destination"):
                prefix = getattr(rule, f"{end}_prefix")
                network, mask = _network(getattr(rule, end), prefix, rule.family)
                entry[f"{end}_high"], entry[f"{end}_low"] = network
                entry[f"{end}_mask_high"], entry[f"{end}_mask_low"] = mask
        tables.director[0]["mark_rule_count"] = len(rules)
        mailbox.distrust(tables.all)

    def next_hops(self, state: int) -> list[tuple[int, int]]:
        """Return port and address of the next hops of a state that the host resolves.

        Of those that are known only servers': the others are found again when they are needed.
        """
        tables = self._director.tables
        rows = tables.neighbours[: int(tables.director[0]["neighbour_count"])]
        chosen = (rows["used"] == 1) & (rows["state"] == state)
        if state == KNOWN:
            chosen &= rows["pinned"] > 0
        ports = tables.ports[rows["port"]]
        rows = rows[chosen & (ports["own_arp"] == 0) & (ports["raw_ip"] == 0)]
        fields = (rows[name].tolist() for name in ("port", "address_high", "address_low"))
        return [(port, joined(high, low)) for port, high, low in zip(*fields, strict=True)]

    def hear(self, news: Iterable[Heard]) -> None:
        """Next hops answer, or do not."""
        orders = []
        for port, address, mac in news:
            kind = mailbox.LEARN_NEIGHBOUR if mac else mailbox.FAIL_NEIGHBOUR
            high, low = halves(address)
            orders.append(
                mailbox.order(kind=kind, port=port, address_high=high, address_low=low, mac=mac)
            )
        mailbox.carry_out_all(self._director.tables, mailbox.batch_of(orders))

    def fail_all(self, port: int) -> None:
        """No next hop can be reached by this port any more."""
        mailbox.carry_out(self._director.tables, kind=mailbox.FAIL_PORT, port=port)
