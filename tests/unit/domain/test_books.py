"""Whatever happens to requests, the books hear of it, and nobody else changes the counts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.books import Books
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")


class Heard(Books):
    """Counts for itself what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.inflight: dict[Server, int] = {}
        self.n_ended = 0

    def began(self, server: Server) -> None:
        self.inflight[server] = self.inflight.get(server, 0) + 1
        super().began(server)

    def ended(self, server: Server) -> None:
        self.inflight[server] -= 1
        self.n_ended += 1
        super().ended(server)


def make(books: Books, servers: list[Server], size: int = 8) -> Pool:
    rng = random.Random(1)
    strategies = create("least_connections", {}, rng), create("random", {}, rng)
    return Pool("p", servers, *strategies, queue=WaitQueue(size), books=books)


@given(st.lists(st.tuples(st.sampled_from(["acquire", "release", "leave", "sweep"]), st.integers(0, 99)), max_size=60))
def test_the_counts_are_what_the_books_were_told(steps: list[tuple[str, int]]) -> None:
    books = Heard()
    servers = [Server(name, Address("10.0.0.1", number), max_inflight=2) for number, name in enumerate("ab", 1)]
    pool = make(books, servers)
    leases: list[Lease] = []
    tickets: list[CallingTicket] = []
    n_released = 0
    for now, (what, number) in enumerate(steps):
        if what == "acquire":
            lease = pool.acquire(CTX, (), now)
            if isinstance(lease, Lease):
                leases.append(lease)
            else:
                ticket = CallingTicket(CTX, lambda lease, now: leases.append(lease), str, enqueued_at=now)
                tickets += [ticket] if pool.enqueue(ticket, now) else []
        elif what == "release" and leases:
            leases.pop(number % len(leases)).release(list(Outcome)[number % len(Outcome)], now)
            n_released += 1
        elif what == "leave" and tickets and pool.queue is not None:
            pool.queue.remove(tickets.pop(number % len(tickets)), now)
        elif what == "sweep":
            pool.sweep(now)
        assert {server: server.inflight for server in servers if server in books.inflight} == books.inflight
        assert sum(books.inflight.values()) == len(leases)
        assert books.n_ended == sum(server.requests for server in servers) == n_released
        assert pool.queue is not None and books.n_waiting == len(pool.queue)


def test_pools_that_share_their_books_see_each_other_s_requests() -> None:
    """As processes will that serve the same servers: a limit holds for all together, and so does the queue's size."""
    server = Server("a", Address("10.0.0.1", 1), max_inflight=1)
    books = Books()
    one, other = make(books, [server], size=1), make(books, [server], size=1)
    assert isinstance(one.acquire(CTX, (), 0.0), Lease)
    assert other.acquire(CTX, (), 0.0) is Refusal.FULL
    waiting, too_many = (CallingTicket(CTX, print, print, enqueued_at=0.0) for _ in range(2))
    assert one.enqueue(waiting, 0.0) and not other.enqueue(too_many, 0.0)
