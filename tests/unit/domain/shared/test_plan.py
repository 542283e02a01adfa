"""No two things stand in one cell, and words of rows keep what was put into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import (
    GRANTED,
    HEADER_WORDS,
    HELD,
    PLACE_WORDS,
    ROW_WORDS,
    TOTAL,
    Plan,
    carry,
    packed,
    server_of,
    state_of,
    worker_of,
)
from lbproxy.domain.shared.rows import Rows
from tests.support.shared_world import audit, places


def test_no_two_things_stand_in_one_cell() -> None:
    plan = Plan(100, n_workers=3, n_servers=2, n_rows=4, n_places=5)
    taken = [range(100, 100 + HEADER_WORDS)]
    taken += [range(plan.server(number), plan.server(number) + plan.server_words) for number in range(2)]
    taken += [range(plan.mail, plan.mail + 6)]
    taken += [range(plan.row(number), plan.row(number) + ROW_WORDS) for number in range(1, 5)]
    taken += [range(plan.place(number), plan.place(number) + PLACE_WORDS) for number in range(1, 6)]
    assert [cell for part in taken for cell in part] == list(range(100, plan.end))


@given(st.sampled_from([HELD, GRANTED]), st.integers(0, 4094), st.integers(0, (1 << 24) - 1))
def test_a_row_is_one_word(state: int, worker: int, server: int) -> None:
    word = packed(state, worker, server)
    assert (state_of(word), worker_of(word), server_of(word)) == (state, worker, server)
    assert 0 < word < 1 << 63


@pytest.mark.parametrize("wrong", [{"n_workers": 0}, {"n_workers": 4096}, {"n_servers": -1}, {"n_rows": -1}])
def test_what_can_t_be_written_down_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no plan for"):
        Plan(0, **{"n_workers": 1, "n_servers": 1, "n_rows": 1, "n_places": 1, **wrong})


def test_books_are_carried_to_more_room() -> None:
    """As somebody sees who reads them there."""
    small = Plan(3, n_workers=2, n_servers=1, n_rows=2, n_places=2)
    large = Plan(5, n_workers=2, n_servers=3, n_rows=4, n_places=8)
    old, new = [0] * small.end, [0] * large.end
    rows, line = Rows(old, small), Line(old, small)
    rows.post(1, rows.take(GRANTED, 1, 0, 7, 1))
    rows.take(HELD, 0, 0, 0, 1)
    old[small.server(0) + TOTAL] = 2
    for ticket in (8, 9):
        line.join(0, ticket, ticket, 100)
    carry(old, small, new, large)
    audit(new, large)
    assert places(new, large) == [(0, 8), (0, 9)]
    there = Rows(new, large)
    assert there.ticket(there.next_mail(1)) == 7
    assert [there.take(HELD, 0, 2, 0, 1) for _ in range(3)] == [3, 4, 0]
    assert Line(new, large).join(1, 1, 20, 100) == 3
