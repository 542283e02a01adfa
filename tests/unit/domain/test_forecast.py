"""The earliest end of a request that waits is a bound from below."""

from __future__ import annotations

import random

import pytest

from lbproxy.address import parse_address
from lbproxy.domain.forecast import earliest_end_s
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.least_connections import LeastConnections
from tests.support.tickets import CallingTicket


@pytest.mark.parametrize(
    ("n_ahead", "slots", "fastest_s", "drain_rate", "expected"),
    [
        (0, 4, 0.5, None, 0.5),
        (3, 4, 0.5, None, 0.5),
        (4, 4, 0.5, None, 1.0),
        (9, 4, 0.5, None, 1.5),
        (9, 4, 0.5, 90.0, 0.6),
        (9, 4, 0.5, 1.0, 1.5),
        (9, 4, 0.5, 0.0, 1.5),
        (9, 4, 0.0, None, 0.0),
        (9, 0, 0.5, None, 5.0),
    ],
)
def test_the_earliest_end(
    n_ahead: int, slots: int, fastest_s: float, drain_rate: float | None, expected: float
) -> None:
    assert earliest_end_s(n_ahead, slots, fastest_s, drain_rate) == pytest.approx(expected)


class Books:
    """A pool of servers with one slot each, and what became of its tickets."""

    def __init__(self, n: int = 1, order: str = "fifo") -> None:
        self.servers = [Server(f"s{i}", parse_address(f"127.0.0.1:{5001 + i}"), max_inflight=1) for i in range(n)]
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("p", self.servers, strategy, strategy, queue=WaitQueue(100, 10.0, order))
        self.leases: list[Lease] = []
        self.refused: list[str] = []

    def take(self, now: float) -> Lease:
        lease = self.pool.acquire(PickContext(""), (), now)
        assert isinstance(lease, Lease)
        return lease

    def wait(self, now: float, deadline_at: float = float("inf")) -> None:
        ticket = CallingTicket(
            PickContext(""),
            lambda lease, at: self.leases.append(lease),
            self.refused.append,
            enqueued_at=now,
            deadline_at=deadline_at,
        )
        assert self.pool.enqueue(ticket, now)

    def know(self, seconds: float) -> None:
        for lease in [self.take(0.0) for _ in self.servers]:
            lease.release(Outcome.SUCCESS, seconds)


def test_nobody_is_refused_while_no_answer_was_seen() -> None:
    books = Books()
    books.take(0.0)
    assert not books.pool.is_hopeless(0.001, 0.0)


def test_one_server_of_which_nothing_is_known_is_hope() -> None:
    books = Books(2)
    first, second = books.take(0.0), books.take(0.0)
    first.release(Outcome.SUCCESS, 1.0)
    books.take(1.0)
    assert not books.pool.is_hopeless(1.1, 1.0)
    second.release(Outcome.SUCCESS, 1.0)
    books.take(1.0)
    assert books.pool.is_hopeless(1.1, 1.0) and not books.pool.is_hopeless(2.1, 1.0)


def test_those_before_it_count_in_a_fifo_queue() -> None:
    books = Books()
    books.know(1.0)
    books.take(1.0)
    assert not books.pool.is_hopeless(2.5, 1.0)
    books.wait(1.0)
    assert books.pool.is_hopeless(2.5, 1.0) and not books.pool.is_hopeless(3.5, 1.0)


def test_a_standing_adaptive_queue_does_not_count() -> None:
    books = Books(order="adaptive")
    books.know(1.0)
    busy = books.take(1.0)
    for _ in range(9):
        books.wait(1.0)
    assert books.pool.is_hopeless(3.0, 1.0)
    busy.release(Outcome.SUCCESS, 2.0)
    assert not books.pool.is_hopeless(4.0, 2.0)


def test_a_slot_is_not_spent_on_who_would_be_late() -> None:
    books = Books()
    books.know(1.0)
    busy = books.take(1.0)
    books.wait(1.0, deadline_at=3.0)
    books.wait(1.0, deadline_at=9.0)
    busy.release(Outcome.SUCCESS, 2.5)
    assert books.refused == ["hopeless"]
    assert len(books.leases) == 1 and len(books.pool.queue or ()) == 0
    books.leases[0].release(Outcome.SUCCESS, 3.0)
    assert [server.inflight for server in books.servers] == [0]


def test_a_faster_answer_is_hope_at_once() -> None:
    books = Books()
    books.know(1.0)
    books.take(1.0).release(Outcome.SUCCESS, 1.1)
    books.take(1.1)
    assert not books.pool.is_hopeless(1.25, 1.1) and books.pool.is_hopeless(1.15, 1.1)


def test_the_bound_rises_slowly_when_answers_become_slower() -> None:
    books = Books()
    books.know(0.1)
    now = 0.1
    for _ in range(100):
        books.take(now).release(Outcome.SUCCESS, now + 1.0)
        now += 1.0
    assert 0.1 < books.servers[0].service_min_s < 0.12
