"""Models of a pool, read one by one: the short forms, the bounds, and what `off` is."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from lbproxy.config.pool_model import (
    CircuitBreaker,
    Dns,
    Expect,
    HealthCheck,
    KeepAlive,
    Pool,
    PoolLimits,
    PoolTimeouts,
    PoolTls,
    Queue,
    Retry,
    RetryBackoff,
    RetryBudget,
    Sticky,
    expand_health_check,
    parse_status_ranges,
)
from lbproxy.config.server_model import StrategySpec


def pool(**written: object) -> Pool:
    return Pool.model_validate({"servers": ["a:1"], **written})


def refused_at(section: type[BaseModel], written: dict[str, object]) -> list[tuple[int | str, ...]]:
    with pytest.raises(ValidationError) as raised:
        section.model_validate(written)
    return [error["loc"] for error in raised.value.errors()]


@pytest.mark.parametrize(
    ("written", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-399", ((200, 399),)),
        ("200-200", ((200, 200),)),
        (" 200 - 204 , 304 ", ((200, 204), (304, 304))),
        ("304,200-204", ((304, 304), (200, 204))),
        ("100-599", ((100, 599),)),
        (["200", "300-304"], ((200, 200), (300, 304))),
        (("503",), ((503, 503),)),
    ],
    ids=str,
)
def test_statuses_are_ranges_with_both_ends(written: object, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_status_ranges(written) == ranges


@pytest.mark.parametrize(
    "written",
    [
        "399-200",
        "99",
        "099",
        "600",
        "200-600",
        "2xx",
        "",
        "200,",
        "200-",
        "-200",
        "200-300-400",
        "2000",
        True,
        [""],
        {},
    ],
    ids=str,
)
def test_what_is_no_status_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_status_ranges(written)


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("off", None),
        ("tcp", {"type": "tcp"}),
        ("/", {"type": "http", "path": "/"}),
        ("/health?full=1", {"type": "http", "path": "/health?full=1"}),
        ({"type": "http"}, {"type": "http"}),
        (7, 7),
    ],
    ids=str,
)
def test_short_forms_of_a_health_check(written: object, expanded: object) -> None:
    assert expand_health_check(written) == expanded


@pytest.mark.parametrize("written", ["health", "http", "", "Off"])
def test_a_health_check_that_is_neither_word_nor_path(written: str) -> None:
    with pytest.raises(ValueError, match="expected off, tcp, grpc, a path"):
        expand_health_check(written)


def test_a_pool_takes_the_short_forms() -> None:
    assert pool(health_check="off").health_check is None
    assert pool(health_check="tcp").health_check == pool().health_check == HealthCheck()
    assert pool(health_check="/up").health_check == HealthCheck(type="http", path="/up")
    assert refused_at(Pool, {"servers": ["a:1"], "health_check": "/a b"}) == [("health_check", "path")]
    assert pool(strategy="random").strategy == StrategySpec(name="random")
    assert pool(retry="off").retry == Retry(attempts=0)
    assert pool(keep_alive="off").keep_alive is None
    assert pool(circuit_breaker="off").circuit_breaker is None
    assert pool(sticky="off").sticky is None
    assert pool(tls=True).tls == pool(tls={}).tls == PoolTls()
    assert pool(tls="off").tls is None
    for written in ("off", False):
        made = pool(health_check=written, retry=written, keep_alive=written, circuit_breaker=written, tls=written)
        assert (made.health_check, made.retry.attempts, made.keep_alive, made.circuit_breaker, made.tls) == (
            (None, 0, None, None, None)
        )
        assert pool(proxy_protocol=written, max_inflight=written, fail_open=written) == pool(
            proxy_protocol="off", max_inflight="off", fail_open="off"
        )
        assert pool(retry={"unacked": written}).retry.unacked == "off"
    assert pool(retry={"unacked": True}).retry.unacked == "on"


@pytest.mark.parametrize("check", [{"path": "/h"}, {"host": "a"}, {"expect": {"status": "200"}}, {"method": "HEAD"}])
def test_a_check_with_what_only_http_has_is_one(check: dict[str, object]) -> None:
    made = pool(health_check=check).health_check
    assert made is not None
    assert made.type == "http"
    assert pool(health_check={"interval": "5s", "expect": {"text": "x"}}).health_check.type == "tcp"  # type: ignore[union-attr]
    for key in ("keep_alive", "circuit_breaker", "retry", "sticky"):
        assert refused_at(Pool, {"servers": ["a:1"], key: True}) == [(key,)]


def test_the_expectation_of_a_tcp_check_is_a_text() -> None:
    made = HealthCheck.model_validate({"send": "PING\n", "expect": "PONG"})
    assert (made.send, made.expect.text, made.expect.body) == ("PING\n", "PONG", None)
    assert HealthCheck().expect == Expect()
    assert (Expect().status, Expect().text) == (((200, 399),), None)
    assert refused_at(HealthCheck, {"expect": True}) == [("expect",)]
    assert refused_at(HealthCheck, {"expect": {"body": "["}}) == [("expect", "body")]


@pytest.mark.parametrize(
    ("section", "key", "lowest", "highest"),
    [
        (HealthCheck, "port", 1, 65535),
        (HealthCheck, "rise", 1, 100),
        (HealthCheck, "fall", 1, 100),
        (Retry, "attempts", 0, 10),
        (RetryBudget, "min", 0, 1000),
        (Queue, "size", 0, 1_000_000),
        (CircuitBreaker, "failures", 1, 1_000_000),
        (CircuitBreaker, "probes", 1, 100),
        (KeepAlive, "idle", 1, 65535),
        (KeepAlive, "max_requests", 1, 1_000_000),
        (PoolLimits, "headers", 1, 10_000),
        (PoolLimits, "interim_responses", 1, 1000),
    ],
)
def test_whole_numbers_have_a_range(section: type[BaseModel], key: str, lowest: int, highest: int) -> None:
    for number in (lowest, highest):
        assert getattr(section.model_validate({key: number}), key) == number
    for wrong in (lowest - 1, highest + 1, float(lowest), True, str(lowest)):
        assert refused_at(section, {key: wrong}) == [(key,)]


@pytest.mark.parametrize(
    ("section", "key"),
    [(RetryBudget, "ratio"), (CircuitBreaker, "error_rate"), (CircuitBreaker, "max_ejected")],
)
def test_shares_are_from_0_to_1(section: type[BaseModel], key: str) -> None:
    for share in (0, 0.25, 1):
        assert getattr(section.model_validate({key: share}), key) == share
    for wrong in (-0.1, 1.1, 50, "off", True):
        assert refused_at(section, {key: wrong}) == [(key,)]


def test_fail_open_is_a_share_or_off() -> None:
    assert [pool(fail_open=value).fail_open for value in ("off", 0, 0.5, 1)] == [None, 0.0, 0.5, 1.0]
    assert pool().fail_open == 0.0
    assert refused_at(Pool, {"servers": ["a:1"], "fail_open": 2}) == [("fail_open",)]


@pytest.mark.parametrize(
    ("section", "key", "zero", "off"),
    [
        (Dns, "interval", False, False),
        (HealthCheck, "interval", False, False),
        (HealthCheck, "timeout", False, False),
        (RetryBackoff, "base", True, False),
        (RetryBackoff, "max", True, False),
        (Queue, "timeout", False, False),
        (CircuitBreaker, "window", False, False),
        (KeepAlive, "idle_timeout", False, False),
        (KeepAlive, "max_age", False, True),
        (PoolTimeouts, "total", False, True),
        *((PoolTimeouts, key, False, False) for key in PoolTimeouts.model_fields if key != "total"),
    ],
)
def test_durations(section: type[BaseModel], key: str, zero: bool, off: bool) -> None:
    assert getattr(section.model_validate({key: "1500ms"}), key) == 1.5
    for written, is_legal, read in (("0s", zero, 0.0), ("off", off, None)):
        if is_legal:
            assert getattr(section.model_validate({key: written}), key) == read
        else:
            assert refused_at(section, {key: written}) == [(key,)]


def test_statuses_of_retries_and_of_the_breaker() -> None:
    assert Retry.model_validate({"status": [100, 503, 599]}).status == (100, 503, 599)
    assert CircuitBreaker().status == (502, 503, 504)
    for section in (Retry, CircuitBreaker):
        assert refused_at(section, {"status": [99, 500, 600]}) == [("status", 0), ("status", 2)]


def test_a_kept_body_may_be_none() -> None:
    assert Retry.model_validate({"body_bytes": 0}).body_bytes == 0
    assert refused_at(PoolLimits, {"head_bytes": 0}) == [("head_bytes",)]


def test_servers_are_expanded_and_named() -> None:
    made = pool(servers=["a:1-3", {"address": "b:1", "name": "x", "weight": 0}])
    assert [server.name for server in made.servers] == ["a:1", "a:2", "a:3", "x"]
    assert [server.weight for server in made.servers] == [1, 1, 1, 0]
    assert refused_at(Pool, {"servers": ["a:1", "b"]})[0][:2] == ("servers", 1)


def test_a_cookie_needs_its_name() -> None:
    assert refused_at(Sticky, {"secret": "s"}) == [("cookie",)]
    made = Sticky.model_validate({"cookie": "c"})
    assert (made.path, made.same_site, made.secure, made.max_age) == ("/", "lax", "auto", None)


def test_sections_of_two_pools_are_equal_but_cannot_be_changed() -> None:
    one, other = pool(), pool()
    assert one == other
    with pytest.raises(ValidationError, match="frozen"):
        one.timeouts.read = 1.0
    assert other.timeouts.read == 60.0


def test_srv_names_and_resolvers() -> None:
    made = pool(dns={"srv": "_Predict._tcp.example.org.", "servers": ["10.0.0.53", "[fd00::53]:5353", "fd00::1"]}).dns
    assert made.srv == "_predict._tcp.example.org.", "its last dot says that it is complete"
    assert list(map(str, made.servers)) == ["10.0.0.53:53", "[fd00::53]:5353", "[fd00::1]:53"]
    assert (made.interval, made.hold) == (5.0, 300.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"srv": "_p._tcp.example.org:80"}, "write _p._tcp.example.org without one"),
        ({"srv": "a b"}, "expected a name such as _predict._tcp.example.org"),
        ({"srv": f"{'a' * 64}.org"}, "expected a name such as"),
        ({"servers": ["resolver.example"]}, "has no port"),
        ({"servers": ["resolver.example:53"]}, "expected the IP address of a resolver"),
        ({"servers": ["10.0.0.1:0"]}, "expected the IP address of a resolver"),
        ({"servers": ["unix:/run/dns"]}, "expected the IP address of a resolver"),
        ({"hold": "off"}, "cannot be off; write 0s"),
    ],
)
def test_what_dns_does_not_take(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        pool(dns=given)
    assert told in str(raised.value)
