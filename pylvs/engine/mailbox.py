"""Commands: the only writer of services, servers, routes, neighbours and own addresses.

Control fills a COMMAND array; ``apply`` carries the commands out between two breaths and leaves the
row concerned, or a refusal, in ``result``.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy import int64

from pylvs import persistence, schedulers
from pylvs.forwarding import tunnel
from pylvs.frames import NONE
from pylvs.jit import apart, attributed, compiled, door
from pylvs.tables import connections, neighbours, paths, servers, services
from pylvs.tables.addresses import address_of
from pylvs.tables.connections import flows
from pylvs.tables.layouts import FLAG_TEMPLATE, L3DSR, UNROUTED
from pylvs.tables.layouts.network import LOCAL_ADDRESS, UNICAST, UNKNOWN
from pylvs.tables.sizes import FLOWS_LIMIT

(
    ADD_SERVICE,
    EDIT_SERVICE,
    REMOVE_SERVICE,
    ADD_SERVER,
    EDIT_SERVER,
    REMOVE_SERVER,
    ZERO,
    LEARN_NEIGHBOUR,
    FAIL_NEIGHBOUR,
    WANT_SERVERS,
    FAIL_PORT,
    SPAN_PORTS,
) = range(12)

FULL: Final = -2
ABSENT: Final = -3

# fmt: off
COMMAND: Final = np.dtype([
    (name, np.int64)
    for name in (
        "kind",
        "family",          # of the service
        "protocol",
        "address_high",    # of the service, or the neighbour
        "address_low",
        "port",            # for a neighbour: row in PORT
        "mark",
        "span",            # the service's number, if it spans more than an address and a port,
        "prefix",          # the length of its network's, and in SPAN_PORTS before it, its ports:
        "first_port",
        "last_port",
        "scheduler",
        "service_flags",
        "persistent_ms",
        "engine",
        "netmask_high",
        "netmask_low",
        "server_high",
        "server_low",
        "server_port",
        "forwarding",
        "weight",
        "upper",
        "lower",
        "tunnel_type",
        "tunnel_port",
        "tunnel_flags",
        "dscp",
        "proxy",
        "mac",
        "now_ms",
        "result",
    )
])
# fmt: on
_NAMES: Final = COMMAND.names or ()


@door
def apply(world, commands, count):
    """Carry out ``commands[:count]`` in order; ``world`` is TABLES[1]."""
    tables = world[0]
    settled = False
    for at in range(count):
        command = commands[at]
        if command.kind == REMOVE_SERVICE or command.kind == REMOVE_SERVER:
            if not settled:  # what is removed is charged no more
                flows.settle_some(tables, 0, FLOWS_LIMIT, command.now_ms)
            settled = True
            flows.distrust(tables)
        if command.kind == SPAN_PORTS:
            _stage(tables, command)
        elif command.kind >= LEARN_NEIGHBOUR:
            _apply_neighbour(tables, command)
        elif command.kind == ZERO:
            _zero(tables, command)
        elif command.kind >= ADD_SERVER:
            _apply_server(tables, command)
        else:
            _apply_service(tables, command)


@compiled
def _find_service(tables, command):
    if command.mark:
        return services.find_marked(tables, command.mark, command.family)
    if command.span:
        return services.find_numbered(tables, command.span)
    return services.find(tables, command.protocol, address_of(command), command.port)


@apart
def _apply_service(tables, command):
    if command.kind == ADD_SERVICE:
        address = address_of(command)
        row = services.add(
            tables,
            command.family,
            command.protocol,
            address,
            command.port,
            command.mark,
            command.span,
            command.prefix,
        )
        tables.director[0].staged_count = 0
        if row == NONE:
            command.result = FULL
            return
    else:
        row = _find_service(tables, command)
        if row == NONE:
            command.result = ABSENT
            return
    command.result = row
    service = tables.services[row]
    if command.kind == REMOVE_SERVICE:
        _set_engine(tables, service, persistence.NO_ENGINE)
        schedulers.unbind(tables, row)
        services.remove(tables, row, command.now_ms)
        if tables.director[0].expire_nodest_conn:
            _flush_gone(tables)
        return
    service.service_flags = command.service_flags
    service.persistent_ms = command.persistent_ms
    _set_engine(tables, service, command.engine)
    service.netmask_high = command.netmask_high
    service.netmask_low = command.netmask_low
    if command.kind == EDIT_SERVICE and service.scheduler == command.scheduler:
        return
    if not schedulers.bind(tables, row, command.scheduler, command.now_ms):
        schedulers.unbind(tables, row)
        if command.kind == ADD_SERVICE:
            _set_engine(tables, service, persistence.NO_ENGINE)
            services.remove(tables, row, command.now_ms)
        command.result = FULL


@compiled
def _stage(tables, command):
    """Note a range of ports that the service in the next command spans; there is room for it."""
    director = tables.director[0]
    tables.staged[director.staged_count, 0] = command.first_port
    tables.staged[director.staged_count, 1] = command.last_port
    director.staged_count += 1


@compiled
def _set_engine(tables, service, engine):
    director = tables.director[0]
    director.starter_count += int64(engine == persistence.SIP) - int64(
        service.engine == persistence.SIP
    )
    service.engine = engine


@apart
def _apply_server(tables, command):
    service = _find_service(tables, command)
    if service == NONE:
        command.result = ABSENT
        return
    address, port = (command.server_high, command.server_low), command.server_port
    if command.kind == ADD_SERVER:
        row = servers.add(tables, service, address, port)
        if row == NONE:
            command.result = FULL
            return
        tables.servers[row].last_weight = command.weight
        _edit_server(tables, tables.servers[row], command)
        servers.link_sender(tables, row)
        aim(tables, row)
        if tables.director[0].asks_ahead:
            _want(tables, tables.servers[row], command.now_ms)
    else:
        row = servers.find(tables, service, address, port)
        if row == NONE:
            command.result = ABSENT
            return
        if command.kind == EDIT_SERVER:
            moves = _moves_sender(tables.servers[row], command)
            if moves:
                servers.unlink_sender(tables, row)
            _edit_server(tables, tables.servers[row], command)
            if moves:
                servers.link_sender(tables, row)
        else:
            servers.unlink_sender(tables, row)
            servers.remove(tables, service, row, command.now_ms)
            if tables.director[0].expire_nodest_conn:
                _flush_gone(tables)
    schedulers.changed(tables, service, command.kind == EDIT_SERVER)
    command.result = row


@compiled
def _moves_sender(server, command):
    """Whether an edit changes what a server is found by; else it keeps its place in the chain."""
    return (
        server.forwarding != command.forwarding
        or server.tunnel_type != command.tunnel_type
        or server.tunnel_port != command.tunnel_port
    )


@compiled
def _edit_server(tables, server, command):
    changed = server.upper != command.upper or server.lower != command.lower
    server.forwarding = command.forwarding
    server.weight = command.weight
    if command.weight:
        server.last_weight = command.weight
    server.upper = command.upper
    server.lower = command.lower
    if command.kind == EDIT_SERVER and server.tunnel_type != command.tunnel_type:
        flows.distrust(tables)
    server.tunnel_type = command.tunnel_type
    server.tunnel_port = command.tunnel_port
    server.tunnel_flags = command.tunnel_flags
    if command.forwarding == L3DSR:
        server.dscp = command.dscp  # else it stays, for connections that were opened by it
    server.proxy = command.proxy
    tunnel.measure(server)
    server.exception = UNROUTED
    if changed or command.kind == ADD_SERVER:
        servers.weigh_load(server)


@apart
def _flush_gone(tables):
    """Remove all connections of removed servers (expire_nodest_conn), then what they are under."""
    for turn in range(3):
        for row in range(tables.director[0].high_water):
            entry = tables.connections[row]
            if entry.expires_ms == 0 or entry.server == NONE or entry.controls:
                continue
            is_template = int64(entry.conn_flags) & FLAG_TEMPLATE != 0
            if (not is_template or turn == 2) and not tables.servers[entry.server].available:
                connections.remove(tables, row)


@apart
def _zero(tables, command):
    """Set the counters of one service and its servers, or of everything, to zero."""
    wanted = NONE
    flows.settle_some(tables, 0, FLOWS_LIMIT, command.now_ms)
    if command.protocol:
        wanted = _find_service(tables, command)
    else:
        for column in range(tables.totals.size):
            tables.totals[column] = 0
    for row in range(tables.director[0].services_seen):
        service = tables.services[row]
        if not service.used or (wanted != NONE and row != wanted):
            continue
        _zero_counters(service)
        at = int64(service.head)
        while at != NONE:
            _zero_counters(tables.servers[at])
            at = int64(tables.servers[at].next)


@compiled
def _zero_counters(entry):
    entry.connections = 0
    entry.in_packets = 0
    entry.out_packets = 0
    entry.in_bytes = 0
    entry.out_bytes = 0


@compiled
def _apply_neighbour(tables, command):
    if command.kind == WANT_SERVERS:
        for row in range(tables.director[0].servers_seen):
            if tables.servers[row].used:
                _want(tables, tables.servers[row], command.now_ms)
        return
    if command.kind == FAIL_PORT:
        for row in range(tables.director[0].neighbour_count):
            if tables.neighbours[row].used and tables.neighbours[row].port == command.port:
                neighbours.fail(tables, row)
        return
    row = neighbours.find(tables, command.port, address_of(command))
    command.result = row
    if row == NONE:
        return  # nobody has asked for it
    if command.kind == LEARN_NEIGHBOUR:
        neighbours.learn(tables, row, command.mac)
    else:
        neighbours.fail(tables, row)


@apart
def aim(tables, server_row):
    """Find the path and next hop to a server."""
    server = tables.servers[server_row]
    address = address_of(server)
    path = paths.find(tables, address)
    server.path = NONE
    servers.unpin(tables, server)
    hosted = tables.director[0].hosted and path != NONE
    server.local = 1 if hosted and tables.paths[path].kind == LOCAL_ADDRESS else 0
    if server.local:
        tables.director[0].serves_itself = 1
    if path == NONE or tables.paths[path].kind != UNICAST or tables.paths[path].port == NONE:
        return
    server.path = path
    server.neighbour = paths.next_hop(tables, path, address)
    if server.neighbour != NONE:
        tables.neighbours[server.neighbour].pinned += 1


@compiled
def _want(tables, server, now_ms):
    """Have a server's next hop resolved before the first packet needs it, if nobody has tried."""
    if server.neighbour != NONE and tables.neighbours[server.neighbour].state == UNKNOWN:
        neighbours.want(tables, server.neighbour, now_ms)


