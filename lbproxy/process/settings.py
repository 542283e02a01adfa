"""What a config says as the domain and the data plane take it: the values of one model as those of another."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from lbproxy.address import Address
from lbproxy.config.http_rules import HeaderEdits, HeaderRules, Match, PoolTimeoutsOverride, RetryOverride
from lbproxy.config.pool_model import CircuitBreaker, ServerSpec
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.dataplane.runtime import Edits, UpstreamTimeouts
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.retry import RetryPolicy
from lbproxy.domain.routing import MatchSpec, RouteSpec
from lbproxy.domain.server import Server
from lbproxy.process.onlink import Network

INF = float("inf")


def server_of(spec: ServerSpec, address: Address, name: str, max_inflight: int | None) -> Server:
    """A domain server from its config entry; `max_inflight` is the pool's, for servers without their own."""
    limit = spec.max_inflight if spec.max_inflight is not None else max_inflight
    return Server(name, address, weight=spec.weight, max_inflight=limit or 0, backup=spec.backup)


def breaker_policy(config: CircuitBreaker) -> BreakerPolicy:
    """The breaker's settings as the domain takes them."""
    return BreakerPolicy(
        failures=config.failures,
        error_rate=config.error_rate,
        min_requests=config.min_requests,
        window_s=config.window,
        open_s=config.open,
        max_open_s=config.max_open,
        probes=config.probes,
    )


def is_direct(address: Address, on_link: tuple[Network, ...]) -> bool:
    """Is nothing between us and this address that could acknowledge for it (retry.unacked: auto)?"""
    if address.is_unix:
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return ip.is_loopback or any(ip in network for network in on_link)


def pool_timeouts(config: PoolConfig, override: PoolTimeoutsOverride | None = None) -> UpstreamTimeouts:
    """The pool's time-outs with a route's on top."""

    def value(key: str) -> float:
        own = getattr(override, key, None) if override is not None else None
        return inf_if_off(own if own is not None else getattr(config.timeouts, key))

    return UpstreamTimeouts(
        connect=value("connect"),
        response_head=value("response_head"),
        read=value("read"),
        write=value("write"),
        tunnel=value("tunnel"),
        half_closed=value("half_closed"),
        total=value("total"),
        tls_handshake=value("tls_handshake") if config.tls is not None else 0.0,
    )


def retry_policy(config: PoolConfig, override: RetryOverride | None) -> RetryPolicy:
    """The pool's retry rules with a route's on top."""
    pool = config.retry

    def value(key: str):  # type: ignore[no-untyped-def]
        own = getattr(override, key, None) if override is not None else None
        return own if own is not None else getattr(pool, key)

    causes = value("on")
    return RetryPolicy(
        attempts=value("attempts"),
        on_connect="connect" in causes,
        on_reset="reset" in causes,
        on_timeout="timeout" in causes,
        idempotent=value("idempotent"),
        body_bytes=value("body_bytes"),
        unacked=value("unacked"),
        status=frozenset(value("status")),
        backoff_base_s=pool.backoff.base,
        backoff_max_s=pool.backoff.max,
        trust_retry_after=value("trust_retry_after"),
        idempotency_key=value("idempotency_key"),
    )


def route_spec(match: Match | None) -> RouteSpec:
    """What the router asks of a request; None: anything will do."""
    if match is None:
        return RouteSpec()
    return RouteSpec(
        MatchSpec(
            host=match.host,
            path=match.path,
            path_prefix=match.path_prefix,
            path_regex=match.path_regex,
            methods=tuple(match.methods),
            headers=dict(match.headers),
            query=dict(match.query),
        )
    )


def fields_of(mapping: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Header fields as they are sent."""
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in mapping.items())


def edits_of(rules: HeaderRules | None, side: str) -> Edits:
    """What is done to the fields of one side: `request` or `response`."""
    if rules is None:
        return Edits()
    edits: HeaderEdits = rules.request if side == "request" else rules.response
    return Edits(
        fields_of(edits.set), fields_of(edits.add), frozenset(name.lower().encode("latin-1") for name in edits.remove)
    )


def inf_if_off(value: float | None) -> float:
    """A limit that may be off."""
    return INF if value is None else value
