"""Hash chains: a head for each bucket, and each row's ``next``, ``NONE`` at the end."""

from numpy import int64

from pylvs.jit import compiled


@compiled
def link(heads, bucket, rows, row):
    """Put a row in front of its bucket's chain."""
    rows[row].next = heads[bucket]
    heads[bucket] = row


@compiled
def unlink(heads, bucket, rows, row):
    """Take a row out of its bucket's chain, which it is in."""
    at = int64(heads[bucket])
    if at == row:
        heads[bucket] = rows[row].next
        return
    while rows[at].next != row:
        at = int64(rows[at].next)
    rows[at].next = rows[row].next
