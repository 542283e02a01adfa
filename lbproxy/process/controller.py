"""Composition root of the control loop: health checks, discovery, the admin address, metrics, the loop-lag monitor.

With one worker it shares the process and the event loop of the data plane; nothing here knows that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Protocol

from lbproxy.address import Address
from lbproxy.config.kinds import in_force
from lbproxy.config.model import Config, HealthCheck
from lbproxy.config.model import Pool as PoolConfig
from lbproxy.control.access import Access
from lbproxy.control.admin import AdminServer, Reload, Route
from lbproxy.control.admin_guard import CONNECTIONS
from lbproxy.control.checker import Checker
from lbproxy.control.discovery.discovery import Discovery, Wanted
from lbproxy.control.discovery.roster import Membership
from lbproxy.control.event_log import EventLog
from lbproxy.control.event_stream import READERS, EventStream
from lbproxy.control.file_servers import FileServers
from lbproxy.control.file_watch import FileWatch, WatchedFiles
from lbproxy.control.kept_state import UPGRADE, KeptState
from lbproxy.control.limit_status import limit_status
from lbproxy.control.live import LiveControl
from lbproxy.control.metrics import Exposition, Registry
from lbproxy.control.news import News
from lbproxy.control.pools_api import PoolsApi
from lbproxy.control.probe import ProbeSpec
from lbproxy.control.rates import Meter
from lbproxy.control.splits import SplitControl, SplitPlace
from lbproxy.control.splits_api import SplitsApi
from lbproxy.control.status import Json, ListenerStatus, QueueStatus, StatusSource, not_ready_reason, server_status
from lbproxy.dataplane.tls_settings import PoolTlsSettings
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.process.admin_address import AdminAddress
from lbproxy.process.first_words import ReadinessLog
from lbproxy.process.flips import Flips
from lbproxy.process.keeping import Keeping
from lbproxy.process.pulse import TICK_S, Pulse
from lbproxy.process.upgrade.sockets import Passed
from lbproxy.tasks import Tasks
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, SERVER, Row

log = logging.getLogger("lbproxy.control")

_INTERNAL_ERRORS = PROCESS.column("internal_errors_total")
_STATE_ERRORS = PROCESS.column("state_file_errors_total")


class Parts(Membership, Protocol):
    """Who has what belongs to pools and servers (process/wiring.py)."""

    @property
    def watched(self) -> Sequence[WatchedFiles]: ...

    @property
    def splits(self) -> Collection[SplitPlace]: ...

    @property
    def check_tls(self) -> Mapping[str, PoolTlsSettings]: ...

    def idle_pools(self, now: float) -> Sequence[Pool]: ...

    def drop_pool(self, pool: Pool) -> None: ...


class Controller:
    """Owns every background task of the control loop. Make it and `start` it on the running loop.

    pools: by name; those of a reload are put into it, and what is gone is taken out. registry: must hold the rows of
    all pools, listeners and servers, and the PROCESS row. parts adds and removes servers, counters and idle connections
    included; the controller sees to their checks. reload: see AdminServer. listeners: what /api/v1/status shows.
    log_dropped: lines that the access log lost. clock: monotonic seconds, the one that the pools are told. overloaded:
    why the data plane takes no new requests for now, None if it does. admin_limit: connections of the admin address.
    admin_may_move: a free port will do where its own is taken. admin_sockets: of another process, whose work this one
    takes over; `serve` has them accept here. admin_routes: what else the admin address answers.
    look: see AdminServer. workers: what /api/v1/status shows of processes that serve beside this one.
    config_path: of the file, "" or "-" if there is none; relative paths of the config begin in its folder.
    """

    def __init__(
        self,
        config: Config,
        pools: dict[str, Pool],
        registry: Registry,
        *,
        parts: Parts,
        reload: Reload,
        listeners: Callable[[], Sequence[ListenerStatus]] = tuple,
        log_dropped: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        overloaded: Callable[[], str | None] = lambda: None,
        admin_limit: int = CONNECTIONS,
        admin_may_move: bool = False,
        admin_sockets: Passed | None = None,
        admin_routes: Sequence[Route] = (),
        config_path: str = "",
        look: Callable[[], Awaitable[None]] | None = None,
        workers: Callable[[], Sequence[Json]] = tuple,
    ) -> None:
        row = registry.row(PROCESS, ())
        if row is None:
            raise ValueError("the registry has no PROCESS row")
        self._row: Row = row
        self._config = config
        self._pools = pools
        self._base_dir = str(Path(config_path).parent)
        self._registry = registry
        self._parts = parts
        self._reload = reload
        self._look = look
        self._admin_limit = admin_limit
        self._admin_routes = tuple(admin_routes)
        self._overloaded = overloaded
        self._clock = clock
        self._state = "starting"
        self._tick_handle: asyncio.TimerHandle | None = None
        self._readiness = ReadinessLog(log, clock())
        self._log = ThrottledLog(log, clock=clock)
        self._pulse = Pulse(row, log_dropped, self._log)
        self.events = EventLog()
        self._flips = Flips(registry, self.events, self._log)
        self._news = News(self.events)
        self._stream = EventStream(
            self.status,
            Meter(registry),
            self.events,
            clock,
            time.time,
            min(READERS, admin_limit // 2),
            lambda work: asyncio.get_running_loop().call_soon(work),
        )
        self._tasks = Tasks(self._crashed)
        self._exposition = Exposition(registry)
        self._strategies = {name: _strategy(pool) for name, pool in config.pools.items()}
        self._checker = Checker(self._tasks, clock, rng or random.Random(), self._server_row)
        self._discovery = Discovery(self, self._tasks, row, clock)
        self._live = LiveControl(
            pools, self, self._discovery, self._checker.kick, clock, self.events, lambda: self.keeping.changed()
        )
        self._splits = SplitControl(lambda: parts.splits, clock, self.events, lambda: self.keeping.changed())
        self._kept = KeptState(
            pools, self._live, self._discovery, self._may_find_servers, clock, time.time, self._splits
        )
        self.keeping = Keeping(self._kept, config.state_file, config_path, self._tasks, clock, self._count_state_error)
        self._file_servers = FileServers(self._live, self, self._discovery, clock)
        registry.readers["split_share_ratio"] = self._splits.ratios
        self._status = StatusSource(
            registry.version,
            clock(),
            pools,
            self._strategies,
            listeners,
            self._queue_status,
            self._live.told,
            self._kind,
            self._discovery.told,
            self.keeping.told,
            workers,
            self._splits.told,
            lambda: limit_status(self._config.rate_limits, registry),
            self._protocol,
            lambda: registry.readers["upstream_connections"]() if "upstream_connections" in registry.readers else (),
            self._sticky,
        )
        registry.readers["discovery_last_success_timestamp_seconds"] = self._discovery.last_successes
        registry.readers["discovery_errors_total"] = self._discovery.errors
        self._file_watch = FileWatch(parts.watched)
        self._watching: asyncio.Task[None] | None = None
        self.admin = AdminAddress(
            config.admin, self._make_admin, self._tasks, may_move=admin_may_move, passed=admin_sockets
        )
        for pool in pools.values():
            pool.on_flip(partial(self._flipped, pool))

    def _sticky(self, pool: str) -> str | None:
        config = self._config.pools.get(pool)
        return None if config is None or config.sticky is None else config.sticky.cookie

    def _kind(self, pool: str) -> tuple[str | None, dict[str, str]]:
        config = self._config.pools.get(pool)
        return (None, {}) if config is None else (config.kind, dict(in_force(config.kind, config)))

    def _protocol(self, pool: str) -> str:
        config = self._config.pools.get(pool)
        return "h1" if config is None else config.protocol

    def _count_state_error(self) -> None:
        self._row[_STATE_ERRORS] += 1

    def _may_find_servers(self, pool: str) -> bool:
        config = self._config.pools.get(pool)
        return config is not None and Wanted.of(config).has_sources

    def _make_admin(self, bind: Address, access: Access, may_move: bool, passed: Passed | None) -> AdminServer:
        pools = PoolsApi(self._live, self._server_statuses, self._discovery.resolve)
        return AdminServer(
            bind,
            access,
            metrics=lambda is_openmetrics, names: self._exposition.render(is_openmetrics=is_openmetrics, names=names),
            status=self.status,
            not_ready=self.ready_reason,
            reload=self._reload,
            routes=(*pools.routes(), *SplitsApi(self._splits).routes(), *self._stream.routes(), *self._admin_routes),
            limit=self._admin_limit,
            may_move=may_move,
            inherited=() if passed is None else passed.sockets,
            file=None if passed is None else passed.file,
            clock=self._clock,
            no_reader=self._stream.refusal,
            reader_s=lambda: self._stream.reader_s,
            **({} if self._look is None else {"look": self._look}),
        )

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, handed_over: object = None, event: str = UPGRADE) -> None:
        """Take up what is known of servers, bind the admin address, resolve names (at most 2 s), start the checks.
        Raises OSError if binding fails.

        handed_over, event: what the process before knows (Keeping); Unreadable is raised if that can't be understood.

        /readyz says "starting" until `running` is called.
        """
        await self.keeping.start(handed_over, event)
        await self.admin.start()
        self._pulse.start(self._clock())
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for name, settings in self._config.pools.items():
            self._look_after(self._pools[name], settings)
        await self._discovery.start()
        self._watch_files()

    def _watch_files(self) -> None:
        if self._file_watch.has_files and self._watching is None:
            self._watching = self._tasks.spawn(self._file_watch.run(), "certificate files")

    def _look_after(self, pool: Pool, settings: PoolConfig) -> None:
        """Check its servers, and look up their names."""
        if settings.health_check is not None:
            self._checker.add_pool(pool, settings.health_check, self._probes(pool, settings.health_check, settings))
        self._discovery.add_pool(pool, Wanted.of(settings, self._base_dir))

    def _probes(self, pool: Pool, check: HealthCheck, settings: PoolConfig) -> ProbeSpec:
        tls = self._parts.check_tls.get(pool.name)
        return ProbeSpec.from_config(check, settings.proxy_protocol, tls, settings.protocol)

    async def stop(self) -> None:
        """End everything; the admin address last."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        await self._tasks.cancel_all()
        await self.keeping.stop()
        await self.admin.stop()

    # --- an upgrade -------------------------------------------------------------------------------------------------

    async def checked(self, most_s: float) -> None:
        """Wait until every server has been checked once, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._checker.all_checked()

    async def handed_over(self, taken: Set[str]) -> None:
        """Another process serves: it has the admin address, too, if it has taken that."""
        self._state = "handed over"
        self.keeping.let_go()  # it was given up, perhaps, and serves all the same
        self._stream.finish()
        await self.admin.handed_over(taken)

    def rest(self) -> None:
        """Check servers no more: what is still in flight is at its server."""
        for pool in self._pools.values():
            self._checker.drop_pool(pool)

    # --- another config ---------------------------------------------------------------------------------------------

    def adopt(self, config: Config, pools: Mapping[str, Pool], admin: AdminServer | None) -> None:
        """Keep to another config. pools: all that there are now, new ones without servers. admin: from
        `prepare` of `admin`."""
        before, self._config = self._config, config
        for name, settings in config.pools.items():
            self._strategies[name] = _strategy(settings)
            if name in self._pools:
                if before.pools.get(name) != settings:
                    self._change_pool(self._pools[name], before.pools.get(name), settings)
                continue
            pool = self._pools[name] = pools[name]
            pool.on_flip(partial(self._flipped, pool))
            self._file_servers.enter(pool, settings)
            self._look_after(pool, settings)
        for name, pool in self._pools.items():
            if name not in config.pools and name in before.pools:
                self._discovery.drop_pool(pool)
        self._splits.adopt()
        self.keeping.use(config.state_file)
        self._file_watch.watch(self._parts.watched)
        self._watch_files()
        self.admin.use(admin, config.admin)

    def _change_pool(self, pool: Pool, before: PoolConfig | None, after: PoolConfig) -> None:
        """before None: it was about to go."""
        check = after.health_check
        if check is None:
            self._checker.end_checks(pool)
        else:
            self._checker.change_pool(pool, check, self._probes(pool, check, after))
        self._file_servers.change(pool, before, after)
        self._live.file_names(pool.name, {(spec.name, str(spec.address)) for spec in after.servers})
        if before is None:
            self._discovery.add_pool(pool, Wanted.of(after, self._base_dir))
        else:
            self._discovery.change_pool(pool, Wanted.of(after, self._base_dir))

    async def files_read(self) -> None:
        """Read certificates that have changed on disk."""
        await self._file_watch.look()

    # --- states -----------------------------------------------------------------------------------------------------

    def running(self) -> None:
        """The listeners accept: /readyz depends on the pools from now on."""
        self._state = "running"
        self.keeping.serve()
        self._readiness.observe(self.ready_reason(), self._clock())

    def draining(self) -> None:
        """The process was told to stop: /readyz says 503 from now on, and readers of events are let go."""
        self._state = "draining"
        self.events.add("process", "lbproxy stops: what is in flight is finished", old="running", new="draining")
        self._stream.finish()

    # --- what is asked ----------------------------------------------------------------------------------------------

    def ready_reason(self) -> str | None:
        """Why new traffic should not come here, or None."""
        if self._state != "running":
            return self._state
        return self._overloaded() or self.lacking()

    def lacking(self) -> str | None:
        """Why the pools could not serve, or None."""
        return not_ready_reason(self._pools.values(), self._config.admin.ready, self._discovery.lacks)

    def status(self) -> Json:
        return self._status.build(self._state, self.ready_reason(), self._clock())

    def _server_statuses(self, pool: Pool, servers: Sequence[Server]) -> list[Json]:
        now, used = self._clock(), frozenset(pool.eligible())
        return [{**server_status(pool, server, now, used), **self._live.told(server, now)} for server in servers]

    def _queue_status(self, pool: str) -> QueueStatus:
        return QueueStatus.of(self._pools[pool].queue, self._clock())

    # --- what is reported -------------------------------------------------------------------------------------------

    def server_refused(self, pool: Pool, server: Server) -> None:
        """The data plane's connection was refused: the server is down at once, and checked again very soon."""
        pool.server_refused(server, self._clock())
        self._checker.refused(pool, server)
        self._discovery.kick(pool, server)

    def connect_failed(self, pool: Pool, server: Server) -> None:
        """The data plane could not connect for another reason: check soon, and look the name up again."""
        self._checker.kick(pool, server)
        self._discovery.kick(pool, server)

    def add(self, pool: Pool, server: Server) -> None:
        """Discovery or an operator found a server."""
        self._flips.named(pool, server, "joins")
        self._live.joined(server)
        self._parts.add(pool, server)
        self._kept.joined(pool, server)
        self._checker.add(pool, server)

    def remove(self, pool: Pool, server: Server) -> None:
        """Discovery lost a server, or an operator removed it, and it is drained."""
        self._flips.named(pool, server, "is gone")
        self._checker.remove(pool, server)
        self._parts.remove(pool, server)
        self._live.left(server)
        self._discovery.left(pool, server)

    def give(self, pool: Pool, server: Server, key: str, value: int) -> None:
        """Discovery found another weight or limit of a server."""
        self._live.give(pool, server, key, value)

    def _server_row(self, pool: Pool, server: Server) -> Row | None:
        return self._registry.row(SERVER, (pool.name, server.name))

    def _flipped(self, pool: Pool, server: Server, old: str, new: str) -> None:
        self.keeping.changed()
        self._flips.flipped(pool, server, old, new)

    def _crashed(self, error: BaseException) -> None:
        self._row[_INTERNAL_ERRORS] += 1

    # --- four times a second ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock()
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self._pulse.tick(now)
        self._file_servers.settle()
        self._live.tell_cuts()
        self._live.remove_drained()
        self.keeping.tick(now)
        for pool in self._parts.idle_pools(now):
            self._drop(pool)
        self._flips.watch_fail_open(self._pools)
        if self._state == "running":
            reason = self.ready_reason()
            self._readiness.observe(reason, now)
            self._news.observe(self._pools, reason)
        self._stream.tick(now)

    def _drop(self, pool: Pool) -> None:
        """The config no longer names it, and nothing is under way in it."""
        for server in list(pool.servers):
            self.remove(pool, server)
        self._checker.drop_pool(pool)
        self._live.file_names(pool.name, ())
        del self._pools[pool.name]
        self._strategies.pop(pool.name, None)
        self._flips.forget(pool.name)
        self._parts.drop_pool(pool)
        log.info("pool %s is gone", pool.name)


def _strategy(pool: PoolConfig) -> str:
    return pool.strategy.name or pool.strategy.python or ""
