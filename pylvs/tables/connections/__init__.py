"""The connection table: find, insert, remove.

    buckets[hash(client, protocol)] -> row -> row -> NONE        newest first, as in Linux

A connection is hashed by its client's end alone, so both directions of a NAT flow find it by one
entry: the client is the source of requests and the destination of replies.  Templates, which pin
persistent clients, are rows of the same table: client port 0, the client's address masked.
"""

from typing import Final

from numpy import int64, uint64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled, prefetch
from pylvs.tables import chains, expiry, servers, states
from pylvs.tables.addresses import address_of, key_of
from pylvs.tables.connections import flows, keys, local_ends
from pylvs.tables.layouts import (
    FLAG_HASHED,
    FLAG_INACTIVE,
    FLAG_KEYED,
    FLAG_LOCAL,
    FLAG_NO_PORT,
    FLAG_OFFLOADED,
    FLAG_ONE_PACKET,
    FLAG_TEMPLATE,
    FLAG_WIDE,
    FORWARDING_MASK,
    MASQUERADE,
)
from pylvs.wire import ip

INVALID_PORT: Final = 65_535  # with which, as in Linux, no packet comes
CHAIN_LIMIT: Final = 4_096
"""How far a chain is followed; only one client port and thousands of services come near."""


@compiled
def bucket_of(tables, address, port, protocol):
    """Hash a client's end to a bucket.

    Multilinear hashing over 32-bit words with 64-bit random multipliers, taking the top bits modulo
    2**64: universal, whatever clients choose (Thorup, "High speed hashing for integers and
    strings", section 3.3).
    """
    director = tables.director[0]
    total = director.seed_0 * address + director.seed_1 * (port << 8 | protocol)
    return int64(uint64(total) >> uint64(director.hash_shift))


@compiled
def live_request(tables, frame, now_ms):
    """Return the row that a client's packet belongs to and that is not due, or ``NONE``.

    The frame was foreseen.
    """
    if frame.family == 4:
        return _find_request(tables, frame, 0, now_ms)
    return _find_request(tables, frame, FLAG_WIDE, now_ms)


@compiled
def _find_request(tables, frame, kind, now_ms):
    """Do so for one family; ``kind`` is a constant, so IPv4 pays nothing for it."""
    connections = tables.connections
    row = int64(tables.buckets[frame.request_bucket])
    for _ in range(CHAIN_LIMIT):
        if row == NONE:
            return NONE
        entry = connections[row]
        if (
            entry.client_address == frame.source
            and entry.client_port == frame.source_port
            and entry.virtual_address == frame.destination
            and entry.virtual_port == frame.destination_port
            and entry.protocol == frame.protocol
            and int64(entry.conn_flags) & (FLAG_TEMPLATE | FLAG_WIDE) == kind
            and (kind == 0 or _is_wide_request(tables.wide_ends[row], frame))
        ):
            return row if entry.expires_ms > now_ms else live(tables, row, now_ms)
        row = int64(entry.next)
    return NONE


@compiled
def live_reply(tables, frame, now_ms):
    """Return likewise the row whose real server sent this packet to its client."""
    if frame.family == 4:
        return _find_reply(tables, frame, 0, now_ms)
    return _find_reply(tables, frame, FLAG_WIDE, now_ms)


@compiled
def _find_reply(tables, frame, kind, now_ms):
    connections = tables.connections
    row = int64(tables.buckets[frame.reply_bucket])
    for _ in range(CHAIN_LIMIT):
        if row == NONE:
            return NONE
        entry = connections[row]
        if (
            entry.client_address == frame.destination
            and entry.client_port == frame.destination_port
            and entry.protocol == frame.protocol
            and int64(entry.conn_flags) & (FLAG_TEMPLATE | FLAG_WIDE) == kind
            and _sends_from(entry, frame.source, frame.source_port)
            and (kind == 0 or _is_wide_reply(tables, row, frame))
        ):
            return row if entry.expires_ms > now_ms else live(tables, row, now_ms)
        row = int64(entry.next)
    return NONE


