"""The kernel's files under /proc/net, from the director's tables."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pylvs.control.ipvsadm.render import TITLE
from pylvs.control.model import (
    METHOD_NAMES,
    ONE_PACKET,
    PERSISTENT,
    PROTOCOL_NAMES,
    WHOLE,
    ServiceKey,
)
from pylvs.wire.text import is_ipv6, octets_text

if TYPE_CHECKING:
    from pylvs.control.listing import ConnectionRow, Counters, ServiceRow

_TICKS: Final = 250  # CONFIG_HZ of Debian's kernel: persistent timeouts are printed in ticks
_CONNECTION_TITLES: Final = (
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData"
)


def services(rows: Iterable["ServiceRow"]) -> str:
    """Return the text of /proc/net/ip_vs."""
    lines = [
        TITLE,
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn",
    ]
    for row in sorted(rows, key=lambda row: bool(row.key.mark)):
        terms = row.terms
        wide = row.key.family == 6
        if row.key.mark:
            line = f"FWM  {row.key.mark:08X} {terms.scheduler} "
        else:
            endpoint = _service(row.key)
            line = f"{PROTOCOL_NAMES[row.key.protocol]}  {endpoint} {terms.scheduler} "
        if row.key.mark or not wide:
            line += "ops " if terms.flags & ONE_PACKET else ""
        if not row.key.mark and not wide:
            line += " "
        if terms.flags & PERSISTENT:
            netmask = terms.netmask << 24 if wide else terms.netmask
            line += f"persistent {terms.persistent * _TICKS} {netmask:08X}"
        lines.append(line)
        lines += [
            f"  -> {_bracketed(server.key.address)}:{server.key.port:04X}      "
            f"{METHOD_NAMES[server.method]:<7} {server.weight:<6} {server.active:<10} "
            f"{server.inactive:<10}"
            for server in row.servers
        ]
    return "\n".join(lines) + "\n"


def _whole(address: int, family: int = 4) -> str:
    """Return an address with all its digits; none, of a connection to nobody, is of ``family``."""
    if not is_ipv6(address) and (address or family == 4):
        return f"{address:08X}"
    digits = f"{address:032x}"
    return ":".join(digits[at : at + 4] for at in range(0, 32, 4))


def _bracketed(address: int) -> str:
    return f"[{_whole(address)}]" if is_ipv6(address) else _whole(address)


def _service(key: ServiceKey) -> str:
    """Return address and port; the kernel has no service that spans more, and so no word for it."""
    prefix = "" if key.prefix == WHOLE else f"/{key.prefix}"
    ports = (f"{low:04X}" if low == high else f"{low:04X}-{high:04X}" for low, high in key.ranges)
    return f"{_bracketed(key.address)}{prefix}:{','.join(ports)}"


def connections(rows: Iterable["ConnectionRow"]) -> str:
    """Return the text of /proc/net/ip_vs_conn."""
    lines = [_CONNECTION_TITLES]
    for row in rows:
        ends = " ".join(
            f"{_whole(address, row.family)} {port:04X}"
            for address, port in (row.client, row.virtual, row.server)
        )
        key = f" {row.engine} {octets_text(row.key)}" if row.engine else ""
        state = f"{row.state:<11} {row.expires:7}"
        lines.append(f"{PROTOCOL_NAMES[row.protocol]:<3} {ends} {state}{key}")
    return "\n".join(lines) + "\n"


def stats(counters: "Counters", rates: Iterable[int]) -> str:
    """Return the text of /proc/net/ip_vs_stats; all numbers are hexadecimal."""
    return (
        "   Total Incoming Outgoing         Incoming         Outgoing\n"
        "   Conns  Packets  Packets            Bytes            Bytes\n"
        f"{_row(counters)}\n\n"
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
        f"{_row(rates)}\n"
    )


def stats_percpu(counters: "Counters", rates: Iterable[int]) -> str:
    """Return the text of /proc/net/ip_vs_stats_percpu, of one CPU."""
    return (
        "       Total Incoming Outgoing         Incoming         Outgoing\n"
        "CPU    Conns  Packets  Packets            Bytes            Bytes\n"
        f"  0 {_row(counters)}\n"
        f"  ~ {_row(counters)}\n\n"
        "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n"
        f"    {_row(rates)}\n"
    )


def _row(values: Iterable[int]) -> str:
    one, two, three, four, five = values
    return f"{one:8X} {two:8X} {three:8X} {four:16X} {five:16X}"
