"""Who waits is sorted before it takes its place: by class, and by whose request it is.

The class is what a header field says, if who sent it may say so; the share is a key of the request (request_key.py).
Both are read only of requests that must wait. What is done with them: domain/turns.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.domain.keys import key_of
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.hashing import client_key
from lbproxy.request_key import RequestKey

NORMAL: Final = "normal"


def weights_of(n_classes: int) -> tuple[int, ...]:
    """Turns of each class while all of them wait, the first class first: 1 for the last, then 3, 8, 21, 55, 144 for
    those before it: each has about 2.6 times those of the next (every other Fibonacci number)."""
    found: list[int] = []
    lower, weight = 0, 1
    for _ in range(n_classes):
        found.append(weight)
        lower, weight = weight, 3 * weight - lower
    return tuple(reversed(found))


class FairRules:
    """See the module. key: whose request it is; None: all are one. header: name of the field that says the class, lower
    case, "" for none. is_anybody: may anybody say it, or only trusted peers? classes: their names, the first one first.
    """

    __slots__ = ("_ranks", "classes", "header", "is_anybody", "key", "usual", "weights")

    def __init__(
        self, key: RequestKey | None, header: str = "", classes: Sequence[str] = (), *, is_anybody: bool = False
    ) -> None:
        self.key = key
        self.header = header.lower()
        self.is_anybody = is_anybody
        self.classes = tuple(classes)
        self.weights = weights_of(max(1, len(self.classes)))
        self._ranks: dict[str, int] = {name.lower(): rank for rank, name in enumerate(self.classes)}
        self.usual = self._ranks.get(NORMAL, len(self.classes) // 2)
        """The class of who says nothing, or may not say it: `normal`, or else the middle one; of two, the lower."""

    def is_same(self, other: FairRules | None) -> bool:
        """Would the other one sort as this one does?"""
        return (
            other is not None
            and (self.key.text if self.key is not None else "") == (other.key.text if other.key is not None else "")
            and self.header == other.header
            and self.is_anybody == other.is_anybody
            and self.classes == other.classes
        )

    def rank_of(self, ctx: PickContext, *, is_trusted: bool) -> int:
        """The position of its class, 0 for the first. is_trusted: does it come from a trusted peer?"""
        request = ctx.request
        if not self.header or request is None or not (is_trusted or self.is_anybody):
            return self.usual
        return self._ranks.get(request.headers.get(self.header, "").strip().lower(), self.usual)

    def share_of(self, ctx: PickContext) -> bytes:
        """Whose it is; b"" where nothing says so, and for all without a key."""
        key = self.key
        if key is None:
            return b""
        if key.kind == "client_ip":
            return client_key(ctx.client_ip)
        return key_of(key, ctx.request) if ctx.request is not None else b""
