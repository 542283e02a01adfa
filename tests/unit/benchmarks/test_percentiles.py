"""Percentiles are values that occurred."""

from __future__ import annotations

import random

from benchmarks.percentiles import percentile, percentiles


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(values)
    assert (percentile(values, 0.99), percentile(values, 0.5), percentile([7.0], 0.99)) == (99.0, 50.0, 7.0)


def test_several_at_once() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert percentiles(values, (0.5, 0.99, 0.999, 1.0)) == (500.0, 990.0, 999.0, 1000.0)
    assert percentiles([1.0, 2.0], (0.5, 0.51, 0.999)) == (1.0, 2.0, 2.0)