@compiled
def _sends_from(entry, address, port):
    """Whether replies come from here: RIP:rport under masquerading, else VIP:vport."""
    if int64(entry.conn_flags) & FORWARDING_MASK == MASQUERADE:
        return entry.server_address == address and entry.server_port == port
    return entry.virtual_address == address and entry.virtual_port == port


@compiled
def kind_of(frame):
    """Return the flag of a frame's connections: whether they have whole addresses."""
    return FLAG_WIDE if frame.family == 6 else 0


@compiled
def _is_wide_request(ends, frame):
    return (
        ends.client_low == frame.source_low
        and ends.client_high == frame.source_high
        and ends.virtual_low == frame.destination_low
        and ends.virtual_high == frame.destination_high
    )


@compiled
def _is_wide_reply(tables, row, frame):
    ends = tables.wide_ends[row]
    if ends.client_low != frame.destination_low or ends.client_high != frame.destination_high:
        return False
    sender = virtual_of(tables, row)
    if int64(tables.connections[row].conn_flags) & FORWARDING_MASK == MASQUERADE:
        sender = server_of(tables, row)
    return sender[1] == frame.source_low and sender[0] == frame.source_high


@compiled
def client_of(tables, row):
    """Return the whole address of a connection's client; of a template's, masked."""
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FLAG_WIDE:
        return tables.wide_ends[row].client_high, tables.wide_ends[row].client_low
    return ip.from_ipv4(entry.client_address)


@compiled
def virtual_of(tables, row):
    """Return the whole address the client speaks to; of a firewall mark's template, the mark."""
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FLAG_WIDE:
        return tables.wide_ends[row].virtual_high, tables.wide_ends[row].virtual_low
    return ip.from_ipv4(entry.virtual_address)


@compiled
def server_of(tables, row):
    """Return the whole address of a connection's real server; none of one that has no server."""
    entry = tables.connections[row]
    if entry.server == NONE:
        return ip.from_ipv4(0)
    return address_of(tables.servers[entry.server])


@compiled
def set_ends(tables, row, client, virtual, kind):
    """Give a new connection or template its client's and virtual addresses.

    ``kind`` is ``FLAG_WIDE`` for IPv6, else 0; the caller has it in the flags.
    """
    entry = tables.connections[row]
    entry.client_address = key_of(tables, client)
    entry.virtual_address = key_of(tables, virtual)
    if kind:
        ends = tables.wide_ends[row]
        ends.client_high, ends.client_low = client
        ends.virtual_high, ends.virtual_low = virtual


@compiled
def foresee(tables, frame):
    """Note where the frame's connection would be, and have the heads of those chains brought near.

    Done for some frames ahead of their lookups, as is ``approach``: with a million connections a
    lookup waits for memory twice, and these waits overlap.
    """
    request = bucket_of(tables, frame.source, frame.source_port, frame.protocol)
    reply = bucket_of(tables, frame.destination, frame.destination_port, frame.protocol)
    frame.request_bucket = request
    frame.reply_bucket = reply
    prefetch(tables.buckets, request)
    prefetch(tables.buckets, reply)


@compiled
def approach(tables, frame):
    """Have the newest connections brought near that may be the frame's; it was foreseen."""
    prefetch(tables.connections, int64(tables.buckets[frame.request_bucket]))
    prefetch(tables.connections, int64(tables.buckets[frame.reply_bucket]))


@compiled
def charge_error(tables, row, size):
    """Count an error about a DR or TUN connection: Linux's out handler sees it go by as a reply.

    It does not find one-packet connections.
    """
    entry = tables.connections[row]
    flags = int64(entry.conn_flags)
    if flags & FORWARDING_MASK != MASQUERADE and flags & FLAG_ONE_PACKET == 0:
        servers.charge_reply(tables, int64(entry.server), size)


@compiled
def allocate(tables):
    """Return a free row, or ``NONE`` when the table is full."""
    director = tables.director[0]
    row = director.free
    if row != NONE:
        director.free = tables.connections[row].next
        return row
    if director.high_water == director.connections_limit:
        return NONE
    director.high_water += 1
    return director.high_water - 1


