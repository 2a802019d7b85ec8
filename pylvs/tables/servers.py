"""Real servers: a service's list of them, their thresholds, and those removed but remembered.

    service.head -> newest server -> ... -> oldest server -> NONE

New servers go to the head of the list, as in Linux: schedulers walk it in that order.  Whoever
changes a list tells the scheduler afterwards (``schedulers.changed``).  A removed server stays
while connections refer to it and two or three minutes more; if it returns to the same virtual
address in that time it is the same server, with its counts (ip_vs_ctl.c, ip_vs_trash_get_dest).
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.tables import chains
from pylvs.tables.addresses import address_of, is_at, set_address
from pylvs.tables.layouts import MASQUERADE, TUNNEL
from pylvs.tables.sizes import SENDER_BUCKETS, TRASH_BUCKETS
from pylvs.wire import ip, ipv4, transport

CONNECTIONS, IN_PACKETS, OUT_PACKETS, IN_BYTES, OUT_BYTES = range(5)  # columns of totals
_TUNNELED: Final = 0x2_0000  # in the place of a protocol
TRASH_SWEEP_MS: Final = 60_000
TRASH_MS: Final = 120_000


@compiled
def mix(protocol, address, port):
    """Return 32 mixed bits of three numbers; ``address`` is a fold."""
    mixed = (address * 0x61C8_8647 + port * 0x9E37 + protocol) & 0xFFFF_FFFF
    return mixed ^ (mixed >> 15)


@compiled
def _sender_bucket(server):
    """Return where a server is found by what it sends from: nothing under other methods."""
    if server.forwarding == MASQUERADE:
        address = ip.fold(address_of(server))
        return mix(int64(server.protocol), address, int64(server.port)) % SENDER_BUCKETS
    if server.forwarding == TUNNEL:
        address = ip.fold(address_of(server))
        return mix(_TUNNELED, address, int64(server.tunnel_port)) % SENDER_BUCKETS
    return NONE


@compiled
def find_sender(tables, protocol, address, port):
    """Return the row of a masqueraded server that sends from here, or ``NONE``."""
    row = int64(tables.sender_buckets[mix(protocol, ip.fold(address), port) % SENDER_BUCKETS])
    while row != NONE:
        server = tables.servers[row]
        if (
            is_at(server, address)
            and server.port == port
            and server.protocol == protocol
            and server.forwarding == MASQUERADE
        ):
            return row
        row = int64(server.next_sender)
    return NONE


@compiled
def find_tunnel(tables, address, port):
    """Return the newest tunneled server with this address and, for GUE, port, or ``NONE``.

    Whatever its tunnel's type: one that comes after it is not found, as in Linux.
    """
    row = int64(tables.sender_buckets[mix(_TUNNELED, ip.fold(address), port) % SENDER_BUCKETS])
    while row != NONE:
        server = tables.servers[row]
        if is_at(server, address) and server.tunnel_port == port and server.forwarding == TUNNEL:
            return row
        row = int64(server.next_sender)
    return NONE


@apart
def is_sender(tables, address):
    """Whether some masqueraded server has this address, whatever its port."""
    for row in range(tables.director[0].servers_seen):
        server = tables.servers[row]
        if server.available and is_at(server, address) and server.forwarding == MASQUERADE:
            return True
    return False


@apart
def is_data_sender(tables, address, port):
    """Whether FTP's data may come from here: from a masqueraded server of an FTP service.

    From any port or the one below its own, as the host has been told.
    """
    for place in range(tables.director[0].data_sender_count):
        server = tables.servers[tables.data_senders[place]]
        if is_at(server, address) and (port >= transport.UNPRIVILEGED or port == server.port - 1):
            return True
    return False


@compiled
def _sends_data(server):
    return (
        server.forwarding == MASQUERADE
        and server.protocol == ipv4.TCP
        and server.virtual_port == transport.FTP
        and server.virtual_mark == 0
        and server.virtual_span == 0
    )


@apart
def _note_data_sender(tables, row, sends):
    """Add a server to those, as far as there is room, or take it out."""
    director = tables.director[0]
    count = director.data_sender_count
    if sends and count < tables.data_senders.size:
        tables.data_senders[count] = row
        director.data_sender_count = count + 1
    for place in range(count):
        if not sends and tables.data_senders[place] == row:
            tables.data_senders[place] = tables.data_senders[count - 1]
            director.data_sender_count = count - 1
            return


@compiled
def link_sender(tables, row):
    """Let a server be found by the address and port it sends from, or its tunnel ends at."""
    server = tables.servers[row]
    if _sends_data(server):
        _note_data_sender(tables, row, True)
    bucket = _sender_bucket(server)
    if bucket != NONE:
        server.next_sender = tables.sender_buckets[bucket]
        tables.sender_buckets[bucket] = row


@compiled
def unlink_sender(tables, row):
    """Undo ``link_sender``, before the server's method or tunnel changes."""
    server = tables.servers[row]
    if _sends_data(server):
        _note_data_sender(tables, row, False)
    bucket = _sender_bucket(server)
    if bucket == NONE:
        return
    at = int64(tables.sender_buckets[bucket])
    if at == row:
        tables.sender_buckets[bucket] = server.next_sender
        return
    while tables.servers[at].next_sender != row:
        at = int64(tables.servers[at].next_sender)
    tables.servers[at].next_sender = server.next_sender


