"""The breath: receive, direct, transmit, housekeeping; over and over, off the GIL.

    while no doorbell:
        receive -> direct -> transmit -> release      at most 256 frames
        a bounded slice of expiry
        nothing there? poll(2)

Several workers breathe side by side, each with rings and frames of its own, and take turns at
``direct``: it is a twentieth of a breath, the rest is the kernel's and goes on at the same time.
So the tables have one writer at any time, whichever worker a connection's packets come to, and
schedulers, thresholds and fragments are right by any number of workers.

On real interfaces the whole loop is compiled and comes back to Python only for a reason
(``Event``); other drivers breathe in Python, by the same steps.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, Final

import numpy as np

from pylvs.drivers import linux, live
from pylvs.drivers.base import Driver
from pylvs.engine.director import (
    NEW_BATCH,
    SCRATCH_SIZE,
    SWEEP_LIMIT,
    Director,
    announce,
    begin_batch,
    direct,
    sweep,
)
from pylvs.frames import BATCH_SIZE, BORN_LIMIT, FRAME, Reason
from pylvs.jit import by_pointer, compiled, door, records
from pylvs.tables import connections
from pylvs.tables.connections import flows
from pylvs.tables.sizes import REASSEMBLY_LIMIT, REASSEMBLY_SLOT

IDLE_MS: Final = 100  # the longest the loop sleeps: expiry and ARP retries wait no longer
SOON_MS: Final = 1  # and while frames wait that the kernel did not take, or flows to be opened
SEGMENTS_LIMIT: Final = BORN_LIMIT - 2 * BATCH_SIZE
"""Segments the GSO frames of one batch may make, less what else it may give birth to."""


_direct: Final = by_pointer(direct)


class Event(IntEnum):
    """Why the compiled loop came back."""

    DOORBELL = 0  # control wants something
    ASK = 1  # a plug-in scheduler is to answer for frame ``row``
    WANTS = 2  # a next hop's MAC is wanted from the host
    TROUBLE = 3  # a socket has an error to tell: its interface went down


# What the compiled loop of a worker keeps between two calls, and shares with control.
LOOP: Final = np.dtype(
    [
        ("doorbell", np.int64),  # control sets it; the only cell written by two threads
        ("address", np.int64),  # of memory in the process
        ("count", np.int64),  # frames of the batch that was interrupted
        ("row", np.int64),  # where to enter it again; NEW_BATCH: none is interrupted
        ("wanted", np.int64),  # what Python was last told
        ("now_ms", np.int64),
        ("lock", np.int64),  # where the mutex of those who take turns is; 0: there is one worker
        ("scratch", np.int64),  # this worker's region of memory for frames born in the director
        ("in_turn", np.int64),  # whether it is this worker's turn
        ("keeps_house", np.int64),  # expiry and frames on hold are this worker's
        ("refused", np.int64),  # frames that the kernel did not take, not counted yet
        ("direct", np.int64),  # where that door's code is
    ],
    align=True,
)


@compiled
def _read_clock(clock):
    """Return CLOCK_MONOTONIC in milliseconds; ``clock`` is int64[2] to put it in."""
    linux.clock_gettime(linux.CLOCK_MONOTONIC, clock.ctypes.data)
    return clock[0] * 1_000 + clock[1] // 1_000_000


@compiled
def _enter(tables, state, clock):
    """Wait for this worker's turn at the tables."""
    if state.lock:
        linux.lock_mutex(state.lock)
        state.in_turn = 1
        tables.director[0].scratch_begin = state.scratch
    tables.reasons[Reason.SEND_FAILED] += state.refused
    state.refused = 0
    state.now_ms = _read_clock(clock)


@compiled
def _leave(state):
    if state.lock:
        state.in_turn = 0
        linux.unlock_mutex(state.lock)


@compiled
def _leave_from_shared(tables, frames):
    """Whether frames leave from memory that the next worker's turn may fill anew."""
    director = tables.director[0]
    end = director.reassembly_begin + REASSEMBLY_LIMIT * REASSEMBLY_SLOT
    for k in range(director.leaving):
        if director.held_begin <= frames[frames[k].leaves].offset < end:
            return True
    return False


