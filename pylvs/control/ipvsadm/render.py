"""ipvsadm's tables, to the column."""

import operator
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from pylvs.control.ipvsadm.names import NUMERIC, Names
from pylvs.control.model import (
    ANY_MASK,
    ANY_PREFIX,
    CHECKSUM,
    FULLNAT,
    GRE,
    GUE,
    L3DSR,
    METHOD_NAMES,
    ONE_PACKET,
    PERSISTENT,
    PROTOCOL_NAMES,
    REMOTE_CHECKSUM,
    SCHEDULER_FLAGS,
    TUNNEL,
    TUNNEL_TYPES,
    Command,
    Ports,
    ServiceKey,
    Terms,
    Timeouts,
)
from pylvs.wire.text import address_text, is_ipv6, octets_text

if TYPE_CHECKING:
    from pylvs.control.listing import ConnectionRow, ServerRow, ServiceRow

TITLE: Final = "IP Virtual Server version 1.2.1 (size=4096)"
_FIRST: Final = "Prot LocalAddress:Port"
_SERVICE_WIDTH: Final = 28  # and 5 for the protocol
_SERVER_WIDTH: Final = 28


def large_number(value: int) -> str:
    """Return a counter in ipvsadm's nine columns or so: K, M, G and T are decimal, and truncate."""
    for limit, divisor, unit in (
        (10**8, 1, ""),
        (10**9, 10**3, "K"),
        (10**11, 10**6, "M"),
        (10**14, 10**9, "G"),
    ):
        if value < limit:
            return f"{value // divisor:{8 if unit else 9}}{unit}"
    return f"{value // 10**12:8}T"


def exact_number(value: int) -> str:
    """Return a counter in full, one blank in front at least."""
    text = str(value)
    return f"{text:>{9 if len(text) <= 8 else len(text) + 1}}"


def _signed_difference(one: int, other: int) -> int:
    """Compare as ipvsadm does: a 32-bit signed difference, not an order."""
    difference = (one - other) & 0xFFFF_FFFF
    return difference - 2**32 if difference >= 2**31 else difference


def _compare_services(one: "ServiceRow", other: "ServiceRow") -> int:
    return (
        _signed_difference(one.key.mark, other.key.mark)
        or one.key.family - other.key.family
        or one.key.protocol - other.key.protocol
        or _compare_addresses(one.key.address, other.key.address)
        or one.key.port - other.key.port
        or (_extent(one.key) > _extent(other.key)) - (_extent(one.key) < _extent(other.key))
    )


def _extent(key: ServiceKey) -> tuple[int, Ports]:
    return key.prefix, key.ports


def _compare_addresses(one: int, other: int) -> int:
    """Compare word by word, as they lie in ipvsadm's memory: IPv4's is IPv6's first."""
    if not is_ipv6(one) and not is_ipv6(other):
        return _signed_difference(one, other)
    one, other = (end if is_ipv6(end) else end << 96 for end in (one, other))
    words = (_signed_difference(one >> bits, other >> bits) for bits in (96, 64, 32, 0))
    return next(filter(None, words), 0)


def _compare_servers(one: Any, other: Any) -> int:
    return _compare_addresses(one.key.address, other.key.address) or one.key.port - other.key.port


def _endpoint(end: tuple[int, int], protocol: int, names: Names, width: int = 0) -> str:
    """Return ``host:port``, IPv4's cut to a width if one is given."""
    address, port = end
    if is_ipv6(address):
        return f"[{names.host(address)}]:{names.service(port, protocol)}"
    endpoint = f"{names.host(address)}:{names.service(port, protocol)}"
    return endpoint[:width] if width else endpoint


def _service_name(key: ServiceKey, names: Names) -> str:
    if key.mark:
        return str(key)
    endpoint = key.where
    if not key.spans:
        endpoint = _endpoint((key.address, key.port), key.protocol, names, _SERVICE_WIDTH)
    return f"{PROTOCOL_NAMES[key.protocol]:<4} {endpoint}"


def flag_names(terms: Terms) -> list[str]:
    """Return the names of the scheduler's flags that are set."""
    names = ("flag-1", "flag-2", "flag-3")
    if terms.scheduler in ("sh", "mh"):
        names = (f"{terms.scheduler}-fallback", f"{terms.scheduler}-port", "flag-3")
    return [name for name, bit in zip(names, SCHEDULER_FLAGS, strict=True) if terms.flags & bit]


def mask_text(terms: Terms, family: int) -> str:
    """Return what tells persistent clients apart; nothing if it is the whole address."""
    if family == 6:
        return "" if terms.netmask == ANY_PREFIX else str(terms.netmask)
    return "" if terms.netmask == ANY_MASK else address_text(terms.netmask)


def _terms(terms: Terms, family: int) -> str:
    text = f" {terms.scheduler}"
    flags = ",".join(flag_names(terms))
    if flags:
        text += f" ({flags})"
    if terms.flags & PERSISTENT:
        text += f" persistent {terms.persistent}"
        mask = mask_text(terms, family)
        text += f" mask {mask}" if mask else ""
        if terms.engine:
            text += f" pe {terms.engine}"
    if terms.flags & ONE_PACKET:
        text += " ops"
    return text


