"""Servers are filled in their order."""

from __future__ import annotations

from tests.unit.domain.strategies.helpers import CTX, build, make_servers


def test_fills_one_after_the_other() -> None:
    servers = make_servers([1, 1, 1])
    for server in servers:
        server.max_inflight = 2
    strategy = build("first", servers)
    order = ""
    for _ in range(6):
        picked = strategy.pick(servers, CTX, 0.0)
        picked.inflight += 1
        order += picked.name
    assert order == "aabbcc"
    assert strategy.pick(servers, CTX, 0.0).name == "a", "the pool sees that it is full"
    servers[0].inflight = 1
    assert strategy.pick(servers, CTX, 0.0).name == "a"


def test_one_without_a_limit_gets_everything() -> None:
    servers = make_servers([1, 1], [1000, 0])
    assert build("first", servers).pick(servers, CTX, 0.0).name == "a"


def test_a_slot_that_was_given_up_is_used_after_those_of_others() -> None:
    servers = make_servers([1, 1])
    for server in servers:
        server.max_inflight = 1
    servers[0].quarantine_slot(60.0, 0.0)
    assert build("first", servers).pick(servers, CTX, 0.0).name == "b"
