"""What a config says as the domain and the data plane take it: the values of one model as those of another."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from lbproxy.address import Address
from lbproxy.config.http_rules import HeaderEdits, HeaderRules, HeadMatch, Match, PoolTimeoutsOverride, RetryOverride
from lbproxy.config.pool_model import CircuitBreaker, KeepAlive, Sticky
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.queue_model import Queue
from lbproxy.dataplane.runtime import Edits, KeepAliveSettings, UpstreamTimeouts
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.retry import RetryPolicy
from lbproxy.domain.routing import MatchSpec, RouteSpec
from lbproxy.domain.sticky import StickySettings
from lbproxy.process.onlink import Network
from lbproxy.protocol.grpc import BY_NAME
from lbproxy.request_key import KEY_NAME, read_key

INF = float("inf")
# With health checks off, a server that refused is given another chance after this long.
PASSIVE_RETRY_S = 10.0


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


def passive_retry_s(config: PoolConfig) -> float | None:
    """With health checks off: after how long a server that refused is tried again."""
    return PASSIVE_RETRY_S if config.health_check is None else None


def retry_after_s(config: PoolConfig) -> int:
    """What a 503 says of when to come again: after the next health check."""
    return max(1, round(config.health_check.interval + 0.5)) if config.health_check else round(PASSIVE_RETRY_S)


def keep_alive_settings(config: KeepAlive | None, share_of: Callable[[int], int]) -> KeepAliveSettings | None:
    """How long connections to servers are kept; None: not at all. share_of: what this process may have of a number."""
    if config is None:
        return None
    return KeepAliveSettings(
        share_of(config.idle),
        config.idle_timeout,
        inf_if_off(config.max_requests),
        inf_if_off(config.max_age),
        inf_if_off(config.ping),
    )


def sticky_settings(config: Sticky | None) -> StickySettings | None:
    """The cookies of a pool; None: it has none."""
    if config is None:
        return None
    return StickySettings(
        config.cookie,
        (config.secret or "").encode(),
        max_age_s=config.max_age or 0.0,
        path=config.path,
        same_site=config.same_site.capitalize(),
        secure=config.secure,
        wait_s=config.wait,
    )


def fair_rules(config: Queue) -> FairRules | None:
    """By which a queue gives turns; None: first come, first served."""
    if config.fair_by is None and config.priority is None:
        return None
    key = read_key(config.fair_by) if config.fair_by is not None else None
    said = config.priority
    if said is None:
        return FairRules(key)
    return FairRules(key, said.header, said.classes, is_anybody=said.is_anybody)


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
        grpc=frozenset(BY_NAME[name] for name in value("grpc")),
        backoff_base_s=pool.backoff.base,
        backoff_max_s=pool.backoff.max,
        trust_retry_after=value("trust_retry_after"),
        idempotency_key=value("idempotency_key"),
    )


def route_spec(match: HeadMatch | None) -> RouteSpec:
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
            headers={**match.headers, **({} if match.api_key is None else {KEY_NAME: match.api_key})},
            query=dict(match.query),
            json=dict(match.json) if isinstance(match, Match) else {},
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
