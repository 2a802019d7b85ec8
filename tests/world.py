"""A director between two networks, on the in-memory driver and a clock set by hand.

    port 0  192.0.2.254/24  02:00:00:00:01:fe   router 192.0.2.1 (02:00:00:00:01:01), default route
            2001:db8:1::fe/64                          2001:db8:1::1, likewise
    port 1  10.0.0.254/24   02:00:00:00:02:fe   real server n: 10.0.0.n, 02:00:00:00:02:<n>
            2001:db8:2::fe/64                                  2001:db8:2::<n>

The world that the vectors were captured in.
"""

from pylvs.control.ipvsadm.rules import parse_line
from pylvs.control.manager import Manager
from pylvs.control.network.surroundings import Heard, Route, local_route
from pylvs.control.replay import SEED
from pylvs.drivers.base import Port
from pylvs.drivers.loopback import Loopback
from pylvs.engine.director import OWN_MEMORY, Director
from pylvs.engine.loop import breathe
from pylvs.frames import Reason
from pylvs.jit import entrance
from pylvs.tables.neighbours import find_or_add
from pylvs.tables.sizes import Limits
from pylvs.wire.text import address_of, halves
from tests.packets import number

VIP, VIP6 = "192.0.2.10", "2001:db8:1::10"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
MACS = (0x02_00_00_00_01_FE, 0x02_00_00_00_02_FE)
ROUTER_MAC = 0x02_00_00_00_01_01
LOCAL = ("192.0.2.254", "10.0.0.254")
LOCAL6 = ("2001:db8:1::fe", "2001:db8:2::fe")
START_MS = 1_000_000
add_neighbour = entrance(find_or_add)


class PlainMemory:
    """What a driver needs of a reservation, without the mapping."""

    def __init__(self, director):
        self.array = director.memory


class World:
    """One director; ``send`` puts a frame in and returns what came out as (port, bytes)."""

    def __init__(self, rules=(), *, limits=None, local=(), mtus=(1500, 1500), own_arp=False):
        import numpy as np

        ports = [Port(f"port {row}", MACS[row], mtus[row]) for row in range(2)]
        self.driver = Loopback(ports)
        limits = limits or Limits(connections=4096)
        memory = np.zeros(OWN_MEMORY + self.driver.memory_size, np.uint8)
        self.director = Director(limits, memory=memory, seed=SEED)
        self.driver.attach(PlainMemory(self.director), OWN_MEMORY)
        self.manager = Manager(self.director)
        self.tables = self.director.tables
        self.now_ms = START_MS
        self.manager.clock = lambda: self.now_ms
        state = self.tables.director[0]
        state["unlimited"] = 1
        for row, address in enumerate(LOCAL):
            port = self.tables.ports[row]
            port["mac"], port["mtu"], port["up"] = MACS[row], mtus[row], 1
            port["address"], port["own_arp"] = number(address), own_arp
        self.manager.own.set_local(frozenset(map(address_of, (*LOCAL, *LOCAL6, *local))))
        self.manager.around.set_routes(self._routes(local, mtus))
        if not own_arp:
            self._know(0, "192.0.2.1", ROUTER_MAC)
            self._know(0, "2001:db8:1::1", ROUTER_MAC)
            for n in (1, *range(11, 41)):
                self._know(1, f"10.0.0.{n}", 0x02_00_00_00_02_00 | n)
                self._know(1, f"2001:db8:2::{n:x}", 0x02_00_00_00_02_00 | n)
        for line in rules:
            self.rule(line)

    def _routes(self, local, mtus):
        near, far = map(number, LOCAL)
        routes = [
            Route(number("192.0.2.0"), 24, 0, near, 0, mtus[0]),
            Route(number("10.0.0.0"), 24, 0, far, 1, mtus[1]),
            Route(0, 0, number("192.0.2.1"), near, 0, mtus[0]),
        ]
        near, far = map(address_of, LOCAL6)
        routes += [
            Route(near, 64, 0, near, 0, mtus[0], family=6),
            Route(far, 64, 0, far, 1, mtus[1], family=6),
            Route(0, 0, address_of("2001:db8:1::1"), near, 0, mtus[0], family=6),
        ]
        return routes + [local_route(address_of(one)) for one in (*LOCAL, *LOCAL6, *local)]

    def _know(self, port, address, mac):
        add_neighbour(self.tables.all[0], port, halves(address_of(address)))
        self.manager.around.hear([Heard(port, address_of(address), mac)])

    def rule(self, line):
        self.manager.apply(parse_line(line.split()))

    def after(self, seconds):
        self.now_ms += int(seconds * 1000)
        return self

    def send(self, frame, port=0):
        return self.send_all([(port, frame)])

    def send_all(self, frames):
        for port, frame in frames:
            self.driver.put(port, frame)
        breathe(self.director, self.driver, self.now_ms, exact=True)
        sent, self.driver.sent = self.driver.sent, []
        return sent

    def reason(self, name):
        return int(self.tables.reasons[Reason[name.upper()]])

    def connections(self):
        """Return every connection as (client port, state, server address), by client port."""
        rows = self.tables.connections[: int(self.tables.director[0]["high_water"])]
        live = [rows[row] for row in range(len(rows)) if rows[row]["expires_ms"]]
        return sorted(
            (int(one["client_port"]), int(one["state"]), int(one["server_address"])) for one in live
        )
