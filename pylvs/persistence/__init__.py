"""Persistence engines: read_key(tables, memory, frame, engine) -> found, refused, or ask Python.

What tells a persistent service's clients apart beside their addresses: a key of up to 255 octets in
the packet that would open a connection.  SIP's is compiled; one's own is written in plain Python
(``plugin.py``).  A packet without a key is refused.
"""

from typing import Final

from pylvs.jit import apart
from pylvs.persistence import sip
from pylvs.tables.connections import keys
from pylvs.wire import ipv4

BUILT_IN: Final = ("", "sip")
NO_ENGINE, SIP = range(len(BUILT_IN))

PLUGIN_BASE: Final = 1_000  # numbers from here on are plug-ins, in the order they were loaded
KEY_MAX: Final = 255
REFUSED, FOUND, ASK_PYTHON = range(3)
_UDP_HEADER: Final = 8


@apart
def read_key(tables, memory, frame, engine):
    """Put the packet's key into ``tables.key``; return ``FOUND``, ``REFUSED`` or ``ASK_PYTHON``."""
    if frame.quotes:
        return REFUSED  # an ICMP error that may open a connection brings no payload
    if engine >= PLUGIN_BASE:
        return ASK_PYTHON
    if frame.protocol != ipv4.UDP:
        return REFUSED
    at, size = sip.find_call_id(memory, frame.transport + _UDP_HEADER, frame.ip + frame.packet_size)
    if size == 0 or size > KEY_MAX:
        return REFUSED
    keys.put(tables, memory, at, size)
    return FOUND


def lets_servers_start(engine: int) -> bool:
    """Whether an engine's real servers may speak first, and get a connection by it."""
    return engine == SIP
