"""What gives packets a firewall mark, in one line: ``5=tcp/192.0.2.0/24:80,443``."""

from typing import Final

from pylvs.control.ipvsadm.rules import number_of
from pylvs.control.model import PROTOCOLS, MarkRule
from pylvs.errors import UsageError
from pylvs.wire.text import address_of

_MARK_MAX: Final = 2**32 - 1
_PORT_MAX: Final = 65_535


def parse_mark(text: str) -> list[MarkRule]:
    """Return the rules of one line, one for each range of ports; raises UsageError."""
    mark_text, equals, where = text.partition("=")
    mark = number_of(mark_text, 1, _MARK_MAX)
    advice = f"{text!r}: give MARK=[PROTO/]NET[:PORTS], as in 5=tcp/192.0.2.0/24:80,443"
    if not equals or mark is None:
        raise UsageError(advice)
    protocol = 0
    name, slash, rest = where.partition("/")
    if slash and name in PROTOCOLS:
        protocol, where = PROTOCOLS[name], rest
    network, _, ports = where.partition(":")
    host, slash, length = network.partition("/")
    prefix = number_of(length, 0, 32) if slash else 32
    try:
        address = address_of(host)
    except ValueError:
        raise UsageError(advice) from None
    if prefix is None:
        raise UsageError(advice)
    return [
        MarkRule(
            mark,
            protocol,
            destination=address,
            destination_prefix=prefix,
            ports=_range(one, advice),
        )
        for one in (ports.split(",") if ports else ["0-65535"])
    ]


def _range(text: str, advice: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low, high = number_of(first, 0, _PORT_MAX), number_of(last or first, 0, _PORT_MAX)
    if low is None or high is None or low > high:
        raise UsageError(advice)
    return low, high
