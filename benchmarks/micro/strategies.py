"""One pick, by strategy and size of the pool, with all servers idle and with uneven load.

Of consistent_hash also what it has to do beyond that: weights, a bound to look at, a first choice that is full, down or
in another zone. Its keys differ from pick to pick, and come again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import count, cycle, islice

from benchmarks.micro.timing import Piece
from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.consistent import ConsistentHash, slot_of

_SIZES = (3, 30)
_HASHED_SIZES = (10, 100, 1000)
_HASHED_CASES = ("idle", "in flight", "first choice full", "first choice down", "first choice far")
_N_KEYS = 32


def pieces() -> Iterator[Piece]:
    for name in NAMES:
        for size in _SIZES:
            for load in ("idle", "uneven"):
                yield _pick(name, size, load)
    for size in _HASHED_SIZES:
        for weights in ("even", "weights"):
            for case in _HASHED_CASES:
                yield _hashed(size, weights, case)


def _pick(name: str, size: int, load: str) -> Piece:
    servers = tuple(Server(f"s{i}", Address("127.0.0.1", 5001 + i)) for i in range(size))
    if load == "uneven":
        for i, server in enumerate(servers):
            server.inflight = i * 7 % 5
    strategy = create(name, {}, random.Random(1))
    strategy.rebuild(servers)
    ctx = PickContext("192.0.2.7", key=b"192.0.2.7" if strategy.hash_on else b"")
    return Piece(f"pick: {name}, {size} servers, {load}", lambda: strategy.pick(servers, ctx, 1.0))


def _hashed(size: int, weights: str, case: str) -> Piece:
    """Keys whose first choices are the first tenth of the servers; these are full, or down, where the case says so."""
    servers = _servers(size, weights)
    strategy = _hashing(servers)
    contexts = [PickContext("192.0.2.7", key=key) for key in _keys(size, weights)]
    first = servers[: size // 10]
    if case != "idle":
        for server in servers:
            server.inflight = 2
    eligible = servers
    if case == "first choice full":
        for server in first:
            server.max_inflight = 2
    elif case != "in flight" and case != "idle":
        for server in first:
            server.far = case == "first choice far"
        eligible = servers[size // 10 :]
    for ctx in contexts:  # what is worked out once has been
        strategy.pick(eligible, ctx, 1.0)
    turns = cycle(contexts)
    return Piece(
        f"pick: consistent_hash, {size} servers, {weights}, {case}", lambda: strategy.pick(eligible, next(turns), 1.0)
    )


def _servers(size: int, weights: str) -> tuple[Server, ...]:
    return tuple(
        Server(f"s{i}", Address("127.0.0.1", 5001 + i), weight=1 + i % 4 if weights == "weights" else 1)
        for i in range(size)
    )


def _hashing(servers: tuple[Server, ...]) -> ConsistentHash:
    strategy = ConsistentHash({"key": "path", "bounded_load": 1.25}, random.Random(1))
    strategy.rebuild(servers)
    return strategy


@cache
def _keys(size: int, weights: str) -> tuple[bytes, ...]:
    """Of the first tenth of the servers."""
    servers = _servers(size, weights)
    strategy = _hashing(servers)
    first = frozenset(servers[: size // 10])
    keys = (b"key-%d" % number for number in count())
    return tuple(islice((key for key in keys if strategy.owner(slot_of(key)) in first), _N_KEYS))