@door
def forget(world, server_row, templates, begin, end):
    """Forget a server's connections in rows ``begin`` to ``end``, or make its templates invalid.

    ``world`` is TABLES[1].  Returns how many there were.
    """
    tables = world[0]
    count = 0
    for row in range(begin, min(end, tables.director[0].high_water)):
        entry = tables.connections[row]
        is_template = int64(entry.conn_flags) & FLAG_TEMPLATE != 0
        if entry.expires_ms == 0 or entry.server != server_row or is_template != templates:
            continue
        if is_template:
            if entry.virtual_port == connections.INVALID_PORT:
                continue
            connections.invalidate(entry)
        elif entry.controls:
            continue  # until what is under it is gone
        else:
            control = int64(entry.control)
            connections.remove(tables, row)
            count += _forget_last(tables, control, row)
        count += 1
    return count


@compiled
def _forget_last(tables, control, row):
    """Forget a connection that was passed by because of the one that is gone; return how many."""
    if control == NONE or control > row or tables.connections[control].controls:
        return 0
    if int64(tables.connections[control].conn_flags) & FLAG_TEMPLATE:
        return 0
    connections.remove(tables, control)
    return 1


@door
def distrust(world):
    """Have packets come up that the kernel forwards: what becomes of them may have changed."""
    flows.distrust(world[0])


