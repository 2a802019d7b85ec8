"""What the host's own stack must not see, as two nftables tables named pylvs.

A packet socket gets a copy; the host gets the frame too, and would answer a SYN to a local VIP with
a reset, or forward a real server's reply untranslated.  Rules at netdev ingress run after the copy
was taken and drop what the director has claimed:

    services' (protocol, VIP, port), all ports of a service for any port, what a firewall mark's
    service gets; fragments, ICMP errors and pings to VIPs that are not the host's; what masqueraded
    servers send from (RIP, port), fragments of it, and ICMP errors about them, to anybody but this
    host

A VIP that is an address of the host's keeps its fragments and errors there: they may concern the
host's own connections; fragments of services' packets are dropped once the host has put them
together.  Tagged frames, and everything else, stay with the host.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Final

from pylvs.control.model import (
    MASQUERADE,
    PROTOCOL_NAMES,
    PROTOCOLS,
    MarkRule,
    Server,
    Service,
    ServiceKey,
)
from pylvs.control.network.nftables import Nftables
from pylvs.wire.text import address_text

TABLE: Final = "pylvs"
_PRIORITY: Final = -500
_FTP: Final = 21
_ALL_PORTS: Final = (0, 65_535)

_SERVICES: Final = """
    meta l4proto . ip daddr . th dport @services drop
    meta l4proto . ip daddr @any_port drop
    meta l4proto . ip daddr . th dport @ftp drop"""

_CHAIN: Final = """
  chain {chain} {{
    type filter hook ingress device "{device}" priority {priority}; policy accept;
    ether type {{ 8021q, 8021ad }} accept
    meta protocol != ip accept
    ip frag-off & 0x1fff != 0 ip daddr @own drop
    ip frag-off & 0x1fff != 0 ip daddr @local accept{services}{marked}
    ip daddr @own icmp type {{ destination-unreachable, source-quench, time-exceeded }} drop
    ip daddr @own icmp type echo-request drop
    ip daddr @local accept
    meta l4proto {{ icmp, tcp, udp, sctp }} ip frag-off & 0x3fff != 0 ip saddr @senders drop
    meta l4proto . ip saddr . th sport @servers drop
    icmp type {{ destination-unreachable, source-quench, time-exceeded }} @th,192,32 @quoted drop
  }}"""

# 24 bytes into an ICMP error lies the quoted packet's destination: @th,192,32.

_INPUT: Final = """
  chain input {{
    type filter hook input priority -300; policy accept;{services}
  }}"""


# What the sets hold.
_KINDS: Final = {
    "services": "type inet_proto . ipv4_addr . inet_service;",
    "any_port": "type inet_proto . ipv4_addr;",
    "ftp": "type inet_proto . ipv4_addr . inet_service; flags interval;",
    "servers": "type inet_proto . ipv4_addr . inet_service;",
    "senders": "type ipv4_addr;",
    "quoted": "typeof @th,192,32;",
    "own": "type ipv4_addr;",
    "local": "type ipv4_addr;",
}
_OF_BOTH_TABLES: Final = ("services", "any_port", "ftp")

Element = tuple[str, str]
"""A set's name, and what is in it."""


def elements_of(service: Service | None, local: Collection[int]) -> frozenset[Element]:
    """Return what a service puts into the sets.  ``local`` are the host's addresses, as ints."""
    if service is None:
        return frozenset()
    elements: set[Element] = set()
    key = service.key
    address = address_text(key.address)
    if not key.mark:
        if key.address not in local:
            elements.add(("own", address))
        if key.port:
            elements.add(("services", _endpoint(key)))
        else:
            elements.add(("any_port", f"{PROTOCOL_NAMES[key.protocol].lower()} . {address}"))
        is_ftp = key.port == _FTP and key.protocol == PROTOCOLS["tcp"]
        if is_ftp and service.terms.persistent and key.address not in local:
            elements |= {("ftp", f"tcp . {address} . {ports}") for ports in ("20", "1024-65535")}
    for server in service.servers.values():
        elements.update(elements_of_server(key, server))
    return frozenset(elements)


def elements_of_server(service: ServiceKey, server: Server) -> Iterable[Element]:
    """Return what a server of a service puts into the sets, beside what the service does."""
    if server.method != MASQUERADE:
        return ()
    address, port = server.key
    text = address_text(address)
    protocol = PROTOCOL_NAMES[service.protocol].lower()
    return (
        ("servers", f"{protocol} . {text} . {port}"),
        ("senders", text),
        ("quoted", f"{address:#010x}"),
    )


def _endpoint(key: ServiceKey) -> str:
    return f"{PROTOCOL_NAMES[key.protocol].lower()} . {address_text(key.address)} . {key.port}"