@compiled
def insert(tables, row, now_ms):
    """Put a filled row at the head of its chain and into the wheel, and bind it to its server.

    A one-packet connection is bound only: nobody will look it up.
    """
    entry = tables.connections[row]
    entry.conn_flags = int64(entry.conn_flags) | FLAG_INACTIVE
    entry.expires_ms = now_ms + int64(entry.timeout_ms)
    if int64(entry.conn_flags) & FLAG_ONE_PACKET == 0:
        _chain(tables, row)
        entry.conn_flags = int64(entry.conn_flags) | FLAG_HASHED
        expiry.link(tables, row, expiry.tick_of(tables, row))
        tables.director[0].connection_count += 1
    if entry.server != NONE:
        server = tables.servers[entry.server]
        if int64(entry.conn_flags) & FLAG_TEMPLATE:
            server.persistent += 1
        else:
            server.inactive += 1
        servers.weigh_load(server)
    if entry.control != NONE:
        tables.connections[entry.control].controls += 1
    if tables.director[0].flow_count:
        _displace_flows(tables, row)


@apart
def _displace_flows(tables, row):
    """Have packets come up that the kernel forwards and that are the new connection's now."""
    entry = tables.connections[row]
    client, protocol = client_of(tables, row), int64(entry.protocol)
    family = 6 if int64(entry.conn_flags) & FLAG_WIDE else 4
    client_port, virtual_port = int64(entry.client_port), int64(entry.virtual_port)
    ends = flows.ends_of(client_port, virtual_port, protocol, family)
    flows.displace(tables, client, virtual_of(tables, row), ends)
    ends = flows.ends_of(int64(entry.server_port), client_port, protocol, family)
    flows.displace(tables, server_of(tables, row), client, ends)


@compiled
def set_active(tables, row, active):
    """Count the connection on the side it now belongs to."""
    entry = tables.connections[row]
    flags = int64(entry.conn_flags)
    was_active = flags & FLAG_INACTIVE == 0
    if active == was_active or entry.server == NONE:
        return
    entry.conn_flags = flags ^ FLAG_INACTIVE
    server = tables.servers[entry.server]
    step = 1 if active else -1
    server.active += step
    server.inactive -= step


@compiled
def remove(tables, row):
    """Take a connection out of chain, wheel and counts; its row is free, and keeps what it says.

    The frame that had it removed is still to be forwarded, or refused, by that.
    """
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FLAG_OFFLOADED:
        flows.withdraw(tables, row)
    flags = int64(entry.conn_flags)
    director = tables.director[0]
    if flags & FLAG_HASHED:
        _unchain(tables, row)
        expiry.unlink(tables, row)
        director.connection_count -= 1
    if entry.server != NONE:
        server = tables.servers[entry.server]
        if flags & FLAG_TEMPLATE:
            server.persistent -= 1
        elif flags & FLAG_INACTIVE:
            server.inactive -= 1
        else:
            server.active -= 1
        if server.overloaded:
            servers.weigh_load(server)
    if entry.control != NONE:
        tables.connections[entry.control].controls -= 1
    if flags & (FLAG_KEYED | FLAG_NO_PORT | FLAG_LOCAL):
        if flags & FLAG_KEYED:
            keys.remove(tables, row)
        elif flags & FLAG_LOCAL:
            local_ends.release(tables, row)
        else:
            director.awaited_count -= 1
    entry.expires_ms = 0
    entry.next = director.free
    director.free = row


@compiled
def _own_bucket(tables, row):
    entry = tables.connections[row]
    address, port = int64(entry.client_address), int64(entry.client_port)
    return bucket_of(tables, address, port, int64(entry.protocol))


@compiled
def _chain(tables, row):
    bucket = _own_bucket(tables, row)
    chains.link(tables.buckets, bucket, tables.connections, row)


