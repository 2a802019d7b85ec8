"""Virtual services: looked up by compiled code, changed by the mailbox.

    service_buckets[hash(protocol, VIP, port)] -> service -> service -> NONE

A service is known by protocol, VIP and port, by a firewall mark alone, or by a number if it spans
ports or a network (``spans``).  What a packet finds, in this order (ip_vs_ctl.c,
ip_vs_service_find): its mark's service; its very address and port; a range of ports of its address;
for TCP to an unprivileged port or port 20, an FTP service of that VIP; a service with port 0; the
closest one that spans its address.
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import chains, paths, servers
from pylvs.tables.addresses import address_of, destination_of, is_at, set_address
from pylvs.tables.services import spans
from pylvs.tables.sizes import SERVICE_BUCKETS
from pylvs.wire import ip, ipv4, transport

_MARKED: Final = 0x1_0000  # in the place of a protocol, where services of marks are hashed
_SPANNING: Final = 0x2_0000


@compiled
def _bucket_of(protocol, address, port):
    return servers.mix(protocol, ip.fold(address), port) % SERVICE_BUCKETS


@compiled
def find(tables, protocol, address, port):
    """Return the row of exactly this virtual service, or ``NONE``."""
    row = int64(tables.service_buckets[_bucket_of(protocol, address, port)])
    while row != NONE:
        service = tables.services[row]
        if (
            is_at(service, address)
            and service.port == port
            and service.protocol == protocol
            and service.mark == 0
            and service.span == 0
        ):
            return row
        row = int64(service.next)
    return NONE


@compiled
def find_marked(tables, mark, family):
    """Return the row of the firewall mark's service for packets of a family, or ``NONE``."""
    row = int64(tables.service_buckets[_bucket_of(_MARKED, ip.from_ipv4(mark), 0)])
    while row != NONE:
        service = tables.services[row]
        if service.mark == mark and service.family == family:
            return row
        row = int64(service.next)
    return NONE


@compiled
def find_numbered(tables, span):
    """Return the row of the service that is known by this number, or ``NONE``."""
    row = int64(tables.service_buckets[_bucket_of(_SPANNING, ip.from_ipv4(span), 0)])
    while row != NONE and tables.services[row].span != span:
        row = int64(tables.services[row].next)
    return row


@compiled
def has_any(tables, family):
    """Whether there is a service of this family: Linux's hooks are there only then."""
    director = tables.director[0]
    return (director.ipv4_count if family == 4 else director.ipv6_count) != 0


@compiled
def find_for(tables, frame):
    """Return the row of the service that a packet is for, or ``NONE``."""
    director = tables.director[0]
    if frame.mark and director.mark_count:
        row = find_marked(tables, frame.mark, frame.family)
        if row != NONE:
            return row
    destination = destination_of(frame)
    row = find(tables, frame.protocol, destination, frame.destination_port)
    if row != NONE:
        return row
    port = frame.destination_port
    if director.span_count:
        row = spans.find_range(tables, frame.protocol, destination, port)
        if row != NONE:
            return row
    if (
        director.ftp_count
        and frame.protocol == ipv4.TCP
        and (port == transport.FTP_DATA or port >= director.ip_unprivileged_port_start)
    ):
        row = find(tables, ipv4.TCP, destination, transport.FTP)
        if row != NONE:
            return row
    if director.any_port_count:
        row = find(tables, frame.protocol, destination, 0)
        if row != NONE:
            return row
    if director.span_count:
        return find_spanning(tables, frame)
    return NONE


@apart
def find_spanning(tables, frame):
    """Return the row of the service that spans a packet's destination best, or ``NONE``.

    A network is spanned but for the host's own addresses in it.
    """
    destination, port = destination_of(frame), frame.destination_port
    row = spans.find(tables, frame.family, frame.protocol, destination, port)
    if row != NONE and tables.services[row].is_network and paths.is_hosts_own(tables, destination):
        return NONE
    return row


@apart
def add(tables, family, protocol, address, port, mark, span, prefix):
    """Add a service; return its row, or ``NONE`` when the table is full.

    One with a ``span``, a number, spans a network of this prefix, and the ranges in ``staged``.
    """
    row = _free(tables)
    if row == NONE:
        return NONE
    service = tables.services[row]
    service.used = 1
    service.protocol = protocol
    service.family = family
    set_address(service, address)
    service.port = port
    service.mark = mark
    service.span = span
    service.prefix = prefix
    service.is_network = prefix != (32 if family == 4 else 128)
    service.head = NONE
    service.server_count = 0
    service.slots_begin = NONE
    service.slots_count = 0
    service.cached = 0
    service.connections = 0
    service.in_packets = 0
    service.out_packets = 0
    service.in_bytes = 0
    service.out_bytes = 0
    bucket = _bucket(service)
    chains.link(tables.service_buckets, bucket, tables.services, row)
    _count(tables.director[0], service, 1)
    if span and not spans.cover(tables, row):
        remove(tables, row, 0)
        return NONE
    return row


@compiled
def _free(tables):
    director = tables.director[0]
    if director.service_count < director.services_seen:
        for row in range(director.services_seen):
            if not tables.services[row].used:
                return row
    if director.services_seen == director.services_limit:
        return NONE
    director.services_seen += 1
    return director.services_seen - 1


@compiled
def _bucket(service):
    if service.mark:
        return _bucket_of(_MARKED, ip.from_ipv4(service.mark), 0)
    if service.span:
        return _bucket_of(_SPANNING, ip.from_ipv4(service.span), 0)
    return _bucket_of(int64(service.protocol), address_of(service), int64(service.port))


@compiled
def _count(director, service, step):
    """Keep account of what ``find_for`` has to look for at all."""
    director.service_count += step
    if service.family == 6:
        director.ipv6_count += step
    else:
        director.ipv4_count += step
    if service.mark:
        director.mark_count += step
    elif service.span:
        director.span_count += step
    elif service.port == 0:
        director.any_port_count += step
    elif service.port == transport.FTP and service.protocol == ipv4.TCP:
        director.ftp_count += step


@apart
def remove(tables, row, now_ms):
    """Remove a service and all its servers; connections stay until they expire."""
    service = tables.services[row]
    while service.head != NONE:
        server = int64(service.head)
        servers.unlink_sender(tables, server)
        servers.remove(tables, row, server, now_ms)
    bucket = _bucket(service)
    chains.unlink(tables.service_buckets, bucket, tables.services, row)
    if service.span:
        spans.uncover(tables, row)
    service.used = 0
    _count(tables.director[0], service, -1)