def ruleset(
    devices: Iterable[str],
    elements: Iterable[Element],
    marks: Iterable[int] = (),
    rules: Iterable[MarkRule] = (),
) -> str:
    """Return the tables' text; ``marks`` are those of services, ``rules`` what packets get them."""
    held: dict[str, list[str]] = {name: [] for name in _KINDS}
    for name, element in sorted(set(elements)):
        held[name].append(element)
    sets = {name: _set(name, held[name]) for name in _KINDS}
    marked = _marked(rules, set(marks))
    chains = (
        _CHAIN.format(
            chain=f"port_{row}",
            device=device,
            priority=_PRIORITY,
            services=_SERVICES,
            marked=marked,
        )
        for row, device in enumerate(devices)
    )
    ingress = f"table netdev {TABLE} {{\n{''.join(sets.values())}{''.join(chains)}\n}}\n"
    both = "".join(sets[name] for name in _OF_BOTH_TABLES)
    return ingress + f"table ip {TABLE} {{\n{both}{_INPUT.format(services=_SERVICES)}\n}}\n"


def _set(name: str, elements: list[str]) -> str:
    body = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  set {name} {{ {_KINDS[name]}{body} }}\n"


def _marked(rules: Iterable[MarkRule], marks: set[int]) -> str:
    """Return the rules for what gets the mark of a service."""
    text = ""
    for rule in rules:
        if rule.mark not in marks:
            continue
        line = ""
        for side, address, prefix in (
            ("saddr", rule.source, rule.source_prefix),
            ("daddr", rule.destination, rule.destination_prefix),
        ):
            if prefix:
                line += f"ip {side} {address_text(address)}/{prefix} "
        if rule.protocol:
            line += f"meta l4proto {rule.protocol} "
        if rule.ports != _ALL_PORTS:
            line += f"th dport {rule.ports[0]}-{rule.ports[1]} "
        text += f"\n    {line}drop"
    return text


_CLEAR: Final = "".join(
    f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("netdev", "ip")
)


class Claims:
    """The tables in the host's nftables: made whole, kept up element by element, removed at last.

    The kernel takes 15 ms to replace a table, and well below one to change an element.
    """

    def __init__(self, nftables: Nftables | None = None) -> None:
        self._nftables = nftables or Nftables()
        self._by_service: dict[Hashable, frozenset[Element]] = {}
        self._users: Counter[Element] = Counter()  # how many services have it in their sets

    def replace(
        self,
        devices: Iterable[str],
        services: Mapping[ServiceKey, Service],
        local: Collection[int],
        rules: Iterable[MarkRule] = (),
    ) -> None:
        """Put the tables for these services in the place of whatever tables there were."""
        by_service: dict[Hashable, frozenset[Element]] = {
            key: elements_of(service, local) for key, service in services.items()
        }
        users = Counter(element for elements in by_service.values() for element in elements)
        addresses = [("local", address_text(address)) for address in local]
        marks = [key.mark for key in services if key.mark]
        self._nftables.run(_CLEAR + ruleset(devices, [*users, *addresses], marks, rules))
        # What commands under way have claimed, by their threads' numbers, stays theirs.
        pending = [pair for pair in self._by_service.items() if isinstance(pair[0], int)]
        self._by_service, self._users = by_service, users
        self.update(pending)

    def update(self, changes: Iterable[tuple[Hashable, frozenset[Element]]]) -> None:
        """Have whoever is named put these elements into the sets, and not what they did before."""
        steps: Counter[Element] = Counter()
        by_service = dict(changes)
        for key, elements in by_service.items():
            old = self._by_service.get(key, frozenset())
            steps.update(elements - old)
            steps.subtract(old - elements)
        users = self._users
        added = [one for one, step in steps.items() if step > 0 and not users[one]]
        removed = [one for one, step in steps.items() if step < 0 and users[one] == -step]
        text = _edit("delete", removed) + _edit("add", added)
        if text:
            self._nftables.run(text)
        users.update(steps)
        for one in removed:
            del users[one]
        self._by_service |= by_service
        for key, elements in by_service.items():
            if not elements:
                del self._by_service[key]

    def clear(self) -> None:
        """Remove the tables."""
        self._nftables.run(_CLEAR)


def _edit(verb: str, elements: Iterable[Element]) -> str:
    held: dict[str, list[str]] = {}
    for name, element in elements:
        held.setdefault(name, []).append(element)
    return "".join(
        f"{verb} element {family} {TABLE} {name} {{ {', '.join(listed)} }}\n"
        for name, listed in held.items()
        for family in (("netdev", "ip") if name in _OF_BOTH_TABLES else ("netdev",))
    )
