"""A director from its first syscall to its last: opened, claimed, announced, watched, undone.

open rings -> read the network -> check -> claim -> announce -> ready -> ... -> undo
"""

import asyncio
import contextlib
import gc
import logging
import mmap
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Final

import uvloop

from pylvs.control import listing, settings
from pylvs.control.api.events import Events
from pylvs.control.api.resources import Resources
from pylvs.control.api.server import Api
from pylvs.control.changes import Changer
from pylvs.control.config.file import Stated
from pylvs.control.estimator import TICK_S
from pylvs.control.ipvsadm.executor import Executor
from pylvs.control.keeper import Keeper
from pylvs.control.manager import Manager
from pylvs.control.model import Command, Service, difference
from pylvs.control.network import claims, conflict, system
from pylvs.control.network.groups import Groups
from pylvs.control.network.instance import CONTROL, Instance
from pylvs.control.network.redirects import Redirects
from pylvs.control.network.surroundings import Route
from pylvs.control.network.watch import Network
from pylvs.control.reload import reload
from pylvs.drivers import linux
from pylvs.drivers.base import Driver
from pylvs.drivers.live import Common, Rings, TunTap
from pylvs.drivers.pcap import Writer
from pylvs.drivers.programs.filter import Filter
from pylvs.drivers.programs.offload import Offload
from pylvs.drivers.tracer import Tracer
from pylvs.drivers.xdp import is_card
from pylvs.engine.director import OWN_MEMORY, SCRATCH_SIZE, Director
from pylvs.engine.loop import SEGMENTS_LIMIT, Engine
from pylvs.errors import HostError, PylvsError
from pylvs.frames import NONE
from pylvs.tables.layouts.network import KNOWN
from pylvs.tables.sizes import Limits
from pylvs.wire.text import address_text, endpoint_text, family_of, is_ipv6, joined, mac_text

log = logging.getLogger("pylvs")

_DAY_MS: Final = 86_400_000
_SWITCH_S: Final = 0.0005
_GARBAGE_THRESHOLD: Final = 100_000  # a listing of 100,000 servers makes half a million objects


@dataclass
class Options:
    """What a director is to be, and the file that says so, if one does."""

    stated: Stated
    config: str = ""
    stats_interval: float = 0.0
    trace: str = ""
    control: str = ""


@dataclass
class ServerPlan:
    """How a real server will be reached, for the table shown at the start."""

    service: Service
    name: str
    method: int
    weight: int
    interface: str
    mac: str