@compiled
def find(tables, service_row, address, port):
    """Return the row of a real server in the service's list, or ``NONE``."""
    row = int64(tables.services[service_row].head)
    while row != NONE:
        server = tables.servers[row]
        if is_at(server, address) and server.port == port:
            return row
        row = int64(server.next)
    return NONE


@compiled
def add(tables, service_row, address, port):
    """Put a server at the head of the service's list; return its row, or ``NONE`` when full.

    One that was removed and is still remembered comes back as itself, and its connections work
    again.  Method, weight and the rest are the caller's to set.
    """
    service = tables.services[service_row]
    row = _take_remembered(tables, service, address, port)
    if row == NONE:
        row = _free(tables)
        if row == NONE:
            return NONE
    server = tables.servers[row]
    server.used = 1
    server.available = 1
    server.idle_ms = 0
    server.service = service_row
    server.next = service.head
    service.head = row
    service.server_count += 1
    _name(server, service, address, port)
    return row


@compiled
def _trash_bucket(server):
    """Return where a removed server is remembered."""
    address = ip.fold((server.virtual_high, server.virtual_low))
    known_by = int64(server.virtual_mark) ^ int64(server.virtual_span)
    virtual = mix(known_by, address, int64(server.virtual_port))
    own = mix(int64(server.protocol), ip.fold(address_of(server)), int64(server.port))
    return (own ^ virtual) % TRASH_BUCKETS


@compiled
def _name(server, service, address, port):
    """Give a row the names of a server of the service."""
    set_address(server, address)
    server.port = port
    server.protocol = service.protocol
    server.virtual_mark = service.mark
    server.virtual_span = service.span
    server.virtual_family = service.family
    server.virtual_high = 0 if service.mark else service.address_high
    server.virtual_low = 0 if service.mark else service.address_low
    server.virtual_port = 0 if service.mark else service.port


@compiled
def _take_remembered(tables, service, address, port):
    """Return the row of a server that was removed from the service, as it was; else ``NONE``."""
    if tables.director[0].trash_ms == 0:
        return NONE
    wanted = tables.servers[tables.servers.size - 1]  # a row no table reaches
    _name(wanted, service, address, port)
    row = int64(tables.trash_buckets[_trash_bucket(wanted)])
    while row != NONE:
        server = tables.servers[row]
        if (
            is_at(server, address)
            and server.port == port
            and server.protocol == wanted.protocol
            and server.virtual_mark == wanted.virtual_mark
            and server.virtual_span == wanted.virtual_span
            and server.virtual_family == wanted.virtual_family
            and server.virtual_low == wanted.virtual_low
            and server.virtual_high == wanted.virtual_high
            and server.virtual_port == wanted.virtual_port
        ):
            _take_from_trash(tables, row)
            return row
        row = int64(server.next)
    return NONE


@compiled
def _take_from_trash(tables, row):
    bucket = _trash_bucket(tables.servers[row])
    chains.unlink(tables.trash_buckets, bucket, tables.servers, row)


@compiled
def _free(tables):
    director = tables.director[0]
    row = director.free_server
    if row != NONE:
        director.free_server = tables.servers[row].next
    elif director.servers_seen < director.servers_limit:
        row = director.servers_seen
        director.servers_seen += 1
    else:
        return _least_missed(tables)
    _clear(tables.servers[row])
    return row


