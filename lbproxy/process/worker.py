"""The composition root of a data process: config + sockets + slots -> listeners, and the life of the process.

With `workers: 1` the controller lives on the same loop; this module starts and stops both. Nothing is half-started: all
sockets are bound before the first connection is accepted, and one that can't be bound ends the start with one sentence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lbproxy import __version__, errors
from lbproxy.config.loader import Kept
from lbproxy.config.model import Admin, Config
from lbproxy.config.problems import Unusable
from lbproxy.control.admin import Route
from lbproxy.control.explain_api import ExplainApi, Past
from lbproxy.control.explaining import Moment
from lbproxy.control.kept_data import Unreadable
from lbproxy.control.metrics import Registry
from lbproxy.control.upgrade_api import UpgradeApi
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.exchange import exchange
from lbproxy.dataplane.listener import BindError, admin_connections, bind_message
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.errors import Fault
from lbproxy.process import loop_errors
from lbproxy.process.access_log import CLOSE_S, AccessLogs, open_access_log
from lbproxy.process.applying import Applying, limit_connections
from lbproxy.process.controller import Controller
from lbproxy.process.ending import Ending
from lbproxy.process.first_words import first_lines
from lbproxy.process.keeper import Orphans
from lbproxy.process.listeners import Listeners, binds_of
from lbproxy.process.outside import Outside
from lbproxy.process.reload_requests import ReloadRequests
from lbproxy.process.reloading import Reloading
from lbproxy.process.threads import new_loop
from lbproxy.process.tuning import tune_gc, tune_malloc
from lbproxy.process.upgrade.arriving import BEREFT_S, NotWanted
from lbproxy.process.upgrade.sockets import Inherited, admin_name
from lbproxy.process.upgrade.taking_over import TakingOver, unreadable
from lbproxy.process.wiring import Wiring
from lbproxy.telemetry import log as operator_log
from lbproxy.telemetry.slots import PROCESS, Slots

log = logging.getLogger("lbproxy")

BIND_PAUSE_S: Final = 0.05


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

    def __init__(
        self,
        config: Config,
        config_path: str,
        shown: Callable[[Unusable], str],
        kept: Kept | None = None,
        outside: Outside | None = None,
    ) -> None:
        """shown: how a value that can't be used is told to the user. kept: what was read of the file, for reloads.
        outside: who started this process."""
        self._config = config
        self._kept = kept
        self._shown = shown
        self._config_path = config_path
        self._outside = outside or Outside()
        self._arrival = self._outside.arrival
        self._stop_signals = 0
        self._told_at: float | None = None
        self._is_over = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._listeners: Listeners
        self._services: Services
        self._controller: Controller
        self._requests: ReloadRequests
        self._taking_over: TakingOver
        self._applying: Applying | None = None
        self._serves = False
        self._wants_reload = False
        self._logs = AccessLogs(None, None)
        self._strategy_log = operator_log.ThrottledLog(log)

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until a signal says stop. 0: everything finished; 1: something was cut. Raises StartError."""
        loop = asyncio.get_running_loop()
        for line in first_lines(self._config, self._config_path, __version__, os.getpid()):
            log.info("%s", line)
        self._install_signals(loop)
        await self._start(loop)
        self._serves = True
        if self._wants_reload:
            self._reload_signal()
        self._requests.watch(self._config.watch)
        await self._is_over.wait()
        return await self._end()

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal, number)
        for number, handler in (
            (signal.SIGUSR1, self._reopen_logs),
            (signal.SIGHUP, self._reload_signal),
            (signal.SIGUSR2, self._upgrade_signal),
        ):
            loop.add_signal_handler(number, self._signalled, number, handler)

    def _signalled(self, number: signal.Signals, handler: Callable[[], None]) -> None:
        if not self._outside.pass_on(number):
            handler()

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self._config
        arrival = self._arrival
        inherited = self._inherited()
        slots = Slots()
        registry = Registry(__version__)
        row = slots.allocate(PROCESS)
        registry.add(PROCESS, (), row)
        try:
            self._logs = AccessLogs(open_access_log(config.access_log), config)
        except Unusable as error:
            raise StartError(self._shown(error)) from None
        services = self._services = Services(
            loop, row, access_writer=self._logs.writer, buffered_limit=config.limits.buffered_bytes
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
        gate = ConnectionGate(0)
        warning = limit_connections(config, gate, services)
        if warning:
            log.warning("%s", warning)
        self._listeners = Listeners(services, gate)
        wiring.guard_room.keys_changed = self._listeners.forget_heads
        services.on_sweep.append(lambda now: wiring.guard_room.count(row))
        try:
            wiring.build_pools()
            runtimes = {item.name: wiring.build_listener(item) for item in config.listeners}
            await self._bind(runtimes, inherited)
        except BindError as bind_error:
            raise StartError(str(bind_error)) from None
        except Unusable as error:
            raise StartError(self._shown(error), 2) from None
        registry.pools = {name: runtime.pool for name, runtime in wiring.pools.items()}
        reloading = Reloading(
            config,
            self._config_path,
            os.environ,
            self._apply,
            row,
            lambda text, by: self._controller.events.add("reload", text, by=by),
            kept=self._kept,
        )
        self._requests = ReloadRequests(reloading, self._outside.manager, services.tasks, self._config_path)
        registry.readers |= {
            "client_connections": self._listeners.connections,
            "h2_streams": self._listeners.streams,
            "queue_depth": wiring.queue_depths,
            "upstream_connections": wiring.upstream_connections,
            "tls_certificate_expiry_timestamp_seconds": wiring.certificate_expiries,
            "buffered_bytes": lambda: [((), services.pressure.buffered)],
            "buffered_limit_bytes": lambda: [((), services.pressure.limit)],
            "config_last_reload_successful": reloading.was_successful,
            "config_last_reload_success_timestamp_seconds": reloading.succeeded_at,
        }
        self._controller = Controller(
            config,
            registry.pools,
            registry,
            parts=wiring,
            reload=self._requests.call,
            listeners=self._listeners.status,
            log_dropped=lambda: self._logs.dropped,
            clock=services.clock,
            overloaded=lambda: services.pressure.reason,
            admin_limit=admin_connections(),
            admin_may_move=not self._config_path and config.admin.bind == Admin().bind,
            admin_sockets=inherited.take(admin_name(config.admin.bind)),
            admin_routes=(
                *self._explain(random.Random()),
                *UpgradeApi(lambda caller: self._taking_over.call(caller)).routes(),
            ),
            config_path=self._config_path,
        )
        parts = self._outside, self._listeners, self._controller, services.tasks
        taking_over = self._taking_over = TakingOver(
            *parts, reloading.lock, row, self._stop, self._config_path, self._leave
        )
        try:
            await self._controller.start(None if arrival is None else arrival.states)
        except Unreadable as states_error:
            raise StartError(unreadable(states_error)) from None
        except OSError as error:
            self._listeners.close_sockets()
            assert config.admin.bind is not None  # else nothing was bound
            raise StartError(bind_message("admin.bind", config.admin.bind, error)) from None
        self._applying = Applying(
            services, wiring, self._listeners, self._controller, gate, self._logs, self._is_over.is_set
        )

        def sweep_listeners(now: float) -> None:
            if not wiring.is_drafting:  # which counts on what is there
                for name in self._listeners.sweep(now):
                    wiring.drop_listener(name)

        if os.getpid() == 1:
            services.on_sweep.append(Orphans().sweep)
        services.on_sweep += [taking_over.watch_place, wiring.sweep, services.pipes.sweep, gate.sweep, sweep_listeners]
        wiring.guard(services.tasks.spawn)
        services.start()
        if not is_compiled():
            log.info(
                "interpreted: the hot modules are not compiled, which takes about 1.5 times the CPU; see deployment.md"
            )
        tune_gc()
        tune_malloc()
        if arrival is not None:
            try:
                await taking_over.wait_to_serve(arrival)
            except NotWanted as not_wanted:
                raise StartError(str(not_wanted)) from None
        inherited.close()
        self._listeners.start()
        await self._controller.admin.serve()
        self._controller.running()
        self._outside.serving(loop)
        if arrival is not None:
            await arrival.serving()
            services.tasks.spawn(arrival.follow(), "the process before")

    async def _bind(self, runtimes: Mapping[str, ListenerRuntime], inherited: Inherited) -> None:
        """Raises BindError."""
        until = self._services.clock() + (BEREFT_S if self._arrival is not None and self._arrival.is_bereft else 0.0)
        while True:
            try:
                self._listeners.bind(binds_of(self._config), runtimes, inherited)
                return
            except BindError:
                if self._services.clock() >= until:
                    raise
            await asyncio.sleep(BIND_PAUSE_S)

    def _inherited(self) -> Inherited:
        """Sockets that are open already. Raises StartError."""
        binds = {name: item.address for name, item in binds_of(self._config).items()}
        admin = self._config.admin.bind
        try:
            return self._outside.inherit(binds if admin is None else {**binds, admin_name(admin): admin})
        except ValueError as no_socket:
            raise StartError(str(no_socket)) from None

    def _explain(self, rng: random.Random) -> tuple[Route, ...]:
        """What the admin address answers about single requests. rng: one that no strategy has."""
        services = self._services
        return ExplainApi(
            lambda: [item.runtime for item in self._listeners],
            lambda: Moment(
                services.clock(),
                rng,
                services.pressure.reason,
                services.is_draining,
                services.clock() + services.wall_offset,
            ),
            Past(self._logs),
        ).routes()

    # --- another config ---------------------------------------------------------------------------------------------

    async def _apply(self, old: Config, new: Config) -> None:
        assert self._applying is not None  # who calls this was told of by the start
        await self._applying.apply(old, new)
        self._config = new
        self._requests.watch(new.watch)

    def _reload_signal(self) -> None:
        if not self._serves:  # it came during the start, which may have read the file before it was changed
            self._wants_reload = True
            return
        self._requests.signal()

    def _upgrade_signal(self) -> None:
        if self._applying is None:
            log.warning("SIGUSR2: lbproxy is still starting; send it again")
        else:
            self._taking_over.signal()

    def _leave(self) -> None:
        """Another process serves."""
        successor = self._taking_over.successor
        assert successor is not None  # who calls this has just made it known
        self._requests.hand_over(successor.pid)
        self._is_over.set()

    # --- what the data plane tells ----------------------------------------------------------------------------------

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
        self._outside.pass_on(number)
        self._stop_signals += 1
        if self._stop_signals == 1:
            log.info("%s: stopping; in-flight requests have %gs", number.name, self._config.shutdown.grace)
            self._told_at = time.monotonic()
            self._stop.set()
            self._is_over.set()
        else:
            log.warning("%s again: stopping at once", number.name)
            self._stop_now.set()

    def _reopen_logs(self) -> None:
        if self._logs.writer is not None:
            self._logs.writer.reopen()
        log.info("SIGUSR1: log files are opened again")

    # --- stop -------------------------------------------------------------------------------------------------------

    async def _end(self) -> int:
        services, arrival = self._services, self._arrival
        await self._taking_over.abort(self._config.shutdown.grace)
        successor = self._taking_over.successor
        ending = Ending(
            services,
            self._listeners,
            self._controller,
            self._config.shutdown,
            self._stop,
            self._stop_now,
            lambda: arrival is not None and not arrival.is_alone,
        )
        if successor is None:
            self._outside.manager.stopping()
            if arrival is not None:
                await arrival.stop()
            await ending.drain(self._told_at)
        else:
            await ending.leave(successor.taken)
            if arrival is not None and self._stop.is_set():
                await arrival.stop()
            successor.line.close()
            if self._outside.keeper is not None:
                await self._outside.keeper.hold_signals(asyncio.get_running_loop())
        await self._controller.stop()
        await services.stop()
        if self._logs.writer is not None:
            self._logs.writer.close(CLOSE_S)
        if services.n_cut:
            log.warning("stopped; %d requests or connections were cut", services.n_cut)
            return 1
        log.info("stopped; nothing was cut")
        return 0


def not_started(error: StartError, outside: Outside | None) -> int:
    """Whoever waits for the start is told; the exit status."""
    if outside is not None and outside.arrival is not None:
        outside.arrival.fail([str(error)])
    log.error("cannot start: %s", error)
    return error.status


def run(
    config: Config,
    shown: Callable[[Unusable], str],
    *,
    config_path: str = "",
    kept: Kept | None = None,
    outside: Outside | None = None,
) -> int:
    """Run the daemon in the foreground; the exit status of the process (0, or 1 after a failure). The rest: see
    Worker."""
    handler = operator_log.configure(config.log.level, config.log.format)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            status = runner.run(Worker(config, config_path, shown, kept, outside).run())
        keeper = outside.keeper if outside is not None and outside.is_over else None
        return status if keeper is None else keeper.keep()
    except StartError as error:
        return not_started(error, outside)
    except KeyboardInterrupt:
        return 1
    finally:
        if outside is not None:
            outside.ended()
        handler.close()
