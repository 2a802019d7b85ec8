"""What gives packets a firewall mark, in one line: ``5=tcp/192.0.2.0/24:80,443``."""

from typing import Final

from pylvs.control.ipvsadm.rules import number_of
from pylvs.control.model import PROTOCOLS, MarkRule
from pylvs.errors import UsageError
from pylvs.wire.text import address_of, family_of

_MARK_MAX: Final = 2**32 - 1
_PORT_MAX: Final = 65_535
_EXAMPLES: Final = "5=tcp/192.0.2.0/24:80,443 or 5=[2001:db8::]/32"


def parse_mark(text: str) -> list[MarkRule]:
    """Return the rules of one line, one for each range of ports; raises UsageError."""
    mark_text, equals, where = text.partition("=")
    mark = number_of(mark_text, 1, _MARK_MAX)
    advice = f"{text!r}: give MARK=[PROTO/]NET[:PORTS], as in {_EXAMPLES}"
    if not equals or mark is None:
        raise UsageError(advice)
    protocol = 0
    name, slash, rest = where.partition("/")
    if slash and name in PROTOCOLS:
        protocol, where = PROTOCOLS[name], rest
    if where.startswith("["):  # IPv6
        host, bracket, rest = where[1:].partition("]")
        length, colon, ports = rest.partition(":")
        if not bracket or (length and not length.startswith("/")) or (colon and not ports):
            raise UsageError(advice)
    else:
        network, _, ports = where.partition(":")
        host, slash, length = network.partition("/")
        length = slash + length
    family = 6 if where.startswith("[") else 4
    try:
        address = 0 if (host, length) == ("::", "/0") else address_of(host)
    except ValueError:
        raise UsageError(advice) from None
    if address and family_of(address) != family:
        raise UsageError(advice)
    bits = 128 if family == 6 else 32
    prefix = number_of(length.removeprefix("/"), 0, bits) if length else bits
    if prefix is None:
        raise UsageError(advice)
    return [
        MarkRule(
            mark,
            protocol,
            destination=address,
            destination_prefix=prefix,
            ports=_range(one, advice),
            family=family,
        )
        for one in (ports.split(",") if ports else ["0-65535"])
    ]


def _range(text: str, advice: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low, high = number_of(first, 0, _PORT_MAX), number_of(last or first, 0, _PORT_MAX)
    if low is None or high is None or low > high:
        raise UsageError(advice)
    return low, high
