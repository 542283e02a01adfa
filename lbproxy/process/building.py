"""From one config to the objects that it asks for: the only place that knows both.

Everything that can be decided from the config alone is decided here, once; the data plane looks nothing up by name.
What is made here is not in use yet: a reload makes all of it, in a thread, before it changes anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lbproxy.config.body_rules import Split as SplitConfig
from lbproxy.config.certificates import FileProblem
from lbproxy.config.http_rules import Route
from lbproxy.config.listener_model import Listener as ListenerConfig
from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.pool_model import PoolTls
from lbproxy.config.problems import Path as KeyPath
from lbproxy.config.problems import Unusable, path_text
from lbproxy.config.tls_checks import absolute
from lbproxy.control.file_watch import Signature, WatchedFiles, signature
from lbproxy.control.metrics import Registry
from lbproxy.control.splits import SplitPlace
from lbproxy.dataplane.runtime import (
    DEFAULT_METHODS,
    ClientTimeouts,
    Connections,
    Http2Settings,
    ListenerRuntime,
    PoolRuntime,
    PoolSettings,
    RouteRuntime,
    ServerRuntime,
)
from lbproxy.dataplane.server.endpoint import Http1Endpoint
from lbproxy.dataplane.server.http2_endpoint import Http2Endpoint
from lbproxy.dataplane.tls_settings import ListenerTlsFiles, ListenerTlsSettings, PoolTlsFiles, PoolTlsSettings
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.retry import RetryBudget, RetryPolicy
from lbproxy.domain.routing import PathRules, Router
from lbproxy.domain.server import Server
from lbproxy.domain.splitting import Split
from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import Strategy
from lbproxy.domain.text_pattern import TextPattern
from lbproxy.errors import Fault
from lbproxy.process.guarding import GuardBuilder, GuardRoom
from lbproxy.process.plugins import load_entry_point, load_python
from lbproxy.process.settings import (
    breaker_policy,
    edits_of,
    fair_rules,
    fields_of,
    inf_if_off,
    keep_alive_settings,
    passive_retry_s,
    pool_timeouts,
    retry_after_s,
    retry_policy,
    route_spec,
    sticky_settings,
)
from lbproxy.process.split_cells import SplitCells, SplitName, split_name
from lbproxy.process.workers.part import Part
from lbproxy.protocol.deadline import GRPC_TIMEOUT
from lbproxy.request_key import read_key, read_pointer
from lbproxy.telemetry.accesslog import make_format
from lbproxy.telemetry.slots import LIMIT, LISTENER, POOL, ROUTE, TRAFFIC, Layout, Row, Slots

_ALPN: dict[str, tuple[str, ...]] = {"h1": (), "h2": ("h2",), "auto": ("h2", "http/1.1")}
"""What servers are offered by ALPN, by `protocol` of the pool."""

StrategyFailed = Callable[[str, Exception], None]
DialFailed = Callable[[Pool, Server, Fault], None]
Labels = tuple[str, ...]
PoolKind = TypeVar("PoolKind", bound=Pool)


class Rows:
    """Counters by what they count: those that are shown already, and new ones, which nobody sees before `show`."""

    def __init__(self, slots: Slots, registry: Registry) -> None:
        self._slots = slots
        self._registry = registry
        self._new: dict[tuple[Layout, Labels], Row] = {}

    def find(self, layout: Layout, labels: Labels) -> Row:
        row = self._registry.row(layout, labels) or self._new.get((layout, labels))
        if row is None:
            row = self._new[layout, labels] = self._slots.allocate(layout)
        return row

    def show(self) -> None:
        """Show the new ones."""
        for (layout, labels), row in self._new.items():
            self._registry.add(layout, labels, row)
        self._new.clear()


@dataclass(slots=True)
class TlsParts:
    """What was made for TLS from one config: by the key that asks for it, with what that key says."""

    pools: dict[KeyPath, tuple[PoolTls, PoolTlsSettings]] = field(default_factory=dict)
    listeners: dict[str, tuple[object, ListenerTlsSettings]] = field(default_factory=dict)
    watched: list[WatchedFiles] = field(default_factory=list)  # to be read again when they change


def check_alpn(config: PoolConfig) -> tuple[str, ...]:
    """What a pool's health checks offer by ALPN."""
    check = config.health_check
    if check is None or check.type == "tcp":
        return ()
    return ("h2",) if check.type == "grpc" or config.protocol == "h2" else ()


