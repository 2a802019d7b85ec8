"""Commands: the only writer of services, servers, routes, neighbours and own addresses.

Control fills a COMMAND array; ``apply`` carries the commands out between two breaths and leaves the
row concerned, or a refusal, in ``result``.
"""

from typing import Any, Final

import numpy as np
from numpy import int64

from pylvs import schedulers
from pylvs.frames import NONE
from pylvs.jit import compiled, door, records
from pylvs.tables import neighbours, paths, services
from pylvs.tables.layouts import FAILED, UNICAST

(
    ADD_SERVICE,
    EDIT_SERVICE,
    REMOVE_SERVICE,
    ADD_SERVER,
    EDIT_SERVER,
    REMOVE_SERVER,
    LEARN_NEIGHBOUR,
    FAIL_NEIGHBOUR,
) = range(8)

FULL: Final = -2
UNKNOWN: Final = -3

# fmt: off
COMMAND: Final = np.dtype([
    (name, np.int64)
    for name in (
        "kind",
        "protocol",        # of the service
        "address",
        "port",            # for a neighbour: row in PORT
        "server_address",
        "server_port",
        "scheduler",
        "forwarding",
        "weight",
        "mac",
        "result",
    )
])
# fmt: on


@door
def apply(tables, commands, count):
    """Carry out ``commands[:count]`` in order."""
    for at in range(count):
        command = commands[at]
        if command.kind >= LEARN_NEIGHBOUR:
            _apply_neighbour(tables, command)
        elif command.kind >= ADD_SERVER:
            _apply_server(tables, command)
        else:
            _apply_service(tables, command)


@compiled
def _apply_service(tables, command):
    row = services.find(tables, command.protocol, command.address, command.port)
    if command.kind == ADD_SERVICE:
        row = services.add(
            tables, command.protocol, command.address, command.port, command.scheduler
        )
        if row == NONE:
            command.result = FULL
            return
    elif row == NONE:
        command.result = UNKNOWN
        return
    command.result = row
    if command.kind == REMOVE_SERVICE:
        services.remove(tables, row)
        services.list_senders(tables)
    elif command.kind == ADD_SERVICE or tables.services[row].scheduler != command.scheduler:
        schedulers.bind(tables, row, command.scheduler)


@compiled
def _apply_server(tables, command):
    service = services.find(tables, command.protocol, command.address, command.port)
    if service == NONE:
        command.result = UNKNOWN
        return
    address, port = command.server_address, command.server_port
    if command.kind == ADD_SERVER:
        row = services.add_server(
            tables, service, address, port, command.forwarding, command.weight
        )
        if row == NONE:
            command.result = FULL
            return
        aim(tables, row)
    else:
        row = services.find_server(tables, service, address, port)
        if row == NONE:
            command.result = UNKNOWN
            return
    if command.kind == EDIT_SERVER:
        tables.servers[row].weight = command.weight
        tables.servers[row].forwarding = command.forwarding
    elif command.kind == REMOVE_SERVER:
        services.remove_server(tables, service, row)
    schedulers.changed(tables, service)
    services.list_senders(tables)
    command.result = row


@compiled
def _apply_neighbour(tables, command):
    row = neighbours.find(tables, command.port, command.address)
    command.result = row
    if row == NONE:
        return  # nobody has asked for it
    if command.kind == LEARN_NEIGHBOUR:
        neighbours.learn(tables, row, command.mac)
    else:
        tables.neighbours[row].state = FAILED


@compiled
def aim(tables, server_row):
    """Find the path and next hop to a server."""
    server = tables.servers[server_row]
    address = int64(server.address)
    path = paths.find(tables, address)
    server.path = NONE
    server.neighbour = NONE
    if path == NONE or tables.paths[path].kind != UNICAST or tables.paths[path].port == NONE:
        return
    server.path = path
    server.neighbour = paths.next_hop(tables, path, address)
    if server.neighbour != NONE:
        tables.neighbours[server.neighbour].pinned = 1


@door
def aim_all(tables):
    """Find the paths to all servers again, after any change of routes."""
    for row in range(tables.servers.size):
        if tables.servers[row].used:
            aim(tables, row)


def carry_out(tables: Any, **fields: int) -> int:
    """Apply one command at once and return its result; for callers whose engine does not run."""
    batch = records(COMMAND, 1)
    for name, value in fields.items():
        batch[name][0] = value
    apply(tables, batch, 1)
    return int(batch[0]["result"])
