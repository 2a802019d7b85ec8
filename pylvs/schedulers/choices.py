"""The better of two drawn at random by weight (twos; ip_vs_twos.c)."""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.schedulers.least_connection import is_usable, overhead

_MULTIPLIER = 0x5851_F42D  # Steele and Vigna, Computationally easy, spectrally good multipliers
_STATE_BITS = (1 << 31) - 1


@compiled
def _draw(tables, limit):
    """Return a number of 0 to ``limit``, both included, from a small congruential generator."""
    director = tables.director[0]
    director.dice = (director.dice * (_MULTIPLIER & _STATE_BITS) + 12_345) & _STATE_BITS
    high = director.dice >> 8
    director.dice = (director.dice * (_MULTIPLIER & _STATE_BITS) + 12_345) & _STATE_BITS
    return ((high << 23) | (director.dice >> 8)) % (limit + 1)


@compiled
def pick_of_two(tables, service_row):
    """Return the less loaded of two servers drawn by weight, or ``NONE``."""
    total = 0
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server):
            total += int64(server.weight)
        at = int64(server.next)
    if total == 0:
        return NONE
    first = _reach(tables, service_row, _draw(tables, total))
    second = _reach(tables, service_row, _draw(tables, total))
    one, other = tables.servers[first], tables.servers[second]
    if int64(other.weight) * overhead(one) > int64(one.weight) * overhead(other):
        return second
    return first


@compiled
def _reach(tables, service_row, distance):
    """Return the server at which the weights, summed along the list, reach ``distance``."""
    last = NONE
    at = int64(tables.services[service_row].head)
    while at != NONE:
        server = tables.servers[at]
        if is_usable(server):
            last = at
            distance -= int64(server.weight)
            if distance <= 0:
                return at
        at = int64(server.next)
    return last
