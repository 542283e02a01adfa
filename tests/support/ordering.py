"""Which tests come first: those that take long, so that none of them begins when all others are over.

pytest-xdist cuts the list of tests into as many pieces as there are processes, and who is through with its piece takes
the second half of what another has left. So tests that take long stand at the heads of the pieces. Those of one module
stay together, because they share what the module has started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def long_first(
    tests: Sequence[T], cost_s: Callable[[T], float], module: Callable[[T], object], n_pieces: int
) -> list[T]:
    """All tests, each once. cost_s: the longest that a test may take, 0 for one that takes no time to speak of."""
    groups: dict[object, list[T]] = {}
    for test in tests:
        if cost_s(test):
            groups.setdefault(module(test), []).append(test)
    dearest = sorted(groups.values(), key=lambda group: -max(map(cost_s, group)))
    cheap = [test for test in tests if not cost_s(test)]
    ordered: list[T] = []
    for number in range(n_pieces):
        # As the scheduler cuts: what is left, evenly among the processes that have none yet.
        size = (len(tests) - len(ordered)) // (n_pieces - number)
        head = [test for group in dearest[number::n_pieces] for test in group]
        n_cheap = max(0, size - len(head))
        ordered += head + cheap[:n_cheap]
        del cheap[:n_cheap]
    return ordered + cheap
