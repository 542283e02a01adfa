"""Who runs on which core."""

import pytest

from benchmarks.load.errors import BenchmarkError
from benchmarks.load.runner import place
from benchmarks.load.targets import Placement


def test_the_proxy_gets_the_highest_core_alone() -> None:
    assert place({0, 1, 2, 3}) == Placement(3, frozenset({0, 1, 2}))


def test_a_core_can_be_asked_for() -> None:
    assert place({0, 1}, 0) == Placement(0, frozenset({1}))


def test_a_core_that_may_not_be_used() -> None:
    with pytest.raises(BenchmarkError, match="core 5 is not among"):
        place({0, 1}, 5)


def test_one_core_is_not_enough() -> None:
    with pytest.raises(BenchmarkError, match="needs two cores"):
        place({0})
