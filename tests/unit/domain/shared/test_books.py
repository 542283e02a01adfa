"""What one worker writes the others read, with limits and without."""

from __future__ import annotations

import pytest

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.cells import Cells, Guard
from lbproxy.domain.shared.plan import OWNER, PLACE_TICKET, Plan
from tests.support.shared_world import audit

PLAN = Plan(1, n_workers=2, n_servers=2, n_rows=2, n_places=4)


class Watched(Guard):
    """is_torn: what the next one who enters is told."""

    def __init__(self) -> None:
        self.is_torn = False
        self.n_inside = 0

    def enter(self) -> bool:
        self.n_inside += 1
        assert self.n_inside == 1
        is_torn, self.is_torn = self.is_torn, False
        return is_torn

    def leave(self) -> None:
        self.n_inside -= 1


def make(
    cells: Cells, worker: int, *, is_limited: bool = True, guard: Guard | None = None, woken: list[int] | None = None
) -> tuple[SharedBooks, list[Server]]:
    servers = [Server(name, Address("10.0.0.1", seat + 1)) for seat, name in enumerate("ab")]
    seats = {server: seat for seat, server in enumerate(servers)}
    wake = ([] if woken is None else woken).append
    return SharedBooks(cells, PLAN, worker, seats, guard or Guard(), wake, is_limited=is_limited), servers


def inflight(books: SharedBooks, servers: list[Server]) -> list[int]:
    books.look()
    return [server.inflight for server in servers]


@pytest.mark.parametrize("is_limited", [True, False])
def test_each_sees_what_the_other_has(is_limited: bool) -> None:
    cells = [0] * PLAN.end
    (one, ours), (other, theirs) = (make(cells, worker, is_limited=is_limited) for worker in (0, 1))
    for server in (ours[0], ours[0], ours[0], ours[1]):  # more than there are rows
        one.began(server)
    other.look()
    other.began(theirs[1])
    assert inflight(one, ours) == inflight(other, theirs) == [3, 2]
    for server in (ours[0], ours[0], ours[0], ours[1]):
        one.ended(server)
    assert inflight(one, ours) == inflight(other, theirs) == [0, 1]
    assert [server.requests for server in ours] == [3, 1]
    other.ended(theirs[1])
    assert inflight(other, theirs) == [0, 0]


@pytest.mark.parametrize("is_limited", [True, False])
def test_what_a_dead_worker_had_is_gone(is_limited: bool) -> None:
    cells = [0] * PLAN.end
    (one, ours), (other, theirs) = (make(cells, worker, is_limited=is_limited) for worker in (0, 1))
    for _ in range(3):
        one.began(ours[0])
    other.look()
    other.began(theirs[0])
    bury(cells, PLAN, Guard(), 0)
    assert inflight(other, theirs) == [1, 0]


def test_who_is_inside_stands_there_and_who_enters_after_a_death_repairs() -> None:
    cells, guard = [0] * PLAN.end, Watched()
    books, servers = make(cells, 1, guard=guard)
    books.enter(1.0)
    books.enter(1.0)  # once more is nothing
    assert cells[PLAN.first + OWNER] == 2
    books.leave()
    assert (cells[PLAN.first + OWNER], guard.n_inside) == (2, 1)
    books.leave()
    assert (cells[PLAN.first + OWNER], guard.n_inside) == (2, 0)
    cells[PLAN.count(0)] = 7
    books.enter(1.0)
    assert inflight(books, servers) == [7, 0]
    books.leave()
    guard.is_torn = True
    books.enter(1.0)
    assert inflight(books, servers) == [0, 0]
    books.leave()


def test_what_a_dead_worker_had_stays_until_it_is_buried() -> None:
    """Its sockets may be open still when the lock is free."""
    cells, guard = [0] * PLAN.end, Watched()
    (one, ours), (other, theirs) = (make(cells, worker, guard=guard) for worker in (0, 1))
    one.began(ours[1])
    guard.is_torn = True
    other.enter(1.0)
    other.leave()
    assert inflight(other, theirs) == [0, 1]
    bury(cells, PLAN, guard, 0)
    assert inflight(other, theirs) == [0, 0]
    audit(cells, PLAN)


def test_a_grant_goes_to_the_ticket_s_worker_and_wakes_it_outside() -> None:
    cells, guard, woken = [0] * PLAN.end, Watched(), list[int]()
    (one, ours), (other, theirs) = (make(cells, worker, guard=guard, woken=woken) for worker in (0, 1))
    place = other.line.join(1, 9, 0, 1000)
    one.enter(1.0)
    one.look()
    assert (one.n_waiting, cells[PLAN.place(place) + PLACE_TICKET]) == (1, 9)
    assert one.grant(ours[1], place)
    assert (one.n_waiting, ours[1].inflight, woken) == (0, 1, [])
    one.leave()
    assert woken == [1]
    other.enter(1.0)
    other.look()
    assert theirs[1].inflight == 1
    assert (other.take_up(), other.take_up()) == (9, 0)
    assert theirs[1].inflight == 0
    other.leave()


def test_there_is_no_grant_without_a_row() -> None:
    cells = [0] * PLAN.end
    books, servers = make(cells, 0)
    for _ in range(PLAN.n_rows):
        books.began(servers[0])
    place = books.line.join(1, 9, 0, 1000)
    assert not books.grant(servers[1], place)
    assert books.line.is_of(place, 1, 9)
    assert cells[PLAN.loose(1, 0)] == 0
