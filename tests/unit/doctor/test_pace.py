"""How many at once, from times as servers of several kinds make them."""

from __future__ import annotations

import pytest

from lbproxy.doctor.pace import Pace, at_once, is_as_alone, levels


def waves(count: int, slots: int, alone_s: float = 0.1) -> list[float]:
    """Each of the slots takes one request at a time."""
    return [alone_s * (number // slots + 1) for number in range(count)]


def shared(count: int, processors: int, alone_s: float = 0.1) -> list[float]:
    """All are begun at once and share processors, so all end late."""
    return [alone_s * max(1.0, count / processors)] * count


@pytest.mark.parametrize(("most", "expected"), [(1, []), (2, [2]), (8, [2, 4, 8]), (12, [2, 4, 8, 12])])
def test_levels_double_up_to_the_most(most: int, expected: list[int]) -> None:
    assert levels(most) == expected


@pytest.mark.parametrize("slots", range(1, 17))
def test_slots_that_are_filled_are_counted(slots: int) -> None:
    passed = 1
    for count in levels(64):
        took = waves(count, slots)
        if not is_as_alone(0.1, took):
            assert at_once(0.1, took, passed) == slots
            return
        passed = count
    raise AssertionError("64 were as quick as one")


@pytest.mark.parametrize("processors", [1, 2, 4])
def test_requests_that_share_processors_are_as_many_as_those(processors: int) -> None:
    took = shared(2 * processors, processors)
    assert not is_as_alone(0.1, took)
    assert at_once(0.1, took, 1) == processors


def test_a_noisy_level_takes_nothing_back() -> None:
    assert at_once(0.1, [0.5] * 8, passed=4) == 4


def test_what_is_told() -> None:
    assert str(Pace(4, is_more=False, alone_s=0.0521, requests=31)) == "4 (one alone takes 52 ms, 31 requests sent)"
    assert str(Pace(16, is_more=True, alone_s=1.0, requests=9)).startswith("16 or more (")
    assert "too short to tell" in str(Pace(None, is_more=False, alone_s=0.002, requests=3))
    failed = Pace(None, is_more=False, alone_s=0.0, requests=1, failed="answered 404 to GET /x")
    assert str(failed) == "not known: answered 404 to GET /x"
