"""Latencies in peace and in war, which take turns, so that whatever else the machine does comes upon both.

Each phase has a 99th percentile; the ratio is that of the medians over all rounds, and what it may be by chance is
found by drawing rounds anew (bootstrap). The same ratio of peace after a war to peace before it says what the machine
does by itself.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Iterator, Sequence

from tests.support.open_loop import OpenLoop

DRAWS = 2000


def p99_s(latencies_s: Sequence[float]) -> float:
    found = sorted(latencies_s)
    return found[len(found) * 99 // 100]


class Phases:
    """Of each round, the latencies of the requests that were answered in each of its phases, which have names."""

    def __init__(self, load: OpenLoop) -> None:
        self._latencies_s = load.report.latencies_s
        self.rounds: list[dict[str, list[float]]] = []

    @contextlib.contextmanager
    def noted(self, name: str) -> Iterator[None]:
        """A phase of the round that is the last one."""
        began = len(self._latencies_s)
        yield
        self.rounds[-1][name] = self._latencies_s[began:]

    def pairs(self, first: Sequence[str], second: Sequence[str]) -> list[tuple[float, float]]:
        """Of each round the 99th percentiles, in seconds, of these phases together, and of those. Rounds are left out
        in which one of them has none: on a very busy machine no request may be answered in a phase."""
        found = []
        for phases in self.rounds:
            if all(phases.get(name) for name in (*first, *second)):
                both = [[latency_s for name in names for latency_s in phases[name]] for names in (first, second)]
                found.append((p99_s(both[0]), p99_s(both[1])))
        return found

    def told(self) -> list[str]:
        """What there is to say of "war", "elsewhere" and peace, which is what comes "before" and "after"."""
        peace = ("before", "after")
        lines = []
        for name, first, second in (
            ("war against peace", peace, ("war",)),
            ("a war elsewhere against peace", peace, ("elsewhere",)),
            ("peace after both against peace before them", ("before",), ("after",)),
        ):
            pairs = self.pairs(first, second)
            if pairs:
                low, high = interval(pairs, random.Random(1))
                lines.append(f"{name}: {ratio(pairs):.2f}, {low:.2f} to {high:.2f}; {len(pairs)} rounds")
        if pairs:
            lines.append(f"median p99 in peace {1e3 * statistics.median(one for one, _ in pairs):.2f} ms")
        return lines


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """How many times as much the second is, of the medians."""
    return statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)


def interval(pairs: Sequence[tuple[float, float]], rng: random.Random) -> tuple[float, float]:
    """In which that ratio is, with 95 % of confidence: rounds are drawn anew, as many as there are, DRAWS times."""
    found = sorted(ratio(rng.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    return found[DRAWS * 25 // 1000], found[DRAWS * 975 // 1000 - 1]
