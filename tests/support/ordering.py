"""Which tests come first: those that take long, so that none of them begins when all others are over.

pytest-xdist cuts the list of tests into as many pieces as there are processes, and who is through with its piece takes
the second half of what another has left. So tests that take long stand in the first third of each piece, the dearest at
its head. The others between them have something to compute while the long ones wait, as most of them do nearly all of
their time: all processes at once would wait, and then all would compute. Those of one module stay together, because
they share what the module has started.
"""

from __future__ import annotations

import itertools
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
        long = dearest[number::n_pieces]
        n_cheap = max(0, size - sum(map(len, long)))
        ordered += _mixed(long, cheap[:n_cheap], module)
        del cheap[:n_cheap]
    return ordered + cheap


def _mixed(groups: Sequence[list[T]], cheap: Sequence[T], module: Callable[[T], object]) -> list[T]:
    """Each group before the module of cheap tests that reaches its place, which are spread evenly over a third."""
    mixed: list[T] = []
    n_placed = n_cheap = 0
    for _, tests in itertools.groupby(cheap, module):
        run = [*tests]
        n_cheap += len(run)
        while n_placed < len(groups) and n_placed * len(cheap) < 3 * n_cheap * len(groups):
            mixed += groups[n_placed]
            n_placed += 1
        mixed += run
    return mixed + [test for group in groups[n_placed:] for test in group]
