"""IPVS in dicts and lists: slow, obvious, and written from the tables in ipvsadm's world, not ours.

Works on parsed packets rather than bytes: what goes to whom, in which state, until when.
"""

import math
from dataclasses import dataclass, field

STATES = (
    "NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK"
)
SHORT = dict(
    zip(
        ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"],
        STATES.split(),
        strict=True,
    )
)
TIMEOUTS = dict(zip(STATES.split(), (2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120), strict=True))
COLUMNS = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"]
TABLES = {
    "input": {
        "syn": "SR ES ES SR SR SR SR SR SR SR SR",
        "fin": "CL CW SS TW TW TW CL CW LA LI TW",
        "ack": "ES ES SS ES FW TW CL CW CL LI ES",
        "rst": "CL CL CL SR CL CL CL CL LA LI SR",
    },
    "output": {
        "syn": "SS ES SS SR SS SS SS SS SS LI SR",
        "fin": "TW FW SS TW FW TW CL TW LA LI TW",
        "ack": "ES ES SS ES FW TW CL CW LA ES ES",
        "rst": "CL CL SS CL CL TW CL CL CL CL CL",
    },
    "input_only": {
        "syn": "SR ES ES SR SR SR SR SR SR SR SR",
        "fin": "CL FW SS TW FW TW CL CW LA LI TW",
        "ack": "ES ES SS ES FW TW CL CW CL LI ES",
        "rst": "CL CL CL SR CL CL CL CL LA LI CL",
    },
}
ACTIVE = {"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"}


@dataclass(eq=False)
class Server:
    address: str
    port: int
    method: str
    weight: int
    connections: list = field(default_factory=list)
    available: bool = True

    @property
    def active(self):
        return sum(one.active for one in self.connections)

    @property
    def inactive(self):
        return len(self.connections) - self.active

    @property
    def overhead(self):
        return self.active * 256 + self.inactive


@dataclass(eq=False)
class Service:
    protocol: str
    address: str
    port: int
    scheduler: str
    servers: list = field(default_factory=list)
    last: Server | None = None
    mark: int = 0

    @property
    def step(self):
        return math.gcd(*(one.weight for one in self.servers)) or 1

    @property
    def top(self):
        return max((one.weight for one in self.servers), default=0) - (self.step - 1)


@dataclass(eq=False)
class Connection:
    client: tuple
    virtual: tuple
    protocol: str
    server: Server
    expires: float
    state: str = "NONE"
    input_only: bool = True
    active: bool = False


class Ipvs:
    """``packet`` returns what becomes of one: ("to", server) ("reply",) ("reset",) ..."""

    def __init__(self):
        self.services = {}
        self.connections = []
        self.now = 0.0

    def add_service(self, protocol, address, port, scheduler):
        self.services[protocol, address, port] = Service(protocol, address, port, scheduler)

    def add_server(self, key, address, port, method, weight):
        service = self.services[key]
        service.servers.insert(0, Server(address, port, method, weight))
        self._changed(service)

    def edit_server(self, key, index, weight):
        service = self.services[key]
        service.servers[index].weight = weight
        self._changed(service)

    def remove_server(self, key, index):
        service = self.services[key]
        gone = service.servers[index]
        if service.last is gone:
            service.last = service.servers[index - 1] if index else None
        del service.servers[index]
        gone.available = False
        self._changed(service)
        return gone

    def _changed(self, service):
        if service.scheduler != "wrr":
            return
        service.last = None
        if service.mark > service.top or service.mark == 0:
            service.mark = service.top
        elif service.step > 1:
            service.mark = service.mark // service.step * service.step + 1

    def _remove(self, connection):
        self.connections.remove(connection)
        connection.server.connections.remove(connection)

    def expire(self):
        for connection in [one for one in self.connections if one.expires <= self.now]:
            self._remove(connection)

    def packet(self, protocol, source, destination, flags=""):
        """``source`` and ``destination`` are (address, port); ``flags`` are S F R A letters."""
        self.expire()
        found = self._find(protocol, client=source, virtual=destination)
        if found and "S" in flags and found.state in ("TIME_WAIT", "CLOSE"):
            self._remove(found)
            found = None
        elif found and not found.server.available:
            return ("drop",)
        if not found:
            reply = self._find_reply(protocol, sender=source, client=destination)
            if reply and not self._find(protocol, client=source, virtual=destination):
                reply.input_only = False
                self._advance(reply, flags, "output")
                return ("reply", reply) if reply.server.method == "-m" else ("pass",)
            found = self._open(protocol, source, destination, flags)
            if not isinstance(found, Connection):
                return found
        self._advance(found, flags, "input_only" if found.input_only else "input")
        return ("to", found)

    def _find(self, protocol, client, virtual):
        for one in self.connections:
            if (one.protocol, one.client, one.virtual) == (protocol, client, virtual):
                return one
        return None

    def _find_reply(self, protocol, sender, client):
        for one in reversed(self.connections):
            end = (
                (one.server.address, one.server.port) if one.server.method == "-m" else one.virtual
            )
            if (one.protocol, one.client, end) == (protocol, client, sender):
                return one
        return None

    def _open(self, protocol, source, destination, flags):
        service = self.services.get((protocol, *destination))
        if service is None:
            return ("pass",)
        if protocol == "tcp" and ("R" in flags or "S" not in flags):
            return ("drop",) if "R" in flags else ("reset",)
        server = getattr(self, "_" + service.scheduler)(service)
        if server is None:
            return ("unreachable",)
        connection = Connection(source, destination, protocol, server, self.now + 3)
        connection.input_only = server.method != "-m"
        self.connections.append(connection)
        server.connections.append(connection)
        return connection

    def _advance(self, connection, flags, table):
        if connection.protocol == "udp":
            connection.expires = self.now + 300
            return
        event = next(
            (
                name
                for letter, name in zip("RSFA", ("rst", "syn", "fin", "ack"), strict=True)
                if letter in flags
            ),
            None,
        )
        if event is None:
            connection.state = "CLOSE"
        else:
            short = next(key for key, name in SHORT.items() if name == connection.state)
            row = TABLES[table][event].split()
            connection.state = SHORT[row[COLUMNS.index(short)]]
        connection.active = connection.state in ACTIVE
        connection.expires = self.now + TIMEOUTS[connection.state]

    def _rr(self, service):
        servers = service.servers
        begin = servers.index(service.last) + 1 if service.last in servers else 0
        for server in servers[begin:] + servers[:begin]:
            if server.weight > 0:
                service.last = server
                return server
        return None

    def _wrr(self, service):
        if service.top <= 0:
            return None
        for _ in range(2 * service.top + 2):
            begin = service.servers.index(service.last) + 1 if service.last else 0
            for server in service.servers[begin:]:
                if server.weight >= service.mark:
                    service.last = server
                    return server
            service.last = None
            service.mark -= service.step
            if service.mark <= 0:
                service.mark = service.top
        return None

    def _lc(self, service):
        able = [one for one in service.servers if one.weight > 0]
        return min(able, key=lambda one: one.overhead, default=None)

    def _wlc(self, service):
        able = [one for one in service.servers if one.weight > 0]
        return min(able, key=lambda one: one.overhead / one.weight, default=None)