@compiled
def _unchain(tables, row):
    chains.unlink(tables.buckets, _own_bucket(tables, row), tables.connections, row)


@apart
def find(tables, protocol, client, port, virtual, virtual_port, kind):
    """Return the connection, no template, between these ends, or ``NONE``.

    ``kind`` is the flags ``FLAG_WIDE`` and ``FLAG_NO_PORT`` as it has them.
    """
    row = int64(tables.buckets[bucket_of(tables, key_of(tables, client), port, protocol)])
    for _ in range(CHAIN_LIMIT):
        if row == NONE:
            return NONE
        entry = tables.connections[row]
        if (
            int64(entry.conn_flags) & (FLAG_TEMPLATE | FLAG_WIDE | FLAG_NO_PORT) == kind
            and entry.client_port == port
            and entry.virtual_port == virtual_port
            and entry.protocol == protocol
            and ip.is_same(client_of(tables, row), client)
            and ip.is_same(virtual_of(tables, row), virtual)
        ):
            return row
        row = int64(entry.next)
    return NONE


@apart
def fill_port(tables, row, port):
    """Give a connection that waited for it its client's port."""
    entry = tables.connections[row]
    _unchain(tables, row)
    entry.client_port = port
    entry.conn_flags = int64(entry.conn_flags) & ~FLAG_NO_PORT
    _chain(tables, row)
    tables.director[0].awaited_count -= 1
    if tables.director[0].flow_count:
        _displace_flows(tables, row)


@compiled
def invalidate(template):
    """Have nobody find a template again; it goes with the connections made under it."""
    template.virtual_port = INVALID_PORT
    template.server_port = INVALID_PORT


@compiled
def expire(tables, row):
    """Remove a connection that is due; a template in use lingers instead, for a minute each time.

    From then on its timeout is that minute, also for new connections, as in Linux.
    """
    entry = tables.connections[row]
    if int64(entry.conn_flags) & FLAG_OFFLOADED:
        due = int64(entry.expires_ms)
        flows.withdraw(tables, row)
        if entry.expires_ms > due:  # the kernel has forwarded packets since
            expiry.place(tables, row)
            return
    if entry.controls == 0:
        remove(tables, row)
        return
    entry.timeout_ms = states.LINGER_MS
    entry.expires_ms += states.LINGER_MS
    expiry.place(tables, row)


@compiled
def live(tables, row, now_ms):
    """Return the row a lookup found, or ``NONE`` if it was due and is gone."""
    if row == NONE or not is_due(tables, row, now_ms):
        return row
    while is_due(tables, row, now_ms):
        expire(tables, row)
        if tables.connections[row].expires_ms == 0:
            return NONE
    return row


@compiled
def is_due(tables, row, now_ms):
    return tables.connections[row].expires_ms <= now_ms


@compiled
def sweep(tables, now_ms, limit, exact):
    """Remove what is due, looking at no more than ``limit`` rows; return whether all was seen.

    ``exact`` also walks the slot that ``now_ms`` itself lies in: what replay needs and what a
    live director leaves to lookups, which never return a connection that is due.
    """
    director = tables.director[0]
    last = now_ms // expiry.TICK_MS
    if director.tick < last - expiry.WHEEL_SIZE:  # a long silence: one round sees every slot
        director.tick = last - expiry.WHEEL_SIZE
    for _ in range(limit):
        director.tick = expiry.pass_empty(tables.wheel, director.tick, last)
        if director.tick + 1 >= last:
            break
        row = int64(tables.wheel[(director.tick + 1) % expiry.WHEEL_SIZE])
        if is_due(tables, row, now_ms):
            expire(tables, row)
        else:
            expiry.place(tables, row)
    else:
        return False
    if exact:
        _sweep_current(tables, last, now_ms)
    return True


@compiled
def _sweep_current(tables, tick, now_ms):
    row = int64(tables.wheel[tick % expiry.WHEEL_SIZE])
    while row != NONE:
        following = int64(tables.connections[row].wheel_next)
        if is_due(tables, row, now_ms):
            expire(tables, row)
        row = following
