"""What the host's own stack must not see, as three nftables tables named pylvs.

A packet socket gets a copy; the host gets the frame too, and would answer a SYN to a local VIP with
a reset, or forward a real server's reply untranslated.  Rules at netdev ingress run after the copy
was taken and drop what the director has claimed:

    services' (protocol, VIP, port), all ports of a service for any port, what a service spans or
    a firewall mark's service gets; fragments, ICMP errors and pings to VIPs that are not the
    host's; what masqueraded servers send from (RIP, port; any port if they have none), FTP's from
    all that its data may come from, fragments of it, and ICMP errors about them, to anybody but
    this host

A VIP that is an address of the host's keeps its fragments and errors there: they may concern the
host's own connections; fragments of services' packets are dropped once the host has put them
together.  Of a network that a service spans the host keeps its own addresses, and sees neither
fragments nor errors about TCP, UDP or SCTP to the others.  Each length of prefix has sets and a
mask of its own: ranges of several could overlap, which sets of intervals do not take.  Tagged
frames, and everything else, stay with the host.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from pylvs.control.model import (
    ALL_PORTS,
    MASQUERADE,
    PROTOCOL_NAMES,
    PROTOCOLS,
    WHOLE,
    MarkRule,
    Server,
    Service,
    ServiceKey,
)
from pylvs.control.network.nftables import Nftables
from pylvs.errors import HostError
from pylvs.wire import transport
from pylvs.wire.text import address_text, family_of, is_ipv6, mask_of

TABLE: Final = "pylvs"
_PRIORITY: Final = -500
_DATA_PORTS: Final = f"{transport.UNPRIVILEGED}-65535"
_ALL_PORTS: Final = (0, 65_535)

_SERVICES: Final = """
    meta l4proto . {ip} daddr . th dport @services{v} drop
    meta l4proto . {ip} daddr @any_port{v} drop
    meta l4proto . {ip} daddr . th dport @ftp{v} drop
    jump spans{v}"""

# What a prefix's sets are asked, and by which chain.
_SPANNED: Final = {
    "spans": "{others}meta l4proto . {ip} daddr{mask} . th dport @{name} drop",
    "all_ports": "{others}meta l4proto . {ip} daddr{mask} @{name} drop",
    "networks": "{ip} daddr{mask} @{name} drop",
}
_CHAINS: Final = {"spans": "spans", "all_ports": "spans", "networks": "networks"}

_PORT: Final = """
  chain {chain} {{
    type filter hook ingress device "{device}" priority {priority}; policy accept;
    ether type {{ 8021q, 8021ad }} accept
    meta protocol ip goto packets
    meta protocol ip6 goto packets6
  }}"""

_PACKETS: Final = """
  chain packets{v} {{{first}
    {later} {ip} daddr @own{v} drop
    {later} {ip} daddr @local{v} accept{services}{marked}
    {ip} daddr @own{v} {errors} drop
    {ip} daddr @own{v} {icmp} type echo-request drop
    {ip} daddr @local{v} accept
    {fragments} jump networks{v}
    {errors} {about} {{ tcp, udp, sctp }} jump networks{v}
    {fragments} {ip} saddr @senders{v} drop
    meta l4proto . {ip} saddr @any_server{v} drop
    meta l4proto . {ip} saddr . th sport @servers{v} drop
    meta l4proto . {ip} saddr . th sport @data{v} drop
    {errors} {quoted} @quoted{v} drop
  }}
"""

_INPUT: Final = """
  chain input {{
    type filter hook input priority -300; policy accept;{services}
  }}"""

_WORDS: Final = {
    4: {
        "v": "",
        "ip": "ip",
        "icmp": "icmp",
        "first": "",
        "later": "ip frag-off & 0x1fff != 0",
        "fragments": "meta l4proto { icmp, tcp, udp, sctp } ip frag-off & 0x3fff != 0",
        "errors": "icmp type { destination-unreachable, source-quench, time-exceeded }",
        "about": "@th,136,8",
        "quoted": "@th,192,32",  # 24 bytes into an ICMP error: the quoted packet's destination
    },
    6: {
        "v": "6",
        "ip": "ip6",
        "icmp": "icmpv6",
        "first": "\n    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
        "later": "frag frag-off != 0",
        "fragments": "exthdr frag exists",
        "errors": "icmpv6 type 1-4",
        "about": "@th,112,8",
        "quoted": "@th,256,128",
    },
}
"""What an IPv4 and an IPv6 chain call the same things; IPv6's sets end in 6."""

