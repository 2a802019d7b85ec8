"""Services that span ports of an address, or a network: found by prefix and a map of ports.

    span_buckets[hash(length, protocol, network)] -> SPAN -> SPAN -> NONE
    SPAN.first_page -> port_pages[.., port >> 8] -> a service,
                                                 or port_pages[.., port & 255] -> a service

The longest prefix that has a service for the port wins; within one, ranges come before all ports.
A lookup costs a few loads for each length of prefix in use, however many services there are.
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import chains, servers
from pylvs.tables.addresses import is_at, set_address
from pylvs.tables.sizes import PORT_PAGES_LIMIT, SPAN_BUCKETS
from pylvs.wire import ip

_PAGE: Final = 256
_PORT_MAX: Final = 65_535
_DIRECT: Final = -2  # in a first page: 256 ports are all of service ``_DIRECT - entry``
_IPV4_ROWS: Final = 33  # rows of span_prefixes for IPv4; IPv6's come after them
_NETWORK: Final = 0  # in the place of a protocol: some service spans this network


@apart
def find(tables, family, protocol, address, port):
    """Return the row of the service that spans this destination best, or ``NONE``."""
    begin, count = _prefixes(tables, family)
    for at in range(begin, begin + count):
        node = _node_at(tables, at, protocol, address)
        if node != NONE:
            row = _in_map(tables, int64(tables.spans[node].first_page), port)
            if row == NONE:
                row = int64(tables.spans[node].all_ports)
            if row != NONE:
                return row
    return NONE


@apart
def find_range(tables, protocol, address, port):
    """Return the row of the service for a range of ports of just this address, or ``NONE``."""
    length = 32 if ip.is_ipv4(address) else 128
    node = _find_node(tables, length, protocol, address)
    return NONE if node == NONE else _in_map(tables, int64(tables.spans[node].first_page), port)


@apart
def is_within(tables, address):
    """Whether an address is of a network that some service spans, whatever the protocol."""
    begin, count = _prefixes(tables, 4 if ip.is_ipv4(address) else 6)
    for at in range(begin, begin + count):
        if _node_at(tables, at, _NETWORK, address) != NONE:
            return True
    return False


@compiled
def _prefixes(tables, family):
    """Return where the prefixes of a family begin, and how many are in use."""
    director = tables.director[0]
    if family == 4:
        return 0, director.ipv4_prefix_count
    return _IPV4_ROWS, director.ipv6_prefix_count


@compiled
def _node_at(tables, at, protocol, address):
    prefix = tables.span_prefixes[at]
    network = address[0] & prefix.mask_high, address[1] & prefix.mask_low
    return _find_node(tables, int64(prefix.length), protocol, network)


@compiled
def _bucket_of(length, protocol, network):
    return servers.mix(protocol, ip.fold(network), length) % SPAN_BUCKETS


@compiled
def _find_node(tables, length, protocol, network):
    row = int64(tables.span_buckets[_bucket_of(length, protocol, network)])
    while row != NONE:
        span = tables.spans[row]
        if is_at(span, network) and span.length == length and span.protocol == protocol:
            return row
        row = int64(span.next)
    return NONE


@compiled
def _in_map(tables, first_page, port):
    """Return the service that a map has for a port, or ``NONE``."""
    if first_page == NONE:
        return NONE
    entry = int64(tables.port_pages[first_page, port >> 8])
    if entry == NONE:
        return NONE
    if entry <= _DIRECT:
        return _DIRECT - entry
    return int64(tables.port_pages[entry, port & 255])


@apart
def cover(tables, row):
    """Let a service be found by what it spans: the ranges in ``staged``.

    Returns whether there was room; if not, some of it may be found, until ``uncover``.
    """
    service = tables.services[row]
    _count_prefix(tables, service, 1)
    node = _use(tables, service, int64(service.protocol))
    if node == NONE or (service.is_network and _use(tables, service, _NETWORK) == NONE):
        return False
    span = tables.spans[node]
    for at in range(tables.director[0].staged_count):
        low, high = int64(tables.staged[at, 0]), int64(tables.staged[at, 1])
        if low == 0 and high == _PORT_MAX:
            span.all_ports = row
        elif not _map_range(tables, span, low, high, row):
            return False
    return True


@apart
def uncover(tables, row):
    """Undo ``cover``, as far as it came."""
    service = tables.services[row]
    _count_prefix(tables, service, -1)
    network = service.address_high, service.address_low
    node = _find_node(tables, int64(service.prefix), int64(service.protocol), network)
    if node == NONE:
        return
    span = tables.spans[node]
    if span.all_ports == row:
        span.all_ports = NONE
    if span.first_page != NONE and _unmap(tables, int64(span.first_page), row):
        span.first_page = NONE
    _release(tables, node)
    if service.is_network:
        node = _find_node(tables, int64(service.prefix), _NETWORK, network)
        if node != NONE:
            _release(tables, node)


@compiled
def _use(tables, service, protocol):
    """Return the row of SPAN for a service's network, if need be a new one, or ``NONE``."""
    network, length = (service.address_high, service.address_low), int64(service.prefix)
    row = _find_node(tables, length, protocol, network)
    if row == NONE:
        row = tables.director[0].free_span
        if row != NONE:
            tables.director[0].free_span = tables.spans[row].next
        elif tables.director[0].spans_seen < tables.spans.size:
            row = tables.director[0].spans_seen
            tables.director[0].spans_seen += 1
        else:
            return NONE
        span = tables.spans[row]
        span.users = 0
        span.protocol = protocol
        span.length = length
        set_address(span, network)
        span.all_ports = NONE
        span.first_page = NONE
        bucket = _bucket_of(length, protocol, network)
        chains.link(tables.span_buckets, bucket, tables.spans, row)
    tables.spans[row].users += 1
    return row


