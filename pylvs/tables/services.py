"""Virtual services and their real servers: looked up by compiled code, changed by the mailbox.

    service_buckets[hash(protocol, VIP, port)] -> service -> service -> NONE
    service.head -> newest server -> ... -> oldest server -> NONE

New servers go to the head of the list, as in Linux: schedulers walk it in that order.  Whoever
changes a list tells the scheduler afterwards (``schedulers.changed``).
"""

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import compiled
from pylvs.tables.layouts import MASQUERADE, SENDER_BUCKETS, SERVICE_BUCKETS

CONNECTIONS, IN_PACKETS, OUT_PACKETS, IN_BYTES, OUT_BYTES = range(5)  # columns of totals


@compiled
def _mix(protocol, address, port):
    mixed = (address * 0x61C8_8647 + port * 0x9E37 + protocol) & 0xFFFF_FFFF
    return mixed ^ (mixed >> 15)


@compiled
def _bucket_of(protocol, address, port):
    return _mix(protocol, address, port) % SERVICE_BUCKETS


@compiled
def find_sender(tables, protocol, address, port):
    """Return the row of a masqueraded server that sends from here, or ``NONE``."""
    row = int64(tables.sender_buckets[_mix(protocol, address, port) % SENDER_BUCKETS])
    while row != NONE:
        server = tables.servers[row]
        if server.address == address and server.port == port and server.protocol == protocol:
            return row
        row = int64(server.next_sender)
    return NONE


@compiled
def list_senders(tables):
    """Make the chains of masqueraded servers anew, after any change of servers."""
    tables.sender_buckets[:] = NONE
    for service_row in range(tables.services.size):
        if not tables.services[service_row].used:
            continue
        row = int64(tables.services[service_row].head)
        while row != NONE:
            server = tables.servers[row]
            if server.forwarding == MASQUERADE:
                mixed = _mix(int64(server.protocol), int64(server.address), int64(server.port))
                server.next_sender = tables.sender_buckets[mixed % SENDER_BUCKETS]
                tables.sender_buckets[mixed % SENDER_BUCKETS] = row
            row = int64(server.next)


@compiled
def find(tables, protocol, address, port):
    """Return the row of the virtual service, or ``NONE``."""
    row = int64(tables.service_buckets[_bucket_of(protocol, address, port)])
    while row != NONE:
        service = tables.services[row]
        if service.address == address and service.port == port and service.protocol == protocol:
            return row
        row = int64(service.next)
    return NONE


@compiled
def find_server(tables, service_row, address, port):
    """Return the row of a real server in the service's list, or ``NONE``."""
    row = int64(tables.services[service_row].head)
    while row != NONE:
        server = tables.servers[row]
        if server.address == address and server.port == port:
            return row
        row = int64(server.next)
    return NONE


@compiled
def add(tables, protocol, address, port, scheduler):
    """Add a service; return its row, or ``NONE`` when the table is full."""
    for row in range(tables.services.size):
        service = tables.services[row]
        if service.used:
            continue
        bucket = _bucket_of(protocol, address, port)
        service.used = 1
        service.protocol = protocol
        service.address = address
        service.port = port
        service.next = tables.service_buckets[bucket]
        tables.service_buckets[bucket] = row
        service.head = NONE
        service.server_count = 0
        service.connections = 0
        service.in_packets = 0
        service.out_packets = 0
        service.in_bytes = 0
        service.out_bytes = 0
        service.scheduler = scheduler
        return row
    return NONE


@compiled
def remove(tables, row):
    """Remove a service and all its servers; connections stay until they expire."""
    service = tables.services[row]
    while service.head != NONE:
        remove_server(tables, row, int64(service.head))
    bucket = _bucket_of(int64(service.protocol), int64(service.address), int64(service.port))
    at = int64(tables.service_buckets[bucket])
    if at == row:
        tables.service_buckets[bucket] = service.next
    else:
        while tables.services[at].next != row:
            at = int64(tables.services[at].next)
        tables.services[at].next = service.next
    service.used = 0


@compiled
def add_server(tables, service_row, address, port, forwarding, weight):
    """Put a server at the head of the service's list; return its row, or ``NONE`` when full.

    A removed server of the same service that connections still refer to comes back as itself,
    and those connections work again.
    """
    service = tables.services[service_row]
    row = _removed_server(tables, service, address, port)
    if row == NONE:
        row = _free_server(tables)
        if row == NONE:
            return NONE
    server = tables.servers[row]
    server.used = 1
    server.available = 1
    server.forwarding = forwarding
    server.service = service_row
    server.weight = weight
    server.next = service.head
    service.head = row
    service.server_count += 1
    server.address = address
    server.port = port
    server.virtual_address = service.address
    server.virtual_port = service.port
    server.protocol = service.protocol
    return row


@compiled
def _removed_server(tables, service, address, port):
    for row in range(tables.servers.size):
        server = tables.servers[row]
        if (
            server.used
            and not server.available
            and server.address == address
            and server.port == port
            and server.virtual_address == service.address
            and server.virtual_port == service.port
            and server.protocol == service.protocol
        ):
            return row
    return NONE


@compiled
def _free_server(tables):
    for row in range(tables.servers.size):
        server = tables.servers[row]
        if not server.used:
            server.active = 0
            server.inactive = 0
            server.path = NONE
            server.neighbour = NONE
            server.connections = 0
            server.in_packets = 0
            server.out_packets = 0
            server.in_bytes = 0
            server.out_bytes = 0
            return row
    return NONE


@compiled
def remove_server(tables, service_row, row):
    """Take a server out of its service; the row lives on while connections refer to it."""
    service = tables.services[service_row]
    server = tables.servers[row]
    before = NONE
    at = int64(service.head)
    while at != row:
        before = at
        at = int64(tables.servers[at].next)
    if before == NONE:
        service.head = server.next
    else:
        tables.servers[before].next = server.next
    if service.current == row:
        service.current = before  # schedulers that go in turn go on from there
    service.server_count -= 1
    server.available = 0
    if server.active + server.inactive == 0:
        server.used = 0


@compiled
def charge_connection(tables, row):
    """Count a new connection for a server, its service and all together."""
    tables.servers[row].connections += 1
    tables.services[tables.servers[row].service].connections += 1
    tables.totals[CONNECTIONS] += 1


@compiled
def charge_request(tables, row, size):
    """Count a client's packet of ``size`` bytes for a server, its service and all together."""
    server = tables.servers[row]
    service = tables.services[server.service]
    server.in_packets += 1
    server.in_bytes += size
    service.in_packets += 1
    service.in_bytes += size
    tables.totals[IN_PACKETS] += 1
    tables.totals[IN_BYTES] += size


@compiled
def charge_reply(tables, row, size):
    """Count a packet of ``size`` bytes towards a client likewise."""
    server = tables.servers[row]
    service = tables.services[server.service]
    server.out_packets += 1
    server.out_bytes += size
    service.out_packets += 1
    service.out_bytes += size
    tables.totals[OUT_PACKETS] += 1
    tables.totals[OUT_BYTES] += size