# What the sets hold.
_KINDS: Final = {
    "services": "type inet_proto . {address} . inet_service;",
    "any_port": "type inet_proto . {address};",
    "ftp": "type inet_proto . {address} . inet_service; flags interval;",
    "servers": "type inet_proto . {address} . inet_service;",
    "any_server": "type inet_proto . {address};",
    "data": "type inet_proto . {address} . inet_service; flags interval;",
    "senders": "type {address};",
    "quoted": "typeof {quoted};",
    "own": "type {address};",
    "local": "type {address};",
}
_OF_SPANS: Final = {
    "spans": "type inet_proto . {address} . inet_service; flags interval;",
    "all_ports": "type inet_proto . {address};",
    "networks": "type {address};",
}
_OF_BOTH_TABLES: Final = ("services", "any_port", "ftp", "spans", "all_ports")
_FAMILIES: Final = (4, 6)
_BITS: Final = {4: 32, 6: 128}
_POOL: Final = "pool"
"""In the place of a service: what claims for full NAT's addresses."""
_SENDERS_SETS: Final = {
    family == 6: tuple(kind + words["v"] for kind in ("servers", "senders", "quoted", "any_server"))
    for family, words in _WORDS.items()
}
_PROTOCOLS: Final = {number: name.lower() for number, name in PROTOCOL_NAMES.items()}

Element = tuple[str, str]
"""A set's name, and what is in it."""
Sender = tuple[int, int, int]
"""A masqueraded server's protocol, address and port."""
Claim = Element | Sender
"""What is counted: a sender is three elements, made when the first server there claims them."""


_Counted = TypeVar("_Counted")


def _set_name(kind: str, address: int) -> str:
    """Return the name of the set of a kind that an address belongs to."""
    return kind + _WORDS[family_of(address)]["v"]


def claims_of(service: Service | None, local: Collection[int]) -> frozenset[Claim]:
    """Return what a service puts into the sets.  ``local`` are the host's addresses, as ints."""
    if service is None:
        return frozenset()
    elements: set[Claim] = set()
    key = service.key
    address = address_text(key.address)
    if not key.mark:
        name = partial(_set_name, address=key.address)
        if key.vip and key.vip not in local:
            elements.add((name("own"), address))
        if key.spans:
            elements |= _spanned(key)
        elif key.port:
            elements.add((name("services"), _endpoint(key)))
        else:
            protocol = _PROTOCOLS[key.protocol]
            elements.add((name("any_port"), f"{protocol} . {address}"))
        if _is_ftp(key) and key.address not in local:
            ranges = ("20", _DATA_PORTS)
            elements |= {(name("ftp"), f"tcp . {address} . {ports}") for ports in ranges}
    elements.update(senders_of(key, service.servers.values()))
    return frozenset(elements)


def _of_pool(address: int) -> Iterator[Claim]:
    """Yield what an address puts into the sets that full NAT sends from."""
    text = address_text(address)
    yield _set_name("own", address), text
    for protocol in PROTOCOLS:
        yield _set_name("any_port", address), f"{protocol} . {text}"


def _is_ftp(key: ServiceKey) -> bool:
    is_one = not key.mark and not key.spans
    return is_one and key.port == transport.FTP and key.protocol == PROTOCOLS["tcp"]


def _spanned(key: ServiceKey) -> set[Claim]:
    """Return what a service puts into the sets for its length of prefix."""
    network = address_text(key.address)
    of_both = f"{_PROTOCOLS[key.protocol]} . {network}"
    v, length = _WORDS[key.family]["v"], key.prefix_length
    elements: set[Claim] = set()
    if not key.vip:
        elements.add((f"networks{v}_{length}", network))
    if key.ports == ALL_PORTS:
        elements.add((f"all_ports{v}_{length}", of_both))
    else:
        for low, high in key.ranges:
            elements.add((f"spans{v}_{length}", f"{of_both} . {low}-{high}"))
    return elements


def senders_of(service: ServiceKey, servers: Iterable[Server]) -> list[Claim]:
    """Return what servers of a service put into the sets, beside what the service does.

    FTP's send their data from any port, or from the one below their own.
    """
    masqueraded = [server.key for server in servers if server.method == MASQUERADE]
    senders: list[Claim] = [(service.protocol, *key) for key in masqueraded]
    if _is_ftp(service):
        for address, port in masqueraded:
            below = [str(port - 1)] if 0 < port <= transport.UNPRIVILEGED else []
            senders += [
                (_set_name("data", address), f"tcp . {address_text(address)} . {ports}")
                for ports in (*below, _DATA_PORTS)
            ]
    return senders


def elements_of(claim: Claim) -> tuple[Element, ...]:
    """Return what a claim puts into the sets."""
    if len(claim) == 2:
        return (claim,)
    number, address, port = claim
    wide = is_ipv6(address)
    text = address_text(address)
    of_servers, of_senders, of_quoted, of_any = _SENDERS_SETS[wide]
    of_both = f"{_PROTOCOLS[number]} . {text}"
    return (
        (of_servers, f"{of_both} . {port}") if port else (of_any, of_both),
        (of_senders, text),
        (of_quoted, f"{address:#034x}" if wide else f"{address:#010x}"),
    )


