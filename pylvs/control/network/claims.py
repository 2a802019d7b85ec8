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

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from typing import Final

from pylvs.control.model import (
    MASQUERADE,
    PROTOCOL_NAMES,
    PROTOCOLS,
    MarkRule,
    Service,
    ServiceKey,
)
from pylvs.errors import HostError
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
    meta l4proto . ip saddr . th sport @servers drop{errors}
  }}"""

_INPUT: Final = """
  chain input {{
    type filter hook input priority -300; policy accept;{services}
  }}"""


def ruleset(
    devices: Iterable[str],
    services: Iterable[Service],
    local: Iterable[int],
    marks: Sequence[MarkRule] = (),
) -> str:
    """Return the tables' text.  ``local`` are the host's addresses, as host-order ints."""
    local = set(local)
    listed = list(services)
    keys = [service.key for service in listed]
    vips = {key.address for key in keys if not key.mark}
    sets = _service_sets(listed, local)
    masqueraded = [
        (service.key.protocol, server.key)
        for service in listed
        for server in service.servers.values()
        if server.method == MASQUERADE
    ]
    senders = {key.address for _, key in masqueraded}
    servers = {
        _endpoint(ServiceKey(protocol, key.address, key.port)) for protocol, key in masqueraded
    }
    more = (
        _set("servers", "inet_proto . ipv4_addr . inet_service", servers),
        _set("senders", "ipv4_addr", map(address_text, senders)),
        _set("own", "ipv4_addr", map(address_text, vips - local)),
        _set("local", "ipv4_addr", map(address_text, local)),
    )
    chains = (
        _CHAIN.format(
            chain=f"port_{row}",
            device=device,
            priority=_PRIORITY,
            services=_SERVICES,
            marked=_marked(marks, {key.mark for key in keys if key.mark}),
            errors=_errors(senders),
        )
        for row, device in enumerate(devices)
    )
    ingress = f"table netdev {TABLE} {{\n{sets}{''.join(more)}{''.join(chains)}\n}}\n"
    return ingress + f"table ip {TABLE} {{\n{sets}{_INPUT.format(services=_SERVICES)}\n}}\n"


def _service_sets(services: Iterable[Service], local: set[int]) -> str:
    """Return the sets of what services are addressed by."""
    exact, any_port, ftp = set(), set(), set()
    for service in services:
        key = service.key
        if key.mark:
            continue
        if key.port:
            exact.add(_endpoint(key))
        else:
            any_port.add(f"{PROTOCOL_NAMES[key.protocol].lower()} . {address_text(key.address)}")
        is_ftp = key.port == _FTP and key.protocol == PROTOCOLS["tcp"]
        if is_ftp and service.terms.persistent and key.address not in local:
            address = address_text(key.address)
            ftp |= {f"tcp . {address} . 20", f"tcp . {address} . 1024-65535"}
    endpoint = "inet_proto . ipv4_addr . inet_service"
    return (
        _set("services", endpoint, exact)
        + _set("any_port", "inet_proto . ipv4_addr", any_port)
        + _set("ftp", endpoint, ftp, "flags interval; ")
    )


def _endpoint(key: ServiceKey) -> str:
    return f"{PROTOCOL_NAMES[key.protocol].lower()} . {address_text(key.address)} . {key.port}"


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


def _errors(senders: Iterable[int]) -> str:
    """Return the rule for ICMP errors that quote a packet sent to a masqueraded server."""
    addresses = ", ".join(f"{address:#010x}" for address in sorted(senders))
    if not addresses:
        return ""
    kinds = "{ destination-unreachable, source-quench, time-exceeded }"
    # 24 bytes into the message: the quoted packet's destination.
    return f"\n    icmp type {kinds} @th,192,32 {{ {addresses} }} drop"


def _set(name: str, kind: str, elements: Iterable[str], options: str = "") -> str:
    listed = sorted(elements)
    body = f" elements = {{ {', '.join(listed)} }};" if listed else ""
    return f"  set {name} {{ type {kind}; {options}{body.lstrip()} }}\n"


_CLEAR: Final = "".join(
    f"table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("netdev", "ip")
)


class Claims:
    """The tables in the host's nftables: replaced whole and atomically, removed at the end."""

    def __init__(self) -> None:
        self._text = ""
        program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
        if program is None:
            raise HostError(
                "the nft program is missing, and the host's stack must be kept off the VIPs: "
                "apt-get install nftables"
            )
        self._program = program

    def set(self, text: str) -> None:
        """Put these tables in the place of whatever tables of that name there were."""
        if text == self._text:
            return
        self._run(_CLEAR + text)
        self._text = text

    def clear(self) -> None:
        """Remove the tables."""
        self._run(_CLEAR)
        self._text = ""

    def _run(self, text: str) -> None:
        done = subprocess.run(
            [self._program, "-f", "-"], input=text, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise HostError(f"nft refused the director's claims: {done.stderr.strip()}")
