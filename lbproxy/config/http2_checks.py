"""HTTP/2 and gRPC towards servers: keys that need or exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lbproxy.config.model import Config, HealthCheck
from lbproxy.config.pool_model import HTTP_CHECK_KEYS, Pool
from lbproxy.config.problems import Path
from lbproxy.config.source import Document

_NOT_GRPC: Final = (*HTTP_CHECK_KEYS, "expect", "send")


def check_http2(config: Config, data: Any, document: Document) -> None:
    """What fits a pool's `protocol`, and what does not."""
    in_tcp_mode = {
        route.pool for listener in config.listeners if listener.mode == "tcp" for route in listener.effective_routes()
    }
    for name, pool in config.pools.items():
        raw, path = data["pools"][name], ("pools", name)
        if not isinstance(raw, Mapping):
            continue
        if name in in_tcp_mode and "protocol" in raw:
            document.warn((*path, "protocol"), "has no effect in TCP mode, which passes on what comes", at_key=True)
        if pool.protocol == "h1":
            given = raw.get("keep_alive")
            if isinstance(given, Mapping) and "ping" in given:
                message = "has no effect: HTTP/1 has no PING"
                document.warn((*path, "keep_alive", "ping"), message, "write `protocol: h2`", at_key=True)
            if name not in in_tcp_mode:
                _check_calls(pool, raw, path, document)
        else:
            _check_shared(pool, raw, path, document)


def _check_calls(pool: Pool, raw: Mapping[str, Any], path: Path, document: Document) -> None:
    """Of a pool whose servers get no calls of gRPC: keys that say that they are servers of gRPC."""
    if pool.health_check is not None and pool.health_check.type == "grpc":
        message = "asks servers of gRPC, but calls to this pool are refused: it speaks HTTP/1.1 to them"
        document.warn((*path, "health_check"), message, "add `protocol: h2`", at_key=True)
    given = raw.get("retry")
    if isinstance(given, Mapping) and "grpc" in given:
        message = "has no effect: a pool that speaks HTTP/1.1 to its servers refuses calls of gRPC"
        document.warn((*path, "retry", "grpc"), message, "add `protocol: h2`", at_key=True)


def _check_shared(pool: Pool, raw: Mapping[str, Any], path: Path, document: Document) -> None:
    """Of a pool whose requests share connections."""
    place: Path = (*path, "protocol")
    if pool.protocol == "auto" and pool.tls is None:
        message = "needs `tls`: only there do both sides say what they speak (ALPN)"
        document.object_to(place, message, "write h1 or h2, or add `tls`")
    if pool.keep_alive is None:
        message = "requests share connections in HTTP/2, but `keep_alive: off` gives each its own"
        document.object_to(place, message, "remove `keep_alive: off`")
    elif pool.proxy_protocol != "off":
        message = "a PROXY header speaks for one client, but connections of HTTP/2 serve many"
        document.object_to((*path, "proxy_protocol"), message, "write `protocol: h1`")
    if pool.protocol == "h2" and raw.get("lenient") is True:
        document.warn((*path, "lenient"), "has no effect: HTTP/2 has no lines to be lenient about", at_key=True)


def check_keys_of_check(spec: HealthCheck, given: Mapping[str, Any], path: Path, document: Document) -> None:
    """`service` belongs to a gRPC check, which has nothing that the others have."""
    if spec.type != "grpc":
        if "service" in given:
            document.object_to((*path, "service"), "belongs to a gRPC check", "write `type: grpc`", at_key=True)
        return
    for name in _NOT_GRPC:
        if name in given:
            message = "belongs to a TCP check" if name == "send" else "belongs to an HTTP check"
            document.object_to((*path, name), message, "a gRPC check has `service`", at_key=True)