def _endpoint(key: ServiceKey) -> str:
    return f"{_PROTOCOLS[key.protocol]} . {address_text(key.address)} . {key.port}"


def ruleset(
    devices: Iterable[str],
    elements: Iterable[Element],
    marks: Iterable[tuple[int, int]] = (),
    rules: Sequence[MarkRule] = (),
) -> str:
    """Return the tables' text.

    ``marks`` are those of services, with their families, ``rules`` what packets get them.
    """
    held: dict[str, list[str]] = defaultdict(list)
    for name, element in sorted(set(elements)):
        held[name].append(element)
    ports = (
        _PORT.format(chain=f"port_{row}", device=device, priority=_PRIORITY)
        for row, device in enumerate(devices)
    )
    ingress, hosts = "", ""
    for family in _FAMILIES:
        words = _WORDS[family]
        sets = {name: _set(name, family, held.pop(name + words["v"], [])) for name in _KINDS}
        services = _SERVICES.format(**words)
        marked = _marked([rule for rule in rules if (rule.mark, family) in set(marks)], family)
        chains = {kind: f"  chain {kind}{words['v']} {{ }}\n" for kind in _CHAINS.values()}
        ingress += "".join(sets.values()) + "".join(chains.values())
        ingress += _PACKETS.format(**words, services=services, marked=marked)
        both = "".join(sets[name] for name in _OF_BOTH_TABLES if name in sets) + chains["spans"]
        hosts += f"table {words['ip']} {TABLE} {{\n{both}{_INPUT.format(services=services)}\n}}\n"
    text = f"table netdev {TABLE} {{\n{ingress}{''.join(ports)}\n}}\n{hosts}"
    of_spans = [(name, element) for name, listed in held.items() for element in listed]
    return text + "".join(map(_begin, held)) + _edit("add", of_spans)


def _begin(name: str) -> str:
    """Return what makes the set of a length of prefix, and has it asked."""
    kind, family, length = _parts_of(name)
    words = _WORDS[family]
    mask = f" & {address_text(mask_of(length, family))}" if length < _BITS[family] else ""
    others = f"{words['ip']} daddr != @local{words['v']} " if mask else ""
    question = _SPANNED[kind].format(**words, mask=mask, name=name, others=others)
    holds = _OF_SPANS[kind].format(address=f"ipv{family}_addr")
    chain = _CHAINS[kind] + words["v"]
    return "".join(
        f"add set {table} {TABLE} {name} {{ {holds} }}\n"
        f"add rule {table} {TABLE} {chain} {question}\n"
        for table in _tables_of(name)
    )


def _parts_of(name: str) -> tuple[str, int, int]:
    """Return kind, family and length of prefix of a set, ``WHOLE`` of one that is for all."""
    kind, _, length = name.rpartition("_")
    if not length.isdigit():
        kind, length = name, str(WHOLE)
    family = 6 if kind.endswith("6") else 4
    return kind.removesuffix("6"), family, int(length)


def _set(kind: str, family: int, elements: list[str]) -> str:
    """Return the definition of a set with its elements."""
    words = _WORDS[family]
    holds = _KINDS[kind].format(address=f"ipv{family}_addr", **words)
    body = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"  set {kind}{words['v']} {{ {holds}{body} }}\n"


def _marked(rules: Iterable[MarkRule], family: int) -> str:
    """Return the rules for what gets the mark of a family's service."""
    text = ""
    for rule in rules:
        if rule.family != family:
            continue
        line = ""
        for side, address, prefix in (
            ("saddr", rule.source, rule.source_prefix),
            ("daddr", rule.destination, rule.destination_prefix),
        ):
            if prefix:
                line += f"{_WORDS[family]['ip']} {side} {address_text(address)}/{prefix} "
        if rule.protocol:
            line += f"meta l4proto {rule.protocol} "
        if rule.ports != _ALL_PORTS:
            line += f"th dport {rule.ports[0]}-{rule.ports[1]} "
        text += f"\n    {line}drop"
    return text


_CLEAR: Final = "".join(
    f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("netdev", "ip", "ip6")
)


class Mirror(Protocol):
    """Who else is to know what is claimed, and what is local: BPF programs.

    They are told of full NAT's addresses beside.
    """

    def replace(self, elements: Iterable[Element], pool: Iterable[int] = ()) -> None: ...

    def update(self, added: Iterable[Element], removed: Iterable[Element]) -> None: ...


