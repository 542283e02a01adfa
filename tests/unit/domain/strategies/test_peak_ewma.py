"""Peak EWMA prefers the server that will answer first, and does not forget a new one."""

from __future__ import annotations

import random
from collections import Counter

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext


def servers(count: int) -> list[Server]:
    return [Server(f"s{number}", Address("127.0.0.1", number + 1)) for number in range(count)]


def test_the_slow_server_gets_less() -> None:
    fast, slow = members = servers(2)
    strategy = create("peak_ewma", {}, random.Random(7))
    strategy.rebuild(members)
    fast.observe_latency(0.010, 0.0)
    slow.observe_latency(0.100, 0.0)
    picks = Counter(strategy.pick(members, PickContext("c"), 0.1).name for _ in range(100))
    assert picks[fast.name] > picks[slow.name]


def test_load_outweighs_latency() -> None:
    fast, slow = members = servers(2)
    strategy = create("peak_ewma", {}, random.Random(7))
    strategy.rebuild(members)
    fast.observe_latency(0.010, 0.0)
    slow.observe_latency(0.020, 0.0)
    fast.inflight = 10
    assert strategy.pick(members, PickContext("c"), 0.1) is slow


def test_one_server_is_always_picked() -> None:
    members = servers(1)
    strategy = create("peak_ewma", {}, random.Random(7))
    strategy.rebuild(members)
    assert strategy.pick(members, PickContext("c"), 0.0) is members[0]