def _endpoint_of(runtime: ServerRuntime) -> Connections:
    """Who connects to a server, by the protocol of its pool at that time."""
    return Http1Endpoint(runtime) if runtime.pool.protocol == "h1" else Http2Endpoint(runtime)


class Builder:
    """Makes the parts of one config. Raises Unusable for what can't be had.

    part: what is shared with other processes, None if there are none.
    before: TLS as it is in use; what is asked for in the same words is the same object, so that sessions and turns
    stay. split_cells: as they are in use, too. check_tls: of health checks, by pool, once the pools are made.
    room: what outlives configs of who may ask.
    """

    def __init__(
        self,
        config: Config,
        rows: Rows,
        *,
        rng: random.Random,
        dial_failed: DialFailed,
        strategy_failed: StrategyFailed,
        base_dir: str,
        before: TlsParts | None = None,
        part: Part | None = None,
        split_cells: SplitCells | None = None,
        room: GuardRoom | None = None,
    ) -> None:
        self.config = config
        self.splits: dict[SplitName, SplitPlace] = {}
        self._split_cells = split_cells if split_cells is not None else SplitCells(part)
        self._room = room or GuardRoom()
        self._guarding: GuardBuilder | None = None
        self._part = part
        self.rows = rows
        self.tls = TlsParts()
        self.check_tls: dict[str, PoolTlsSettings] = {}
        self._rng = rng
        self._dial_failed = dial_failed
        self._strategy_failed = strategy_failed
        self._base_dir = base_dir
        self._before = before if before is not None else TlsParts()

    # --- pools ------------------------------------------------------------------------------------------------------

    def pool(self, name: str) -> PoolRuntime:
        """A new pool, without servers."""
        config = self.config.pools[name]
        strategy = self.strategy(name)
        row = self.rows.find(POOL, (name,))
        failed = POOL.column("strategy_errors_total")

        def strategy_failed(error: Exception) -> None:
            row[failed] += 1
            self._strategy_failed(name, error)

        breaker = config.circuit_breaker
        part = self._part

        def make(kind: type[PoolKind], queue: WaitQueue | None = None) -> PoolKind:
            return kind(
                name,
                (),
                strategy,
                create("least_connections", {}, self._rng),
                fail_open=config.fail_open,
                passive_retry_s=retry_refused_s(config, part),
                strategy_failed=strategy_failed,
                breaker=None if breaker is None else breaker_policy(breaker),
                max_ejected=breaker.max_ejected if breaker is not None else 0.0,
                queue=queue,
                slow_start_s=config.slow_start,
            )

        pool: Pool
        if part is None:
            queue = config.queue
            pool = make(Pool, WaitQueue(queue.size, queue.timeout, queue.order, fair_rules(queue)))
        else:
            pool = part.new_pool(make, name, config)
        ratio, at_least = config.retry.budget.ratio, config.retry.budget.min
        dial_failed = self._dial_failed
        return PoolRuntime(
            pool,
            row,
            self.pool_settings(name),
            dial_failed=lambda server, fault: dial_failed(pool, server, fault),
            rng=self._rng,
            budget=RetryBudget(ratio, at_least) if part is None else part.budget(name, ratio, at_least),
            endpoint_of=_endpoint_of,
        )

    def pool_settings(self, name: str) -> PoolSettings:
        """Besides, `check_tls` gets what the pool's health checks need."""
        config = self.config.pools[name]
        if self._part is not None:
            self._part.check_room(name, config)
        check = config.health_check
        alpn = _ALPN[config.protocol]
        tls = self._pool_tls(config.tls, ("pools", name, "tls"), alpn)
        if check is not None:
            own = check.tls if "tls" in check.model_fields_set else config.tls
            spoken = check_alpn(config)
            is_same = own == config.tls and spoken == alpn
            check_tls = tls if is_same else self._pool_tls(own, ("pools", name, "health_check", "tls"), spoken)
            if check_tls is not None:
                self.check_tls[name] = check_tls
        return PoolSettings(
            keep_alive=keep_alive_settings(config.keep_alive, self._share_of),
            head_bytes=config.limits.head_bytes,
            max_fields=config.limits.headers,
            max_interim=config.limits.interim_responses,
            retry_after_s=retry_after_s(config),
            failure_statuses=frozenset(config.circuit_breaker.status if config.circuit_breaker is not None else ()),
            tls=tls,
            proxy_protocol=config.proxy_protocol,
            is_lenient=config.lenient,
            sticky=sticky_settings(config.sticky),
            protocol=config.protocol,
        )

    def _pool_tls(self, config: PoolTls | None, path: KeyPath, alpn: tuple[str, ...]) -> PoolTlsSettings | None:
        if config is None:
            return None
        seen: Signature | None = None
        known = self._before.pools.get(path)
        if known is not None and known[0] == config and known[1].files.alpn == alpn:
            made = known[1]
        else:
            ca, cert, key = (
                None if path is None else absolute(path, self._base_dir)
                for path in (config.ca, config.cert, config.key)
            )
            files = PoolTlsFiles(config.verify, ca, config.server_name, cert, key, alpn)
            seen = signature(files.paths)
            try:
                made = PoolTlsSettings(files, files.load())
            except FileProblem as error:
                raise Unusable((*path, error.key), str(error)) from None
        self.tls.pools[path] = config, made
        if made.files.paths:
            _, pool, *keys = path
            name = f"pool {pool}: {path_text(tuple(keys))}"
            self.tls.watched.append(WatchedFiles(name, made.files.paths, made, seen=seen))
        return made

    def strategy(self, pool: str) -> Strategy:
        spec = self.config.pools[pool].strategy
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

    # --- listeners --------------------------------------------------------------------------------------------------

    @property
    def guarding(self) -> GuardBuilder:
        """Who may ask, and how much. Raises Unusable."""
        if self._guarding is None:
            self._guarding = GuardBuilder(
                self.config,
                self._room,
                lambda name: self.rows.find(LIMIT, (name,)),
                self.tls.watched,
                self._base_dir,
            )
        return self._guarding

    def listener(self, config: ListenerConfig, pools: Mapping[str, PoolRuntime]) -> ListenerRuntime:
        """One runtime per listener. pools: by name, all that its routes name."""
        routes = config.effective_routes()
        methods = [*config.methods, *(["HEAD"] if "GET" in config.methods and "HEAD" not in config.methods else [])]
        path_rules = PathRules(config.path_rules, passes_slashes=config.encoded_slashes == "pass")
        limits, timeouts = config.limits, config.timeouts
        access_log = self.config.access_log
        pointers = list(dict.fromkeys(name for route in routes if route.match is not None for name in route.match.json))
        return ListenerRuntime(
            name=config.name,
            mode=config.mode,
            router=Router.compile([route_spec(route.match) for route in routes], path_rules),
            routes=tuple(self._route(config, route, pools, pointers) for route in routes),
            pointers=tuple(read_pointer(pointer) for pointer in pointers),
            no_route=RouteRuntime(None, self.rows.find(TRAFFIC, (config.name, "")), RetryPolicy(), None),
            timeouts=ClientTimeouts(timeouts.request_head, timeouts.request_body, timeouts.keep_alive, timeouts.write),
            row=self.rows.find(LISTENER, (config.name,)),
            head_bytes=limits.head_bytes,
            max_fields=limits.headers,
            body_bytes=inf_if_off(limits.body_bytes),
            trailer_bytes=limits.trailer_bytes,
            chunk_overhead=limits.chunk_overhead,
            underscores=config.underscore_headers,
            answers_half_closed=config.half_close == "answer",
            trusted=tuple(proxy for proxy in self.config.trusted_proxies if not isinstance(proxy, str)),
            trusts_unix="unix" in self.config.trusted_proxies,
            connections_per_ip=inf_if_off(limits.connections_per_ip),
            min_rate=limits.min_rate or 0,
            deadline_names=frozenset()
            if config.deadline_header is None
            else frozenset((config.deadline_header.lower().encode(), GRPC_TIMEOUT)),
            has_default_only=len(routes) == 1 and routes[0].match is None and not path_rules.is_strict,
            tls=self.listener_tls(config),
            takes_proxy_header=config.proxy_protocol == "accept",
            line_bytes=limits.request_line_bytes,
            path_rules=path_rules,
            methods=frozenset(methods) or None,
            allow=", ".join(methods).encode() or DEFAULT_METHODS,
            log_format=make_format(access_log.format if access_log is not None else "json"),
            serves_h1="h1" in config.protocols,
            http2=_http2_settings(config),
            guard=self.guarding.guard if config.mode == "http" else None,
            addresses=None if self._part is None else self._part.addresses,
        )

    def _share_of(self, whole: int) -> int:
        """What this process may have of something that all workers share; at least 1."""
        return whole if self._part is None else self._part.share_of(whole)

    def listener_tls(self, config: ListenerConfig) -> ListenerTlsSettings | None:
        """The TLS of a listener, if it has any. Raises Unusable."""
        tls = config.tls
        if tls is None:
            return None
        # What is inside of a TCP connection is not known here, so nothing is promised unless the config does.
        alpn = tls.alpn or (_offered(config) if config.mode == "http" else ())
        asked = (tls, alpn, config.limits.handshakes, config.timeouts.tls_handshake)
        known = self._before.listeners.get(config.name)
        seen: Signature | None = None
        if known is not None and known[0] == asked:
            made = known[1]
        else:
            made, seen = self._load_listener_tls(config, alpn)
        made.turns.limit = self._share_of(config.limits.handshakes)
        self.tls.listeners[config.name] = asked, made
        self.tls.watched.append(WatchedFiles(f"listener {config.name}", made.files.paths, made, seen=seen))
        return made

    def _load_listener_tls(
        self, config: ListenerConfig, alpn: tuple[str, ...]
    ) -> tuple[ListenerTlsSettings, Signature]:
        """And what its files were before they were read."""
        tls = config.tls
        assert tls is not None
        pairs = [(tls.cert, tls.key)] if tls.cert is not None and tls.key is not None else []
        pairs += [(item.cert, item.key) for item in tls.certs]
        files = ListenerTlsFiles(
            tuple((absolute(cert, self._base_dir), absolute(key, self._base_dir)) for cert, key in pairs),
            min_version=tls.min_version,
            alpn=alpn,
            client_ca=None if tls.client_ca is None else absolute(tls.client_ca, self._base_dir),
            client_verify=tls.client_verify,
        )
        seen = signature(files.paths)
        try:
            made = ListenerTlsSettings(
                files, files.load(), limit=config.limits.handshakes, timeout_s=config.timeouts.tls_handshake
            )
        except FileProblem as error:
            raise Unusable(("listeners", self.config.listeners.index(config), "tls", error.key), str(error)) from None
        return made, seen

    def _route(
        self, listener: ListenerConfig, route: Route, pools: Mapping[str, PoolRuntime], pointers: list[str]
    ) -> RouteRuntime:
        """pointers: those of the listener, in their order."""
        asked = route.match.json if route.match is not None else {}
        named = None if route.name is None else self.rows.find(ROUTE, (listener.name, route.name))
        if route.split is None:
            made = self._branch(listener, route, route.pool, pools)
        else:
            made = RouteRuntime(None, self.rows.find(TRAFFIC, (listener.name, "")), RetryPolicy(), None)
            made.split = self._split(listener, route, route.split)
            made.branches = tuple(self._branch(listener, route, name, pools) for name in made.split.names)
        made.conditions = tuple((pointers.index(name), TextPattern(wanted)) for name, wanted in asked.items())
        for runtime in (made, *made.branches):
            runtime.named = named
        return made

    def _split(self, listener: ListenerConfig, route: Route, config: SplitConfig) -> Split:
        """Besides, `splits` gets it."""
        name, position = split_name(listener.name, route), listener.routes.index(route)
        try:
            cells, first = self._split_cells.find(name)
        except LookupError as error:
            at = self.config.listeners.index(listener)
            raise Unusable(("listeners", at, "routes", position, "split"), str(error)) from None
        key = read_key(config.by) if config.by is not None else None
        split = Split(tuple(config.pools), tuple(config.pools.values()), key, cells, first)
        self.splits[name] = SplitPlace(listener.name, position, route.name, name[1], split)
        return split

    def _branch(
        self, listener: ListenerConfig, route: Route, pool: str | None, pools: Mapping[str, PoolRuntime]
    ) -> RouteRuntime:
        """What a route does with the requests that go to this pool, or to none."""
        traffic = self.rows.find(TRAFFIC, (listener.name, pool or ""))
        own = route.headers
        if pool is None:
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
                keys=self.guarding.key_rule(route),
            )
        config = self.config.pools[pool]
        request = edits_of(config.headers, "request").then(edits_of(own, "request"))
        response = edits_of(config.headers, "response").then(edits_of(own, "response"))
        rewrite = route.rewrite
        breaker = config.circuit_breaker
        retry = retry_policy(config, route.retry)
        made = RouteRuntime(
            pools[pool],
            traffic,
            retry,
            pool_timeouts(config, route.timeouts),
            request_edits=request,
            response_edits=response,
            strip_prefix=(rewrite.strip_prefix or "") if rewrite is not None else "",
            path_prefix=(rewrite.path_prefix or "") if rewrite is not None else "",
            skip=request.touched,
            upgrades=frozenset(
                name.encode() for name in (listener.upgrade if route.upgrade is None else route.upgrade)
            ),
            keys=self.guarding.key_rule(route),
        )
        # As this config has them: the pool may still go by those of the one before.
        made.notable_from = min({429} | retry.status | set(breaker.status if breaker is not None else ()))
        return made