class Claims:
    """The tables in the host's nftables: made whole, kept up element by element, removed at last.

    The kernel takes 15 ms to replace a table, and well below one to change an element.
    """

    def __init__(self, mirror: Mirror | None = None, nftables: Nftables | None = None) -> None:
        self._nftables = nftables or Nftables()
        self._mirror = mirror
        self._by_service: dict[Hashable, frozenset[Claim]] = {}
        self._users: Counter[Claim] = Counter()  # how many services claim it
        self._held: Counter[Element] = Counter()  # how many claims an element is of
        self._sets: set[str] = set()  # of prefixes: those that were made

    def replace(
        self,
        devices: Iterable[str],
        services: Mapping[ServiceKey, Service],
        local: Collection[int],
        rules: Sequence[MarkRule] = (),
        pool: Iterable[int] = (),
    ) -> None:
        """Put the tables for these services in the place of whatever tables there were.

        ``pool`` are the addresses that full NAT sends from.
        """
        by_service: dict[Hashable, frozenset[Claim]] = {
            key: claims_of(service, local) for key, service in services.items()
        }
        if of_pool := frozenset(itertools.chain.from_iterable(map(_of_pool, pool))):
            by_service[_POOL] = of_pool
        users = Counter(claim for claims in by_service.values() for claim in claims)
        held = Counter(element for claim in users for element in elements_of(claim))
        addresses = [(_set_name("local", address), address_text(address)) for address in local]
        marks = [(key.mark, key.family) for key in services if key.mark]
        self._nftables.run(_CLEAR + ruleset(devices, [*held, *addresses], marks, rules))
        # What is claimed for commands under way, by numbers, stays theirs; but for ranges, which
        # may overlap with those that there are now.
        pending = [
            (number, frozenset(claim for claim in claimed if not _is_range(claim)))
            for number, claimed in self._by_service.items()
            if isinstance(number, int)
        ]
        if self._mirror:
            self._mirror.replace([*held, *addresses], pool)
        self._by_service, self._users, self._held = by_service, users, held
        self._sets = {name for name, _ in held if _is_of_spans(name)}
        self.update(pending)

    def update(self, changes: Iterable[tuple[Hashable, frozenset[Claim]]]) -> None:
        """Have whoever is named claim this, and not what they did before."""
        by_service = dict(changes)
        pairs = [(new, self._by_service.get(key, frozenset())) for key, new in by_service.items()]
        added = [claim for new, old in pairs for claim in new - old]
        removed = [claim for new, old in pairs for claim in old - new]
        begun, ended = _step(self._users, added, removed)
        coming = [element for claim in begun for element in elements_of(claim)]
        going = [element for claim in ended for element in elements_of(claim)]
        new_elements, old_elements = _step(self._held, coming, going)
        begun_sets = {name for name, _ in new_elements if _is_of_spans(name)} - self._sets
        text = _edit("delete", old_elements) + "".join(map(_begin, sorted(begun_sets)))
        text += _edit("add", new_elements)
        try:
            if text:
                self._nftables.run(text)
        except HostError:
            _step(self._held, going, coming)
            _step(self._users, removed, added)
            raise
        if self._mirror:
            self._mirror.update(new_elements, old_elements)
        self._sets |= begun_sets
        self._by_service |= by_service
        for key, claims in by_service.items():
            if not claims:
                del self._by_service[key]

    def clear(self) -> None:
        """Remove the tables."""
        self._nftables.run(_CLEAR)


def _step(
    counts: Counter[_Counted], added: Iterable[_Counted], removed: Iterable[_Counted]
) -> tuple[list[_Counted], list[_Counted]]:
    """Count, and return what there is now that was not, and what there is no more."""
    begun, ended = [], []
    for one in added:
        count = counts[one] = counts.get(one, 0) + 1
        if count == 1:
            begun.append(one)
    for one in removed:
        counts[one] -= 1
        if not counts[one]:
            del counts[one]
            ended.append(one)
    return begun, ended


def _is_range(claim: Claim) -> bool:
    return isinstance(claim[0], str) and _parts_of(claim[0])[0] == "spans"


def _is_of_spans(name: str) -> bool:
    return _parts_of(name)[0] in _OF_SPANS


def _tables_of(name: str) -> tuple[str, ...]:
    """Return the families of the tables that hold a set of this name."""
    kind, family, length = _parts_of(name)
    if kind not in _OF_BOTH_TABLES or WHOLE < length < _BITS[family]:
        return ("netdev",)
    return ("netdev", _WORDS[family]["ip"])


def _edit(verb: str, elements: Iterable[Element]) -> str:
    held: dict[str, list[str]] = {}
    for name, element in elements:
        held.setdefault(name, []).append(element)
    return "".join(
        f"{verb} element {family} {TABLE} {name} {{ {', '.join(listed)} }}\n"
        for name, listed in held.items()
        for family in _tables_of(name)
    )
