"""How many requests a server takes at once, from how long some took alone and together.

Requests are sent together, 2, then 4, 8 and so on. As long as all of them take about as long as one alone the server
takes as many, or more. When they do not, two numbers tell how many: those that were answered as quickly as one alone
(the others waited), and how much work was done at a time (requests that share a processor are all answered late).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SHORTEST_S: Final = 0.01  # below it the connection and this process take a good part of what is measured
_AS_ALONE: Final = 1.7
AGAIN: Final = 2  # times that a level is tried again before it counts
ALONE: Final = 3  # requests one after the other, of which the quickest counts


@dataclass(frozen=True, slots=True)
class Pace:
    """at_once: None if that can't be told. is_more: more were not tried. alone_s: what a request takes by itself."""

    at_once: int | None
    is_more: bool
    alone_s: float
    requests: int
    failed: str = ""

    def __str__(self) -> str:
        if self.failed:
            return f"not known: {self.failed}"
        alone = f"one alone takes {self.alone_s * 1000:.0f} ms, {self.requests} requests sent"
        if self.at_once is None:
            return f"not known: {alone}, which is too short to tell; give --path one that takes at least 10 ms"
        return f"{self.at_once}{' or more' if self.is_more else ''} ({alone})"


def levels(most: int) -> list[int]:
    """How many requests are sent together, one level after the other."""
    found, n = [], 2
    while n < most:
        found.append(n)
        n *= 2
    return [*found, most] if most > 1 else []


def is_as_alone(alone_s: float, took_s: Sequence[float]) -> bool:
    """Whether each of those that were sent together was as quick as one alone."""
    return max(took_s) <= _AS_ALONE * alone_s


def at_once(alone_s: float, took_s: Sequence[float], passed: int) -> int:
    """How many, where not all were as quick. passed: the level before, at which all were."""
    first = sum(took <= _AS_ALONE * alone_s for took in took_s)
    parallel = round(len(took_s) * alone_s / max(took_s))
    return max(first, parallel, passed, 1)
