"""The world that captures of Linux's IPVS were made in, with pylvs in the kernel's place.

    port c  eth0 02:00:00:00:01:fe 192.0.2.254/24   router 192.0.2.1, default route
                                   2001:db8:1::fe/64       2001:db8:1::1, likewise
    port s  eth1 02:00:00:00:02:fe 10.0.0.254/24    real server n: 10.0.0.n, 02:00:00:00:02:<n>
                                   2001:db8:2::fe/64               2001:db8:2::<n>
    VIPs    192.0.2.10, 192.0.2.20 and 2001:db8:1::10, addresses of the director's host

Frames go in by the in-memory driver, commands through a little shell that knows the few programs
the captures use; time is the capture's own.
"""

import re
import shlex
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from pylvs.control import at_once, listing, settings
from pylvs.control.estimator import TICK_S
from pylvs.control.ipvsadm import proc
from pylvs.control.ipvsadm.executor import Executor
from pylvs.control.manager import Manager
from pylvs.control.model import MarkRule
from pylvs.control.network.surroundings import Heard, Route, local_route
from pylvs.control.replay import SEED
from pylvs.drivers.base import Port
from pylvs.drivers.loopback import Loopback
from pylvs.engine.director import OWN_MEMORY, Director
from pylvs.engine.loop import breathe
from pylvs.errors import UsageError
from pylvs.tables.layouts.network import ASKED, LOCAL_ADDRESS
from pylvs.tables.sizes import Limits
from pylvs.wire.text import address_of, joined

MACS: Final = (0x02_00_00_00_01_FE, 0x02_00_00_00_02_FE)
ADDRESSES: Final = ("192.0.2.254", "10.0.0.254")
ROUTER: Final = ("192.0.2.1", 0x02_00_00_00_01_01)
VIPS: Final = ("192.0.2.10", "192.0.2.20")
VIP_6: Final = "2001:db8:1::10"
ADDRESSES_6: Final = ("2001:db8:1::fe", "2001:db8:2::fe")
ROUTER_6: Final = "2001:db8:1::1"
_SERVER_MAC: Final = 0x02_00_00_00_02_00
_PREFIX: Final = 24
_PREFIX_6: Final = 64
_START_MS: Final = 1_000_000
_TICK_MS: Final = TICK_S * 1_000
_LIMITS: Final = Limits(connections=16_384)


class Result(NamedTuple):
    """What a command printed and how it ended; ``known`` is False for one that is only ignored."""

    status: int
    output: str
    error: str
    known: bool = True


INTERFACES: Final = ("lo", "dummy0", "eth0", "eth1")


class _Memory:
    """What a driver needs of a reservation, without the mapping."""

    def __init__(self, director: Director) -> None:
        self.array = director.memory


