"""Real processes that share the books of one pool and are killed at random; nothing else is real.

    python -m benchmarks.simulation.stress [--workers 3] [--kills 50]

Each worker takes slots, holds them for a moment, waits and gives up, as quickly as it can, and kills itself at some
access to the books if nobody else does it before. A slot that it has it also locks as a byte of a file, which the
kernel frees when it dies: who finds all bytes of a server locked has proof of one request too many. At the end
everything must be back. The status is 1 if anything is wrong; what it was is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

from benchmarks.simulation.simulator import Waiting
from lbproxy.address import Address
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.plan import N_WAITING, Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.shared.mutex import MUTEX_CELLS, Mutex
from lbproxy.shared.segment import Segment

N_SERVERS: Final = 2
LIMIT: Final = 2
MOST_OPEN: Final = 4
CTX: Final = PickContext("192.0.2.1")
STOP, REPAIRS, ALARMS, SERVED = range(4)  # cells; from SERVED on one for each worker
MOST_ACCESSES: Final = 5000  # in the life of a worker
END_LIMIT_S: Final = 90.0


class Counting(Guard):
    """A lock that counts in a cell how often its owner had died inside."""

    def __init__(self, inner: Mutex, cells: memoryview) -> None:
        self._inner = inner
        self._cells = cells

    def enter(self) -> bool:
        is_torn = self._inner.enter()
        if is_torn:
            self._cells[REPAIRS] += 1
        return is_torn

    def leave(self) -> None:
        self._inner.leave()


class Mortal:
    """Cells to which this process makes so many accesses, and then it is dead."""

    def __init__(self, cells: memoryview, left: int) -> None:
        self._cells = cells
        self._left = left

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        self._count()
        return self._cells[at]

    def __setitem__(self, at: int, value: int) -> None:
        self._count()
        self._cells[at] = value

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0 and not self._cells[STOP]:
            os.kill(os.getpid(), signal.SIGKILL)


class Stress:
    """What is there before the first fork."""

    def __init__(self, n_workers: int, seed: int) -> None:
        self.rng = random.Random(seed)
        first = SERVED + n_workers
        self.plan = Plan(
            first + MUTEX_CELLS, n_workers=n_workers, n_servers=N_SERVERS, n_rows=N_SERVERS * LIMIT, n_places=16
        )
        self.segment = Segment(self.plan.end)
        self.cells = self.segment.cells
        mutex = Mutex(self.cells, first, self._held_long)
        mutex.create()
        self.guard = Counting(mutex, self.cells)
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(n_workers)]
        self.witness = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the processes)
        self.pids = [self._fork(number) for number in range(n_workers)]

    def _held_long(self) -> None:
        self.cells[ALARMS] += 1

    def _fork(self, number: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            Worker(self, number).work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def ring(self, number: int) -> None:
        os.eventfd_write(self.bells[number], 1)

    def run(self, kills: int, gap_s: float) -> list[str]:
        """What was wrong. After so many kills, some `gap_s` after each other, the rest ends in peace."""
        for _ in range(kills):
            number, status = self._next_death(time.monotonic() + self.rng.uniform(0.5, 1.5) * gap_s)
            if not os.WIFSIGNALED(status):
                return [f"worker {number} ended by itself"]
            bury(self.cells, self.plan, self.guard, number)
            self.pids[number] = self._fork(number)
            for other in range(len(self.pids)):
                self.ring(other)
        self.cells[STOP] = 1
        return self._end()

    def _next_death(self, at: float) -> tuple[int, int]:
        """The worker that died first, and how; one is killed if none has died by then."""
        while time.monotonic() < at:
            for number, pid in enumerate(self.pids):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    return number, status
            time.sleep(0.001)
        number = self.rng.randrange(len(self.pids))
        os.kill(self.pids[number], signal.SIGKILL)
        return number, os.waitpid(self.pids[number], 0)[1]

    def _end(self) -> list[str]:
        wrong = []
        left = dict(enumerate(self.pids))
        give_up_at = time.monotonic() + END_LIMIT_S
        while left and time.monotonic() < give_up_at:
            for number, pid in list(left.items()):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if not gone:
                    continue
                del left[number]
                if os.WIFSIGNALED(status):  # its last access came just before it could see that this is the end
                    bury(self.cells, self.plan, self.guard, number)
                    for other in left:
                        self.ring(other)
            time.sleep(0.005)
        for number, pid in left.items():
            wrong.append(f"worker {number} waits for ever")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not left:
            totals = [self.cells[self.plan.count(number)] for number in range(N_SERVERS)]
            if any(totals) or self.cells[self.plan.first + N_WAITING]:
                wrong.append(f"slots {totals} and {self.cells[self.plan.first + N_WAITING]} places were left behind")
        return wrong


@dataclass(eq=False)
class Request:
    lease: Lease | None = None
    ends_at: float = 0.0
    byte: int = -1


class Worker:
    """One process."""

    def __init__(self, stress: Stress, number: int) -> None:
        self._stress = stress
        self._number = number
        self._rng = random.Random(os.getpid())
        servers = [Server(f"s{i}", Address("10.0.0.1", i + 1), max_inflight=LIMIT) for i in range(N_SERVERS)]
        self._servers = servers
        seats = {server: seat for seat, server in enumerate(servers)}
        cells = Mortal(stress.cells, self._rng.randint(1, MOST_ACCESSES))
        books = SharedBooks(cells, stress.plan, number, seats, stress.guard, stress.ring)
        self._queue = SharedQueue(books, 16, 1.0, "fifo")
        rng = self._rng
        self._pool = SharedPool("p", servers, create("least_connections", {}, rng), create("random", {}, rng))
        self._pool.share(books, self._queue)
        self._open: dict[Request, Waiting | None] = {}
        self._mine: set[int] = set()

    def work(self) -> None:
        cells, pool, bell = self._stress.cells, self._pool, self._stress.bells[self._number]
        sweep_at = 0.0
        while self._open or not cells[STOP]:
            now = time.monotonic()
            if len(self._open) < MOST_OPEN and not cells[STOP]:
                self._ask(now)
            for request, place in list(self._open.items()):
                if request.lease is not None and request.ends_at <= now:
                    self._end(request, request.lease, now)
                elif place is not None and place.is_waiting and self._rng.random() < 0.01:
                    self._queue.remove(place, now)
                    self._open.pop(request, None)
            if now >= sweep_at:
                sweep_at = now + 0.25
                pool.sweep(now)
            if select.select([bell], [], [], 0.0)[0]:
                with contextlib.suppress(BlockingIOError):  # its predecessor may have answered this one
                    os.eventfd_read(bell)
                pool.collect(time.monotonic())

    def _ask(self, now: float) -> None:
        request = Request()
        found = self._pool.acquire(CTX, (), now)
        if isinstance(found, Lease):
            self._open[request] = None
            self._got(request, found, now)
        elif found is Refusal.FULL:
            place = Waiting(CTX, lambda lease, at: self._got(request, lease, at), lambda: self._refused(request), now)
            if self._pool.enqueue(place, now):
                self._open[request] = place

    def _refused(self, request: Request) -> None:
        del self._open[request]

    def _got(self, request: Request, lease: Lease, now: float) -> None:
        seat = self._servers.index(lease.server)
        for byte in range(seat * LIMIT, (seat + 1) * LIMIT):
            if byte not in self._mine and self._lock(byte):
                self._mine.add(byte)
                request.byte = byte
                break
        else:
            raise AssertionError(f"server {seat} has more than {LIMIT} requests")
        request.lease = lease
        request.ends_at = now + self._rng.choice((0.0, 0.0002, 0.001))

    def _lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._stress.witness, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except BlockingIOError:
            return False
        return True

    def _end(self, request: Request, lease: Lease, now: float) -> None:
        del self._open[request]
        self._mine.discard(request.byte)
        fcntl.lockf(self._stress.witness, fcntl.LOCK_UN, 1, request.byte)
        self._stress.cells[SERVED + self._number] += 1
        lease.release(Outcome.SUCCESS, now)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation.stress", description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--gap", type=float, default=0.02, help="seconds between two kills, about")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    stress = Stress(args.workers, args.seed)
    wrong = stress.run(args.kills, args.gap)
    cells = stress.cells
    told = {
        "wrong": wrong,
        "killed": args.kills,
        "died_inside": cells[REPAIRS],
        "alarms": cells[ALARMS],
        "served": [cells[SERVED + number] for number in range(args.workers)],
    }
    print(json.dumps(told))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