@door
def settle(world, begin, end, now_ms):
    """Count what the kernel has forwarded of the flows in some rows; ``world`` is TABLES[1]."""
    flows.settle_some(world[0], begin, end, now_ms)


@door
def aim_all(world):
    """Find the paths to all servers again, after any change of routes; ``world`` is TABLES[1]."""
    tables = world[0]
    flows.distrust(tables)
    for row in range(tables.director[0].servers_seen):
        if tables.servers[row].used:
            aim(tables, row)


def order(**fields: int) -> list[int]:
    """Return a command's fields in order; those that are not named are 0."""
    return [fields.get(name, 0) for name in _NAMES]


def batch_of(orders: Sequence[Sequence[int]]) -> Any:
    """Return COMMAND[...] of orders, each a command's fields in order."""
    values = np.array(orders, np.int64).reshape(len(orders), len(_NAMES))
    return attributed(values.view(COMMAND).ravel())


def carry_out_all(tables: Any, batch: Any) -> list[int]:
    """Apply commands at once, return their results; for callers whose engine does not run."""
    apply(tables.all, batch, len(batch))
    results: list[int] = batch["result"].tolist()
    return results


def carry_out(tables: Any, **fields: int) -> int:
    """Apply one command at once and return its result; for callers whose engine does not run."""
    return carry_out_all(tables, batch_of([order(**fields)]))[0]
