"""Whatever of the books was spoilt that is no truth of its own: it is made anew from what is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import (
    FREE_PLACE,
    FREE_ROW,
    GRANTED,
    HELD,
    MAIL_WORDS,
    N_WAITING,
    PLACE_BEFORE,
    PLACE_NEXT,
    ROW_NEXT,
    Plan,
)
from lbproxy.domain.shared.repair import repair
from lbproxy.domain.shared.rows import Rows
from tests.support.shared_world import audit, places

PLAN = Plan(2, n_workers=3, n_servers=2, n_rows=8, n_places=8)


def make(rows: list[tuple[int, int, int]], waiting: list[int]) -> list[int]:
    """rows: (state, worker, server). waiting: workers. Tickets are numbered on."""
    cells = [0] * (PLAN.end + 1)
    books, line = Rows(cells, PLAN), Line(cells, PLAN)
    for ticket, (state, worker, server) in enumerate(rows, 1):
        row = books.take(state, worker, server, ticket, ticket)
        if state == GRANTED:
            books.post(worker, row)
        cells[PLAN.count(server)] += 1
    for ticket, worker in enumerate(waiting, 100):
        line.join(worker, ticket, ticket, 1000)
    audit(cells, PLAN)
    return cells


def derived() -> list[int]:
    """The cells that follow from others."""
    found = [PLAN.first + word for word in (*range(N_WAITING, FREE_PLACE + 1), FREE_ROW)]
    found += [PLAN.count(number) for number in range(2)]
    found += range(PLAN.mail, PLAN.mail + MAIL_WORDS * 3)
    found += [PLAN.row(number) + ROW_NEXT for number in range(1, 9)]
    return found + [PLAN.place(number) + word for number in range(1, 9) for word in (PLACE_BEFORE, PLACE_NEXT)]


ROWS = st.lists(st.tuples(st.sampled_from([HELD, GRANTED]), st.integers(0, 2), st.integers(0, 1)), max_size=8)
WAITING = st.lists(st.integers(0, 2), max_size=8)


@given(ROWS, WAITING, st.lists(st.tuples(st.sampled_from(derived()), st.integers(0, 9)), max_size=10))
def test_what_follows_is_made_anew(
    rows: list[tuple[int, int, int]], waiting: list[int], spoilt: list[tuple[int, int]]
) -> None:
    cells = make(rows, waiting)
    line = places(cells, PLAN)
    for at, value in spoilt:
        cells[at] = value
    repair(cells, PLAN)
    audit(cells, PLAN)
    assert places(cells, PLAN) == line


@given(ROWS, WAITING)
def test_a_dead_worker_leaves_nothing(rows: list[tuple[int, int, int]], waiting: list[int]) -> None:
    cells = make(rows, waiting)
    cells[PLAN.loose(0, 1)] = 5
    line = places(cells, PLAN)
    repair(cells, PLAN, dead=1)
    audit(cells, PLAN)
    assert places(cells, PLAN) == [ticket for ticket in line if ticket[0] != 1]
    totals = [cells[PLAN.count(number)] for number in range(2)]
    assert totals == [sum(server == number and worker != 1 for _, worker, server in rows) for number in range(2)]


def test_who_has_a_row_waits_no_more() -> None:
    """Whoever granted it died before the place was free."""
    cells = make([], [2, 1])
    rows = Rows(cells, PLAN)
    rows.take(GRANTED, 2, 0, 100, 5)
    repair(cells, PLAN)
    audit(cells, PLAN)
    assert places(cells, PLAN) == [(1, 101)]
    assert rows.ticket(rows.next_mail(2)) == 100
