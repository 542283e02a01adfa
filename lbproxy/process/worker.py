"""The composition root of a data process: config + sockets + slots -> listeners, and the life of the process.

With `workers: 1` the controller lives on the same loop; this module starts and stops both. Nothing is half-started:
every
socket is bound before the first connection is accepted, and one that can't be bound ends the start with one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from lbproxy import __version__, errors
from lbproxy.config.model import Admin, Config
from lbproxy.config.problems import Unusable
from lbproxy.control.metrics import Registry
from lbproxy.control.status import ListenerStatus
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.exchange import exchange
from lbproxy.dataplane.listener import BindError, Listener, bind_message, plan_connections
from lbproxy.dataplane.net.splice import CAN_SPLICE
from lbproxy.dataplane.services import Services
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.errors import Fault
from lbproxy.process import loop_errors
from lbproxy.process.controller import Controller
from lbproxy.process.first_words import first_lines
from lbproxy.process.reloading import Reloading
from lbproxy.process.threads import new_loop
from lbproxy.process.wiring import Wiring
from lbproxy.telemetry import log as operator_log
from lbproxy.telemetry.accesslog import make_format
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.slots import PROCESS, Slots

log = logging.getLogger("lbproxy")

DRAIN_POLL_S = 0.02
FLUSH_S = 0.2


def is_compiled() -> bool:
    """Are the hot modules compiled (hatch_build.py)?"""
    return not (exchange.__file__ or "").endswith(".py")


class StartError(Exception):
    """The process can't start; the text is for the user. status: the exit status, 2 if the config is to blame."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Worker:
    """A running lbproxy process. `run` returns its exit status."""

    def __init__(self, config: Config, config_path: str, shown: Callable[[Unusable], str]) -> None:
        """shown: how a value that can't be used is told to the user."""
        self._config = config
        self._shown = shown
        self._config_path = config_path
        self._stop_signals = 0
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._listeners: list[Listener] = []
        self._services: Services
        self._controller: Controller
        self._writer: LogWriter | None = None
        self._strategy_log = operator_log.ThrottledLog(log)

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal says stop. 0: everything finished; 1: something was cut. Raises StartError."""
        loop = asyncio.get_running_loop()
        for line in first_lines(self._config, self._config_path, __version__, os.getpid()):
            log.info("%s", line)
        self._install_signals(loop)
        await self._start(loop)
        await self._stop.wait()
        return await self._drain()

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal, number)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        for number, what in ((signal.SIGHUP, "reload"), (signal.SIGUSR2, "hitless upgrade")):
            loop.add_signal_handler(number, log.warning, "%s: %s is not available in this version", number.name, what)

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self._config
        slots = Slots()
        registry = Registry(__version__)
        row = slots.allocate(PROCESS)
        registry.add(PROCESS, (), row)
        try:
            if config.access_log is not None:
                self._writer = LogWriter(config.access_log.path)
        except OSError as error:
            assert config.access_log is not None  # else nothing was opened
            unusable = Unusable(("access_log", "path"), f"cannot open {config.access_log.path}: {error.strerror}")
            raise StartError(self._shown(unusable)) from None
        services = self._services = Services(
            loop,
            row,
            access_writer=self._writer,
            log_format=make_format(config.access_log.format if config.access_log is not None else "json"),
            buffered_limit=config.limits.buffered_bytes,
        )
        loop_errors.install(loop, services.internal_error)
        wiring = Wiring(
            config,
            slots,
            registry,
            rng=random.Random(),
            dial_failed=self._dial_failed,
            strategy_failed=self._strategy_failed,
            base_dir=str(Path(self._config_path).parent) if self._config_path else ".",
        )
        try:
            wiring.build_pools()
        except Unusable as error:
            raise StartError(self._shown(error), 2) from None
        plan = plan_connections(config.limits.connections, has_admin=config.admin.bind is not None)
        if plan.warning:
            log.warning("%s", plan.warning)
        services.pipes.limit = plan.flows if CAN_SPLICE else 0
        gate = ConnectionGate(plan.limit)
        self._bind(wiring, gate)
        registry.pools = {name: runtime.pool for name, runtime in wiring.pools.items()}
        registry.readers["client_connections"] = lambda: [
            ((item.runtime.name,), item.runtime.n_connections) for item in self._listeners
        ]
        registry.readers["queue_depth"] = wiring.queue_depths
        registry.readers["upstream_connections"] = wiring.upstream_connections
        registry.readers["tls_certificate_expiry_timestamp_seconds"] = wiring.certificate_expiries
        registry.readers["buffered_bytes"] = lambda: [((), services.pressure.buffered)]
        registry.readers["buffered_limit_bytes"] = lambda: [((), services.pressure.limit)]
        self._controller = Controller(
            config,
            registry.pools,
            registry,
            membership=wiring,
            dry_run=Reloading(config, self._config_path, os.environ).dry_run,
            listeners=self._listener_status,
            log_dropped=lambda: self._writer.dropped if self._writer is not None else 0,
            clock=services.clock,
            watched=wiring.watched,
            check_tls=wiring.check_tls,
            overloaded=lambda: services.pressure.reason,
            admin_limit=plan.admin,
            admin_may_move=not self._config_path and config.admin.bind == Admin().bind,
        )
        try:
            await self._controller.start()
        except OSError as error:
            self._close_listeners()
            assert config.admin.bind is not None  # else nothing was bound
            raise StartError(bind_message("admin.bind", config.admin.bind, error)) from None
        services.on_sweep += [
            wiring.sweep,
            services.pipes.sweep,
            gate.sweep,
        ]
        services.start()
        for listener in self._listeners:
            listener.start()
        self._announce()
        tune_gc()
        tune_malloc()
        self._controller.running()

    def _bind(self, wiring: Wiring, gate: ConnectionGate) -> None:
        for config in self._config.listeners:
            try:
                listener = Listener(self._services, wiring.build_listener(config), gate)
                listener.bind(config.bind, config.mode_bits)
            except BindError as error:
                self._close_listeners()
                raise StartError(str(error)) from None
            except Unusable as unusable:
                self._close_listeners()
                raise StartError(self._shown(unusable), 2) from None
            self._listeners.append(listener)

    def _announce(self) -> None:
        if not is_compiled():
            log.info(
                "interpreted: the hot modules are not compiled, which takes about 1.5 times the CPU; see deployment.md"
            )
        for listener in self._listeners:
            for address in listener.addresses:
                log.info("listening name=%s address=%s", listener.runtime.name, address)

    def _listener_status(self) -> list[ListenerStatus]:
        return [
            ListenerStatus(item.runtime.name, item.runtime.mode, tuple(item.addresses), item.runtime.n_connections)
            for item in self._listeners
        ]

    def _dial_failed(self, pool: Pool, server: Server, fault: Fault) -> None:
        if fault is errors.CONNECT_REFUSED:
            self._controller.server_refused(pool, server)
        else:
            self._controller.connect_failed(pool, server)

    def _strategy_failed(self, pool: str, error: Exception) -> None:
        self._strategy_log.error(
            f"strategy {pool}", "pool %s: the strategy failed, least connections picks instead: %r", pool, error
        )

    # --- signals ----------------------------------------------------------------------------------------------------

    def _stop_signal(self, number: signal.Signals) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            log.info("%s: stopping; in-flight requests have %gs", number.name, self._config.shutdown.grace)
            self._stop.set()
        else:
            log.warning("%s again: stopping at once", number.name)
            self._stop_now.set()

    def _reopen_logs(self) -> None:
        if self._writer is not None:
            self._writer.reopen()
        log.info("SIGUSR1: log files are opened again")

    # --- stop -------------------------------------------------------------------------------------------------------

    async def _drain(self) -> int:
        services, shutdown = self._services, self._config.shutdown
        ends_at = services.clock() + shutdown.grace
        self._controller.draining()
        await self._wait_for(lambda: False, services.clock() + min(shutdown.delay, shutdown.grace))
        await self._wait_for(lambda: not any(item.has_queued for item in self._listeners), services.clock() + 1.0)
        services.is_draining = True
        for listener in self._listeners:
            listener.close()
        now = services.clock()
        for item in list(services.swept):
            item.begin_drain(now)
        await self._wait_for(lambda: not services.swept, ends_at)
        left = list(services.swept)
        if left:
            for item in left:
                item.shut_down()
            await asyncio.sleep(FLUSH_S)
        await self._controller.stop()
        await services.stop()
        if self._writer is not None:
            self._writer.close(1.0)
        if services.n_cut:
            log.warning("stopped; %d requests or connections were cut", services.n_cut)
            return 1
        log.info("stopped; nothing was cut")
        return 0

    async def _wait_for(self, condition, until: float) -> None:  # type: ignore[no-untyped-def]
        """Wait for the condition, the time, or a second signal, whichever is first."""
        while not condition() and not self._stop_now.is_set():
            left = until - self._services.clock()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, DRAIN_POLL_S)):
                    await self._stop_now.wait()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close_sockets()


def tune_gc() -> None:
    """Spare the collector: what exists now lives as long as the process, and what is over is freed without it.

    With the default threshold of 700 allocations it ran for every few dozen requests and cost up to 10 us of each. No
    request and no connection leaves a cycle behind (tests/scenarios/resilience/test_no_cycles.py).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def tune_malloc() -> None:
    """Let the C library keep the memory of a large read for the next one.

    glibc returns blocks over 128 KiB to the kernel when they are freed, so each next one is a page fault for every 4
    KiB. Some processes did that all their life, 250 us of the 850 that 1 MiB over TLS then took. The limits follow the
    largest block ever returned (mallopt(3), M_MMAP_THRESHOLD): after one of 512 KiB, up to 1 MiB is kept.
    """
    bytearray(1 << 19)


def run(config: Config, shown: Callable[[Unusable], str], *, config_path: str = "") -> int:
    """Run the daemon in the foreground; the exit status of the process (0, or 1 after a failure). shown: see Worker."""
    handler = operator_log.configure(config.log.level, config.log.format)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(Worker(config, config_path, shown).run())
    except StartError as error:
        log.error("cannot start: %s", error)
        return error.status
    except KeyboardInterrupt:
        return 1
    finally:
        handler.close()
