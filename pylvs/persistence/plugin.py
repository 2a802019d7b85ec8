"""Persistence engines in plain Python.

    class QuicConnection:
        def key(self, service, flow, payload):
            return payload[6:14] if payload[:1] > b"\x7f" else payload[1:9] or None

Named on the command line as ``package.module:Class``, or by the name of an entry point in the
group ``pylvs.persistence``.  ``key`` is called for each packet that would open a connection, with
what follows its transport header, and returns what its client is known by beside its address: at
most 255 octets.  ``None`` has the packet dropped.
"""

from typing import Any, Final, Protocol

import numpy as np

from pylvs.persistence import BUILT_IN, KEY_MAX, PLUGIN_BASE
from pylvs.plugins import Flow, Kind, Plugins, Service, flow_of, service_of
from pylvs.tables import Tables
from pylvs.wire import ipv4

_HEADERS: Final = {ipv4.UDP: 8, ipv4.SCTP: 12}
_TCP_SIZE: Final = 12  # in the header: the header's own size, in its upper half


class Engine(Protocol):
    """What a plug-in class looks like; it is made without arguments, once a service."""

    def key(self, service: Service, flow: Flow, payload: bytes) -> bytes | None: ...


KIND: Final = Kind(
    "persistence engine", "pylvs.persistence", "key", "(service, flow, payload)", BUILT_IN
)


class Engines(Plugins):
    """The plug-in engines in use, by the number that a service's ``engine`` field holds."""

    def __init__(self) -> None:
        super().__init__(KIND, PLUGIN_BASE)

    def answer(self, tables: Tables, memory: Any, frame: Any) -> bool:
        """Put the frame's key into ``tables.key``; return whether it has one.

        Raises whatever the plug-in raises, and ValueError when it returns no key.
        """
        service_row = int(frame["service"])
        engine = self.instance(service_row, int(tables.services[service_row]["engine"]))
        payload = _payload_of(memory, frame)
        key = engine.key(service_of(tables, service_row), flow_of(frame), payload)
        if key is None:
            return False
        if not isinstance(key, bytes) or len(key) > KEY_MAX:
            raise ValueError(f"key returned {key!r}, which is no bytes, or more than {KEY_MAX}")
        tables.key[: len(key)] = np.frombuffer(key, np.uint8)
        tables.director[0]["key_size"] = len(key)
        return True


def _payload_of(memory: Any, frame: Any) -> bytes:
    """Return what follows the packet's transport header."""
    at, end = int(frame["transport"]), int(frame["ip"]) + int(frame["packet_size"])
    size = _HEADERS.get(int(frame["protocol"])) or (int(memory[at + _TCP_SIZE]) >> 4) * 4
    return bytes(memory[at + size : end])
