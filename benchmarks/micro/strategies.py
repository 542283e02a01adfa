"""One pick, by strategy and size of the pool, with all servers idle and with uneven load."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks.micro.timing import Piece
from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import NAMES, create
from lbproxy.domain.strategies.base import PickContext

_SIZES = (3, 30)


def pieces() -> Iterator[Piece]:
    for name in NAMES:
        for size in _SIZES:
            for load in ("idle", "uneven"):
                yield _pick(name, size, load)


def _pick(name: str, size: int, load: str) -> Piece:
    servers = tuple(Server(f"s{i}", Address("127.0.0.1", 5001 + i)) for i in range(size))
    if load == "uneven":
        for i, server in enumerate(servers):
            server.inflight = i * 7 % 5
    strategy = create(name, {}, random.Random(1))
    strategy.rebuild(servers)
    ctx = PickContext("192.0.2.7", key=b"192.0.2.7" if strategy.hash_on else b"")
    return Piece(f"pick: {name}, {size} servers, {load}", lambda: strategy.pick(servers, ctx, 1.0))
