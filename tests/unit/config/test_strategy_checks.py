"""Which strategies suit which pools. Whole sentences stand in refused.txt; here is what is accepted, and warned of."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.strategy_checks import OPTIONS
from lbproxy.domain.strategies.consistent import ConsistentHash


def warned(strategy: str, more: str = "", mode: str = "http") -> list[str]:
    text = (
        f"listeners: [{{bind: ':1', pool: p, mode: {mode}}}]\n"
        f"pools:\n  p: {{servers: ['a:1', 'b:1'], strategy: {strategy}{more}}}\n"
    )
    return [f"{problem.path}: {problem.message}" for problem in load_text(text, "lb.yaml", {}).warnings]


@pytest.mark.parametrize(
    "key", ["client_ip", "header:X-A", "cookie:a", "query:a", "path", "host", "json:/a/0", '"json:/"']
)
@pytest.mark.parametrize("bound", ["1", "1.25", "100", "off"])
def test_what_consistent_hash_takes(key: str, bound: str) -> None:
    assert warned(f"{{name: consistent_hash, key: {key}, bounded_load: {bound}}}") == []
    assert warned("consistent_hash") == []


def test_the_options_are_those_of_the_strategy() -> None:
    assert OPTIONS["consistent_hash"] == ConsistentHash.OPTIONS


def test_first_needs_a_limit() -> None:
    assert warned("first") == [
        "pools.p.strategy: fills servers up to `max_inflight`, which is off: one without it gets everything"
    ]
    assert warned("first", ", max_inflight: 4") == []


def test_tcp_has_nothing_but_an_address() -> None:
    assert warned("{name: consistent_hash, key: 'header:X-A'}", mode="tcp") == [
        "pools.p.strategy.key: TCP connections have no header: they go by least connections"
    ]
    assert warned("consistent_hash", mode="tcp") == []
