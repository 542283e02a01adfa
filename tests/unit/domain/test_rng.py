"""The source of chance that the composition root passes in is one that the domain accepts."""

from __future__ import annotations

import random

from lbproxy.domain.rng import Rng


def test_a_seeded_random_is_a_source() -> None:
    source: Rng = random.Random(7)
    numbers = [source.random() for _ in range(1000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    same: Rng = random.Random(7)
    assert [same.random() for _ in range(1000)] == numbers
