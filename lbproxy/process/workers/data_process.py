"""A worker: the data plane of process/worker.py. The control loop is another process (control_process.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from pathlib import Path
from typing import Final

from lbproxy import __version__
from lbproxy.config.problems import Unusable
from lbproxy.control.file_watch import FileWatch
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.listener import BindError
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.process import loop_errors
from lbproxy.process.access_log import CLOSE_S, AccessLogs, open_access_log
from lbproxy.process.applying import Applying, limit_connections
from lbproxy.process.ending import Ending
from lbproxy.process.listeners import Listeners, binds_of
from lbproxy.process.pulse import TICK_S, Pulse
from lbproxy.process.tuning import tune_gc, tune_malloc
from lbproxy.process.wiring import Wiring
from lbproxy.process.worker import StartError
from lbproxy.process.workers.agent import Agent
from lbproxy.process.workers.board import DRAINING
from lbproxy.process.workers.lines import Said
from lbproxy.process.workers.neighbours import FRESH_S, Post
from lbproxy.process.workers.part import Part
from lbproxy.process.workers.shares import share_of
from lbproxy.process.workers.station import ORPHAN_GRACE_S, Setup, Station
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Slots

log = logging.getLogger("lbproxy")

LATE_S: Final = 0.02  # of a process that is not run just then
WELCOME_S: Final = 2.0


class DataProcess:
    """`run` returns the exit status."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._config = share_of(setup.config, setup.number - 1, setup.board.n_workers)
        self._is_over = asyncio.Event()
        self._may_serve = asyncio.Event()
        self._taken: frozenset[str] | None = None
        self._stop = asyncio.Event()
        self._told_at: float | None = None
        self._stop_now = asyncio.Event()
        self._is_orphan = False
        self._logs = AccessLogs(None, None)
        self._strategy_log = ThrottledLog(log)
        self._services: Services
        self._listeners: Listeners
        self._runtimes: dict[str, ListenerRuntime] = {}
        self._agent: Agent
        self._watch_files: FileWatch
        self._wiring: Wiring
        self._part: Part
        self._gate: ConnectionGate
        self._post: Post
        self._station = Station(
            setup,
            {
                "peer": lambda said: self._agent.peer(said),
                "sockets": lambda said: self._agent.sockets(said),
                "unwanted": lambda said: self._agent.unwanted(said),
                "serve": lambda said: self._may_serve.set(),
                "stop": self._told_to_stop,
                "leave": self._told_to_leave,
                "now": lambda said: self._stop_now.set(),
                "reopen": self._reopen_logs,
            },
            self._orphaned,
        )

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until it is told to stop. 0: everything finished; 1: something was cut. Raises StartError."""
        loop = asyncio.get_running_loop()
        self._build(loop)
        self._station.start(loop)
        with contextlib.suppress(TimeoutError):  # better with what is known here than not at all
            async with asyncio.timeout(None if self._setup.is_first else WELCOME_S):
                await self._agent.welcomed.wait()
        if self._setup.waits:
            self._station.prepared()
            await self._may_serve.wait()
        if not self._is_over.is_set():
            self._open()
        await self._is_over.wait()
        return await self._end(loop)

    def _open(self) -> None:
        """Accept. Raises StartError."""
        wanted = binds_of(self._config)
        try:
            self._listeners.bind(wanted, self._runtimes, self._agent.take_sockets(wanted))
        except BindError as bind_error:
            raise StartError(str(bind_error)) from None
        self._listeners.start()
        self._post.attach(self._services.loop)
        self._part.sweep(self._services.clock())  # whoever asks for counts waits for those who have told something
        self._agent.is_open.set()
        self._station.serving()

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        setup, config = self._setup, self._config
        slots, registry = Slots(), Registry(__version__)
        row = slots.allocate(PROCESS)
        registry.add(PROCESS, (), row)
        try:
            self._logs = AccessLogs(open_access_log(config.access_log, is_shared=True), config)
        except Unusable as error:
            raise StartError(setup.shown(error)) from None
        services = self._services = Services(
            loop, row, access_writer=self._logs.writer, buffered_limit=config.limits.buffered_bytes
        )
        loop_errors.install(loop, services.internal_error)
        part = self._part = Part(setup.share, setup.number - 1, services.clock)
        part.send = lambda message: self._agent.send(message)
        part.connections = lambda: self._listeners.connections()
        part.streams = lambda: self._listeners.streams()
        part.buffered = lambda: services.pressure.buffered
        wiring = self._wiring = Wiring(
            config,
            slots,
            registry,
            rng=random.Random(),
            dial_failed=part.dial_failed,
            strategy_failed=self._strategy_failed,
            base_dir=str(Path(setup.config_path).parent) if setup.config_path else ".",
            tls=setup.tls,
            part=part,
        )
        gate = ConnectionGate(0, part.places)
        part.rung = gate.rung
        self._gate = gate
        self._post = gate.neighbours = Post(setup.mailboxes, setup.number - 1, self._can_take, self._take)
        warning = limit_connections(config, gate, services)
        if warning:
            log.warning("%s", warning)
        self._listeners = Listeners(services, gate, announces=False)
        wiring.guard_room.keys_changed = self._listeners.forget_heads
        services.on_sweep.append(lambda now: wiring.guard_room.count(row))
        try:
            wiring.build_pools()
            self._runtimes = {item.name: wiring.build_listener(item) for item in config.listeners}
        except Unusable as error:
            raise StartError(setup.shown(error), 2) from None
        applying = Applying(
            services, wiring, self._listeners, None, gate, self._logs, self._is_over.is_set, shares_logs=True
        )
        self._agent = Agent(setup, applying, self._read_files, services.tasks, services.internal_error)

        def sweep_listeners(now: float) -> None:
            if not wiring.is_drafting:  # which counts on what is there
                for name in self._listeners.sweep(now):
                    wiring.drop_listener(name)

        services.on_sweep += [
            wiring.sweep,
            part.sweep,
            services.pipes.sweep,
            gate.sweep,
            sweep_listeners,
            self._drop_idle_pools,
        ]
        wiring.guard(services.tasks.spawn)
        services.start()
        part.watch_bell(services.poller)
        self._watch_files = FileWatch(wiring.watched)
        services.tasks.spawn(self._watch_files.run(), "certificate files")
        self._start_pulse(loop, Pulse(row, lambda: self._logs.dropped, ThrottledLog(log)))
        setup.board.keeps_to(setup.number, setup.generation)
        tune_gc()
        tune_malloc()

    def _start_pulse(self, loop: asyncio.AbstractEventLoop, pulse: Pulse) -> None:
        pulse.start(self._services.clock())

        def tick() -> None:
            pulse.tick(self._services.clock())
            pressure = self._services.pressure
            self._setup.board.refuses(self._setup.number, pressure.buffered if pressure.is_refusing else 0)
            loop.call_later(TICK_S, tick)

        loop.call_later(TICK_S, tick)

    def _drop_idle_pools(self, now: float) -> None:
        """Pools that the config no longer names, and in which nothing is under way."""
        for pool in self._wiring.idle_pools(now):
            for server in list(pool.servers):
                self._wiring.remove(pool, server)
            self._wiring.drop_pool(pool)

    async def _read_files(self) -> None:
        self._watch_files.watch(self._wiring.watched)
        await self._watch_files.look()

    # --- connections of other workers --------------------------------------------------------------------------------

    def _can_take(self, worker: int) -> bool:
        board, number = self._setup.board, worker + 1
        return (
            board.is_serving(number)
            and board.silent_s(number, self._services.clock()) < FRESH_S
            and board.generation(number) == self._agent.generation
        )

    def _take(self, name: str, connection: socket.socket, peer: object) -> bool:
        listener = self._listeners.named(name)
        if listener is None:
            self._gate.receives()
            return False
        listener.take_over(connection, peer)
        return True

    # --- what the data plane tells ----------------------------------------------------------------------------------

    def _strategy_failed(self, pool: str, error: Exception) -> None:
        self._strategy_log.error(
            f"strategy {pool}", "pool %s: the strategy failed, least connections picks instead: %r", pool, error
        )

    # --- the supervisor's words -------------------------------------------------------------------------------------

    def _told_to_stop(self, said: Said) -> None:
        self._told_at = self._services.clock() - float(said.data or 0)  # which is how long ago the supervisor was
        self._stop.set()
        self._end_wait()

    def _told_to_leave(self, said: Said) -> None:
        """Another lbproxy serves."""
        _, _, taken = said.loaded()
        self._taken = frozenset(taken)
        self._end_wait()

    def _end_wait(self) -> None:
        self._is_over.set()
        self._agent.welcomed.set()
        self._may_serve.set()

    def _orphaned(self) -> None:
        self._is_orphan = True
        self._told_to_stop(Said("stop"))

    def _reopen_logs(self, _said: Said) -> None:
        if self._logs.writer is not None:
            self._logs.writer.reopen()

    # --- stop -------------------------------------------------------------------------------------------------------

    async def _end(self, loop: asyncio.AbstractEventLoop) -> int:
        services, setup = self._services, self._setup
        setup.board.tell(setup.number, DRAINING)
        if self._agent.is_open.is_set():
            self._post.rest()
            # Whoever saw this worker serve a moment ago may still hand it a connection.
            await asyncio.sleep(LATE_S)
        shutdown = self._agent.config.shutdown
        if self._is_orphan:
            shutdown = shutdown.model_copy(update={"grace": min(shutdown.grace, ORPHAN_GRACE_S), "delay": 0.0})
        ending = Ending(
            services,
            self._listeners,
            None,
            shutdown,
            self._stop,
            self._stop_now,
            lambda: False,
            may_hold_off=not self._is_orphan,
        )
        if self._taken is None:
            await ending.drain(self._told_at)
        else:
            await ending.leave(self._taken)
        if self._agent.is_open.is_set():
            self._post.detach(loop)
        self._part.sweep(services.clock())
        self._part.forget_bell(services.poller)
        await services.stop()
        self._station.stop(loop)
        if self._logs.writer is not None:
            self._logs.writer.close(CLOSE_S)
        log.info(
            "stopped; %s", f"{services.n_cut} requests or connections were cut" if services.n_cut else "nothing was cut"
        )
        return 1 if services.n_cut else 0