@compiled
def _least_missed(tables):
    """Return a removed server's row that nobody refers to, remembered or not; else ``NONE``."""
    for row in range(tables.director[0].servers_seen):
        server = tables.servers[row]
        if not server.available and not _is_referred_to(server):
            _take_from_trash(tables, row)
            unpin(tables, server)
            _clear(server)
            return row
    return NONE


@compiled
def _is_referred_to(server):
    return server.active + server.inactive + server.persistent + server.cached > 0


@compiled
def _clear(server):
    server.active = 0
    server.inactive = 0
    server.persistent = 0
    server.overloaded = 0
    server.upper = 0
    server.lower = 0
    server.path = NONE
    server.neighbour = NONE
    server.cached = 0
    server.connections = 0
    server.in_packets = 0
    server.out_packets = 0
    server.in_bytes = 0
    server.out_bytes = 0


@compiled
def remove(tables, service_row, row, now_ms):
    """Take a server out of its service; the row lives on until ``empty_trash`` frees it."""
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
    bucket = _trash_bucket(server)
    chains.link(tables.trash_buckets, bucket, tables.servers, row)
    if tables.director[0].trash_ms == 0:
        tables.director[0].trash_ms = now_ms + TRASH_SWEEP_MS
        tables.director[0].chores_ms = min(
            tables.director[0].chores_ms, tables.director[0].trash_ms
        )


@compiled
def unpin(tables, server):
    """Let go of the server's next hop."""
    if server.neighbour != NONE:
        tables.neighbours[server.neighbour].pinned -= 1
        server.neighbour = NONE


@apart
def empty_trash(tables, now_ms):
    """Free removed servers that nobody refers to any more, when it is time to look."""
    director = tables.director[0]
    due = director.trash_ms
    left = False
    for row in range(tables.director[0].servers_seen):
        server = tables.servers[row]
        if not server.used or server.available:
            continue
        left = True
        if _is_referred_to(server):
            continue
        if server.idle_ms == 0:
            server.idle_ms = due
        elif due - server.idle_ms >= TRASH_MS:
            _take_from_trash(tables, row)
            server.used = 0
            unpin(tables, server)
            server.next = director.free_server
            director.free_server = row
    director.trash_ms = max(due, now_ms - TRASH_SWEEP_MS) + TRASH_SWEEP_MS if left else 0


@compiled
def weigh_load(server):
    """Mark a server as overloaded or not; between its thresholds it stays what it was."""
    total = server.active + server.inactive
    if server.upper == 0:
        server.overloaded = 0
    elif total >= server.upper:
        server.overloaded = 1
    else:
        lower = int64(server.lower)
        if lower == 0:
            lower = int64(server.upper) - (int64(server.upper) >> 2)
        if total < lower:
            server.overloaded = 0


@compiled
def charge_connection(tables, row):
    """Count a new connection for a server, its service and all together."""
    tables.servers[row].connections += 1
    tables.services[tables.servers[row].service].connections += 1
    tables.totals[CONNECTIONS] += 1


@compiled
def charge_request(tables, row, size):
    """Count a client's packet of ``size`` bytes for a server, its service and all together."""
    charge_requests(tables, row, 1, size)


@compiled
def charge_requests(tables, row, packets, size):
    """Count some of them, of ``size`` bytes in all.

    Nothing is counted for ``NONE``, nor for a server that was removed.
    """
    if row == NONE or not tables.servers[row].available:
        return
    server = tables.servers[row]
    service = tables.services[server.service]
    server.in_packets += packets
    server.in_bytes += size
    service.in_packets += packets
    service.in_bytes += size
    tables.totals[IN_PACKETS] += packets
    tables.totals[IN_BYTES] += size


@compiled
def charge_reply(tables, row, size):
    """Count a packet of ``size`` bytes towards a client likewise."""
    charge_replies(tables, row, 1, size)


@compiled
def charge_replies(tables, row, packets, size):
    """Count some of them, of ``size`` bytes in all, likewise."""
    if row == NONE or not tables.servers[row].available:
        return
    server = tables.servers[row]
    service = tables.services[server.service]
    server.out_packets += packets
    server.out_bytes += size
    service.out_packets += packets
    service.out_bytes += size
    tables.totals[OUT_PACKETS] += packets
    tables.totals[OUT_BYTES] += size
