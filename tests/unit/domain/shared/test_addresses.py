"""What all workers have of an address is known to each, as long as there is room for it."""

from __future__ import annotations

import random
from collections import Counter

from lbproxy.domain.shared.addresses import N_ADDRESS_CELLS, SET, Addresses, clear_addresses
from lbproxy.domain.shared.cells import Guard

FIRST = 2


def workers(number: int) -> tuple[list[int], list[Addresses]]:
    cells = [0] * (FIRST + N_ADDRESS_CELLS)
    return cells, [Addresses(cells, FIRST, worker, Guard()) for worker in range(number)]


def test_each_worker_knows_what_all_have() -> None:
    _, (first, second) = workers(2)
    assert [first.change(7, 1), second.change(7, 1), first.change(7, 1)] == [1, 2, 3]
    assert second.change(8, 1) == 1
    assert [first.change(7, -2), second.change(7, -1)] == [1, 0]


def test_the_counts_agree_with_a_simple_model_and_nothing_is_left() -> None:
    cells, all_workers = workers(3)
    rng, model = random.Random(3), Counter[tuple[int, int]]()
    marks = [rng.getrandbits(63) - (1 << 62) or 1 for _ in range(40)]
    for _ in range(5000):
        number, mark = rng.randrange(3), rng.choice(marks)
        by = -1 if model[number, mark] and rng.random() < 0.5 else 1
        model[number, mark] += by
        assert all_workers[number].change(mark, by) == sum(model[each, mark] for each in range(3))
    for (number, mark), count in model.items():
        if count:
            all_workers[number].change(mark, -count)
    assert not any(cells[FIRST + 1 :: 2])


def test_in_a_full_set_each_worker_counts_for_itself_until_there_is_room() -> None:
    """Marks that end with the same bits stand in one set."""
    cells, (first, second) = workers(2)
    step = N_ADDRESS_CELLS
    for number in range(SET):
        first.change(1 + number * step, 1)
    more = 1 + SET * step
    assert [first.change(more, 1), second.change(more, 1), first.change(more, 1)] == [1, 1, 2]
    assert sum(map(bool, cells[FIRST + 1 :: 2])) == SET
    first.change(1, -1)
    assert first.change(more, 1) == 3
    assert second.change(more, 1) == 5, "of the other one's three it hears now"


def test_what_a_dead_one_had_is_gone() -> None:
    cells, (first, second) = workers(2)
    first.change(7, 3)
    second.change(7, 1)
    first.change(9, 1)
    clear_addresses(cells, FIRST, 0, Guard())
    assert (second.change(7, 1), second.change(9, 1)) == (2, 1)
