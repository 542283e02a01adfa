"""What concerns two or more keys: references, contradictions, and what is legal but hardly meant.

Each check gets the models and the document. Where wrong items were cut out of a list before, positions are counted in
the document's data, never in the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from lbproxy.config.aws_checks import check_aws
from lbproxy.config.bind_checks import check_binds
from lbproxy.config.doubts import check_doubts
from lbproxy.config.http2_checks import check_http2, check_keys_of_check
from lbproxy.config.kind_checks import check_kinds
from lbproxy.config.limits_checks import check_limits
from lbproxy.config.model import Config, HealthCheck, Pool, ServerSpec
from lbproxy.config.notation import one_is_list
from lbproxy.config.pool_model import HTTP_CHECK_KEYS
from lbproxy.config.problems import Path
from lbproxy.config.proxy_checks import check_proxy_protocol, check_trust_of_unix_sockets
from lbproxy.config.route_checks import check_header_rules, check_listener_routes, referenced_pools
from lbproxy.config.server_model import expand_servers
from lbproxy.config.source import Document
from lbproxy.config.sticky_checks import check_cookies, check_sticky
from lbproxy.config.strategy_checks import check_keys_of_tcp, check_strategy
from lbproxy.config.tests_checks import check_tests
from lbproxy.config.tls_checks import check_tls
from lbproxy.config.validation import closest

WEIGHTLESS: Final = ("round_robin",)
"""Built-in strategies that do not look at weights (a weight of 0 takes a server out of every strategy)."""

_HTTP_LISTENER_KEYS: Final = ("protocols", "underscore_headers", "half_close", "upgrade")
_HTTP_LISTENER_TIMEOUTS: Final = ("request_head", "request_body", "keep_alive")
_HTTP_LISTENER_LIMITS: Final = (
    "head_bytes",
    "headers",
    "body_bytes",
    "trailer_bytes",
    "chunk_overhead",
    "min_rate",
    "h2",
)


def check(config: Config, document: Document) -> None:
    """Run every check; problems and warnings go into the document."""
    data: Any = document.data
    _check_not_empty(data, document)
    _check_references(config, data, document)
    check_binds(config, data, document)
    check_proxy_protocol(config, document)
    check_trust_of_unix_sockets(config, document)
    for index, listener in enumerate(config.listeners):
        check_listener_routes(listener, ("listeners", index), document)
    _check_listener_keys(config, data, document)
    check_tls(config, data, document)
    check_http2(config, data, document)
    for name, pool in config.pools.items():
        path: Path = ("pools", name)
        document.once("keys", path, partial(_check_pool, pool, data["pools"][name], path, document))
    check_keys_of_tcp(config, document)
    check_cookies(config, document)
    check_limits(config, document)
    check_tests(config, document)
    check_kinds(config, document)
    check_doubts(config, document)
    if config.shutdown.delay > config.shutdown.grace:
        document.warn(
            ("shutdown", "delay"), "is longer than `grace`, which includes it: no request can finish in peace"
        )


def _check_pool(pool: Pool, raw: Any, path: Path, document: Document) -> None:
    """What concerns the keys of one pool."""
    _check_servers(pool, raw, path, document)
    check_strategy(pool, path, document)
    check_sticky(pool, path, document)
    _check_queue(pool, raw, path, document)
    _check_dns(pool, raw, path, document)
    _check_discovery(pool, path, document)
    if pool.headers is not None:
        check_header_rules(pool.headers, (*path, "headers"), document)
    if pool.health_check is not None:
        _check_health_check(pool.health_check, raw, (*path, "health_check"), document)


def _check_not_empty(data: Any, document: Document) -> None:
    if data.get("listeners") == []:
        document.object_to(("listeners",), "needs at least one listener")
    for index, listener in enumerate(one_is_list(data.get("listeners", []))):  # type: ignore[arg-type,var-annotated]
        if isinstance(listener, dict) and listener.get("bind") == []:
            document.object_to(("listeners", index, "bind"), "needs at least one address")
    pools = data.get("pools")
    for name, pool in pools.items() if isinstance(pools, dict) else ():
        if isinstance(pool, dict) and not pool.get("servers") and not _brings_servers(pool):
            message = "needs at least one server" if "servers" in pool else "is required"
            document.object_to(("pools", name, "servers"), message)


def _brings_servers(pool: Mapping[str, Any]) -> bool:
    """Does something else than `servers` say who the servers are?"""
    dns = pool.get("dns")
    return "servers_file" in pool or "discovery" in pool or (isinstance(dns, dict) and "srv" in dns)


def _check_references(config: Config, data: Any, document: Document) -> None:
    pools = data.get("pools")
    known = [str(name) for name in pools] if isinstance(pools, dict) else []
    used: set[str] = set()
    for path, name in referenced_pools(config):
        used.add(name)
        is_share = "split" in path
        if is_share and path not in document.values:
            path = (*path[:-2], name)  # `split` in its short form
        if name not in known and not any(blamed in document.blamed for blamed in ((), ("pools",))):
            close = closest(name, known)
            hint = (
                f"did you mean {close}?" if close else "pools: " + ", ".join(known) if known else "there are no pools"
            )
            document.object_to(path, f"there is no pool {name}", hint, at_key=is_share)
    for name in known:
        if name not in used:
            document.warn(("pools", name), "no listener uses this pool", at_key=True)


def _check_listener_keys(config: Config, data: Any, document: Document) -> None:
    """Listener names are unique; what only HTTP has is pointless on a TCP listener; mode_bits needs a unix socket."""
    seen: dict[str, int] = {}
    for index, listener in enumerate(config.listeners):
        path: Path = ("listeners", index)
        raw = data["listeners"][index]
        if not isinstance(raw, dict):
            continue
        if listener.name and "name" in raw:
            first = seen.setdefault(listener.name, index)
            if first != index:
                document.object_to((*path, "name"), f"listeners[{first}] has this name too")
        if not listener.protocols:
            document.object_to((*path, "protocols"), "is empty", "h1, h2 or both")
        if "mode_bits" in raw and not any(address.is_unix for address in listener.bind):
            document.warn((*path, "mode_bits"), "has no effect: no bind is a unix socket", at_key=True)
        if listener.mode == "tcp":
            for inner in _present(raw, _HTTP_LISTENER_KEYS, _HTTP_LISTENER_TIMEOUTS, _HTTP_LISTENER_LIMITS):
                document.warn((*path, *inner), "has no effect on a TCP listener", at_key=True)


def _present(
    raw: Mapping[str, Any], keys: tuple[str, ...], timeouts: tuple[str, ...], limits: tuple[str, ...]
) -> Iterator[Path]:
    yield from ((name,) for name in keys if name in raw)
    for section, names in (("timeouts", timeouts), ("limits", limits)):
        if isinstance(raw.get(section), dict):
            yield from ((section, name) for name in names if name in raw[section])


def _check_servers(pool: Pool, raw: Any, path: Path, document: Document) -> None:
    """An address or a name stands once in a pool; weights make sense with the strategy."""
    items = raw.get("servers") if isinstance(raw, dict) else None
    ignoring = pool.strategy.name if pool.strategy.name in WEIGHTLESS else None
    seen: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items if isinstance(items, list) else []):
        place: Path = (*path, "servers", index)
        try:
            specs = expand_servers([ServerSpec.model_validate(item)])
        except ValidationError:
            continue
        clash = next(
            (
                (what, text, seen[what, text])
                for spec in specs
                for what, text in (("address", str(spec.address)), ("name", spec.name))
                if seen.setdefault((what, text), index) != index
            ),
            None,
        )
        if clash is not None:
            what, text, first = clash
            document.object_to(place, f"servers[{first}] has the {what} {text} too", "remove one of them")
        if ignoring and specs and specs[0].weight not in (0, 1):
            document.warn((*place, "weight"), f"the strategy {ignoring} ignores weights", "use weighted_round_robin")


def _check_queue(pool: Pool, raw: Any, path: Path, document: Document) -> None:
    """Who waits is refused at the end of the shorter time-out. The default of the queue's is nobody's mistake."""
    total, given = pool.timeouts.total, raw.get("queue") if isinstance(raw, dict) else None
    if total is not None and pool.queue.timeout > total and isinstance(given, dict) and "timeout" in given:
        document.warn((*path, "queue", "timeout"), f"is longer than `timeouts.total` ({total:g}s), which ends the wait")
    has_limit = pool.max_inflight is not None or any(server.max_inflight for server in pool.servers)
    if not has_limit and pool.servers_file is None and pool.discovery is None:
        for name, value in (("fair_by", pool.queue.fair_by), ("priority", pool.queue.priority)):
            if value is not None:
                document.warn(
                    (*path, "queue", name), "has no effect: without `max_inflight` nobody waits", "set max_inflight"
                )


def _check_dns(pool: Pool, raw: Any, path: Path, document: Document) -> None:
    """What concerns `srv` alone is pointless without it."""
    given = raw.get("dns") if isinstance(raw, dict) else None
    if not isinstance(given, dict) or pool.dns.srv is not None or "srv" in given:
        return
    for name in ("servers", "hold"):
        if name in given:
            document.warn((*path, "dns", name), "has no effect without `srv`", at_key=True)


def _check_discovery(pool: Pool, path: Path, document: Document) -> None:
    """It names one platform."""
    known = type(pool.discovery).model_fields if pool.discovery is not None else ()
    given = [name for name in known if getattr(pool.discovery, name) is not None]
    if pool.discovery is not None and len(given) != 1:
        what = f"names {' and '.join(given)}" if given else "names no platform"
        document.object_to((*path, "discovery"), what, f"write one of: {', '.join(known)}")
    check_aws(pool, path, document)
    platform = None if pool.discovery is None else pool.discovery.kubernetes
    if platform is not None and platform.zone != "auto" and not platform.prefer_zone:
        place = (*path, "discovery", "kubernetes", "zone")
        document.warn(place, "has no effect without `prefer_zone: true`", at_key=True)


def _check_health_check(spec: HealthCheck, raw: Any, path: Path, document: Document) -> None:
    """Keys fit the type of the check; the time-out fits the interval."""
    given = raw.get("health_check") if isinstance(raw, dict) else None
    if not isinstance(given, dict):
        return
    if spec.timeout > spec.interval:
        where = (*path, "timeout") if "timeout" in given else (*path, "interval")
        document.warn(where, f"the timeout ({spec.timeout:g}s) is longer than the interval ({spec.interval:g}s)")
    check_keys_of_check(spec, given, path, document)
    if spec.type == "grpc":
        return
    if spec.type == "tcp":
        for name in HTTP_CHECK_KEYS:
            if name in given:
                document.object_to((*path, name), "belongs to an HTTP check", "write `type: http`", at_key=True)
        expect = given.get("expect")
        for name in ("status", "body"):
            if isinstance(expect, dict) and name in expect:
                document.object_to(
                    (*path, "expect", name), "belongs to an HTTP check", "write `type: http`", at_key=True
                )
        return
    if "send" in given:
        document.object_to((*path, "send"), "belongs to a TCP check", "use `body`", at_key=True)
    if spec.expect.text is not None:
        document.object_to((*path, "expect"), "a text belongs to a TCP check", "write {status: ...} or {body: REGEX}")