@door
def breathe_live(world, memory, frames, rings, sockets, umem, queues, pollfds, clock, loop):
    """Breathe until something needs Python; return the ``Event``.

    With ``ASK`` the turn at the tables goes on.
    """
    tables = world[0]
    state = loop[0]
    director = tables.director[0]
    while True:
        count = state.count
        is_new = state.row == NEW_BATCH
        if is_new:
            if state.doorbell:
                return Event.DOORBELL
            count = live.receive_all(
                memory,
                state.address,
                rings,
                sockets,
                umem,
                queues,
                frames,
                BATCH_SIZE,
                SEGMENTS_LIMIT,
            )
            state.count = count
        works = count or (state.keeps_house and (director.held_count or director.soliciting))
        if works:
            if is_new:
                _enter(tables, state, clock)
            state.row = _direct(state.direct, world, memory, frames, count, state.row, state.now_ms)
            if state.row < count:
                return Event.ASK
            leaving = director.leaving
            stays = state.lock != 0 and _leave_from_shared(tables, frames)
            if not stays:
                _leave(state)
            state.refused += live.send_leaving(
                memory, state.address, rings, sockets, umem, queues, frames, leaving
            )
            live.release_slots(memory, umem, frames, count)
            if stays:
                _leave(state)
            state.row = NEW_BATCH
        swept = True
        if state.keeps_house:
            _enter(tables, state, clock)
            if not works:
                begin_batch(tables)
            swept = connections.sweep(tables, state.now_ms, SWEEP_LIMIT, False)
            if director.warming_count:
                is_empty = count == 0 and live.count_pending(sockets) == 0
                flows.open_warm(tables, is_empty and state.lock == 0, state.now_ms)
            _leave(state)
        if director.wanted != state.wanted:
            state.wanted = director.wanted
            return Event.WANTS
        if count == 0 and swept:
            is_brief = live.count_pending(sockets) or director.warming_count
            wait_ms = SOON_MS if is_brief else IDLE_MS
            linux.poll(pollfds.ctypes.data, pollfds.size, wait_ms)
            for i in range(pollfds.size):
                if pollfds[i].revents & linux.POLLERR:
                    return Event.TROUBLE


