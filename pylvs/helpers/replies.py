"""FTP's text (RFC 959, RFC 2428), as far as it names ends of data connections.

    PORT h1,h2,h3,h4,p1,p2        EPRT |1|address|port|
    227 ... (h1,h2,h3,h4,p1,p2)   229 ... (|||port|)

``text`` is any uint8 array; positions are places in it.
"""

from typing import Final

from numpy import int64

from pylvs.jit import apart, compiled

NEWLINE: Final = 10
RETURN: Final = 13
BLANK: Final = 32
_OPEN, _COMMA, _ZERO, _NINE = 40, 44, 48, 57
_CASE: Final = 0x20
_PORT_MAX: Final = 65_535

OTHER, PART, WHOLE = range(3)
"""What a line is: none that is looked for, perhaps the beginning of one, one."""


@compiled
def is_command(line, name):
    """Whether a line begins with a command's letters, whatever their case: a tuple of four."""
    found = True
    for place in range(4):
        found = found and int64(line[place]) & ~_CASE == name[place]
    return found and (line[4] == BLANK or line[4] == RETURN)


@compiled
def _is_digit(octet):
    return _ZERO <= octet <= _NINE


@apart
def find_reply(text, at, end, last_digit):
    """Return what the line at a place is, where what it names begins and ends, and the port.

    It is looked for by the last digit of its code, 7 of 227 or 9 of 229.
    """
    for place in range(4):
        if at + place == end:
            return PART, end, end, 0
        octet = int64(text[at + place])
        wanted = _ZERO + 2 if place < 2 else last_digit if place == 2 else BLANK
        if octet != wanted:
            return OTHER, end, end, 0
    at += 4
    while at < end and text[at] != _OPEN and text[at] != NEWLINE:
        if last_digit == _ZERO + 7 and _is_digit(int64(text[at])):
            at -= 1  # the parenthesis may be missing
            break
        at += 1
    if at == end:
        return PART, end, end, 0
    if text[at] == NEWLINE:
        return OTHER, end, end, 0
    begin = at + 1
    if last_digit == _ZERO + 7:
        stop, port = read_numbers(text, begin, end)
    else:
        stop, port = read_extended(text, begin, end)
    if stop == end:
        return PART, end, end, 0
    return (WHOLE if port else OTHER), begin, stop, port


@apart
def read_numbers(text, at, end):
    """Return where ``h1,h2,h3,h4,p1,p2`` ends, and the port it gives: 0 if it is not that."""
    port, value, commas, digits = 0, 0, 0, 0
    while at < end:
        octet = int64(text[at])
        if _is_digit(octet) and digits < 3:
            value = value * 10 + octet - _ZERO
            digits += 1
        elif octet == _COMMA and digits and commas < 5 and value <= 0xFF:
            port = value << 8
            commas += 1
            value = 0
            digits = 0
        else:
            break
        at += 1
    if commas != 5 or digits == 0 or value > 0xFF:
        return at, 0
    return at, port + value


@apart
def read_extended(text, at, end):
    """Return where ``|family|address|port|`` ends, whatever sign is between, and the port, or 0."""
    if at == end:
        return end, 0
    sign, signs, port = int64(text[at]), 0, 0
    if sign <= BLANK or _is_digit(sign):
        return at, 0
    while at < end and signs < 4:
        octet = int64(text[at])
        if octet == sign:
            signs += 1
        elif octet == NEWLINE or (signs == 3 and not _is_digit(octet)):
            return at, 0
        elif signs == 3:
            port = min(port * 10 + octet - _ZERO, _PORT_MAX + 1)
        at += 1
    if signs < 4:
        return end, 0
    return at, port if port <= _PORT_MAX else 0


@compiled
def size_of(value):
    """Return how many digits a number below 1,000 has."""
    return 1 + int64(value >= 10) + int64(value >= 100)


@apart
def write_numbers(text, at, address, port):
    """Write ``h1,h2,h3,h4,p1,p2``; the address is IPv4's."""
    for place in range(6):
        value = _part(address, port, place)
        if place:
            text[at] = _COMMA
            at += 1
        digits = size_of(value)
        for digit in range(digits):
            text[at + digits - 1 - digit] = _ZERO + value % 10
            value //= 10
        at += digits


@apart
def size_of_numbers(address, port):
    """Return how many bytes that is."""
    total = 5
    for place in range(6):
        total += size_of(_part(address, port, place))
    return total


@compiled
def _part(address, port, place):
    if place < 4:
        return (address >> (24 - 8 * place)) & 0xFF
    return (port >> (40 - 8 * place)) & 0xFF