class Guest:
    """One director in that world."""

    def __init__(self) -> None:
        self._mtus = [1_500, 1_500]
        self.driver, memory = self._open_driver()
        self.director = Director(_LIMITS, memory=memory, seed=SEED)
        self.driver.attach(_Memory(self.director), OWN_MEMORY)
        self.manager = Manager(self.director)
        self.manager.own.adopts_vips = False
        self.manager.clock = lambda: self.now_ms
        self.now_ms = self._estimated_ms = _START_MS
        state = self.director.tables.director[0]
        state["unlimited"] = state["hosted"] = 1
        state["ftp_helper"] = 0
        for row, address in enumerate(ADDRESSES):
            port = self.director.tables.ports[row]
            port["mac"], port["up"] = MACS[row], 1
            port["address"] = address_of(address)
        self._marks: list[MarkRule] = []
        self._more_routes: list[Route] = []
        self._rules: dict[int, int] = {}  # routing table: firewall mark
        self._set_routes()
        self._programs: dict[str, Callable[[list[str], str], Result]] = {
            "ipvsadm": self._ipvsadm,
            "ipvsadm-save": lambda _, text: self._ipvsadm(["-S"], text),
            "ipvsadm-restore": self._restore,
            "cat": self._cat,
            "grep": self._grep,
            "tail": lambda _, text: Result(0, "\n".join(text.splitlines()[-1:]) + "\n", ""),
            "printf": lambda words, _: Result(0, "".join(f"{one}\n" for one in words[1:]), ""),
            "true": lambda *_: Result(0, "", ""),
            "sysctl": self._sysctl,
            "modprobe": self._modprobe,
            "ip": self._ip,
            "iptables": self._iptables,
            "ip6tables": self._iptables,
        }

    def _open_driver(self) -> tuple[Any, Any]:
        """Return what moves the frames, and the director's memory."""
        driver = Loopback([Port(f"eth{row}", MACS[row]) for row in range(2)])
        return driver, np.zeros(OWN_MEMORY + driver.memory_size, np.uint8)

    def close(self) -> None:
        """End what goes on beside this process."""

    # Time and frames.

    def at(self, seconds: float) -> list[tuple[int, bytes]]:
        """Let the clock reach this moment of the capture; return what left by itself."""
        now_ms = max(self.now_ms, _START_MS + int(seconds * 1_000))
        while self._estimated_ms + _TICK_MS <= now_ms:
            self._estimated_ms += _TICK_MS
            self.manager.estimator.tick(at_once)
        self.now_ms = now_ms
        return self._breathe()

    def send(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Put a frame in and return what left, as (port, bytes)."""
        self.driver.put(port, frame)
        return self._breathe()

    def _breathe(self) -> list[tuple[int, bytes]]:
        breathe(self.director, self.driver, self.now_ms, exact=True)
        while self._resolve():
            breathe(self.director, self.driver, self.now_ms, exact=True)
        sent: list[tuple[int, bytes]] = self.driver.sent
        self.driver.sent = []
        return sent

    def _resolve(self) -> bool:
        asked = self.manager.around.next_hops(ASKED)
        self.manager.around.hear(
            Heard(port, address, _SERVER_MAC | (address & 0xFF) if port else ROUTER[1])
            for port, address in asked
        )
        return bool(asked)

    def is_own(self, address: bytes) -> bool:
        """Whether an address is the guest's, given as its bytes."""
        number = int.from_bytes(address, "big")
        paths = self.director.tables.paths[: int(self.director.tables.director[0]["path_count"])]
        local = paths[(paths["kind"] == LOCAL_ADDRESS) & (paths["mark"] == 0)]
        return any(
            number & joined(path["mask_high"], path["mask_low"])
            == joined(path["network_high"], path["network_low"])
            for path in local
        )

    # The shell.

    def run(self, line: str) -> list[Result]:
        """Run a command line; return the result of each command of it."""
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|<")
        lexer.whitespace_split = True
        results = []
        text, known = "", True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token not in (";", "|"):
                words.append(token)
                continue
            if words:
                result = self._run_one(words, text)
                result = result._replace(known=result.known and known)
                known = result.known or token == ";"
                text = result.output if token == "|" else ""
                if token == ";":
                    results.append(result)
            words = []
        return results

    def _run_one(self, words: list[str], text: str) -> Result:
        words = [word for word in words if not word.startswith("2>")]
        if "<" in words:  # only ever from /dev/null
            words, text = words[: words.index("<")], ""
        program = self._programs.get(words[0])
        if program is None:
            raise UsageError(f"the guest has no program {words[0]}")
        return program(words[1:], text)

    def _ipvsadm(self, words: list[str], text: str) -> Result:
        result = Executor(self.manager, interfaces=lambda: INTERFACES).run(words, text)
        return Result(result.status, result.output, result.error)

    def _restore(self, _: list[str], text: str) -> Result:
        self._ipvsadm(["-C"], "")
        kept = [line for line in text.splitlines() if not line.startswith("#")]
        return self._ipvsadm(["-R"], "\n".join(kept))

    def _file(self, path: str) -> str:
        rates = self.manager.estimator.total()
        name = path.rpartition("/")[2]
        if name == "ip_vs":
            return proc.services(listing.read(self.manager))
        if name == "ip_vs_conn":
            return proc.connections(listing.connections(self.manager))
        if name == "ip_vs_stats":
            return proc.stats(listing.totals(self.manager), rates)
        if name == "ip_vs_stats_percpu":
            return proc.stats_percpu(listing.totals(self.manager), rates)
        raise UsageError(f"the guest has no file {path}")

    def _cat(self, words: list[str], _: str) -> Result:
        return Result(0, "".join(map(self._file, words)), "")

    def _grep(self, words: list[str], text: str) -> Result:
        flags = re.IGNORECASE if "-i" in words else 0
        pattern, *files = (word for word in words if word != "-i")
        text = "".join(map(self._file, files)) if files else text
        found = [line for line in text.splitlines() if re.search(pattern, line, flags)]
        return Result(not found, "".join(f"{line}\n" for line in found), "")

    def _sysctl(self, words: list[str], _: str) -> Result:
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                self.set(name, value)
        return Result(0, "", "", known=False)

    def _modprobe(self, words: list[str], _: str) -> Result:
        if words != ["ip_vs_ftp"]:
            return Result(1, "", "", known=False)
        self.director.tables.director[0]["ftp_helper"] = 1
        return Result(0, "", "")

    def set(self, name: str, value: object) -> None:
        """Set a setting by its kernel name."""
        settings.apply(self.director.tables.director[0], name, int(str(value).split()[0]))

    # What surrounds the director.

    def _ip(self, words: list[str], _: str) -> Result:
        if words[:2] == ["link", "set"] and "mtu" in words:
            port = int(words[2].removeprefix("eth"))
            self._mtus[port] = int(words[words.index("mtu") + 1])
        elif words[:2] == ["rule", "add"]:
            self._rules[int(_after(words, "table"))] = int(_after(words, "fwmark"), 0)
        elif words[:2] == ["rule", "del"]:
            self._rules.pop(int(_after(words, "table")), None)
        elif words[:3] == ["route", "add", "local"]:
            self._more_routes.append(self._local_route(words))
        elif words[:3] == ["route", "del", "local"]:
            self._more_routes.remove(self._local_route(words))
        elif words[:2] == ["route", "flush"]:
            self._more_routes = [route for route in self._more_routes if not route.mark]
        elif words[0] != "route" or words[1] not in ("get", "show"):
            raise UsageError(f"the guest's ip does not know {' '.join(words)}")
        self._set_routes()
        return Result(0, "", "", known=False)

    def _local_route(self, words: list[str]) -> Route:
        network, _, prefix = words[3].partition("/")
        mark = self._rules.get(int(_after(words, "table")), 0) if "table" in words else 0
        if network == "default":
            return Route(0, 0, kind=LOCAL_ADDRESS, mark=mark)
        if prefix:
            return Route(address_of(network), int(prefix), kind=LOCAL_ADDRESS, mark=mark)
        return local_route(address_of(network), mark)

    def _set_routes(self) -> None:
        near, far = map(address_of, ADDRESSES)
        routes = [
            Route(near, _PREFIX, 0, near, 0, self._mtus[0]),
            Route(far, _PREFIX, 0, far, 1, self._mtus[1]),
            Route(0, 0, address_of(ROUTER[0]), near, 0, self._mtus[0]),
        ]
        near, far = map(address_of, ADDRESSES_6)
        routes += [
            Route(near, _PREFIX_6, 0, near, 0, self._mtus[0], family=6),
            Route(far, _PREFIX_6, 0, far, 1, self._mtus[1], family=6),
            Route(0, 0, address_of(ROUTER_6), near, 0, self._mtus[0], family=6),
        ]
        own = [*ADDRESSES, *ADDRESSES_6, *VIPS, VIP_6]
        routes += [local_route(address_of(address)) for address in own]
        self.director.tables.ports["mtu"][:2] = self._mtus
        self.manager.around.set_routes([*routes, *self._more_routes])

    def _iptables(self, words: list[str], _: str) -> Result:
        if "-F" in words:
            self._marks = []
        else:
            rules = _mark_rules(words)
            if "-A" in words:
                self._marks += rules
            else:
                for rule in rules:
                    self._marks.remove(rule)
        self.manager.around.set_mark_rules(self._marks)
        return Result(0, "", "", known=False)


def _after(words: list[str], word: str) -> str:
    return words[words.index(word) + 1]


def _mark_rules(words: list[str]) -> list[MarkRule]:
    """Return the rules that one iptables MARK rule is: one for each of its port ranges."""
    network, _, prefix = _after(words, "-d").partition("/") if "-d" in words else ("0", "", "0")
    family = 6 if ":" in network else 4
    protocol = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}.get(
        _after(words, "-p") if "-p" in words else "", 0
    )
    option = next((word for word in ("--dports", "--dport") if word in words), "")
    ranges = [(0, 65_535)]
    if option:
        parts = [part.split(":") for part in _after(words, option).split(",")]
        ranges = [(int(part[0]), int(part[-1])) for part in parts]
    mark = int(_after(words, "--set-mark"), 0)
    destination = address_of(network) if "-d" in words else 0
    return [
        MarkRule(
            mark,
            protocol,
            destination=destination,
            destination_prefix=int(prefix or (128 if family == 6 else 32)),
            ports=ports,
            family=family,
        )
        for ports in ranges
    ]