def _tunnel(row: "ServerRow") -> str:
    if row.method != TUNNEL:
        return "n/a"
    kind, port, flags = row.tunnel
    checked = "r+c" if flags & REMOTE_CHECKSUM else "+c" if flags & CHECKSUM else "-c"
    if kind == GUE:
        return f"gue:{port}:{checked}"
    return f"gre:{checked}" if kind == GRE else "ipip"


def _ordered(rows: Iterable[Any], compare: Callable[[Any, Any], int], sort: bool) -> list[Any]:
    """Return the rows as the C library's qsort leaves them."""
    rows = list(rows)
    if not sort or len(rows) < 2:
        return rows
    are_services = isinstance(rows[0].key, ServiceKey)
    addresses = [row.key.address for row in rows]
    marks = [row.key.mark for row in rows] if are_services else [0]
    low, high = min(addresses), max(addresses)
    if is_ipv6(high) or max(high - low, max(marks) - min(marks)) >= 2**31:
        return _merge_sorted(rows, compare)
    # Addresses are so near that there is an order.
    return sorted(rows, key=_service_order if are_services else _SERVER_ORDER)


def _service_order(row: "ServiceRow") -> tuple[object, ...]:
    key = row.key
    return key.mark, key.family, key.protocol, key.address, key.port, *_extent(key)


_SERVER_ORDER: Final = operator.attrgetter("key")


def _merge_sorted(rows: list[Any], compare: Callable[[Any, Any], int]) -> list[Any]:
    """Merge sort from the top down, as the C library's is.

    The comparison is no order when addresses are far apart: then the way to it decides.
    """
    if len(rows) < 2:
        return rows
    middle = len(rows) // 2
    left, right = _merge_sorted(rows[:middle], compare), _merge_sorted(rows[middle:], compare)
    merged = []
    at = to = 0
    while at < len(left) and to < len(right):
        if compare(left[at], right[to]) <= 0:
            merged.append(left[at])
            at += 1
        else:
            merged.append(right[to])
            to += 1
    return merged + left[at:] + right[to:]


def table(
    rows: Iterable["ServiceRow"],
    show: Collection[str] = (),
    title: bool = True,
    names: Names = NUMERIC,
) -> str:
    """Return the text of ``ipvsadm -L``; ``show`` holds the long names of the list's options."""
    numbers = exact_number if "exact" in show else large_number
    lines = [TITLE] if title else []
    if "stats" in show or "rate" in show:
        titles = ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
        if "stats" not in show:
            titles = ("CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")
        lines.append(f"{_FIRST:<33}" + "".join(f" {one:>8}" for one in titles))
        lines.append("  -> RemoteAddress:Port")

        def counters(row: Any) -> str:
            return "".join(map(numbers, row.counters if "stats" in show else row.rates))

        def service_line(row: "ServiceRow") -> str:
            return f"{_service_name(row.key, names):<33}{counters(row)}"

        server_line: Callable[[ServerRow], str] = counters
    else:
        heading, server_line = _columns(show)
        lines += heading

        def service_line(row: "ServiceRow") -> str:
            return _service_name(row.key, names) + _terms(row.terms, row.key.family)

    sort = "nosort" not in show
    for service in _ordered(rows, _compare_services, sort):
        lines.append(service_line(service))
        for server in _ordered(service.servers, _compare_servers, sort):
            name = _endpoint(server.key, service.key.protocol, names, _SERVER_WIDTH)
            lines.append(f"  -> {name:<28}{server_line(server)}")
    return "\n".join(lines) + "\n"


def _columns(show: Collection[str]) -> tuple[list[str], Callable[["ServerRow"], str]]:
    """Return the titles and what follows a server's name, of the listings without counters."""
    if "thresholds" in show or "persistent-conn" in show:
        names = ("Uthreshold", "Lthreshold")
        if "thresholds" not in show:
            names = ("Weight   ", "PersistConn")
        heading = f"{_FIRST:<33} {names[0]:<10} {names[1]:<10} "
        if "thresholds" not in show:
            heading = f"{_FIRST:<33} {'Weight':<9} {'PersistConn':<11} "
        titles = [heading + f"{'ActiveConn':<10} {'InActConn':<10}", "  -> RemoteAddress:Port"]
        if "thresholds" in show:
            return (
                titles,
                lambda row: f" {row.upper:<10} {row.lower:<10} {row.active:<10} {row.inactive:<10}",
            )
        return (
            titles,
            lambda row: (
                f" {row.weight:<9} {row.persistent:<11} {row.active:<10} {row.inactive:<10}"
            ),
        )
    tunnels = "tun-info" in show
    titles = [
        "Prot LocalAddress:Port Scheduler Flags",
        f"  -> RemoteAddress:Port           Forward {'TunnelInfo    ' if tunnels else ''}"
        "Weight ActiveConn InActConn",
    ]
    return (
        titles,
        lambda row: (
            f" {METHOD_NAMES[row.method]:<7} {f'{_tunnel(row):<13} ' if tunnels else ''}"
            f"{row.weight:<6} {row.active:<10} {row.inactive:<10}"
        ),
    )