class Daemon:
    """One running director."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.stated = options.stated
        self.place = options.stated.place
        self.hosted = bool(self.place.tap or self.place.tun)
        """Whether there is no host stack behind the director."""
        self._undo = contextlib.ExitStack()
        self.claiming = threading.Lock()
        self._reloading = threading.Lock()
        self.is_closed = False
        try:
            self._open()
        except BaseException:
            self._undo.close()
            raise

    def _open(self) -> None:
        options = self.options
        instance = Instance()
        self._undo.callback(instance.close)
        self._control = pathlib.Path(options.control or instance.directory / CONTROL)
        self.groups = Groups()
        self._undo.callback(self.groups.close)
        self.filter = None if self.hosted else self._open_filter()
        self.claims = None if self.hosted else claims.Claims(self.filter)
        if self.claims is not None:
            self.claims.clear()  # what a director that crashed may have left
            self._undo.callback(self.claims.clear)
        drivers = self._open_drivers()
        self.driver = drivers[0]
        if options.trace:
            self.driver = drivers[0] = Tracer(self.driver, Writer(self._open_trace(options.trace)))
        system.allow_descriptors()
        system.keep_capabilities(system.NEEDED_FOR_BPF if self.filter else system.NEEDED)
        begin = linux.page_up(OWN_MEMORY + SCRATCH_SIZE * (len(drivers) - 1))
        size = sum(driver.memory_size for driver in drivers)
        reservation = linux.Reservation(begin + size)
        self.director = Director(
            Limits(connections=self.place.connections), memory=reservation.array
        )
        if self.offload:
            self.offload.share(self.director.tables)
        self.manager = Manager(self.director)
        self.manager.clock = linux.monotonic_ms
        self.manager.around.set_mark_rules(self.stated.marks)
        self.manager.own.set_pool(self.stated.local)
        self._prepare()
        self.manager.apply(*difference({}, self.stated.services))
        self.manager.apply(Command("set", timeouts=self.stated.timeouts))
        self.engine = Engine(self.director, drivers, reservation, scratch=OWN_MEMORY)
        self._describe_ports()
        self.network: Network | None = None
        if self.hosted:
            self._set_own_routes()
        else:
            redirects = Redirects() if self.offload and self.place.driver == "xdp" else None
            self.network = Network(self.engine, self.manager, self.driver.ports, redirects)
            self._undo.callback(self.network.stop)
            self.network.on_change = self._network_changed
            self.network.on_loss = self._interface_lost
            self.network.on_return = self._interface_returned
            self.engine.on_wants = self.network.ask
            self.network.start()
            self._override_source()
        self.engine.call(self.manager.want_servers)
        if self.network is not None:
            self.network.ask()
        self._check()
        if self.claims is not None:
            with self.claiming:
                self.claim()
        for driver in drivers:
            driver.attach(reservation, begin)
            begin += driver.memory_size
        events = Events()
        self.changer = Changer(self.manager, self.engine.call, Keeper(self), events.tell)
        call, changer = self.engine.call, self.changer
        executor = Executor(self.manager, call, changer=changer, resolves=True)
        resources = Resources(self.manager, call, changer, self.reload)
        self.api = Api(self._control, executor, resources, events)
        self._undo.callback(self.api.close)
        if self.place.api:
            address, _, port = self.place.api.rpartition(":")
            self.api.listen(address.strip("[]"), int(port), lambda: self.stated.token)

    def _prepare(self) -> None:
        """Give the director its settings, and a clock that knows the time of day."""
        state = self.director.tables.director[0]
        state["hosted"] = self.hosted
        state["midnight_ms"] = int(time.time() * 1_000) % _DAY_MS - linux.monotonic_ms()
        if not self.hosted:
            state["ip_forward"] = _reads_one("/proc/sys/net/ipv4/ip_forward")
            state["forwarding"] = _reads_one("/proc/sys/net/ipv6/conf/all/forwarding")
        self.first_settings = {name: settings.read(state, name) for name in settings.SETTINGS}
        for name, value in self.stated.settings.items():
            settings.apply(state, name, value)

    @property
    def offload(self) -> Offload | None:
        """What forwards in the kernel, as long as it may."""
        return self.filter.offload if self.filter else None

    def _open_filter(self) -> Filter | None:
        xdp = self.place.driver == "xdp"
        wants = self.place.offload
        offloads = wants != "off" and not self.options.trace
        try:
            opened = Filter(xdp, offloads, wants == "on", self.place.workers)
        except OSError as error:
            if wants == "on":
                raise HostError(
                    f"--offload on needs bpf, and the kernel says: {error.strerror}; run as root, "
                    "or with CAP_BPF and CAP_NET_ADMIN"
                ) from None
            if not xdp:
                log.info("no bpf (%s): nftables alone keeps the host off", error.strerror)
                return None
            raise HostError(
                f"--driver xdp needs bpf, and the kernel says: {error.strerror}; run as root or "
                "with CAP_BPF and CAP_NET_ADMIN, or use --driver packet"
            ) from None
        self._undo.callback(opened.close)
        return opened

    def _open_drivers(self) -> list[Driver]:
        """Return the driver of each worker."""
        place = self.place
        drivers: list[Driver] = []
        common = Common(place.workers)
        for worker in range(place.workers):
            driver: Driver
            if self.hosted:
                name, layer = place.tap or place.tun, 2 if place.tap else 3
                driver = TunTap(name, SEGMENTS_LIMIT, layer, place.workers)
            else:
                driver = Rings(place.interfaces, SEGMENTS_LIMIT, self.filter, worker, common)
            self._undo.callback(driver.close)
            drivers.append(driver)
        return drivers

    def way(self) -> str:
        """Return how frames are read here, and why so if nobody has said."""
        place = self.place
        if self.hosted:
            return f"{place.tap or place.tun}: {'TAP' if place.tap else 'TUN'} device"
        means = "XDP sockets" if place.driver == "xdp" else "packet rings"
        if place.driver == "auto":
            virtual = [name for name in place.interfaces if not is_card(name)]
            why = f"XDP would turn off the offloads of {', '.join(virtual)}"
            means += f" (auto: {why if virtual else 'they keep the offloads of cards'})"
        then = "; connections that last go on in the kernel" if self.offload else ""
        return f"{', '.join(place.interfaces)}: {means}{then}"

    def _open_trace(self, path: str) -> IO[bytes]:
        try:
            return self._undo.enter_context(open(path, "wb"))
        except OSError as error:
            raise HostError(f"cannot write the trace {path}: {error.strerror}") from None

    def _describe_ports(self) -> None:
        for row, port in enumerate(self.driver.ports):
            entry = self.director.tables.ports[row]
            entry["mac"] = port.mac
            entry["mtu"] = port.mtu
            entry["raw_ip"] = port.raw_ip
            entry["own_arp"] = port.own_arp
            entry["offloads"] = port.offloads
            entry["up"] = 1
            entry["address"] = next((dip for dip in self.stated.dips if not is_ipv6(dip)), 0)

    def _set_own_routes(self) -> None:
        """Without a host stack: one link, and a gateway if one is named."""
        stated = self.stated
        mtu = self.driver.ports[0].mtu
        routes = []
        for family in (4, 6):
            dip = next((one for one in stated.dips if family_of(one) == family), 0)
            gateway = next((one for one in stated.gateways if family_of(one) == family), 0)
            if dip and self.place.tap:
                prefix = stated.dips[dip]
                routes.append(Route(dip, prefix, 0, dip, 0, mtu, family=family))
            if gateway or not (dip and self.place.tap):
                routes.append(Route(0, 0, gateway, dip, 0, mtu, family=family))
        self.manager.own.stations |= frozenset(stated.dips)
        self.manager.own.set_local(frozenset())
        self.manager.around.set_routes(routes)

    def _override_source(self) -> None:
        """Let ``--dip`` be the source of tunnels, whatever the routes say."""
        for dip in self.stated.dips:
            self.manager.around.override_source(dip)

    def claim(self) -> None:
        """Have the host keep off all that is the director's."""
        assert self.claims is not None
        assert self.network is not None
        devices = [self.driver.ports[row].name for row in self.network.present()]
        services = self.manager.copy_services()
        local, pool = self.manager.own.local, self.manager.own.pool
        self.claims.replace(devices, services, local, self.stated.marks, pool)
        self.join_groups()

    def join_groups(self) -> None:
        """Hear who asks for the IPv6 VIPs, whatever multicast filter there is on the way."""
        if self.network is not None:
            addresses = self.engine.call(self.manager.own.addresses)
            self.groups.follow(self.network.interfaces(), addresses)

    def _interface_lost(self, port: int) -> None:
        log.warning("interface %s was deleted; waiting for it", self.driver.ports[port].name)

    def _interface_returned(self, port: int) -> None:
        self.claim_again()
        name = self.driver.ports[port].name
        for worker in self.engine.workers:
            worker.call(worker.driver.let_go)
        for worker in self.engine.workers:  # in their order, which the kernel's fan-out has too
            try:
                worker.call(partial(worker.driver.rebind, port))
            except (OSError, HostError) as error:
                log.error("interface %s is back and cannot be used yet: %s", name, error)
                raise OSError(f"{name} is to be tried again") from error
        log.warning("interface %s is back", name)
        self.engine.announce(again=True)

    def claim_again(self) -> None:
        """Claim anew what is the director's, as far as the host lets it."""
        with self.claiming:
            if self.claims is None or self.is_closed:
                return
            try:
                self.claim()
            except HostError as error:
                log.error("%s", error)
                if self.network is not None:
                    self.network.forget()

    def _network_changed(self) -> None:
        self.engine.call(self._override_source)
        self.claim_again()
        self.engine.announce()

    def _check(self) -> None:
        """Refuse what cannot work, and warn of what will only work in part."""
        without = []
        plans = list(self.plan())
        for plan in plans:
            if not plan.interface:
                without.append(plan)
                log.warning("no route to real server %s by the director's interfaces", plan.name)
        if plans and len(without) == len(plans):
            raise HostError(
                "no real server can be reached: there is no route to any of them by "
                f"{', '.join(port.name for port in self.driver.ports)}; check `ip route`"
            )
        if self.hosted:
            return
        keys = self.manager.table.services
        vips = {key.vip for key in keys} - {0} - self.manager.own.local
        for local in self.manager.own.local.intersection(self.stated.local):
            raise HostError(
                f"--local {address_text(local)} is this host's own address: its connections would "
                "be taken for the director's; give an address that nobody has"
            )
        vips.update(self.stated.local)
        for port in self.driver.ports:
            found = conflict.find_conflict(port, vips)
            if found:
                raise HostError(
                    f"{address_text(found[0])} is in use: {found[1]} answers for it on "
                    f"{port.name}; give that station another address, or if it is a real server, "
                    "prepare it with `pylvs realserver setup`"
                )

    def plan(self) -> Iterator[ServerPlan]:
        """Yield every real server with the way that leads to it."""
        tables = self.director.tables
        for service in self.manager.table.services.values():
            for row in self.manager.server_rows(service.key):
                server = tables.servers[row]
                interface, mac = "", ""
                if server["path"] != NONE:
                    path = tables.paths[int(server["path"])]
                    interface = self.driver.ports[int(path["port"])].name
                    neighbour = tables.neighbours[int(server["neighbour"])]
                    mac = mac_text(neighbour["mac"]) if neighbour["state"] == KNOWN else ""
                address = joined(server["address_high"], server["address_low"])
                name = endpoint_text(address, int(server["port"]))
                yield ServerPlan(
                    service, name, int(server["forwarding"]), int(server["weight"]), interface, mac
                )

    def run(self, on_ready: Callable[[], None], on_stats: Callable[[], None]) -> None:
        """Direct until SIGINT or SIGTERM; raises HostError when the engine failed."""
        _be_brief()
        self.engine.start()
        try:
            self.engine.announce()
            uvloop.run(self._watch(on_ready, on_stats))
        finally:
            if self.network is not None:
                self.network.stop()
            self.engine.stop()
            self.close()
        failure = self.engine.failure
        if isinstance(failure, HostError):
            raise failure
        if failure is not None:
            raise HostError(f"the engine stopped: {failure!r}") from failure

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Undo every change of the host; doing it again changes nothing."""
        with self.claiming:
            self.is_closed = True  # a command that is under way claims nothing any more
        self._undo.close()

    def reload(self) -> Sequence[Command]:
        """Follow the configuration file; see ``control.reload``."""
        with self._reloading:
            return reload(self)

    def _reload(self) -> None:
        try:
            commands = self.reload()
            log.warning("reloaded %s: %d changes", self.options.config, len(commands))
        except PylvsError as error:
            log.error("not reloaded: %s", str(error).replace("\n", "; "))
        except Exception:
            log.exception("not reloaded")

    async def _watch(self, on_ready: Callable[[], None], on_stats: Callable[[], None]) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: threading.Thread(target=self._reload, daemon=True).start()
        )
        serving = asyncio.create_task(self.api.serve())
        on_ready()
        interval = self.options.stats_interval
        next_stats = loop.time() + interval
        next_tick = loop.time() + TICK_S
        told = 0
        while not (stopped.is_set() or self.engine.failure or serving.done()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), 0.25)
            for text in self.director.plugin_errors[told:]:
                log.error("scheduler plug-in: %s", text)
                told += 1
            if loop.time() >= next_tick:
                next_tick += TICK_S
                self.manager.settle(self.engine.call)
                self.manager.estimator.tick(self.engine.call)
                self._defend()
            if interval and loop.time() >= next_stats:
                next_stats += interval
                on_stats()
        self.api.stop()
        await serving

    def _defend(self) -> None:
        """Let the automatic defences look at the free memory."""
        free = _free_pages()
        self.engine.call(lambda: settings.defend(self.director.tables.director[0], free))

    def listing(self) -> list[listing.ServiceRow]:
        """Return the table with its counters, consistent in itself."""
        return listing.read(self.manager, self.engine.call)

    def reasons(self) -> dict[str, int]:
        """Return how many frames had each reason, those that none had left out."""
        return listing.reasons(self.manager, self.engine.call)


def _be_brief() -> None:
    """Keep Python from holding its lock for long while the engine may want it."""
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()  # what was imported stays
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 100)


def _free_pages() -> int:
    """Return the pages of memory that nobody uses, buffers included (si_meminfo)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        values = dict(line.split(":") for line in file)
    kilobytes = sum(int(values[name].split()[0]) for name in ("MemFree", "Buffers"))
    return kilobytes * 1_024 // mmap.PAGESIZE


def _reads_one(path: str) -> bool:
    """Whether a setting of the host's is on; one of a protocol that its kernel lacks is not."""
    try:
        return pathlib.Path(path).read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False
