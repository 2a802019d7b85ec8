"""Hash schedulers: by the client's address (sh), by the destination's (dh).

A table of 256 slots a service, filled from the list: newest server first, in turn, each as many
slots as it has weight (sh) or one (dh).  (ip_vs_sh.c, ip_vs_dh.c)
"""

from typing import Final

from numpy import int64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.schedulers.least_connection import is_usable
from pylvs.tables.addresses import destination_of, source_of
from pylvs.tables.layouts import SCHEDULER_1, SCHEDULER_2
from pylvs.tables.sizes import SLOTS_BLOCK
from pylvs.wire import ip

SLOTS: Final = 256
FALLBACK: Final = SCHEDULER_1
PORT: Final = SCHEDULER_2


@compiled
def hash_32(value, bits):
    """Return the top ``bits`` of Linux's hash of 32 bits (linux/hash.h)."""
    # 0x61C88647 times a value below 2**32 stays below 2**63
    return ((value * 0x61C8_8647) & 0xFFFF_FFFF) >> (32 - bits)


@compiled
def take_slots(tables, service_row, count):
    """Reserve a table of ``count`` slots for the service; return whether there was room."""
    wanted = (count + SLOTS_BLOCK - 1) // SLOTS_BLOCK
    free = 0
    for block in range(tables.slot_owners.size):
        free = free + 1 if tables.slot_owners[block] == NONE else 0
        if free == wanted:
            begin = block + 1 - wanted
            for taken in range(begin, block + 1):
                tables.slot_owners[taken] = service_row
            tables.services[service_row].slots_begin = begin * SLOTS_BLOCK
            tables.services[service_row].slots_count = count
            return True
    return False


@compiled
def give_slots(tables, service_row):
    """Free the service's table, if it has one."""
    service = tables.services[service_row]
    if service.slots_begin == NONE:
        return
    first = service.slots_begin // SLOTS_BLOCK
    last = (service.slots_begin + service.slots_count - 1) // SLOTS_BLOCK
    for block in range(first, last + 1):
        tables.slot_owners[block] = NONE
    service.slots_begin = NONE
    service.slots_count = 0


@apart
def fill_by_weight(tables, service_row):
    """Give each server in turn as many consecutive slots as it has weight, at least one."""
    service = tables.services[service_row]
    begin = int64(service.slots_begin)
    at = NONE
    left = 0
    for slot in range(SLOTS):
        if left <= 0:
            at = int64(service.head) if at == NONE else int64(tables.servers[at].next)
            if at == NONE:
                at = int64(service.head)
            if at != NONE:
                left = int64(tables.servers[at].weight)
        tables.slots[begin + slot] = at
        left -= 1


@apart
def fill_evenly(tables, service_row):
    """Give each server in turn one slot, whatever its weight."""
    service = tables.services[service_row]
    begin = int64(service.slots_begin)
    at = NONE
    for slot in range(SLOTS):
        at = int64(service.head) if at == NONE else int64(tables.servers[at].next)
        if at == NONE:
            at = int64(service.head)
        tables.slots[begin + slot] = at


@compiled
def flow_key(service, flow):
    """Return 32 bits of the client: its address, and its port if the service's flags ask for it."""
    port = flow.source_port if service.service_flags & PORT else 0
    return (ip.fold(source_of(flow)) + port) & 0xFFFF_FFFF


@apart
def pick_by_source(tables, service_row, flow):
    """Return the server of the client's slot, or another one with sh-fallback, or ``NONE``."""
    service = tables.services[service_row]
    begin = int64(service.slots_begin)
    key = flow_key(service, flow)
    first = hash_32(key, 8)
    row = int64(tables.slots[begin + first])
    if row == NONE:
        return NONE
    if is_usable(tables.servers[row]):
        return row
    if service.service_flags & FALLBACK == 0:
        return NONE
    for offset in range(SLOTS):
        slot = (first + (offset + first) % SLOTS) % SLOTS
        row = int64(tables.slots[begin + slot])
        if row == NONE:
            return NONE
        if is_usable(tables.servers[row]):
            return row
    return NONE


@apart
def pick_by_destination(tables, service_row, flow):
    """Return the server of the destination's slot if it is usable, or ``NONE``."""
    begin = int64(tables.services[service_row].slots_begin)
    row = int64(tables.slots[begin + hash_32(ip.fold(destination_of(flow)), 8)])
    if row == NONE or not is_usable(tables.servers[row]):
        return NONE
    return row
