"""A split: which of several pools takes a request of one route, in proportion to their shares.

By request, chance decides. By a key (request_key.py), what has the same key goes to the same pool, and what has none
goes by chance: weighted rendezvous hashing, as for servers (strategies/hashing.py). So a pool whose share grows only
draws keys from the others, one whose share shrinks only gives some away, and no key moves between two others.

Shares are whole numbers, in any scale: 95 and 5 are 95 % and 5 %, and so are 19 and 1. Those in force stand in cells,
which all workers see; what is written there by an operator stands over the file's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.strategies.hashing import score
from lbproxy.request_key import RequestKey

MOST_POOLS: Final = 16
MOST_SHARE: Final = 1_000_000
_PERSON: Final = b"lbproxy split"


class Split:
    """See the module. names: of the pools, at most MOST_POOLS; given: their shares as the file has them, one above 0.

    key None: by request. cells: from `first` on one for each pool, the share + 1; all 0: what the file says holds.
    """

    __slots__ = ("_cells", "_first", "_seeds", "given", "key", "names")

    def __init__(
        self, names: Sequence[str], given: Sequence[int], key: RequestKey | None, cells: Cells, first: int
    ) -> None:
        self.names = tuple(names)
        self.given = tuple(given)
        self.key = key
        self._cells = cells
        self._first = first
        self._seeds = [blake2b(name.encode(), person=_PERSON).digest() for name in names]

    def live(self) -> tuple[int, ...]:
        """What an operator has said; empty if the file holds."""
        cells, first = self._cells, self._first
        words = [cells[first + number] for number in range(len(self.given))]
        # Another process may be writing them: what is not whole yet is not in force yet.
        if min(words) <= 0 or sum(words) == len(words):
            return ()
        return tuple([word - 1 for word in words])

    def shares(self) -> tuple[int, ...]:
        """Those in force."""
        return self.live() or self.given

    def set(self, shares: Sequence[int]) -> None:
        """Have these in force; empty: what the file says."""
        cells, first = self._cells, self._first
        for number in range(len(self.given)):
            cells[first + number] = shares[number] + 1 if shares else 0

    def pick(self, key: bytes, chance: float) -> int:
        """The position of the pool that takes a request. key: b"" if it has none. chance: from 0 to less than 1."""
        shares = self.shares()
        if key:
            return self._ranked(key, shares)
        left = chance * sum(shares)
        last = 0
        for number, share in enumerate(shares):
            if share:
                if left < share:
                    return number
                left -= share
                last = number
        return last  # where rounding has left nothing for it

    def _ranked(self, key: bytes, shares: tuple[int, ...]) -> int:
        best = 0
        most = 0.0
        for number, share in enumerate(shares):
            if share:
                digest = blake2b(key, digest_size=8, key=self._seeds[number]).digest()
                found = score(int.from_bytes(digest, "big"), share)
                if found > most:
                    best, most = number, found
        return best
