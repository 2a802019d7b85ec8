"""Maglev hashing (mh): a table of 4093 slots that changes little when servers come and go.

Eisenbud et al., "Maglev: a fast and reliable software network load balancer", NSDI 2016, as Linux
has it (ip_vs_mh.c): SipHash-1-3 with fixed keys, so every director makes the same table.  A weight
set to 0 leaves the table as it is: it is made of the last weights above 0.
"""

import math
from typing import Final

import numpy as np
from numpy import int64, uint64

from pylvs.frames import NONE
from pylvs.jit import apart, compiled
from pylvs.schedulers.hashing import FALLBACK, flow_key
from pylvs.schedulers.least_connection import is_usable
from pylvs.tables.addresses import address_of
from pylvs.wire import ip

SLOTS: Final = 4_093  # CONFIG_IP_VS_MH_TAB_INDEX=12
_SHIFT_BITS: Final = 6
_KEY_1: Final = np.uint64(2_654_435_761)
_KEY_2: Final = np.uint64(2_654_446_892)
_MESSAGE_LENGTH: Final = np.uint64(4 << 56)


@compiled
def _rotate(value, bits):
    return (value << uint64(bits)) | (value >> uint64(64 - bits))


@apart
def hash_u32(key, value):
    """Return the low 32 bits of SipHash-1-3 of four bytes, the key being ``key`` twice.

    (Aumasson and Bernstein, "SipHash", 2012; linux/siphash.h, hsiphash_1u32 on 64 bits.)
    """
    word = _MESSAGE_LENGTH | uint64(value)
    v0 = key ^ uint64(0x736F_6D65_7073_6575)
    v1 = key ^ uint64(0x646F_7261_6E64_6F6D)
    v2 = key ^ uint64(0x6C79_6765_6E65_7261)
    v3 = key ^ uint64(0x7465_6462_7974_6573)
    v3 ^= word
    for turn in range(4):  # one round for the word, three to finish
        v0 += v1
        v1 = _rotate(v1, 13) ^ v0
        v0 = _rotate(v0, 32)
        v2 += v3
        v3 = _rotate(v3, 16) ^ v2
        v0 += v3
        v3 = _rotate(v3, 21) ^ v0
        v2 += v1
        v1 = _rotate(v1, 17) ^ v2
        v2 = _rotate(v2, 32)
        if turn == 0:
            v0 ^= word
            v2 ^= uint64(0xFF)
    return int64((v0 ^ v1 ^ v2 ^ v3) & uint64(0xFFFF_FFFF))


@apart
def fill(tables, service_row):
    """Make the service's table anew from its servers and their weights."""
    service = tables.services[service_row]
    begin = int64(service.slots_begin)
    for slot in range(SLOTS):
        tables.slots[begin + slot] = NONE
    divisor, top = _weigh(tables, service)
    if divisor == 0:
        return
    shift = max(0, _bit_length(top // divisor) - _SHIFT_BITS)
    at = int64(service.head)
    while at != NONE:
        server = tables.servers[at]
        key = (ip.fold(address_of(server)) + int64(server.port)) & 0xFFFF_FFFF
        server.mh_at = hash_u32(_KEY_1, key) % SLOTS
        server.mh_skip = hash_u32(_KEY_2, key) % (SLOTS - 1) + 1
        at = int64(server.next)
    filled = 0
    while filled < SLOTS:
        at = int64(service.head)
        while at != NONE and filled < SLOTS:
            filled += _take_turns(tables, begin, at, divisor, shift, SLOTS - filled)
            at = int64(tables.servers[at].next)


@compiled
def _weigh(tables, service):
    divisor = 0
    top = 0
    at = int64(service.head)
    while at != NONE:
        weight = int64(tables.servers[at].last_weight)
        divisor = math.gcd(divisor, weight)
        top = max(top, weight)
        at = int64(tables.servers[at].next)
    return divisor, top


@compiled
def _bit_length(value):
    bits = 0
    while value:
        value >>= 1
        bits += 1
    return bits


@compiled
def _take_turns(tables, begin, row, divisor, shift, limit):
    """Let a server take the slots it has weight for, ``limit`` at most; return how many."""
    server = tables.servers[row]
    weight = int64(server.last_weight)
    turns = (weight // divisor) >> shift
    if turns == 0 and weight > 0:
        turns = 1
    turns = min(turns, limit)
    for _ in range(turns):
        while tables.slots[begin + server.mh_at] != NONE:
            server.mh_at = (int64(server.mh_at) + int64(server.mh_skip)) % SLOTS
        tables.slots[begin + server.mh_at] = row
    return turns


@apart
def pick(tables, service_row, flow):
    """Return the server of the client's slot, or another one with mh-fallback, or ``NONE``."""
    service = tables.services[service_row]
    begin = int64(service.slots_begin)
    key = flow_key(service, flow)
    first = hash_u32(_KEY_1, key) % SLOTS
    row = int64(tables.slots[begin + first])
    if row == NONE:
        return NONE
    if is_usable(tables.servers[row]):
        return row
    if service.service_flags & FALLBACK == 0:
        return NONE
    for offset in range(SLOTS):
        salt = (offset + first) % SLOTS
        slot = hash_u32(_KEY_1, (key + salt) & 0xFFFF_FFFF) % SLOTS
        row = int64(tables.slots[begin + slot])
        if row == NONE:
            return NONE
        if is_usable(tables.servers[row]):
            return row
    return NONE