def stats(rows: Iterable["ServiceRow"]) -> str:
    """Return the text of ``ipvsadm -Ln --stats``."""
    return table(rows, {"stats"})


def timeouts(values: Timeouts) -> str:
    """Return the text of ``ipvsadm -L --timeout``."""
    return f"Timeout (tcp tcpfin udp): {values.tcp} {values.tcp_fin} {values.udp}\n"


def connections(
    rows: Iterable["ConnectionRow"], show: Collection[str] = (), names: Names = NUMERIC
) -> str:
    """Return the text of ``ipvsadm -Lc``."""
    titles = "pro expire state       source             virtual            destination"
    if "persistent-conn" in show:
        titles += "        pe name          pe_data"
    lines = ["IPVS connection entries", titles]
    for row in rows:
        expire = f"{row.expires // 60:02}:{row.expires % 60:02}"
        client, virtual, server = (
            _endpoint(end, row.protocol, names) if end[0] else nobody(row)
            for end in (row.client, row.virtual, row.server)
        )
        line = f"{PROTOCOL_NAMES[row.protocol]:<3} {expire:<6} {row.state:<11} "
        if "persistent-conn" in show and row.engine:
            line += (
                f"{client:<18} {virtual:<16} {server:<18} {row.engine:<16} {octets_text(row.key)}"
            )
        else:
            line += f"{client:<18} {virtual:<18} {server:<18}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def nobody(row: "ConnectionRow") -> str:
    """Return the end of a connection that has no server."""
    return "[::]:0" if row.family == 6 else "0.0.0.0:0"


def _service_option(key: ServiceKey, names: Names) -> str:
    if key.mark:
        return f"-f {key.mark}" + (" -6" if key.family == 6 else "")
    option = {6: "-t", 17: "-u", 132: "--sctp-service"}[key.protocol]
    if key.spans:
        return f"{option} {key.where}"
    return f"{option} {_endpoint((key.address, key.port), key.protocol, names)}"


def _saved_terms(terms: Terms, family: int) -> str:
    line = f" -s {terms.scheduler}"
    if terms.flags & PERSISTENT:
        line += f" -p {terms.persistent}"
        mask = mask_text(terms, family)
        line += f" -M {mask}" if mask else ""
    if terms.engine:
        line += f" --pe {terms.engine}"
    if terms.flags & ONE_PACKET:
        line += " -o"
    flags = ",".join(flag_names(terms))
    return f"{line} -b {flags}" if flags else line


def _saved_tunnel(kind: int, port: int, flags: int) -> str:
    text = f" --tun-type {TUNNEL_TYPES[kind]}"
    if kind == GUE:
        text += f" --tun-port {port}"
    if kind in (GUE, GRE):
        checked = {CHECKSUM: "csum", REMOTE_CHECKSUM: "remcsum"}.get(flags, "nocsum")
        text += f" --tun-{checked}"
    return text


def saved(rows: Iterable["ServiceRow"], names: Names = NUMERIC) -> str:
    """Return the text of ``ipvsadm -S``."""
    lines = []
    for service in _ordered(rows, _compare_services, True):
        option = _service_option(service.key, names)
        lines.append(f"-A {option}{_saved_terms(service.terms, service.key.family)}")
        for server in _ordered(service.servers, _compare_servers, True):
            name = _endpoint(server.key, service.key.protocol, names, _SERVER_WIDTH)
            method = _method_option(server.method, server.dscp, server.proxy)
            line = f"-a {option} -r {name} {method} -w {server.weight}"
            tunnel = _saved_tunnel(*server.tunnel) if server.method == TUNNEL else ""
            lines.append(line + tunnel)
    return "".join(line + "\n" for line in lines)


def _method_option(method: int, dscp: int, proxy: int) -> str:
    if method == L3DSR:
        return f"--l3dsr {dscp}"
    if method == FULLNAT:
        return "--fullnat proxy" if proxy else "--fullnat"
    return {"Masq": "-m", "Tunnel": "-i"}.get(METHOD_NAMES[method], "-g")


def command(one: Command) -> str:
    """Return a change as ipvsadm's command line, thresholds included."""
    if one.verb == "set":
        return f"--set {' '.join(map(str, one.timeouts))}"
    if one.service is None:
        return f"-{one.verb}"
    line = f"-{one.verb} {_service_option(one.service, NUMERIC)}"
    server = one.server
    if server is None:
        terms = _saved_terms(one.terms, one.service.family) if one.verb in "AE" else ""
        return line + terms
    line += f" -r {server.key}"
    if one.verb == "d":
        return line
    line += f" {_method_option(server.method, server.dscp, server.proxy)} -w {server.weight}"
    if server.upper:
        line += f" -x {server.upper}" + (f" -y {server.lower}" if server.lower else "")
    if server.method == TUNNEL:
        line += _saved_tunnel(server.tunnel_type, server.tunnel_port, server.tunnel_flags)
    return line
