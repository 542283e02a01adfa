"""Servers, contexts and tallies for the tests of strategies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext, Strategy

CTX = PickContext("192.0.2.1")


def make_servers(weights: Sequence[int], inflight: Sequence[int] = ()) -> tuple[Server, ...]:
    """Servers a, b, c, ... on 10.0.0.1:5001, 5002, ..."""
    servers = tuple(
        Server(chr(ord("a") + i), Address("10.0.0.1", 5001 + i), weight=weight) for i, weight in enumerate(weights)
    )
    for server, n in zip(servers, inflight, strict=False):
        server.inflight = n
    return servers


def build(name: str, servers: Sequence[Server], seed: int = 1) -> Strategy:
    strategy = create(name, {}, random.Random(seed))
    strategy.rebuild(servers)
    return strategy


def picks(strategy: Strategy, eligible: Sequence[Server], n: int, ctx: PickContext = CTX) -> str:
    """The names of n picks in a row, as one word."""
    return "".join(strategy.pick(eligible, ctx, 0.0).name for _ in range(n))


def shares(strategy: Strategy, eligible: Sequence[Server], n: int, ctx: PickContext = CTX) -> Counter[str]:
    return Counter(picks(strategy, eligible, n, ctx))


def client(number: int) -> PickContext:
    """A client of its own for every number below 2**24."""
    return PickContext(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")


def chi_square(observed: Sequence[float], expected: Sequence[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))
