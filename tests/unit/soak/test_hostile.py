"""What a run of hostile heads complains about."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.micro.hostile import HOSTILE
from tests.soak.hostile import Report


def test_growth_of_memory_up_to_a_twentieth_is_allowed() -> None:
    assert Report(10, rss=[100, 180, 104]).complaints() == []
    assert Report(10, rss=[100, 106]).complaints() == ["memory grew by 6.0%"]


def test_a_head_is_taken_or_refused() -> None:
    assert Report(10, Counter({200: 9, 400: 1}), [1, 1]).complaints() == []
    assert Report(10, Counter({200: 9, 503: 1}), [1, 1]).complaints() == ["answers {200: 9, 503: 1}"]


def test_the_lines_say_what_happened() -> None:
    (line,) = Report(10, Counter({400: 1, 200: 9}), [2**20, 2**21]).lines()
    assert "9 with 200, 1 with 400" in line and "1.0, 2.0" in line and "(+100.0% since" in line


@pytest.mark.parametrize("name", HOSTILE)
def test_no_head_comes_twice_and_each_has_one_end(name: str) -> None:
    rng = random.Random(1)
    made = [HOSTILE[name](rng) for _ in range(20)]
    assert len(set(made)) == 20 and all(head.count(b"\r\n\r\n") == 1 for head in made)
