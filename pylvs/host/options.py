"""IP options on the way in: checked, and record route and timestamp slots filled (RFC 791).

    type | length | pointer | data ...        pointer counts from 1, the type being 1

What Linux does before anybody else sees the packet (net/ipv4/ip_options.c): a malformed option is
answered with ICMP 12/0, a source route is refused (accept_source_route=0).  The header checksum is
not mended yet: an ICMP error quotes the packet as it then stands, and who sends it on mends it.
"""

from typing import Final

from pylvs.frames import LOCAL_DELIVERY, NONE, RECORDS_ROUTE, RECORDS_TIME, STAMPED
from pylvs.jit import apart, compiled
from pylvs.tables import paths
from pylvs.tables.layouts.network import LOCAL_ADDRESS
from pylvs.wire import ip, ipv4
from pylvs.wire.memory import copy, load_u8, load_u32, store_u32

WELL_FORMED: Final = 0
SOURCE_ROUTED: Final = -1
_DAY_MS: Final = 86_400_000

# What a timestamp option asks for, in the low four bits of its fourth byte.
_TIME_ONLY: Final = 0
_TIME_AND_ADDRESS: Final = 1
_PRESPECIFIED: Final = 3

_SEEN_ROUTE: Final = 1
_SEEN_TIME: Final = 2
_SEEN_SOURCE_ROUTE: Final = 4


@compiled
def _filled_address(tables, frame):
    """Return the address of the director's that goes into the slots, for now."""
    if frame.delivery == LOCAL_DELIVERY:
        return frame.destination
    path = paths.find(tables, ip.from_ipv4(frame.source))
    return 0 if path == NONE else tables.paths[path].source_low


@apart
def receive(tables, memory, frame, now_ms):
    """Check and fill the options; return ``WELL_FORMED``, ``SOURCE_ROUTED``, or the bad byte.

    The bad byte is its offset in the header.  What a router has yet to write is noted in
    ``frame.delivery``.
    """
    at = frame.ip + ipv4.HEADER_SIZE
    end = frame.transport
    seen = 0
    while at < end:
        option = load_u8(memory, at)
        if option == ipv4.OPTION_END:
            for rest in range(at + 1, end):
                memory[rest] = ipv4.OPTION_END
            break
        if option == ipv4.OPTION_NOP:
            at += 1
            continue
        if at + 1 >= end:
            return at - frame.ip
        size = load_u8(memory, at + 1)
        if size < 2 or at + size > end:
            return at - frame.ip
        bad = 0
        if option == ipv4.OPTION_RECORD_ROUTE:
            bad = at if seen & _SEEN_ROUTE else _record_route(tables, memory, frame, at, size)
            seen |= _SEEN_ROUTE
        elif option == ipv4.OPTION_TIMESTAMP:
            bad = at if seen & _SEEN_TIME else _stamp(tables, memory, frame, at, size, now_ms)
            seen |= _SEEN_TIME
        elif option == ipv4.OPTION_LOOSE_ROUTE or option == ipv4.OPTION_STRICT_ROUTE:
            bad = at if seen & _SEEN_SOURCE_ROUTE else _check_source_route(memory, at, size)
            seen |= _SEEN_SOURCE_ROUTE
        elif option == ipv4.OPTION_ROUTER_ALERT and size < 4:
            bad = at + 1
        if bad:
            return bad - frame.ip
        at += size
    return SOURCE_ROUTED if seen & _SEEN_SOURCE_ROUTE else WELL_FORMED


@compiled
def _check_source_route(memory, at, size):
    if size < 3:
        return at + 1
    return at + 2 if load_u8(memory, at + 2) < 4 else 0


@compiled
def _record_route(tables, memory, frame, at, size):
    """Write an address into the next slot; return where the option is bad, or 0."""
    if size < 3:
        return at + 1
    pointer = load_u8(memory, at + 2)
    if pointer < 4:
        return at + 2
    if pointer > size:
        return 0
    if pointer + 3 > size:
        return at + 2
    store_u32(memory, at + pointer - 1, _filled_address(tables, frame))
    memory[at + 2] = pointer + 4
    frame.delivery |= RECORDS_ROUTE
    return 0