def retry_refused_s(config: PoolConfig, part: Part | None) -> float | None:
    """`passive_retry_s`; among several workers it is the controller who gives a server another chance."""
    return passive_retry_s(config) if part is None or part.is_controller else None


def _offered(config: ListenerConfig) -> tuple[str, ...]:
    """What a listener of HTTP offers by ALPN (RFC 7301), first choice first."""
    return tuple([name for word, name in (("h2", "h2"), ("h1", "http/1.1")) if word in config.protocols])


def _http2_settings(config: ListenerConfig) -> Http2Settings | None:
    limits = config.limits.h2
    if config.mode != "http" or "h2" not in config.protocols:
        return None
    return Http2Settings(
        limits.streams,
        (limits.resets.count, limits.resets.seconds),
        (limits.control_frames.count, limits.control_frames.seconds),
        inf_if_off(limits.max_age),
        any(
            "websocket" in (config.upgrade if route.upgrade is None else route.upgrade)
            for route in config.effective_routes()
        ),
    )


def reconfigure(
    runtime: PoolRuntime, config: PoolConfig, settings: PoolSettings, now: float, part: Part | None = None
) -> None:
    """Have a pool that is in use keep to another config; its servers and its strategy are not looked at here."""
    breaker = config.circuit_breaker
    runtime.reconfigure(settings, now)
    runtime.budget.reconfigure(config.retry.budget.ratio, config.retry.budget.min)
    runtime.pool.reconfigure(
        fail_open=config.fail_open,
        passive_retry_s=retry_refused_s(config, part),
        breaker=None if breaker is None else breaker_policy(breaker),
        max_ejected=breaker.max_ejected if breaker is not None else 0.0,
        slow_start_s=config.slow_start,
        queue_size=config.queue.size,
        queue_timeout_s=config.queue.timeout,
        queue_order=config.queue.order,
        queue_rules=fair_rules(config.queue),
        now=now,
    )


def common_tls(config: Config, config_path: str) -> TlsParts:
    """That of all listeners, made before workers are forked, so that all of them have the same keys of session tickets:
    Python's ssl can't be given any. Raises Unusable."""
    builder = Builder(
        config,
        Rows(Slots(), Registry("")),
        rng=random.Random(),
        dial_failed=lambda pool, server, fault: None,
        strategy_failed=lambda pool, error: None,
        base_dir=str(Path(config_path).parent) if config_path else ".",
    )
    for listener in config.listeners:
        builder.listener_tls(listener)
    return builder.tls
