"""From the config to the objects of the data plane: the only place that knows both.

Everything that can be decided from the config alone is decided here, once; the data plane looks nothing up by name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from lbproxy.config.certificates import FileProblem
from lbproxy.config.http_rules import Route
from lbproxy.config.listener_model import Listener as ListenerConfig
from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.pool_model import PoolTls
from lbproxy.config.problems import Path as KeyPath
from lbproxy.config.problems import Unusable, path_text
from lbproxy.config.tls_checks import absolute
from lbproxy.control.file_watch import WatchedFiles
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.runtime import (
    DEFAULT_METHODS,
    ClientTimeouts,
    KeepAliveSettings,
    ListenerRuntime,
    PoolRuntime,
    RouteRuntime,
    ServerRuntime,
)
from lbproxy.dataplane.tls_settings import ListenerTlsFiles, ListenerTlsSettings, PoolTlsFiles, PoolTlsSettings
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.retry import RetryBudget, RetryPolicy
from lbproxy.domain.routing import PathRules, Router
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import NAMES, create
from lbproxy.errors import Fault
from lbproxy.process.onlink import read_on_link_networks
from lbproxy.process.plugins import load_entry_point, load_python
from lbproxy.process.settings import (
    breaker_policy,
    edits_of,
    fields_of,
    inf_if_off,
    is_direct,
    pool_timeouts,
    retry_policy,
    route_spec,
    server_of,
)
from lbproxy.protocol.deadline import GRPC_TIMEOUT
from lbproxy.telemetry.slots import LISTENER, POOL, SERVER, TRAFFIC, Slots

# With health checks off, a server that refused is given another chance after this long.
PASSIVE_RETRY_S = 10.0

StrategyFailed = Callable[[str, Exception], None]


class Wiring:
    """Builds runtimes and keeps the members of pools in step with their rows. `slots` and `registry` are shared."""

    def __init__(
        self,
        config: Config,
        slots: Slots,
        registry: Registry,
        *,
        rng: random.Random,
        dial_failed: Callable[[Pool, Server, Fault], None],
        strategy_failed: StrategyFailed,
        base_dir: str,
    ) -> None:
        self._config = config
        self._slots = slots
        self._registry = registry
        self._rng = rng
        self._dial_failed = dial_failed
        self._strategy_failed = strategy_failed
        self._base_dir = base_dir
        self._on_link = read_on_link_networks()
        self._leaving: list[tuple[PoolRuntime, Server]] = []
        self.pools: dict[str, PoolRuntime] = {}
        self.watched: list[WatchedFiles] = []  # certificate files to read again when they change
        self.check_tls: dict[str, PoolTlsSettings] = {}  # of health checks, by pool
        self._listener_tls: dict[str, ListenerTlsSettings] = {}

    # --- pools ------------------------------------------------------------------------------------------------------

    def build_pools(self) -> dict[str, PoolRuntime]:
        """One runtime per pool. Raises Unusable if a strategy or its TLS can't be made."""
        for name, config in self._config.pools.items():
            self.pools[name] = self._build_pool(name, config)
        return self.pools

    def _build_pool(self, name: str, config: PoolConfig) -> PoolRuntime:
        strategy = self._build_strategy(name, config)
        row = self._slots.allocate(POOL)
        self._registry.add(POOL, (name,), row)
        failed = POOL.column("strategy_errors_total")

        def strategy_failed(error: Exception) -> None:
            row[failed] += 1
            self._strategy_failed(name, error)

        pool = Pool(
            name,
            (),
            strategy,
            create("least_connections", {}, self._rng),
            fail_open=config.fail_open,
            passive_retry_s=PASSIVE_RETRY_S if config.health_check is None else None,
            strategy_failed=strategy_failed,
            breaker=None if config.circuit_breaker is None else breaker_policy(config.circuit_breaker),
            max_ejected=config.circuit_breaker.max_ejected if config.circuit_breaker is not None else 0.0,
            queue=WaitQueue(config.queue.size, config.queue.timeout, config.queue.order),
            slow_start_s=config.slow_start,
        )
        keep = config.keep_alive
        check = config.health_check
        tls = self._build_pool_tls(config.tls, ("pools", name, "tls"))
        if check is not None:
            own = check.tls if "tls" in check.model_fields_set else config.tls
            check_tls = tls if own == config.tls else self._build_pool_tls(own, ("pools", name, "health_check", "tls"))
            if check_tls is not None:
                self.check_tls[name] = check_tls
        runtime = PoolRuntime(
            pool,
            row,
            keep_alive=None
            if keep is None
            else KeepAliveSettings(
                keep.idle, keep.idle_timeout, inf_if_off(keep.max_requests), inf_if_off(keep.max_age)
            ),
            head_bytes=config.limits.head_bytes,
            max_fields=config.limits.headers,
            max_interim=config.limits.interim_responses,
            retry_after_s=max(1, round(check.interval + 0.5)) if check is not None else round(PASSIVE_RETRY_S),
            dial_failed=lambda server, fault: self._dial_failed(pool, server, fault),
            rng=self._rng,
            budget=RetryBudget(config.retry.budget.ratio, config.retry.budget.min),
            failure_statuses=frozenset(config.circuit_breaker.status if config.circuit_breaker is not None else ()),
            tls=tls,
            proxy_protocol=config.proxy_protocol,
            is_lenient=config.lenient,
        )
        for spec in config.servers:
            if spec.address.is_literal:
                self.add_server(runtime, server_of(spec, spec.address, spec.name, config.max_inflight))
        return runtime

    def _build_pool_tls(self, config: PoolTls | None, path: KeyPath) -> PoolTlsSettings | None:
        if config is None:
            return None
        ca, cert, key = (
            None if path is None else absolute(path, self._base_dir) for path in (config.ca, config.cert, config.key)
        )
        files = PoolTlsFiles(config.verify, ca, config.server_name, cert, key)
        try:
            made = PoolTlsSettings(files, files.load())
        except FileProblem as error:
            raise Unusable((*path, error.key), str(error)) from None
        if files.paths:
            _, pool, *keys = path
            self.watched.append(WatchedFiles(f"pool {pool}: {path_text(tuple(keys))}", files.paths, made))
        return made

    def _build_listener_tls(self, config: ListenerConfig) -> ListenerTlsSettings | None:
        tls = config.tls
        if tls is None:
            return None
        pairs = [(tls.cert, tls.key)] if tls.cert is not None and tls.key is not None else []
        pairs += [(item.cert, item.key) for item in tls.certs]
        files = ListenerTlsFiles(
            tuple((absolute(cert, self._base_dir), absolute(key, self._base_dir)) for cert, key in pairs),
            min_version=tls.min_version,
            # What is inside of a TCP connection is not known here, so nothing is promised unless the config does.
            alpn=tls.alpn if config.mode == "http" or "alpn" in tls.model_fields_set else (),
            client_ca=None if tls.client_ca is None else absolute(tls.client_ca, self._base_dir),
            client_verify=tls.client_verify,
        )
        try:
            made = ListenerTlsSettings(
                files, files.load(), limit=config.limits.handshakes, timeout_s=config.timeouts.tls_handshake
            )
        except FileProblem as error:
            raise Unusable(("listeners", self._config.listeners.index(config), "tls", error.key), str(error)) from None
        self.watched.append(WatchedFiles(f"listener {config.name}", files.paths, made))
        self._listener_tls[config.name] = made
        return made

    def certificate_expiries(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_tls_certificate_expiry_timestamp_seconds."""
        for listener, tls in self._listener_tls.items():
            for path, expiry in {item.path: item.not_after for item in tls.loaded.certificates}.items():
                yield (listener, path), expiry

    def _build_strategy(self, pool: str, config: PoolConfig):  # type: ignore[no-untyped-def]
        spec = config.strategy
        try:
            if spec.python is not None:
                return load_python(spec.python, spec.options, self._rng, base_dir=self._base_dir)
            name = spec.name or "least_connections"
            if name in NAMES:
                return create(name, spec.options, self._rng)
            return load_entry_point(name, spec.options, self._rng)
        except ValueError as error:
            path: KeyPath = ("pools", pool, "strategy")
            raise Unusable((*path, "python") if spec.python is not None else path, str(error)) from error

    def add(self, pool: Pool, server: Server) -> None:
        """Discovery found a server (control.discovery.roster.Membership)."""
        if not server.max_inflight and self._config.pools[pool.name].max_inflight is not None:
            server.max_inflight = self._config.pools[pool.name].max_inflight or 0
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

    def remove_server(self, runtime: PoolRuntime, server: Server) -> None:
        """A server leaves a pool: no new requests; its row goes when its last request is done."""
        runtime.pool.remove(server)
        runtime.servers[server].idle.close_all()
        self._leaving.append((runtime, server))

    def sweep(self, now: float) -> None:
        """Idle connections expire, pools change with time, removed servers vanish once they are drained."""
        for runtime in self.pools.values():
            runtime.sweep(now)
        for runtime, server in list(self._leaving):
            if server.inflight == 0 and runtime.servers[server].n_connections == 0:
                self._leaving.remove((runtime, server))
                gone = runtime.servers.pop(server)
                self._registry.remove(SERVER, (runtime.name, server.name), gone.row)

    def queue_depths(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_queue_depth."""
        for runtime in self.pools.values():
            yield (runtime.name,), runtime.n_queued

    def upstream_connections(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_upstream_connections."""
        for runtime in self.pools.values():
            for item in runtime.servers.values():
                yield (runtime.name, item.server.name, "active"), item.n_active
                yield (runtime.name, item.server.name, "idle"), len(item.idle)

    # --- listeners --------------------------------------------------------------------------------------------------

    def build_listener(self, config: ListenerConfig) -> ListenerRuntime:
        """One runtime per listener; its pools must be built. Raises Unusable for its certificates."""
        row = self._slots.allocate(LISTENER)
        self._registry.add(LISTENER, (config.name,), row)
        routes = config.effective_routes()
        methods = [*config.methods, *(["HEAD"] if "GET" in config.methods and "HEAD" not in config.methods else [])]
        path_rules = PathRules(config.path_rules, passes_slashes=config.encoded_slashes == "pass")
        limits, timeouts = config.limits, config.timeouts
        return ListenerRuntime(
            name=config.name,
            mode=config.mode,
            router=Router.compile([route_spec(route.match) for route in routes], path_rules),
            routes=tuple(self._build_route(config, route) for route in routes),
            no_route=RouteRuntime(None, self._traffic(config.name, ""), RetryPolicy(), None),
            timeouts=ClientTimeouts(timeouts.request_head, timeouts.request_body, timeouts.keep_alive, timeouts.write),
            row=row,
            head_bytes=limits.head_bytes,
            max_fields=limits.headers,
            body_bytes=inf_if_off(limits.body_bytes),
            trailer_bytes=limits.trailer_bytes,
            chunk_overhead=limits.chunk_overhead,
            underscores=config.underscore_headers,
            answers_half_closed=config.half_close == "answer",
            trusted=self._config.trusted_proxies,
            connections_per_ip=inf_if_off(limits.connections_per_ip),
            min_rate=limits.min_rate or 0,
            deadline_names=frozenset()
            if config.deadline_header is None
            else frozenset((config.deadline_header.lower().encode(), GRPC_TIMEOUT)),
            has_default_only=len(routes) == 1 and routes[0].match is None and not path_rules.is_strict,
            tls=self._build_listener_tls(config),
            takes_proxy_header=config.proxy_protocol == "accept",
            line_bytes=limits.request_line_bytes,
            path_rules=path_rules,
            methods=frozenset(methods) or None,
            allow=", ".join(methods).encode() or DEFAULT_METHODS,
        )

    def _traffic(self, listener: str, pool: str):  # type: ignore[no-untyped-def]
        row = self._registry.row(TRAFFIC, (listener, pool))
        if row is None:
            row = self._slots.allocate(TRAFFIC)
            self._registry.add(TRAFFIC, (listener, pool), row)
        return row

    def _build_route(self, listener: ListenerConfig, route: Route) -> RouteRuntime:
        traffic = self._traffic(listener.name, route.pool or "")
        own = route.headers
        if route.pool is None:
            respond = route.respond
            return RouteRuntime(
                None,
                traffic,
                RetryPolicy(),
                None,
                response_edits=edits_of(own, "response"),
                redirect=None if route.redirect is None else (route.redirect.status, route.redirect.location.encode()),
                respond=None
                if respond is None
                else (respond.status, fields_of(respond.headers), (respond.body or "").encode()),
            )
        config = self._config.pools[route.pool]
        request = edits_of(config.headers, "request").then(edits_of(own, "request"))
        response = edits_of(config.headers, "response").then(edits_of(own, "response"))
        rewrite = route.rewrite
        return RouteRuntime(
            self.pools[route.pool],
            traffic,
            retry_policy(config, route.retry),
            pool_timeouts(config, route.timeouts),
            request_edits=request,
            response_edits=response,
            strip_prefix=(rewrite.strip_prefix or "") if rewrite is not None else "",
            path_prefix=(rewrite.path_prefix or "") if rewrite is not None else "",
            skip=request.touched,
            upgrades=frozenset(
                name.encode() for name in (listener.upgrade if route.upgrade is None else route.upgrade)
            ),
        )
