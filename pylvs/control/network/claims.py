"""What the host's own stack must not see, as one nftables table named pylvs.

A packet socket gets a copy; the host gets the frame too, and would answer a SYN to a local VIP with
a reset, or forward a real server's reply untranslated.  Rules at netdev ingress run after the copy
was taken and drop what the director has claimed:

    services' (protocol, VIP, port); fragments, ICMP errors and pings to VIPs that are not the
    host's; and what masqueraded servers send from (RIP, port), and fragments of it, to anybody
    but this host

A VIP that is an address of the host's keeps its fragments and errors there: they may concern the
host's own connections.  Tagged frames, and everything else, stay with the host.
"""

import shutil
import subprocess
from collections.abc import Iterable
from typing import Final

from pylvs.control.model import MASQUERADE, PROTOCOL_NAMES, Service
from pylvs.errors import HostError
from pylvs.wire.text import address_text

TABLE: Final = "pylvs"
_PRIORITY: Final = -500

_CHAIN: Final = """
  chain {chain} {{
    type filter hook ingress device "{device}" priority {priority}; policy accept;
    ether type {{ 8021q, 8021ad }} accept
    meta protocol != ip accept
    ip frag-off & 0x1fff != 0 ip daddr @own drop
    ip frag-off & 0x1fff != 0 ip daddr @local accept
    meta l4proto . ip daddr . th dport @services drop
    ip daddr @own icmp type {{ destination-unreachable, source-quench, time-exceeded }} drop
    ip daddr @own icmp type echo-request drop
    ip daddr @local accept
    ip frag-off & 0x1fff != 0 ip saddr @senders drop
    meta l4proto . ip saddr . th sport @servers drop
  }}"""


def ruleset(devices: Iterable[str], services: Iterable[Service], local: Iterable[int]) -> str:
    """Return the table's text.  ``local`` are the host's addresses, as host-order ints."""
    local = set(local)
    listed = list(services)
    vips = {service.key.address for service in listed}
    claimed = {
        f"{PROTOCOL_NAMES[key.protocol].lower()} . {address_text(key.address)} . {key.port}"
        for key in (service.key for service in listed)
    }
    masqueraded = [
        (service.key.protocol, server.key)
        for service in listed
        for server in service.servers.values()
        if server.method == MASQUERADE
    ]
    senders = {address_text(key.address) for _, key in masqueraded}
    servers = {
        f"{PROTOCOL_NAMES[protocol].lower()} . {address_text(key.address)} . {key.port}"
        for protocol, key in masqueraded
    }
    endpoint = "inet_proto . ipv4_addr . inet_service"
    sets = (
        _set("services", endpoint, claimed),
        _set("servers", endpoint, servers),
        _set("senders", "ipv4_addr", senders),
        _set("own", "ipv4_addr", map(address_text, vips - local)),
        _set("local", "ipv4_addr", map(address_text, local)),
    )
    chains = (
        _CHAIN.format(chain=f"port_{row}", device=device, priority=_PRIORITY)
        for row, device in enumerate(devices)
    )
    return f"table netdev {TABLE} {{\n" + "".join(sets) + "".join(chains) + "\n}\n"


def _set(name: str, kind: str, elements: Iterable[str]) -> str:
    listed = sorted(elements)
    body = f" elements = {{ {', '.join(listed)} }};" if listed else ""
    return f"  set {name} {{ type {kind};{body} }}\n"


class Claims:
    """The table in the host's nftables: replaced whole and atomically, removed at the end."""

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
        """Put this table in the place of whatever table of that name there was."""
        if text == self._text:
            return
        clear = f"table netdev {TABLE}\ndelete table netdev {TABLE}\n"
        self._run(clear + text)
        self._text = text

    def clear(self) -> None:
        """Remove the table."""
        self._run(f"table netdev {TABLE}\ndelete table netdev {TABLE}\n")
        self._text = ""

    def _run(self, text: str) -> None:
        done = subprocess.run(
            [self._program, "-f", "-"], input=text, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise HostError(f"nft refused the director's claims: {done.stderr.strip()}")
