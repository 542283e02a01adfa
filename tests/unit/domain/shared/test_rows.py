"""Rows are as many as there are, used again, and found in the order in which they were granted."""

from __future__ import annotations

from lbproxy.domain.shared.plan import GRANTED, HELD, Plan, packed
from lbproxy.domain.shared.rows import Rows


def make(n_rows: int) -> Rows:
    plan = Plan(0, n_workers=2, n_servers=1, n_rows=n_rows, n_places=0)
    return Rows([0] * plan.end, plan)


def test_there_are_no_more_than_there_are() -> None:
    rows = make(2)
    assert [rows.take(HELD, 0, 0, 0, 1) for _ in range(3)] == [1, 2, 0]
    rows.free(1)
    assert rows.word(1) == 0
    assert [rows.take(HELD, 1, 0, 7, 1) for _ in range(2)] == [1, 0]
    assert (rows.word(1), rows.ticket(1)) == (packed(HELD, 1, 0), 7)


def test_mail_is_read_in_the_order_in_which_it_came_and_by_its_worker_alone() -> None:
    rows = make(3)
    granted = [rows.take(GRANTED, worker, 0, ticket, 1) for ticket, worker in ((1, 1), (2, 0), (3, 1))]
    for row, worker in zip(granted, (1, 0, 1), strict=True):
        rows.post(worker, row)
    assert [rows.next_mail(0), rows.next_mail(0)] == [granted[1], 0]
    assert [rows.ticket(rows.next_mail(1)), rows.ticket(rows.next_mail(1)), rows.next_mail(1)] == [1, 3, 0]
