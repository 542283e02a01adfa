"""What readers of events cost once a second, all of them together: a pool of 100 servers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from benchmarks.micro.timing import Piece
from lbproxy.address import parse_address
from lbproxy.control.changes import Changes
from lbproxy.control.metrics import Registry
from lbproxy.control.rates import Meter
from lbproxy.control.status import StatusSource
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.telemetry.slots import POOL, SERVER, Slots

N_SERVERS = 100


class _Busy:
    """The pool; each of its servers is at another request every time."""

    def __init__(self) -> None:
        strategy, slots = LeastConnections({}, random.Random(1)), Slots()
        names = [f"10.0.0.{number}:5001" for number in range(N_SERVERS)]
        self.pool = Pool("p", [Server(name, parse_address(name), max_inflight=4) for name in names], strategy, strategy)
        registry = Registry("benchmark", {"p": self.pool})
        registry.add(POOL, ("p",), slots.allocate(POOL))
        for name in names:
            registry.add(SERVER, ("p", name), slots.allocate(SERVER))
        self.meter = Meter(registry)
        self.source = StatusSource("benchmark", 0.0, registry.pools, {"p": "least_connections"})
        self.changes = Changes()
        self.now = 100.0
        self.changes.take(self.source.build("running", None, self.now))

    def snapshot(self) -> None:
        self.source.build("running", None, self.now)

    def point(self) -> None:
        self.now += 5.0
        self.meter.tick(self.now, self.now, is_watched=False)

    def changed(self) -> None:
        number = self.changes.number
        for server in self.pool.servers:
            server.requests += 1
        self.changes.take(self.source.build("running", None, self.now))
        json.dumps(self.changes.since(number))

    def rates(self) -> None:
        self.now += 1.0
        json.dumps(self.meter.rates(self.now, self.now))


def pieces() -> Iterator[Piece]:
    busy = _Busy()
    yield Piece(f"events, {N_SERVERS} servers: the snapshot", busy.snapshot)
    yield Piece(f"events, {N_SERVERS} servers: snapshot, comparison and message, all changed", busy.changed)
    yield Piece(f"events, {N_SERVERS} servers: rates", busy.rates)
    yield Piece(f"events, {N_SERVERS} servers: a point of the history", busy.point)
