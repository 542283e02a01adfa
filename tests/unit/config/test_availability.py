"""What is not built yet is refused, key by key, and what is not listed is accepted."""

from __future__ import annotations

import pytest

from lbproxy.config.availability import UNAVAILABLE_KEYS, matching
from lbproxy.config.loader import ConfigError, load_text
from lbproxy.config.sections import section_at


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_text(text, "lb.yaml", {})
    assert all(problem.message.endswith("not available in this version") for problem in raised.value.problems)
    return [problem.path for problem in raised.value.problems]


def test_every_line_of_the_tables_is_told_apart_from_what_there_is() -> None:
    data = {"pools": {"p": {"a": [{"b": "x"}], "c": "y"}, "q": {"a": [{"b": "z"}]}}}
    assert [path for path, _ in matching(data, ("pools", "*", "a", "*", "b"))] == [
        ("pools", "p", "a", 0, "b"),
        ("pools", "q", "a", 0, "b"),
    ]
    assert list(matching(data, ("pools", "*", "c"))) == [(("pools", "p", "c"), "y")]
    assert list(matching(data, ("listeners", "*"))) == []


@pytest.mark.parametrize(("workers", "count"), [("1", 1), ("2", 2), ("1024", 1024), ("auto", 0)])
def test_any_number_of_workers_is_available(workers: str, count: int) -> None:
    text = f"workers: {workers}\nlisteners: [{{bind: ':1', pool: p}}]\npools: {{p: {{servers: ['a:1']}}}}\n"
    assert load_text(text, "lb.yaml", {}).config.workers == count


def test_the_table_names_keys_that_exist() -> None:
    for line in UNAVAILABLE_KEYS:
        where, _, name = line.rpartition(".")
        section = section_at(tuple(where.split(".")))
        assert section is not None, line
        assert name in section.model_fields, line


def test_what_left_the_table_is_accepted() -> None:
    text = """\
listeners:
  - bind: ':1'
    limits: {min_rate: 1KiB}
    proxy_protocol: off
    routes:
      - pool: p
        timeouts: {total: 5s}
        retry: {status: [503], idempotency_key: true, trust_retry_after: true, on: [timeout]}
pools:
  p:
    servers: [{address: 'a:1', max_inflight: 4, backup: true}, 'b:1']
    max_inflight: 2
    queue: {size: 5, timeout: 1s, order: fifo}
    circuit_breaker: off
    proxy_protocol: v2
    keep_alive: off
    slow_start: 5s
    timeouts: {total: 9s}
    health_check: {busy_window: 5s}
    retry: {status: [503], on: [timeout], budget: {ratio: 0.1, min: 1}, backoff: {base: 0s, max: 1s}}
    strategy: {name: consistent_hash, key: "json:/model", bounded_load: 1.5}
    sticky: {cookie: c, secret: 0123456789abcdef}
"""
    loaded = load_text(text, "lb.yaml", {})
    assert loaded.warnings == ()
    made, route = loaded.config.pools["p"], loaded.config.listeners[0].routes[0]
    assert [(server.max_inflight, server.backup) for server in made.servers] == [(4, True), (None, False)]
    assert (made.max_inflight, made.queue.size, made.queue.timeout, made.queue.order) == (2, 5, 1.0, "fifo")
    assert (made.circuit_breaker, made.slow_start, made.strategy.name) == (None, 5.0, "consistent_hash")
    assert (made.proxy_protocol, loaded.config.listeners[0].proxy_protocol) == ("v2", "off")
    assert (made.timeouts.total, made.retry.on, made.retry.status) == (9.0, ("timeout",), (503,))
    assert (made.retry.budget.ratio, made.retry.budget.min) == (0.1, 1)
    assert (made.retry.backoff.base, made.retry.backoff.max) == (0.0, 1.0)
    assert made.health_check is not None and made.health_check.busy_window == 5.0
    assert loaded.config.listeners[0].limits.min_rate == 1024
    assert route.timeouts is not None and route.timeouts.total == 5.0
    assert route.retry is not None
    assert (route.retry.status, route.retry.on) == ((503,), ("timeout",))
    assert (route.retry.idempotency_key, route.retry.trust_retry_after) == (True, True)
