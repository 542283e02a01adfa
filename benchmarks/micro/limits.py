"""Whether a request is let through: by buckets of one process, by those that workers share, and by those of a fleet, of
which a key is known, or has to be asked for (without the way to Redis and back)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.micro.timing import Piece
from lbproxy.control.fleet.buckets import FleetBuckets, Known
from lbproxy.control.fleet.link import command
from lbproxy.dataplane.exchange.admission import Admission
from lbproxy.dataplane.guard import Check, Limit
from lbproxy.domain.buckets import N_CELLS, Buckets, own_buckets
from lbproxy.errors import RATE_LIMITED
from lbproxy.request_key import read_key
from lbproxy.shared.mutex import MUTEX_CELLS, Mutex
from lbproxy.shared.segment import Segment
from lbproxy.telemetry.slots import LIMIT

BATCH: Final = 6  # keys: what 3000 requests a second, each of another key, bring in 2 ms


class _NoLine:
    def wake(self) -> None:
        """Nobody is asked."""

    def later(self, delay_s: float, callback: Callable[[list[Known]], None], batch: list[Known]) -> object:
        """Never."""
        return None


def pieces() -> Iterator[Piece]:
    own, shared = own_buckets(), _shared()
    for name, buckets in (("own buckets", own), ("buckets of all workers", shared)):
        checks = (Check(_limit(buckets), b""),)
        yield Piece(f"limits: {name}, a client that comes again", _one_client(checks))
        yield Piece(f"limits: {name}, another client each time", _many_clients(checks))
    fleet = FleetBuckets(_NoLine(), 0.005, time.monotonic)
    fleet.up()
    limit = _limit(own)
    yield Piece(f"limits: the fleet is asked, {BATCH} keys in a batch, each", _asked(fleet, limit))


def _limit(buckets: Buckets) -> Limit:
    row = [0] * LIMIT.width
    return Limit("l", read_key("client_ip"), None, 1000, 1_000_000, buckets, RATE_LIMITED, row)


def _shared() -> Buckets:
    cells = Segment(MUTEX_CELLS + N_CELLS).cells
    mutex = Mutex(cells, 0, lambda: None)
    mutex.create()
    return Buckets(cells, MUTEX_CELLS, mutex)


def _done() -> None:
    raise AssertionError("nobody was asked")


def _one_client(checks: tuple[Check, ...]) -> Callable[[], object]:
    return lambda: Admission(checks, "192.0.2.1", time.monotonic).ask(_done)


def _many_clients(checks: tuple[Check, ...]) -> Callable[[], object]:
    clients = itertools.cycle([f"10.{n >> 8}.{n & 255}.1" for n in range(50_000)])
    return lambda: Admission(checks, next(clients), time.monotonic).ask(_done)


def _asked(fleet: FleetBuckets, limit: Limit) -> Callable[[], object]:
    """One of BATCH keys: the others are paid for by their own calls."""
    keys = itertools.count()

    def ask() -> None:
        number = next(keys)
        fleet.take(limit, b"%d" % number, lambda wait: None)
        if number % BATCH == BATCH - 1:
            command(b"x" * 40, fleet.next_batch())
            fleet.heard([1, 0] * BATCH)

    return ask
