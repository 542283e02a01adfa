"""What is sent and when: generated before the run, so that every policy gets the same requests at the same times."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import log
from typing import Final

MEAN_S: Final = 0.1
SIGMA: Final = 1.0


@dataclass(frozen=True, slots=True)
class Trace:
    """arrivals: seconds from the start, ascending. works: seconds that a server of full speed needs for each."""

    arrivals: tuple[float, ...]
    works: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.arrivals)


def make_trace(rate: float, seconds: float, seed: int, *, mean_s: float = MEAN_S, sigma: float = SIGMA) -> Trace:
    """Poisson arrivals at `rate` a second with log-normal work.

    The number of requests and the mean of their work are exactly what they should be: given its number, the times of a
    Poisson process are uniform. Otherwise the load of one trace would be off by some percent, and at a load of 0.9 the
    waiting time by several times that.
    """
    rng = random.Random(seed)
    number = max(1, round(rate * seconds))
    arrivals = sorted(rng.uniform(0.0, seconds) for _ in range(number))
    drawn = [rng.lognormvariate(log(mean_s) - sigma**2 / 2, sigma) for _ in range(number)]
    scale = mean_s * number / sum(drawn)
    return Trace(tuple(arrivals), tuple(work * scale for work in drawn))
