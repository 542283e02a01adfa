"""A slot taken and given back: with books of its own, and with books that workers share, under a limit and without.

Beside it what that is made of: a cell of shared memory, the lock, and the locks that it was chosen from.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import random
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.micro.timing import Piece
from lbproxy.address import Address
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext, Strategy
from lbproxy.shared.mutex import MUTEX_CELLS, Mutex
from lbproxy.shared.segment import Segment

N_SERVERS: Final = 4
N_WORKERS: Final = 4
CTX: Final = PickContext("192.0.2.1")


def pieces() -> Iterator[Piece]:
    for limit in (0, 4):
        said = f"{N_SERVERS} servers, {'slots' if limit else 'no limit'}"
        yield Piece(f"books: own, {said}", _round(Pool("p", *_parts(limit))))
        yield Piece(f"books: shared by {N_WORKERS} workers, {said}", _round(_shared(limit)))
    cells = Segment(2).cells

    def count() -> None:
        cells[1] += 1

    yield Piece("books: a shared cell read and written", count)
    yield Piece("mutex: robust, taken and let go", _locking(*_mutex()))
    lock = multiprocessing.get_context("fork").Lock()
    yield Piece("mutex: the semaphore of multiprocessing", _locking(lock.acquire, lock.release))
    file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the piece)
    flock = _locking(lambda: fcntl.flock(file, fcntl.LOCK_EX), lambda: fcntl.flock(file, fcntl.LOCK_UN))
    weakref.finalize(flock, file.close)
    yield Piece("mutex: flock", flock)


def _locking(take: Callable[[], object], let_go: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        take()
        let_go()

    return both


def _mutex() -> tuple[Callable[[], object], Callable[[], object]]:
    mutex = Mutex(Segment(MUTEX_CELLS).cells, 0, lambda: None)
    mutex.create()
    return mutex.enter, mutex.leave


def _parts(limit: int) -> tuple[list[Server], Strategy, Strategy]:
    servers = [Server(f"s{i}", Address("127.0.0.1", 5001 + i), max_inflight=limit) for i in range(N_SERVERS)]
    rng = random.Random(1)
    return servers, create("least_connections", {}, rng), create("random", {}, rng)


def _shared(limit: int) -> Pool:
    pool = SharedPool("p", *_parts(limit))
    n_rows = N_SERVERS * limit
    plan = Plan(MUTEX_CELLS, n_workers=N_WORKERS, n_servers=N_SERVERS, n_rows=n_rows, n_places=0)
    cells = Segment(plan.end).cells
    mutex = Mutex(cells, 0, lambda: None)
    mutex.create()
    seats = {server: seat for seat, server in enumerate(pool.servers)}
    pool.share(SharedBooks(cells, plan, 1, seats, mutex, lambda worker: None, is_limited=limit > 0), None)
    return pool


def _round(pool: Pool) -> Callable[[], None]:
    def take_and_give_back() -> None:
        lease = pool.acquire(CTX, (), 1.0)
        if not isinstance(lease, Lease):
            raise AssertionError("there is a slot")
        lease.release(Outcome.SUCCESS, 1.0)

    return take_and_give_back
