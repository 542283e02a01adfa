"""Retries of all workers together stay within one budget."""

from __future__ import annotations

import pytest

from lbproxy.address import Address
from lbproxy.domain.retry import BUDGET_WINDOW_S
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.budget import SharedBudget
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.plan import Plan

PLAN = Plan(0, n_workers=2, n_servers=1, n_rows=0, n_places=0)


class Pair:
    """Two workers with a budget of a fifth, and 2 in any case."""

    def __init__(self) -> None:
        self.cells = [0] * PLAN.end
        self.server = [Server("a", Address("10.0.0.1", 1)) for _ in range(2)]
        self.books = [self._books(worker) for worker in range(2)]
        self.budgets = [SharedBudget(books, 0.2, 2) for books in self.books]

    def _books(self, worker: int) -> SharedBooks:
        seats = {self.server[worker]: 0}
        return SharedBooks(self.cells, PLAN, worker, seats, Guard(), lambda worker: None, is_limited=False)

    def serve(self, worker: int, number: int) -> None:
        for _ in range(number):
            self.books[worker].began(self.server[worker])
            self.books[worker].ended(self.server[worker])


def test_what_one_has_in_progress_the_other_may_not_have() -> None:
    one, other = Pair().budgets
    assert [one.may_start(0), other.may_start(0), one.may_start(0), other.may_start(0)] == [True, True, False, False]
    other.finished()
    assert one.may_start(0)
    assert not one.may_start(10)
    assert one.may_start(20)
    assert (one.active, other.active, one.n_started, other.n_started) == (3, 0, 3, 1)


def test_what_a_dead_worker_had_in_progress_is_over() -> None:
    pair = Pair()
    one, other = pair.budgets
    for _ in range(2):
        assert other.may_start(0)
    bury(pair.cells, PLAN, Guard(), 1)
    assert one.may_start(0)
    successor = SharedBudget(pair.books[1], 0.2, 2)
    assert successor.may_start(0)
    assert not successor.may_start(0)


def test_the_rate_is_that_of_all() -> None:
    """2 a second are allowed in any case, so 20 in ten; then a fifth of the requests."""
    pair = Pair()
    one, other = pair.budgets

    def retry(number: int, now: float) -> int:
        begun = 0
        for budget in (one, other) * number:
            if budget.may_start(1000, requests_total=0, now=now):
                budget.finished()
                begun += 1
        return begun

    assert retry(40, 1.0) == 20
    pair.serve(0, 150)
    pair.serve(1, 50)
    for budget in pair.budgets:
        budget.note(0, 1.1)  # as the sweep does
    assert retry(40, 1.2) == 14  # 34 are a fifth of the 200 less those that were retries
    for budget in pair.budgets:
        budget.note(0, 1.4)
    assert retry(40, 1.4 + 1.01 * BUDGET_WINDOW_S) == 20


def test_a_successor_begins_with_what_there_was() -> None:
    pair = Pair()
    pair.serve(1, 1000)
    pair.budgets[1].note(0, 1.0)
    late = SharedBudget(pair.books[0], 0.2, 2)
    assert sum(late.may_start(1000, requests_total=0, now=2.0 + number / 100) for number in range(50)) == 20


def test_what_never_began_can_t_end() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        Pair().budgets[0].finished()
