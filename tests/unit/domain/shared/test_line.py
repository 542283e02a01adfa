"""The line: who came first, whoever leaves from wherever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import N_WAITING, Plan
from lbproxy.domain.shared.repair import repair
from tests.support.shared_world import places

N_PLACES = 5


def make() -> tuple[Line, list[int], Plan]:
    plan = Plan(0, n_workers=2, n_servers=0, n_rows=0, n_places=N_PLACES)
    cells = [0] * plan.end
    return Line(cells, plan), cells, plan


@given(st.lists(st.integers(0, N_PLACES + 2), max_size=40))
def test_it_is_a_list(steps: list[int]) -> None:
    """0 to 4: who stands there leaves. Others: somebody joins."""
    line, cells, plan = make()
    expected: list[tuple[int, int]] = []
    numbers: dict[tuple[int, int], int] = {}
    for ticket, step in enumerate(steps, 1):
        if step < len(expected):
            line.leave(numbers[expected.pop(step)])
        elif step >= N_PLACES:
            place = line.join(ticket % 2, ticket, ticket, 100)
            assert (place == 0) == (len(expected) == N_PLACES)
            if place:
                expected.append((ticket % 2, ticket))
                numbers[expected[-1]] = place
        assert places(cells, plan) == expected
        assert cells[N_WAITING] == len(expected)
        assert line.oldest_ns() == (expected[0][1] if expected else -1)


def test_who_comes_back_stands_before_all_that_came_later() -> None:
    line, cells, plan = make()
    for arrived in (10, 20, 30):
        line.join(0, arrived, arrived, 100)
    line.rejoin(1, 1, 20, 100)
    assert [ticket for _, ticket in places(cells, plan)] == [10, 20, 1, 30]
    line.rejoin(1, 2, 5, 100)
    assert [ticket for _, ticket in places(cells, plan)] == [2, 10, 20, 1, 30]
    assert line.rejoin(1, 3, 5, 100) == 0  # all places are taken
    repair(cells, plan)
    assert [ticket for _, ticket in places(cells, plan)] == [2, 10, 20, 1, 30]


def test_whose_turn_it_is() -> None:
    line, _, _ = make()
    assert line.turn(0, -1, is_newest_first=False) == 0
    first, second, third = (line.join(0, arrived, arrived, expires) for arrived, expires in ((1, 50), (2, 90), (3, 60)))
    assert line.turn(40, -1, is_newest_first=False) == first
    assert line.turn(40, -1, is_newest_first=True) == third
    assert line.turn(50, -1, is_newest_first=False) == second  # the first is late
    assert line.turn(60, -1, is_newest_first=True) == second
    assert line.turn(90, -1, is_newest_first=True) == 0
    assert line.is_of(second, 0, 2) and not line.is_of(second, 1, 2) and not line.is_of(second, 0, 3)


def at_ms(number: float) -> int:
    return int(number * 1e6)


def test_a_slot_stays_with_its_worker_if_one_of_its_own_came_hardly_later() -> None:
    line, _, _ = make()
    _, late, own, _, other = (
        line.join(worker, n, at_ms(arrived), at_ms(expires))
        for n, (worker, arrived, expires) in enumerate(
            ((0, 1, 90), (1, 2, 50), (1, 10.9, 90), (1, 10.95, 90), (0, 22, 90)), 1
        )
    )
    assert line.turn(at_ms(49), 1, is_newest_first=False) == late
    assert line.turn(at_ms(50), 1, is_newest_first=False) == own  # of its own the one that came first and is not late
    assert line.turn(at_ms(50), 1, is_newest_first=True) == other  # the newest came 11 ms after its own
    line.leave(own)
    line.leave(late)
    assert line.turn(at_ms(50), 0, is_newest_first=False) == 1
    line.leave(1)
    assert line.turn(at_ms(50), 0, is_newest_first=False) == 4  # its own came 11 ms after this one
    assert line.turn(at_ms(50), 1, is_newest_first=False) == 4


def test_the_newest_first_keeps_to_it_likewise() -> None:
    line, _, _ = make()
    old, young, _ = (
        line.join(w, n, at_ms(arrived), at_ms(90)) for n, (w, arrived) in enumerate(((1, 1), (1, 2), (0, 11)), 1)
    )
    assert line.turn(0, 1, is_newest_first=True) == young
    line.leave(young)
    assert line.turn(0, 1, is_newest_first=True) == 3
    assert old


def test_many_that_came_at_once_are_not_all_looked_at() -> None:
    plan = Plan(0, n_workers=2, n_servers=0, n_rows=0, n_places=80)
    line = Line([0] * plan.end, plan)
    for ticket in range(1, 32):
        line.join(0, ticket, 0, 100)
    own = line.join(1, 32, 0, 100)
    assert line.turn(0, 1, is_newest_first=False) == own
    line.rejoin(0, 99, -1, 100)
    assert line.turn(0, 1, is_newest_first=False) == 33


def test_who_is_in_a_hurry() -> None:
    line, _, _ = make()
    first, _, third = (line.join(0, arrived, arrived, expires) for arrived, expires in ((1, 50), (2, 90), (3, 40)))
    assert line.urgent(20, longest_ns=19, needed_ns=5) == first  # it has waited long enough
    assert line.urgent(20, longest_ns=20, needed_ns=20) == third  # it has the least time
    assert line.urgent(20, longest_ns=20, needed_ns=19) == 0
    assert line.urgent(40, longest_ns=99, needed_ns=5) == 0  # who had the least time is late
    assert line.urgent(50, longest_ns=9, needed_ns=99) == 0
