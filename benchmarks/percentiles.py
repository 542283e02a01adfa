"""Percentiles of what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least `share` of all at or below it; `values` is not empty."""
    return percentiles(values, (share,))[0]


def percentiles(values: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """The same for each of `shares`."""
    ascending = sorted(values)
    return tuple(ascending[max(0, ceil(share * len(ascending)) - 1)] for share in shares)
