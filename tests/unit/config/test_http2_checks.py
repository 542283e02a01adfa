"""HTTP/2 and gRPC towards servers: keys that need or exclude each other, and the kinds of checks."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import ConfigError, load_text
from lbproxy.config.pool_model import HealthCheck, Pool


def pool_text(keys: str, mode: str = "http") -> str:
    return (
        f"listeners: [{{bind: ':1', mode: {mode}, pool: p}}]\npools:\n  p:\n    servers: ['127.0.0.1:2']\n    {keys}\n"
    )


def load(keys: str, mode: str = "http") -> tuple[Pool, list[str]]:
    loaded = load_text(pool_text(keys, mode), "lb.yaml", {})
    return loaded.config.pools["p"], [str(warning) for warning in loaded.warnings]


@pytest.mark.parametrize("keys", ["protocol: h1", "protocol: h2", "{protocol: auto, tls: true}"])
def test_what_is_right(keys: str) -> None:
    found = load(keys.strip("{}").replace(", ", "\n    "))
    assert found[0].protocol in keys and found[1] == []


def test_the_default_is_http1() -> None:
    found = load("max_inflight: off")[0]
    assert found.protocol == "h1" and found.keep_alive is not None and found.keep_alive.ping == 30.0


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ("protocol: auto", "5:15", "needs `tls`: only there do both sides say what they speak (ALPN)"),
        ("protocol: h2\n    keep_alive: off", "5:15", "requests share connections in HTTP/2"),
        ("protocol: h2\n    proxy_protocol: v1", "6:21", "a PROXY header speaks for one client"),
        ("protocol: h3", "5:15", ""),
        ("health_check: {type: grpc, path: /x}", "5:32", "belongs to an HTTP check"),
        ("health_check: {type: grpc, send: x}", "5:32", "belongs to a TCP check"),
        ("health_check: {type: http, service: x}", "5:32", "belongs to a gRPC check"),
        ("retry: {grpc: [sometimes]}", "5:", ""),
    ],
)
def test_what_is_refused(keys: str, place: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(keys)
    assert f"lb.yaml:{place}" in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "mode", "message"),
    [
        ("keep_alive: {ping: 5s}", "http", "has no effect: HTTP/1 has no PING"),
        ("health_check: grpc", "http", "asks servers of gRPC, but calls to this pool are refused"),
        ("retry: {grpc: [unavailable]}", "http", "refuses calls of gRPC; add `protocol: h2`"),
        ("protocol: h2", "tcp", "has no effect in TCP mode"),
        ("protocol: h2\n    lenient: true", "http", "has no lines to be lenient about"),
    ],
)
def test_what_is_hardly_meant(keys: str, mode: str, message: str) -> None:
    assert [message in warning for warning in load(keys, mode)[1]] == [True]


@pytest.mark.parametrize(
    ("keys", "mode"), [("health_check: grpc", "tcp"), ("protocol: h2\n    health_check: grpc", "http")]
)
def test_servers_of_grpc_where_calls_reach_them(keys: str, mode: str) -> None:
    assert load(keys, mode)[1] == []


@pytest.mark.parametrize(
    ("written", "kind", "service"),
    [
        ("grpc", "grpc", None),
        ("{service: my.Service}", "grpc", "my.Service"),
        ("{type: grpc}", "grpc", None),
        ("{path: /health}", "http", None),
        ("tcp", "tcp", None),
    ],
)
def test_how_a_check_may_be_written(written: str, kind: str, service: str | None) -> None:
    check = load(f"health_check: {written}")[0].health_check
    assert isinstance(check, HealthCheck) and (check.type, check.service) == (kind, service)


def test_retries_of_calls() -> None:
    assert load("retry: {grpc: [unavailable, aborted]}")[0].retry.grpc == ("unavailable", "aborted")