@compiled
def _stamp(tables, memory, frame, at, size, now_ms):
    """Write time, and address where asked, into the next slot; return what is bad, or 0."""
    if size < 4:
        return at + 1
    pointer = load_u8(memory, at + 2)
    kind = load_u8(memory, at + 3)
    if pointer < 5:
        return at + 2
    if pointer > size:
        return _count_overflow(memory, at, kind)
    if pointer + 3 > size:
        return at + 2
    slot = at + pointer - 1
    if kind & 0xF == _TIME_ONLY:
        memory[at + 2] = pointer + 4
    elif kind & 0xF == _TIME_AND_ADDRESS or kind & 0xF == _PRESPECIFIED:
        if pointer + 7 > size:
            return at + 2
        if kind & 0xF == _TIME_AND_ADDRESS:
            store_u32(memory, slot, _filled_address(tables, frame))
            frame.delivery |= RECORDS_TIME
        elif not _is_ours(tables, load_u32(memory, slot)):
            return 0
        slot += 4
        memory[at + 2] = pointer + 8
    else:
        return 0
    frame.delivery |= STAMPED
    store_u32(memory, slot, time_of_day(tables, now_ms))
    return 0


@compiled
def time_of_day(tables, now_ms):
    """Return milliseconds since midnight UT."""
    return (now_ms + tables.director[0].midnight_ms) % _DAY_MS


@compiled
def _count_overflow(memory, at, kind):
    if kind & 0xF == _PRESPECIFIED:
        return 0
    if kind >> 4 == 15:
        return at + 3
    memory[at + 3] = kind + 0x10
    return 0


@compiled
def _is_ours(tables, address):
    path = paths.find(tables, ip.from_ipv4(address))
    return path != NONE and tables.paths[path].kind == LOCAL_ADDRESS


@apart
def leave(memory, frame, address):
    """Finish the options of a packet that is sent on: a router records the address it left from.

    ``address`` is that of the director's on the way out, the VIP for a translated reply; 0 leaves
    what is there.  Linux leaves it in a timestamp option, too.
    """
    at = frame.ip + ipv4.HEADER_SIZE
    while address and at < frame.transport:
        option = load_u8(memory, at)
        if option == ipv4.OPTION_END:
            break
        if option == ipv4.OPTION_NOP:
            at += 1
            continue
        pointer = load_u8(memory, at + 2)
        if option == ipv4.OPTION_RECORD_ROUTE and frame.delivery & RECORDS_ROUTE:
            store_u32(memory, at + pointer - 5, address)
        at += load_u8(memory, at + 1)
    ipv4.mend_checksum(memory, frame.ip)


IMPOSSIBLE: Final = -1


@apart
def echo(tables, memory, frame, to, source, now_ms):
    """Write the options of an answer to the frame at ``to``; return their size, or ``IMPOSSIBLE``.

    Record route and timestamp go back as they came and go on to be filled, with ``source`` as the
    address; other options are not for answers (net/ipv4/ip_options.c, __ip_options_echo).
    """
    begin = to
    for wanted in (ipv4.OPTION_RECORD_ROUTE, ipv4.OPTION_TIMESTAMP):
        at = frame.ip + ipv4.HEADER_SIZE
        while at < frame.transport and load_u8(memory, at) != ipv4.OPTION_END:
            if load_u8(memory, at) == ipv4.OPTION_NOP:
                at += 1
                continue
            size = load_u8(memory, at + 1)
            if load_u8(memory, at) == wanted:
                copy(memory, to, at, size)
                if wanted == ipv4.OPTION_RECORD_ROUTE:
                    fits = _echo_route(memory, frame, to, size, source)
                else:
                    fits = _echo_time(tables, memory, frame, to, size, source, now_ms)
                if not fits:
                    return IMPOSSIBLE
                to += size
            at += size
    while (to - begin) & 3:
        memory[to] = ipv4.OPTION_END
        to += 1
    return to - begin


@compiled
def _echo_route(memory, frame, at, size, source):
    pointer = load_u8(memory, at + 2)
    if frame.delivery & RECORDS_ROUTE and pointer <= size:
        if pointer + 3 > size:
            return False
        memory[at + 2] = pointer + 4
        store_u32(memory, at + pointer - 1, source)
    return True


@compiled
def _echo_time(tables, memory, frame, at, size, source, now_ms):
    pointer = load_u8(memory, at + 2)
    if pointer > size:
        return True
    if frame.delivery & RECORDS_TIME:
        if pointer + 3 > size:
            return False
        store_u32(memory, at + pointer - 1, source)
        pointer += 4
    if frame.delivery & STAMPED:
        if pointer + 3 > size:
            return False
        if load_u8(memory, at + 3) & 0xF != _PRESPECIFIED:
            store_u32(memory, at + pointer - 1, time_of_day(tables, now_ms))
            pointer += 4
        elif pointer + 7 <= size and _is_ours(tables, load_u32(memory, at + pointer - 1)):
            store_u32(memory, at + pointer + 3, time_of_day(tables, now_ms))
            pointer += 8
    memory[at + 2] = pointer
    return True
