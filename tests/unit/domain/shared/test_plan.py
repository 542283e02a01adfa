"""No two things stand in one cell, and words of rows keep what was put into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.shared.plan import (
    CARD_WORDS,
    FLOW_WORDS,
    GRANTED,
    HEADER_WORDS,
    HELD,
    PLACE_WORDS,
    ROW_WORDS,
    WORKER_WORDS,
    Plan,
    packed,
    server_of,
    state_of,
    worker_of,
)


def test_no_two_things_stand_in_one_cell() -> None:
    plan = Plan(100, n_workers=3, n_servers=2, n_rows=4, n_places=5)
    taken = [range(100, 100 + HEADER_WORDS)]
    taken += [range(plan.worker(number), plan.worker(number) + WORKER_WORDS) for number in range(3)]
    for seat in range(2):
        taken += [range(plan.count(seat), plan.count(seat) + 1)]
        taken += [range(plan.loose(seat, 0), plan.loose(seat, 2) + 1)]
    for seat in range(2):
        taken += [range(plan.server(seat), plan.permits(seat))]
        taken += [range(plan.permits(seat), plan.permits(seat) + 3), range(plan.uses(seat), plan.uses(seat) + 3)]
    taken += [range(plan.card(seat), plan.card(seat) + CARD_WORDS) for seat in range(2)]
    taken += [range(plan.mail, plan.mail + 6)]
    taken += [range(plan.row(number), plan.row(number) + ROW_WORDS) for number in range(1, 5)]
    taken += [range(plan.place(number), plan.place(number) + PLACE_WORDS) for number in range(1, 6)]
    taken += [range(plan.flow(number), plan.flow(number) + FLOW_WORDS) for number in range(1, 6)]
    taken += [range(plan.bucket(5), plan.bucket(4) + 1)]
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
