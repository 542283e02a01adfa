"""When requests are due, which rates are offered, and what latencies come to. Pure.

A client in a closed loop sends its next request when it has the answer to the last, so while a proxy stands still
nothing is asked and nothing is measured. Here each request has its time before the run begins, and its latency counts
from that time, whenever it could be sent.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.percentiles import percentile, percentiles

SHARES: Final = (0.5, 0.99, 0.999)
# A generator that is busy for more of its time than this sends late, whatever the proxy does.
MOST_OF_CEILING: Final = 0.7


def due_times(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start, ascending: a Poisson process with exactly rate * seconds arrivals, as of many clients."""
    draw = random.Random(seed)
    return sorted(draw.uniform(0.0, seconds) for _ in range(max(1, round(rate * seconds))))


@dataclass(frozen=True, slots=True)
class Offer:
    """A rate that is offered. share: of the reference's capacity; wanted_share is what was asked for."""

    wanted_share: float
    share: float
    rate: float

    @property
    def is_capped(self) -> bool:
        return self.share < self.wanted_share


def offers(capacity: float, ceiling: float, shares: Sequence[float]) -> list[Offer]:
    """The shares of `capacity`, as far as a generator can offer them that does `ceiling` requests a second at most.

    Shares that the ceiling makes equal become one, the smallest.
    """
    found: list[Offer] = []
    for wanted in sorted(shares):
        rate = min(wanted * capacity, MOST_OF_CEILING * ceiling)
        if not found or rate > found[-1].rate:
            found.append(Offer(wanted, rate / capacity, rate))
    return found


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; microseconds. late_p99_us: from the due time to the sending of those that found a connection idle,
    which is the load generator's own doing.
    """

    requests: int
    p50_us: float
    p99_us: float
    p999_us: float
    worst_us: float
    late_p99_us: float


def figures(
    due: Sequence[float],
    sent: Sequence[float],
    answered: Sequence[float],
    has_waited: Sequence[bool | int],
    warm_up_s: float,
) -> Figures:
    """Times are seconds of one clock; one entry for each request. Those due in the first `warm_up_s` are left out.

    has_waited: no connection was idle when it was due. Raises ValueError if none is left.
    """
    first = bisect_left(due, due[0] + warm_up_s) if warm_up_s else 0
    counted = range(first, len(due))
    if not counted:
        raise ValueError(f"every request was due within the {warm_up_s:g} s of the warm-up")
    latencies = [(answered[number] - due[number]) * 1e6 for number in counted]
    late = [(sent[number] - due[number]) * 1e6 for number in counted if not has_waited[number]]
    p50, p99, p999 = percentiles(latencies, SHARES)
    return Figures(len(latencies), p50, p99, p999, max(latencies), percentile(late, 0.99) if late else 0.0)
