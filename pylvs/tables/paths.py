"""Routes: which port, next hop, source address and MTU lead to a destination.

The table is short and sorted, local addresses first, then those of firewall marks, then longest
prefix first, so a linear scan is the lookup: ten routes cost ten compares on one or two cache
lines.  Beside it, path MTUs that ICMP errors told; they hold for ten minutes.
"""

from typing import Final

from numpy import int64

from pylvs.frames import LOCAL_DELIVERY, NONE, ON_THE_WAY
from pylvs.jit import apart, compiled
from pylvs.tables import neighbours
from pylvs.tables.addresses import is_at, set_address
from pylvs.tables.connections import flows
from pylvs.tables.layouts.network import LOCAL_ADDRESS
from pylvs.wire import ip

MTU_MIN: Final = 552  # net.ipv4.route.min_pmtu
EXCEPTION_MS: Final = 600_000  # net.ipv4.route.mtu_expires


@compiled
def find(tables, address):
    """Return the row of the best route to ``address`` for packets without a mark, or ``NONE``."""
    return find_marked(tables, address, 0)


@compiled
def find_marked(tables, address, mark):
    """Return the row of the best route to ``address``, or ``NONE``."""
    paths = tables.paths
    director = tables.director[0]
    begin, end = 0, director.ipv4_path_count
    if not ip.is_ipv4(address):
        begin, end = end, director.path_count
    for row in range(begin, end):
        path = paths[row]
        if (
            address[1] & path.mask_low == path.network_low
            and address[0] & path.mask_high == path.network_high
            and (path.mark == 0 or path.mark == mark)
        ):
            return row
    return NONE


@compiled
def own_row(tables, address):
    """Return the row of a VIP in ``own``, which is sorted by address, or ``NONE``."""
    low, high = 0, tables.director[0].own_count
    while low < high:
        middle = (low + high) >> 1
        if _comes_before(tables.own[middle], address):
            low = middle + 1
        else:
            high = middle
    if low < tables.director[0].own_count and is_at(tables.own[low], address):
        return low
    return NONE


@compiled
def _comes_before(own, address):
    if own.address_high == address[0]:
        return own.address_low < address[1]
    return own.address_high < address[0]


@apart
def delivery_of(tables, address, mark):
    """Return ``LOCAL_DELIVERY`` or ``ON_THE_WAY``, as a packet's destination has it."""
    if own_row(tables, address) != NONE:
        return LOCAL_DELIVERY
    row = find_marked(tables, address, mark)
    if row != NONE and tables.paths[row].kind == LOCAL_ADDRESS:
        return LOCAL_DELIVERY
    return ON_THE_WAY


@compiled
def is_hosts_own(tables, address):
    """Whether this very address is the host's: not one of a network that is local as a whole."""
    row = find(tables, address)
    if row == NONE or tables.paths[row].kind != LOCAL_ADDRESS:
        return False
    path = tables.paths[row]
    if ip.is_ipv4(address):
        return path.mask_low == 0xFFFF_FFFF
    return path.mask_low == -1 and path.mask_high == -1


@compiled
def may_be_source(tables, address, mark):
    """Whether the director may speak from where a packet was addressed to.

    As a host does, it cannot where only a firewall mark brought the packet.
    """
    if mark == 0 or not tables.director[0].hosted:
        return True
    return delivery_of(tables, address, 0) == LOCAL_DELIVERY


@compiled
def next_hop(tables, row, address):
    """Return the neighbour row for a packet to ``address`` by this path; ``NONE`` when full."""
    path = tables.paths[row]
    if path.gateway_high != 0 or path.gateway_low != 0:
        address = path.gateway_high, path.gateway_low
    return neighbours.find_or_add(tables, int64(path.port), address)


@compiled
def source_of(tables, row):
    """Return the director's address on a path."""
    path = tables.paths[row]
    return path.source_high, path.source_low


@apart
def exception_to(tables, address, now_ms):
    """Return the row of what is known of the MTU to ``address``, or ``NONE``."""
    for row in range(tables.director[0].exception_count):
        exception = tables.exceptions[row]
        if is_at(exception, address) and exception.expires_ms > now_ms:
            return row
    return NONE


@compiled
def mtu_to(tables, path_row, address, now_ms):
    """Return the MTU of the path to ``address`` for packets of the director's own."""
    mtu = int64(tables.paths[path_row].mtu)
    if tables.director[0].exception_count:
        row = exception_to(tables, address, now_ms)
        if row != NONE:
            return min(mtu, int64(tables.exceptions[row].mtu))
    return mtu


@compiled
def router_mtu(tables, path_row, address, now_ms):
    """Return the MTU of the path to ``address`` for packets that the director only forwards.

    A router leaves path MTUs to the ends, but for one it was told to be below ``MTU_MIN``.
    """
    mtu = int64(tables.paths[path_row].mtu)
    if tables.director[0].exception_count:
        row = exception_to(tables, address, now_ms)
        if row != NONE and tables.exceptions[row].locked:
            return min(mtu, int64(tables.exceptions[row].mtu))
    return mtu


@apart
def learn_mtu(tables, address, mtu, now_ms):
    """Note a path MTU, no lower than ``MTU_MIN`` and never above what holds already."""
    path = find(tables, address)
    if path == NONE:
        return
    row = exception_to(tables, address, now_ms)
    known = int64(tables.paths[path].mtu if row == NONE else tables.exceptions[row].mtu)
    if mtu >= known:
        return
    flows.distrust(tables)
    if row == NONE:
        row = _free_exception(tables, now_ms)
        tables.director[0].exception_count = max(tables.director[0].exception_count, row + 1)
    exception = tables.exceptions[row]
    set_address(exception, address)
    exception.mtu = max(mtu, min(known, MTU_MIN))
    exception.locked = mtu < MTU_MIN
    exception.expires_ms = now_ms + EXCEPTION_MS


@compiled
def _free_exception(tables, now_ms):
    """Return a row that holds nothing any more, or the one that would first hold nothing."""
    oldest = 0
    for row in range(tables.exceptions.size):
        if tables.exceptions[row].expires_ms <= now_ms:
            return row
        if tables.exceptions[row].expires_ms < tables.exceptions[oldest].expires_ms:
            oldest = row
    return oldest