@compiled
def _release(tables, row):
    """One service less spans this network; the last one gives its row back."""
    span = tables.spans[row]
    span.users -= 1
    if span.users:
        return
    network = span.address_high, span.address_low
    bucket = _bucket_of(int64(span.length), int64(span.protocol), network)
    chains.unlink(tables.span_buckets, bucket, tables.spans, row)
    span.next = tables.director[0].free_span
    tables.director[0].free_span = row


@compiled
def _map_range(tables, span, low, high, row):
    """Enter a service for some ports, which have none; return whether there was room."""
    if span.first_page == NONE:
        span.first_page = _take_page(tables)
        if span.first_page == NONE:
            return False
    pages = tables.port_pages
    for at in range(low // _PAGE, high // _PAGE + 1):
        first, last = max(low - at * _PAGE, 0), min(high - at * _PAGE, _PAGE - 1)
        page = int64(pages[span.first_page, at])
        if page == NONE and last - first == _PAGE - 1:
            pages[span.first_page, at] = _DIRECT - row
            continue
        if page == NONE:
            page = _take_page(tables)
            if page == NONE:
                return False
            pages[span.first_page, at] = page
        for port in range(first, last + 1):
            pages[page, port] = row
    return True


@compiled
def _unmap(tables, first_page, row):
    """Take a service out of a map; return whether nothing is left, and the page given back."""
    for at in range(_PAGE):
        page = int64(tables.port_pages[first_page, at])
        if page == _DIRECT - row or (page >= 0 and _clear_page(tables, page, row)):
            tables.port_pages[first_page, at] = NONE
    return _clear_page(tables, first_page, NONE)


@compiled
def _clear_page(tables, page, row):
    """Take a service out of a page; return whether nothing is left, and the page given back."""
    left = False
    for at in range(_PAGE):
        if tables.port_pages[page, at] == row:
            tables.port_pages[page, at] = NONE
        left = left or tables.port_pages[page, at] != NONE
    if left:
        return False
    tables.port_pages[page, 0] = tables.director[0].free_page
    tables.director[0].free_page = page
    return True


@compiled
def _take_page(tables):
    """Return a page with nothing in it, or ``NONE``."""
    director = tables.director[0]
    page = director.free_page
    if page != NONE:
        director.free_page = tables.port_pages[page, 0]
    elif director.pages_seen < PORT_PAGES_LIMIT:
        page = director.pages_seen
        director.pages_seen += 1
    else:
        return NONE
    for at in range(_PAGE):
        tables.port_pages[page, at] = NONE
    return page


@compiled
def _count_prefix(tables, service, step):
    """Keep account of which lengths of prefixes are in use, longest first."""
    begin, count = _prefixes(tables, service.family)
    at = begin
    while at < begin + count and tables.span_prefixes[at].length > service.prefix:
        at += 1
    if at == begin + count or tables.span_prefixes[at].length != service.prefix:
        _insert_prefix(tables, service, at, begin + count)
    tables.span_prefixes[at].users += step
    if tables.span_prefixes[at].users == 0:
        for place in range(at, begin + count - 1):
            _copy_prefix(tables.span_prefixes[place], tables.span_prefixes[place + 1])
        _add_prefixes(tables.director[0], service.family, -1)


@compiled
def _insert_prefix(tables, service, at, end):
    for place in range(end, at, -1):
        _copy_prefix(tables.span_prefixes[place], tables.span_prefixes[place - 1])
    prefix = tables.span_prefixes[at]
    length = int64(service.prefix)
    prefix.length = length
    prefix.users = 0
    if service.family == 4:
        prefix.mask_high, prefix.mask_low = 0, _mask_of(length, 32)
    else:
        prefix.mask_high, prefix.mask_low = _mask_of(length, 64), _mask_of(length - 64, 64)
    _add_prefixes(tables.director[0], service.family, 1)


@compiled
def _mask_of(length, bits):
    """Return ``length`` ones, at least none and at most ``bits``, in front of zeros."""
    if length <= 0:
        return 0
    mask = -1 << (bits - min(length, bits))
    return mask & 0xFFFF_FFFF if bits == 32 else mask


@compiled
def _add_prefixes(director, family, step):
    if family == 4:
        director.ipv4_prefix_count += step
    else:
        director.ipv6_prefix_count += step


@compiled
def _copy_prefix(to, prefix):
    to.length = prefix.length
    to.users = prefix.users
    to.mask_high = prefix.mask_high
    to.mask_low = prefix.mask_low
