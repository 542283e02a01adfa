"""Where the shares of splits stand: found by what a split is called, so that what was said of it outlives a reload."""

from __future__ import annotations

from lbproxy.config.body_rules import MOST_POOLS
from lbproxy.config.http_rules import Route
from lbproxy.domain.route_words import match_words
from lbproxy.domain.shared.cells import Cells
from lbproxy.process.settings import route_spec
from lbproxy.process.workers.part import Part

SplitName = tuple[str, ...]
"""A listener, what its route is known by, and the pools in their order."""


def split_name(listener: str, route: Route) -> SplitName:
    """What is the same split before and after a reload: routes may move, and others may join."""
    return listener, route.name or match_words(route_spec(route.match).match), *route.pools


class SplitCells:
    """part: what other processes share, None if there are none."""

    def __init__(self, part: Part | None) -> None:
        self._part = part
        self._own: dict[SplitName, list[int]] = {}

    def find(self, name: SplitName) -> tuple[Cells, int]:
        """The cells of a split, and the first of them. Raises LookupError if there is no room for one more."""
        if self._part is not None:
            return self._part.split_cells(name)
        return self._own.setdefault(name, [0] * MOST_POOLS), 0

    def keep(self, names: set[SplitName]) -> None:
        """There are no others any more."""
        if self._part is not None:
            self._part.keep_splits(names)
        else:
            self._own = {name: cells for name, cells in self._own.items() if name in names}
