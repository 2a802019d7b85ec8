"""Firewall marks: which packets get one, by rules of the director's own.

The last rule that matches a packet sets its mark, as rules of ``iptables -t mangle -A PREROUTING``
do.  A rule that asks for ports does not match a packet without them.
"""

from numpy import int64

from pylvs.jit import apart
from pylvs.tables.addresses import is_within


@apart
def mark_of(tables, family, protocol, source, destination, port):
    """Return the mark of a packet; ``port`` is -1 when it has none, as a later fragment."""
    mark = 0
    for row in range(tables.director[0].mark_rule_count):
        rule = tables.mark_rules[row]
        if rule.protocol and rule.protocol != protocol:
            continue
        if rule.family != family:
            continue
        network, mask = (
            (rule.source_high, rule.source_low),
            (rule.source_mask_high, rule.source_mask_low),
        )
        if not is_within(source, network, mask):
            continue
        network = rule.destination_high, rule.destination_low
        mask = rule.destination_mask_high, rule.destination_mask_low
        if not is_within(destination, network, mask):
            continue
        asks = rule.first_port != 0 or rule.last_port != 65_535
        if asks and (port < rule.first_port or port > rule.last_port):
            continue
        mark = int64(rule.mark)
    return mark
