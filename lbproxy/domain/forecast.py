"""When a request that must wait can be answered at the earliest: a bound from below, so that none that could make it is
turned away."""

from __future__ import annotations

from math import inf


def earliest_end_s(n_ahead: int, slots: int, fastest_s: float, drain_rate: float | None = None) -> float:
    """Seconds until the answer to a request with `n_ahead` others before it in the queue, at best; 0 = unknown.

    slots: how many requests the servers work on at once. fastest_s: the shortest service time of late, 0 = unknown.
    drain_rate: requests handed to servers a second as measured, None = unknown; the more hopeful of the two counts.
    """
    if fastest_s <= 0.0:
        return 0.0
    wait_s = n_ahead // max(1, slots) * fastest_s
    if drain_rate is not None:
        wait_s = min(wait_s, n_ahead / drain_rate if drain_rate > 0.0 else inf)
    return wait_s + fastest_s