class Worker:
    """A thread that breathes: a driver and frames of its own, the tables in turn with others.

    ``call`` runs a function between two breaths, in the worker's thread and turn.
    """

    def __init__(self, engine: "Engine", driver: Driver, frames: Any, scratch: int) -> None:
        self.driver = driver
        self.failure: BaseException | None = None
        self._engine = engine
        self._frames = frames
        self._doorbell = os.eventfd(0, os.EFD_NONBLOCK)
        self._loop = records(LOOP, 1)
        state = self._loop[0]
        state["address"] = engine.reservation.address
        state["direct"] = engine.director.pointer()
        state["row"] = NEW_BATCH
        state["scratch"] = scratch
        state["keeps_house"] = scratch == engine.director.scratch
        state["lock"] = engine.mutex.address if engine.mutex else 0
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._breathing = False
        self._thread = threading.Thread(target=self._run, name="pylvs-engine", daemon=True)

    def start(self) -> None:
        with self._lock:
            self._breathing = True
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` between two breaths and return its result; raises what it raises.

        While the worker does not breathe, before its start and after its end, the caller runs it.
        """
        future: Future[Any] = Future()
        with self._lock:
            if not self._breathing:
                return function()
            self._calls.append((function, future))
            self._ring()
        return future.result()

    def stop(self) -> None:
        """End the thread after the current breath."""
        self._stopping = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            os.close(self._doorbell)

    def _ring(self) -> None:
        os.eventfd_write(self._doorbell, 1)  # before the cell, which brings the reader here
        self._loop[0]["doorbell"] = 1

    def _answer_calls(self) -> None:
        self._loop[0]["doorbell"] = 0
        with contextlib.suppress(BlockingIOError):  # read before: the cell alone brought us here
            os.eventfd_read(self._doorbell)
        with self._lock:
            calls, self._calls = self._calls, []
        if not calls:
            return
        with self._engine.mutex or contextlib.nullcontext():
            for function, future in calls:
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

    def _run(self) -> None:
        linux.wake_at_once()
        try:
            if isinstance(self.driver, live.Live):
                self._run_compiled(self.driver)
            else:
                self._run_plain()
        except BaseException as error:
            self.failure = error
        if self._engine.mutex and self._loop[0]["in_turn"]:
            self._engine.mutex.release()
        with self._lock:
            self._breathing = False
        self._answer_calls()

    def _run_compiled(self, driver: live.Live) -> None:
        pollfds = self._pollfds(driver)
        clock = np.zeros(2, np.int64)
        director, memory = self._engine.director, self._engine.reservation.array
        while not self._stopping:
            places = driver.places
            event = breathe_live(
                director.tables.all, memory, self._frames, *places, pollfds, clock, self._loop
            )
            if event == Event.DOORBELL:
                self._answer_calls()
                pollfds = self._pollfds(driver)  # one may be another now
            elif event == Event.ASK:
                director.ask(int(self._loop[0]["row"]), self._frames)
            elif event == Event.WANTS:
                self._engine.on_wants()
            else:
                driver.clear_errors()
                time.sleep(IDLE_MS / 1_000)  # until the interface is up again there is no more

    def _pollfds(self, driver: live.Live) -> Any:
        descriptors = [self._doorbell, *driver.descriptors()]
        pollfds = records(linux.POLLFD, len(descriptors))
        pollfds["fd"] = descriptors
        pollfds["events"] = linux.POLLIN
        return pollfds

    def _poller(self) -> select.poll:
        poller = select.poll()
        for descriptor in [self._doorbell, *self.driver.descriptors()]:
            poller.register(descriptor, select.POLLIN)
        return poller

    def _run_plain(self) -> None:
        director = self._engine.director
        poller = self._poller()
        while not self._stopping:
            if self._loop[0]["doorbell"]:
                self._answer_calls()
                poller = self._poller()  # one may be another now
            if breathe(director, self.driver, linux.monotonic_ms()) == 0:
                poller.poll(IDLE_MS)
            wanted = int(director.tables.director[0]["wanted"])
            if wanted != self._loop[0]["wanted"]:
                self._loop[0]["wanted"] = wanted
                self._engine.on_wants()


class Engine:
    """A director and its workers, one for each driver; more than one takes ``live.Live``.

    ``call`` runs a function between two breaths, in the first worker's thread: the only way for
    anybody else to touch the tables.  ``on_wants`` is called by any worker, when next hops are to
    be resolved.  The second worker's scratch begins at ``scratch`` in memory, and so on.
    """

    def __init__(
        self,
        director: Director,
        drivers: Sequence[Driver],
        reservation: linux.Reservation,
        scratch: int = 0,
    ) -> None:
        self.director = director
        self.reservation = reservation
        self.on_wants: Callable[[], None] = lambda: None
        self.mutex = linux.Mutex() if len(drivers) > 1 else None
        self.workers = [Worker(self, drivers[0], director.frames, director.scratch)]
        for number, driver in enumerate(drivers[1:]):
            frames = records(FRAME, BATCH_SIZE + BORN_LIMIT)
            self.workers.append(Worker(self, driver, frames, scratch + number * SCRATCH_SIZE))
        self.call = self.workers[0].call

    @property
    def failure(self) -> BaseException | None:
        """What ended a worker that was not to end."""
        return next((one.failure for one in self.workers if one.failure is not None), None)

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def announce(self, again: bool = False) -> None:
        """Announce own addresses on every port: those not announced yet, or all of them again."""
        if again:
            self.call(self._forget_announcements)
        while not self.call(self._announce_some):
            pass

    def _forget_announcements(self) -> None:
        self.director.tables.own["announced"] = 0

    def _announce_some(self) -> bool:
        tables, frames = self.director.tables, self.director.frames
        tables.director[0]["scratch_begin"] = self.director.scratch
        complete = announce(tables.all, self.director.memory, frames)
        self.workers[0].driver.transmit(frames, int(tables.director[0]["leaving"]))
        return bool(complete)


def breathe(director: Director, driver: Driver, now_ms: int, *, exact: bool = False) -> int:
    """Take one breath in Python and return how many frames came in.

    ``exact`` has everything that is due expire first: what replay needs, where time jumps.
    """
    if exact:
        director.expire(now_ms)
    count = driver.receive(director.frames, BATCH_SIZE)
    director.direct(count, now_ms)
    refused = driver.transmit(director.frames, int(director.tables.director[0]["leaving"]))
    director.tables.reasons[Reason.SEND_FAILED] += refused
    driver.release(director.frames, count)
    if not exact:
        sweep(director.tables.all, now_ms, False)
    return count
