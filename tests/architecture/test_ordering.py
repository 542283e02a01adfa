"""Tests that take long come first, wherever the list is cut."""

from __future__ import annotations

import random

from tests.support.ordering import long_first


def ordered(tests: list[str], n_pieces: int) -> list[str]:
    """Tests are `module cost number`."""
    return long_first(tests, lambda test: float(test.split()[1]), lambda test: test.split()[0], n_pieces)


def test_long_ones_are_at_the_heads_of_the_pieces_the_dearest_first() -> None:
    cheap = [f"cheap 0 {number}" for number in range(9)]
    tests = [*cheap, "a 5 1", "b 400 1", "c 60 1", "d 70 1"]
    assert ordered(tests, 1) == ["b 400 1", "d 70 1", "c 60 1", "a 5 1", *cheap]
    # 13 tests for three processes are 4, 4 and 5.
    pieces = [["b 400 1", "a 5 1", *cheap[:2]], ["d 70 1", *cheap[2:5]], ["c 60 1", *cheap[5:9]]]
    assert ordered(tests, 3) == [test for piece in pieces for test in piece]


def test_others_are_between_the_long_ones_whole_modules_of_them_in_a_third_of_the_piece() -> None:
    cheap = [f"{letter} 0 {number}" for letter in "mnopqr" for number in (1, 2)]
    tests = [*cheap, "a 5 1", "a 5 2", "b 9 1", "c 7 1", "d 6 1"]
    # The places of the four are before the 1st, 2nd, 3rd and 4th of twelve.
    head = ["b 9 1", "c 7 1", "m 0 1", "m 0 2", "d 6 1", "a 5 1", "a 5 2", "n 0 1", "n 0 2"]
    assert ordered(tests, 1) == [*head, *cheap[4:]]


def test_those_of_a_module_stay_together_and_in_order() -> None:
    tests = ["x 5 1", "y 5 1", "x 9 2", "y 5 2", "z 0 1", "z 0 2"]
    assert ordered(tests, 2) == ["x 5 1", "x 9 2", "z 0 1", "y 5 1", "y 5 2", "z 0 2"]


def test_none_is_lost_and_none_comes_twice() -> None:
    rng = random.Random(1)
    for size in (0, 1, 2, 3, 5, 8, 40):
        tests = [f"m{rng.randrange(4)} {rng.choice((0, 0, 5, 60))} {number}" for number in range(size)]
        for n_pieces in (1, 2, 6, 16):
            assert sorted(ordered(tests, n_pieces)) == sorted(tests)
            assert ordered(tests, n_pieces) == ordered(tests, n_pieces)
