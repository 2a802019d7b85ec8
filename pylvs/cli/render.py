"""ipvsadm's tables, to the column."""

from collections.abc import Callable, Iterable
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any, Final

from pylvs.control.model import METHOD_NAMES, PROTOCOL_NAMES
from pylvs.wire.text import address_text

if TYPE_CHECKING:
    from pylvs.control.listing import Counters, ServiceRow

TITLE: Final = "IP Virtual Server version 1.2.1 (size=4096)"
_FIRST: Final = "Prot LocalAddress:Port"
_NAME_WIDTH: Final = 33
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


def _signed_difference(one: int, other: int) -> int:
    """Compare as ipvsadm does: a 32-bit signed difference, not an order."""
    difference = (one - other) & 0xFFFF_FFFF
    return difference - 2**32 if difference >= 2**31 else difference


def _compare_services(one: "ServiceRow", other: "ServiceRow") -> int:
    return (
        one.key.protocol - other.key.protocol
        or _signed_difference(one.key.address, other.key.address)
        or one.key.port - other.key.port
    )


def _compare_servers(one: Any, other: Any) -> int:
    return _signed_difference(one.key.address, other.key.address) or one.key.port - other.key.port


def _service_name(row: "ServiceRow") -> str:
    endpoint = f"{address_text(row.key.address)}:{row.key.port}"
    return f"{PROTOCOL_NAMES[row.key.protocol]:<4} {endpoint}"[:_NAME_WIDTH]


def _server_name(row: Any) -> str:
    return f"{address_text(row.key.address)}:{row.key.port}"[:_SERVER_WIDTH]


def _lines(
    rows: Iterable["ServiceRow"],
    service_line: Callable[["ServiceRow"], str],
    server_line: Callable[[Any], str],
) -> list[str]:
    lines = []
    for service in sorted(rows, key=cmp_to_key(_compare_services)):
        lines.append(service_line(service))
        for server in sorted(service.servers, key=cmp_to_key(_compare_servers)):
            lines.append(f"  -> {_server_name(server):<28}{server_line(server)}")
    return lines


def table(rows: Iterable["ServiceRow"]) -> str:
    """Return the text of ``ipvsadm -Ln``."""
    lines = [
        TITLE,
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    ]
    lines += _lines(
        rows,
        lambda row: f"{_service_name(row)} {row.scheduler}",
        lambda row: (
            f" {METHOD_NAMES[row.method]:<7} {row.weight:<6} {row.active:<10} {row.inactive:<10}"
        ),
    )
    return "\n".join(lines) + "\n"


def stats(rows: Iterable["ServiceRow"]) -> str:
    """Return the text of ``ipvsadm -Ln --stats``."""

    def numbers(counters: "Counters") -> str:
        return "".join(map(large_number, counters))

    titles = ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
    lines = [
        TITLE,
        f"{_FIRST:<33}" + "".join(f" {title:>8}" for title in titles),
        "  -> RemoteAddress:Port",
    ]
    lines += _lines(
        rows,
        lambda row: f"{_service_name(row):<33}{numbers(row.counters)}",
        lambda row: numbers(row.counters),
    )
    return "\n".join(lines) + "\n"
