"""Several workers never have more places than there are, and none lies idle while somebody waits."""

from __future__ import annotations

import random

import pytest

from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.places import MOST_AT_ONCE, PLACE_CELLS, Places, clear_places


class World:
    def __init__(self, n_workers: int) -> None:
        self.cells = [0] * (n_workers * PLACE_CELLS + 3)
        self.rung: list[int] = []
        self.workers = [
            Places(self.cells, 3, n_workers, number, Guard(), self.rung.append) for number in range(n_workers)
        ]

    def heard(self) -> list[int]:
        found, self.rung[:] = list(self.rung), []
        return found


def test_many_are_taken_at_once_while_there_are_many_and_few_when_there_are_few() -> None:
    first, second = World(2).workers
    assert first.take(1000, 1000, is_waited_for=False) == MOST_AT_ONCE
    assert second.take(100, 1000, is_waited_for=False) == (100 - MOST_AT_ONCE) // 4
    assert second.take(100, 2, is_waited_for=False) == 2, "no more than can be used"
    assert first.take(100, 1000, is_waited_for=False) == (100 - 64 - 9 - 2) // 4
    assert first.n_held == 64 + 9 + 2 + 6


def test_there_are_never_more_than_may_be() -> None:
    world, rng = World(3), random.Random(7)
    held = [0] * 3
    for _ in range(3000):
        number = rng.randrange(3)
        if rng.random() < 0.6:
            held[number] += world.workers[number].take(50, 100, is_waited_for=rng.random() < 0.5)
        elif held[number]:
            count = rng.randint(1, held[number])
            held[number] -= count
            world.workers[number].give(count)
        assert sum(held) == world.workers[0].n_held <= 50


def test_who_has_none_for_somebody_says_so_once_and_hears_when_one_is_given_up() -> None:
    world = World(3)
    first, second, third = world.workers
    assert first.take(1, 9, is_waited_for=True) == 1
    assert second.take(1, 9, is_waited_for=False) == 0
    assert (world.heard(), first.is_wanted) == ([], False)
    first.use(1)
    assert second.take(1, 9, is_waited_for=True) == second.take(1, 9, is_waited_for=True) == 0
    assert (world.heard(), first.is_wanted, second.is_wanted, third.is_wanted) == ([0, 2], True, False, True)
    first.give(1)
    assert world.heard() == [1]
    assert second.take(1, 9, is_waited_for=False) == 1
    assert not first.is_wanted


def test_who_found_room_at_home_wants_no_more() -> None:
    first, second = World(2).workers
    first.take(1, 1, is_waited_for=True)
    second.take(1, 1, is_waited_for=True)
    second.content()
    assert not first.is_wanted


def test_what_is_over_a_lowered_limit_is_not_given_again() -> None:
    first, second = World(2).workers
    held = first.take(40, 9, is_waited_for=False)
    assert held == 9
    assert second.take(5, 9, is_waited_for=True) == 0
    first.give(4)
    assert second.take(5, 9, is_waited_for=True) == 0
    first.give(1)
    assert second.take(5, 9, is_waited_for=True) == 1


def test_others_are_asked_in_turn_if_they_have_somebody() -> None:
    world = World(4)
    first, second, _, fourth = world.workers
    first.ask_another()
    assert world.heard() == []
    second.use(3)
    fourth.use(1)
    for _ in range(3):
        first.ask_another()
    assert world.heard() == [1, 3, 1]
    assert [item.asked() for item in world.workers] == [0, 2, 0, 1]
    assert second.asked() == 0
    assert first.n_used == 4


def test_how_often_a_worker_is_asked_is_bounded() -> None:
    world = World(2)
    world.workers[1].use(1)
    for _ in range(3 * MOST_AT_ONCE):
        world.workers[0].ask_another()
    assert world.workers[1].asked() == MOST_AT_ONCE


def test_what_a_dead_one_had_is_anybodys() -> None:
    world = World(2)
    first, second = world.workers
    first.take(1, 1, is_waited_for=True)
    first.use(1)
    assert second.take(1, 1, is_waited_for=True) == 0
    clear_places(world.cells, 3, 0, Guard())
    assert (first.n_held, first.n_used, first.asked()) == (0, 0, 0)
    assert second.take(1, 1, is_waited_for=True) == 1


def used(*counts: int) -> World:
    world = World(len(counts))
    for worker, count in zip(world.workers, counts, strict=True):
        worker.use(count)
    return world


@pytest.mark.parametrize(
    ("counts", "to"),
    [
        ((0, 0), -1),
        ((1, 0), -1),
        ((2, 0), 1),
        ((2, 1), -1),
        ((5, 4, 4, 4), -1),
        ((5, 4, 3, 4), 2),
        ((12, 10), -1),
        ((16, 10), 1),
        ((130, 90, 95, 95), 1),
        ((110, 90, 100, 100), -1),
        ((1, 9), -1),
    ],
)
def test_who_has_clearly_more_than_its_share_hands_over_to_who_has_fewest(counts: tuple[int, ...], to: int) -> None:
    assert used(*counts).workers[0].lightest() == to


@pytest.mark.parametrize("n_workers", [2, 4, 8])
@pytest.mark.parametrize("count", [16, 64, 256])
def test_nobody_has_half_as_many_again_as_the_mean(n_workers: int, count: int) -> None:
    """Wherever the kernel sends them. A worker that is alone may have one more."""
    for seed in range(20):
        rng, world, here = random.Random(seed), World(n_workers), [0] * n_workers
        for _ in range(count):
            worker = rng.randrange(n_workers)
            to = world.workers[worker].lightest()
            worker = worker if to < 0 else to
            here[worker] += 1
            world.workers[worker].use(here[worker])
        assert max(here) <= max(1.5 * count / n_workers, count / n_workers + 1)


def test_a_place_goes_along_and_is_counted_on_its_way() -> None:
    world = World(2)
    first, second = world.workers
    first.take(2, 1, is_waited_for=False)
    first.take(2, 1, is_waited_for=False)
    first.send(1, 1)
    assert (first.n_held, second.n_coming, second.take(2, 1, is_waited_for=False)) == (2, 1, 0)
    second.receive()
    assert (first.n_held, second.n_coming) == (2, 0)
    first.send(1, 1)
    first.send(1, -1)
    assert (first.n_held, second.n_coming) == (2, 0)


def test_what_was_on_its_way_to_a_dead_worker_comes_to_its_successor() -> None:
    world = World(2)
    first, second = world.workers
    first.take(1, 1, is_waited_for=False)
    first.send(1, 1)
    clear_places(world.cells, 3, 1, Guard())
    assert (first.n_held, second.n_coming) == (1, 1)
    second.forget_coming(1)
    assert first.n_held == 0
    second.forget_coming(1)
    second.receive()
    assert (second.n_coming, second.n_held) == (0, 1)
