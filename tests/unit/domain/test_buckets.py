"""Buckets: a rate and a burst, and no more memory than there is."""

from __future__ import annotations

import random
from array import array

from lbproxy.domain.buckets import N_BUCKETS, N_CELLS, SET, Buckets, own_buckets
from lbproxy.domain.shared.cells import Guard

SECOND = 1_000_000_000
START = 1000 * SECOND


def test_a_burst_and_then_the_rate() -> None:
    buckets = own_buckets()
    tenth = SECOND // 10

    def take(now: int) -> int:
        return buckets.take(7, tenth, 3 * tenth, START + now)

    assert [take(0), take(0), take(0)] == [0, 0, 0]
    assert take(0) == tenth, "the wait until there is a token"
    assert take(tenth // 2) == tenth // 2
    assert (take(tenth), take(tenth)) == (0, tenth)
    assert take(100 * SECOND) == take(100 * SECOND) == take(100 * SECOND) == 0, "never more than the burst"
    assert take(100 * SECOND) == tenth


def test_over_any_time_no_more_than_the_rate_allows() -> None:
    buckets, rng = own_buckets(), random.Random(5)
    interval, burst, now, n_passed = SECOND // 50, 20, START, 0
    while now < START + 100 * SECOND:
        now += rng.randrange(2 * SECOND // 200)  # twice the rate
        n_passed += buckets.take(3, interval, interval * burst, now) == 0
    assert 0.999 * 5000 <= n_passed <= 5000 + burst + 1


def test_keys_do_not_know_each_other() -> None:
    buckets = own_buckets()
    assert all(buckets.take(mark, SECOND, SECOND, START) == 0 for mark in range(-500, 500) if mark)
    assert all(buckets.take(mark, SECOND, SECOND, START) == SECOND for mark in range(-500, 500) if mark)


def test_what_was_not_used_comes_back() -> None:
    buckets = own_buckets()
    assert buckets.take(9, SECOND, SECOND, START) == 0
    buckets.give_back(9, SECOND)
    buckets.give_back(10, SECOND)  # nobody's
    assert buckets.take(9, SECOND, SECOND, START) == 0
    assert buckets.take(9, SECOND, SECOND, START) == SECOND


def test_another_config_keeps_what_was_used() -> None:
    buckets = own_buckets()
    for _ in range(10):
        assert buckets.take(9, SECOND, 10 * SECOND, START) == 0
    assert buckets.take(9, SECOND, 2 * SECOND, START) == SECOND, "not the ten seconds of the old depth"
    assert buckets.take(9, SECOND, 20 * SECOND, START) == 0


def test_however_many_keys_there_are_they_have_no_more_than_their_table() -> None:
    cells = array("q", bytes(N_CELLS * 8))
    buckets, rng = Buckets(cells), random.Random(1)
    for _ in range(250_000):
        buckets.take(rng.getrandbits(64) - (1 << 63) or 1, SECOND, SECOND, START)
    assert len(cells) == N_CELLS and sum(1 for mark in cells[::2] if mark) <= N_BUCKETS
    assert buckets.n_forgotten >= 250_000 - N_BUCKETS


def test_the_fullest_goes_first_and_who_is_limited_last() -> None:
    buckets = own_buckets()
    step = N_BUCKETS // SET  # the same set
    for _ in range(5):
        assert buckets.take(step, SECOND, 5 * SECOND, START) == 0
    for number in range(2, 100):
        assert buckets.take(number * step, SECOND, 5 * SECOND, START) == 0
    assert buckets.take(step, SECOND, 5 * SECOND, START) == SECOND, "it is still known"
    assert buckets.n_forgotten == 98 - (SET - 1)
    later = START + 60 * SECOND  # all are full, and nothing is lost with them
    for number in range(100, 100 + SET):
        buckets.take(number * step, SECOND, 5 * SECOND, later)
    assert buckets.n_forgotten == 98 - (SET - 1)


class Counting(Guard):
    def __init__(self) -> None:
        self.depth = self.n_entered = 0

    def enter(self) -> bool:
        self.depth += 1
        self.n_entered += 1
        return self.n_entered == 1  # the one before has died in there

    def leave(self) -> None:
        self.depth -= 1


def test_with_others_everything_is_inside_the_guard() -> None:
    guard = Counting()
    cells = array("q", bytes((N_CELLS + 5) * 8))
    buckets = Buckets(cells, 5, guard)
    assert buckets.take(9, SECOND, SECOND, START) == 0
    assert buckets.take(9, SECOND, SECOND, START) == SECOND
    buckets.give_back(9, SECOND)
    assert Buckets(cells, 5, guard).take(9, SECOND, SECOND, START) == 0, "another process sees what there is"
    assert (guard.depth, guard.n_entered) == (0, 4)
    assert not any(cells[:5])
