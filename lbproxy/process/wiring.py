"""What runs of a config: its pools, their servers and listeners' settings, and how they become those of another one.

Wiring keeps the members of pools in step with their rows. A reload makes a `Draft` first (`draft`, in a thread:
whatever can fail, fails there), and takes it up in one go (`adopt`, on the loop). A pool that the config no longer
names goes when nothing is under way in it; until then it is as before, except that no route leads to it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from lbproxy.config.listener_model import Listener as ListenerConfig
from lbproxy.config.model import Config
from lbproxy.control.file_servers import server_of
from lbproxy.control.file_watch import WatchedFiles
from lbproxy.control.metrics import Registry
from lbproxy.control.splits import SplitPlace
from lbproxy.dataplane.runtime import ListenerRuntime, PoolRuntime, PoolSettings, ServerRuntime
from lbproxy.dataplane.tls_settings import PoolTlsSettings
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.shared.overseen import OverseenPool
from lbproxy.domain.shared.pool import Seating, SharedPool
from lbproxy.domain.strategies.base import Strategy
from lbproxy.process.building import Builder, DialFailed, Rows, StrategyFailed, TlsParts, reconfigure
from lbproxy.process.guarding import GuardRoom, Spawn
from lbproxy.process.onlink import read_on_link_networks
from lbproxy.process.settings import is_direct
from lbproxy.process.split_cells import SplitCells
from lbproxy.process.workers.part import Part
from lbproxy.telemetry.slots import LIMIT, LISTENER, POOL, ROUTE, SERVER, TRAFFIC, Layout, Slots

log = logging.getLogger("lbproxy")

IDLE_S = 1.0  # a pool that goes must have been idle for so long: a request between two attempts holds nothing


@dataclass(slots=True)
class Draft:
    """What a reload made and has not put in place. pools: those that are new. strategies: of pools that get another.
    settings: of all that are kept. listeners: by name."""

    builder: Builder
    pools: dict[str, PoolRuntime]
    strategies: dict[str, Strategy]
    settings: dict[str, PoolSettings]
    listeners: dict[str, ListenerRuntime]


class Wiring:
    """See the module. `slots` and `registry` are shared. base_dir: where relative paths of the config start. tls: what
    is made already. part: what other processes share, None if there are none."""

    def __init__(
        self,
        config: Config,
        slots: Slots,
        registry: Registry,
        *,
        rng: random.Random,
        dial_failed: DialFailed,
        strategy_failed: StrategyFailed,
        base_dir: str,
        tls: TlsParts | None = None,
        part: Part | None = None,
    ) -> None:
        self._part = part
        self._slots = slots
        self._registry = registry
        self._rng = rng
        self._dial_failed = dial_failed
        self._strategy_failed = strategy_failed
        self._base_dir = base_dir
        self._on_link = read_on_link_networks()
        self._leaving: list[tuple[PoolRuntime, Server]] = []
        self._idle_since: dict[str, float] = {}  # of pools that go
        self.pools: dict[str, PoolRuntime] = {}
        self.is_drafting = False
        self.guard_room = GuardRoom() if part is None else GuardRoom(part.buckets)
        if part is not None:
            part.wire(self.pools, registry, _Seats(self))
        self._split_cells = SplitCells(part)
        self._builder = self._new_builder(config, tls)

    def _new_builder(self, config: Config, before: TlsParts | None) -> Builder:
        return Builder(
            config,
            Rows(self._slots, self._registry),
            rng=self._rng,
            dial_failed=self._dial_failed,
            strategy_failed=self._strategy_failed,
            base_dir=self._base_dir,
            before=before,
            part=self._part,
            split_cells=self._split_cells,
            room=self.guard_room,
        )

    @property
    def watched(self) -> list[WatchedFiles]:
        """Certificate files and that of API keys, to be read again when they change."""
        return self._builder.tls.watched

    @property
    def splits(self) -> Collection[SplitPlace]:
        """Those in force."""
        return self._builder.splits.values()

    @property
    def check_tls(self) -> dict[str, PoolTlsSettings]:
        """TLS of health checks, by pool."""
        return self._builder.check_tls

    # --- a start ----------------------------------------------------------------------------------------------------

    def build_pools(self, *, has_servers: bool = True) -> dict[str, PoolRuntime]:
        """One runtime per pool, with its servers, or to see whether it can be made. Raises Unusable if a strategy or
        its TLS can't be made."""
        for name, config in self._builder.config.pools.items():
            runtime = self.pools[name] = self._builder.pool(name)
            self._builder.rows.show()
            if not self._begin(runtime):
                continue
            for spec in config.servers if has_servers else ():
                if spec.address.is_literal:
                    self.add_server(runtime, server_of(spec, config))
        return self.pools

    def _begin(self, runtime: PoolRuntime) -> bool:
        """False: its servers are those that another process has given seats."""
        part, pool = self._part, runtime.pool
        if part is None or not isinstance(pool, SharedPool):
            return True
        part.begin(pool)
        return part.is_controller

    def guard(self, spawn: Spawn) -> None:
        """Requests are about to come: whoever is asked about them begins. spawn: see Tasks."""
        self.guard_room.links = self._builder.guarding.links
        self.guard_room.begin(spawn)

    def build_listener(self, config: ListenerConfig) -> ListenerRuntime:
        """One runtime per listener; its pools must be built. Raises Unusable for its certificates."""
        runtime = self._builder.listener(config, self.pools)
        self._builder.rows.show()
        return runtime

    # --- a reload ---------------------------------------------------------------------------------------------------

    def draft(self, config: Config) -> Draft:
        """Make everything for another config, in whatever thread; nothing is in use yet. Raises Unusable."""
        before = self._builder
        builder = self._new_builder(config, before.tls)
        draft = Draft(builder, {}, {}, {}, {})
        for name, pool in config.pools.items():
            if name not in self.pools:
                draft.pools[name] = builder.pool(name)
                continue
            draft.settings[name] = builder.pool_settings(name)
            if name not in before.config.pools or before.config.pools[name].strategy != pool.strategy:
                draft.strategies[name] = builder.strategy(name)
        known = {**self.pools, **draft.pools}
        for listener in config.listeners:
            draft.listeners[listener.name] = builder.listener(listener, known)
        return draft

    def adopt(self, draft: Draft, now: float) -> None:
        """Pools keep to the draft from now on; new ones are there, without servers. Routes lead to them with the
        listeners' runtimes, which are not put in place here."""
        before, builder = self._builder.config.pools, draft.builder
        self._builder = builder
        builder.rows.show()
        self._split_cells.keep(set(builder.splits))
        self._forget_routes(builder.config)
        self.guard_room.use(builder.guarding.links)
        for name, config in builder.config.pools.items():
            runtime = draft.pools.get(name)
            if runtime is not None:
                self.pools[name] = runtime
                self._begin(runtime)
                continue
            runtime = self.pools[name]
            self._idle_since.pop(name, None)
            runtime.pool.is_leaving = False
            if name in draft.strategies:
                runtime.pool.use_strategy(draft.strategies[name], now)
            if before.get(name) != config or draft.settings[name].tls is not runtime.tls:
                reconfigure(runtime, config, draft.settings[name], now, self._part)
        labels = {limit.label for limit in builder.config.rate_limits}
        for name in [name for (name,) in self._registry.labels(LIMIT) if name not in labels]:
            self._forget(LIMIT, 0, name)
        for name, runtime in self.pools.items():
            if name not in builder.config.pools and not runtime.pool.is_leaving:
                runtime.pool.is_leaving = True
                self._idle_since[name] = now

    def _forget_routes(self, config: Config) -> None:
        """Counters of routes that have another name now, or none."""
        known = {(listener.name, route.name) for listener in config.listeners for route in listener.routes}
        for labels in tuple(self._registry.labels(ROUTE)):
            row = self._registry.row(ROUTE, labels)
            if labels not in known and row is not None:
                self._registry.remove(ROUTE, labels, row)

    def idle_pools(self, now: float) -> list[Pool]:
        """Those that go, and in which nothing has been under way for a while. None while a draft counts on them."""
        idle = []
        for name in self._idle_since:
            runtime = self.pools[name]
            if runtime.n_queued or any(item.server.inflight or item.n_active for item in runtime.servers.values()):
                self._idle_since[name] = now
            elif now - self._idle_since[name] >= IDLE_S and not self.is_drafting:
                idle.append(runtime.pool)
        return idle

    def drop_pool(self, pool: Pool) -> None:
        """One of `idle_pools`, whose servers have been removed, is no more."""
        runtime = self.pools.pop(pool.name)
        del self._idle_since[pool.name]
        if self._part is not None:
            self._leaving = [item for item in self._leaving if item[0] is not runtime]
            for server in list(runtime.servers):
                self._forget_server(runtime, server, time.monotonic())
            self._part.drop_pool(pool.name)
        self._registry.remove(POOL, (pool.name,), runtime.row)
        self._forget(TRAFFIC, 1, pool.name)

    def drop_listener(self, name: str) -> None:
        """The last listener of this name, and its last client, are gone."""
        self._forget(LISTENER, 0, name)
        self._forget(TRAFFIC, 0, name)
        self._forget(ROUTE, 0, name)

    def _forget(self, layout: Layout, index: int, value: str) -> None:
        """Remove the rows of one thing."""
        for labels in tuple(self._registry.labels(layout)):
            row = self._registry.row(layout, labels) if labels[index] == value else None
            if row is not None:
                self._registry.remove(layout, labels, row)

    # --- members ----------------------------------------------------------------------------------------------------

    def add(self, pool: Pool, server: Server) -> None:
        """Discovery found a server (control.discovery.roster.Membership)."""
        config = self._builder.config.pools.get(pool.name)
        if not server.max_inflight and config is not None and config.max_inflight is not None:
            server.max_inflight = config.max_inflight
        self.add_server(self.pools[pool.name], server, joined_at=time.monotonic())

    def remove(self, pool: Pool, server: Server) -> None:
        """Discovery lost a server."""
        self.remove_server(self.pools[pool.name], server)

    def add_server(self, runtime: PoolRuntime, server: Server, joined_at: float | None = None) -> None:
        """A server joins a pool, with its row. joined_at: monotonic seconds, None at the start of the process."""
        row = self._slots.allocate(SERVER)
        self._registry.add(SERVER, (runtime.name, server.name), row)
        runtime.servers[server] = ServerRuntime(
            server, runtime, row, is_direct=is_direct(server.address, self._on_link)
        )
        runtime.pool.add(server, joined_at)
        if isinstance(runtime.pool, OverseenPool) and not runtime.pool.has_seat(server):
            log.error("pool %s: server %s gets no requests: %s", runtime.name, server.name, server.why)

    def remove_server(self, runtime: PoolRuntime, server: Server) -> None:
        """A server leaves a pool: no new requests; its row goes when its last request is done."""
        runtime.pool.remove(server)
        runtime.servers[server].retire()
        self._leaving.append((runtime, server))

    def sweep(self, now: float) -> None:
        """Idle connections expire, pools change with time, removed servers vanish once they are drained."""
        for runtime in self.pools.values():
            runtime.sweep(now)
        for runtime, server in list(self._leaving):
            if server.inflight or runtime.servers[server].n_connections:
                continue
            if self._part is None or self._part.is_done_with(runtime.name, server):
                self._leaving.remove((runtime, server))
                self._forget_server(runtime, server, now)

    def _forget_server(self, runtime: PoolRuntime, server: Server, now: float) -> None:
        row = runtime.servers.pop(server).row
        labels = runtime.name, server.name
        if self._part is not None:
            self._part.let_go(runtime, server, row, now)
            if not self._part.is_controller:  # which has what all counted
                self._registry.remove(SERVER, labels, row)
                return
        self._registry.retire(SERVER, labels, row)

    def queue_depths(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_queue_depth."""
        for runtime in self.pools.values():
            yield (runtime.name,), runtime.n_queued

    def upstream_connections(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_upstream_connections."""
        for runtime in self.pools.values():
            for item in runtime.servers.values():
                yield (runtime.name, item.server.name, "active"), item.n_active
                yield (runtime.name, item.server.name, "idle"), item.n_idle

    def certificate_expiries(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_tls_certificate_expiry_timestamp_seconds."""
        for listener, (_, tls) in self._builder.tls.listeners.items():
            for path, expiry in {item.path: item.not_after for item in tls.loaded.certificates}.items():
                yield (listener, path), expiry


class _Seats(Seating):
    """Servers that get a seat in the shared books, or lose it."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def join(self, pool: SharedPool, server: Server, now: float | None) -> None:
        """See Seating."""
        self._wiring.add_server(self._wiring.pools[pool.name], server, now)

    def leave(self, pool: SharedPool, server: Server, now: float) -> None:
        """See Seating."""
        self._wiring.remove_server(self._wiring.pools[pool.name], server)

    def prepare(self, pool: SharedPool, seat: int) -> None:
        """See Seating."""
        if self._wiring._part is not None:
            self._wiring._part.clear_seat(pool.name, seat)
