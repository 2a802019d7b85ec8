"""How many ICMP errors and resets the director makes, by the kernel's defaults.

Two token buckets, as in Linux: one for all (``icmp_msgs_per_sec`` 1000, ``icmp_msgs_burst`` 50),
and one for each destination (``icmp_ratelimit`` 1000 ms, six saved up).  Linux does not limit
resets; here they pay into the first bucket, so a flood of stray segments is not answered in kind.
"""

from typing import Final

from pylvs.jit import compiled
from pylvs.tables.sizes import TOKEN_BUCKETS
from pylvs.wire import ip

COST: Final = 1_000  # one message, in thousandths
ALL_PER_SECOND: Final = 1_000
ALL_BURST: Final = 50
EACH_PER_SECOND: Final = 1
EACH_BURST: Final = 6


@compiled
def allows(tables, now_ms):
    """Take one message from the bucket that all share."""
    director = tables.director[0]
    if director.unlimited:
        return True
    gained = (now_ms - director.icmp_filled_ms) * ALL_PER_SECOND
    director.icmp_tokens = min(director.icmp_tokens + gained, ALL_BURST * COST)
    director.icmp_filled_ms = now_ms
    if director.icmp_tokens < COST:
        return False
    director.icmp_tokens -= COST
    return True


@compiled
def allows_to(tables, address, now_ms):
    """Take one message to ``address``, a pair, from both buckets.

    Destinations that fall into the same of ``TOKEN_BUCKETS`` share one.
    """
    if tables.director[0].unlimited:
        return True
    bucket = tables.tokens[((ip.fold(address) * 0x61C8_8647) & 0xFFFF_FFFF) % TOKEN_BUCKETS]
    saved = min(bucket[0] + (now_ms - bucket[1]) * EACH_PER_SECOND, EACH_BURST * COST)
    bucket[1] = now_ms
    bucket[0] = saved
    if saved < COST or not allows(tables, now_ms):
        return False
    bucket[0] = saved - COST
    return True
