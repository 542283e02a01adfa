"""Heads that were seen before, byte for byte, so that reading and rewriting them again is a look-up.

A client in a loop and a health check send the same head again and again. Most traffic does not, and pays one hash for
this. It is sound because what is kept is a pure function of the bytes, and of the config of whoever owns the memo.
Everything is bounded, and a head is kept when it comes a second time: what never repeats costs a number.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_HEADS: Final = 1024
MAX_HEAD_BYTES: Final = 4096
MAX_SEEN: Final = 4 * MAX_HEADS

Read = TypeVar("Read")  # what is made of a head


class HeadMemo(Generic[Read]):
    """The memo of one listener and one level of trust, or of one pool. `heads` is public for the hot path's look."""

    __slots__ = ("_seen", "heads")

    def __init__(self) -> None:
        self.heads: dict[bytes, Read] = {}
        self._seen: set[int] = set()

    def learn(self, raw: bytes, read: Read) -> None:
        """Note a head that is not kept yet; keep what was made of it if it has come before."""
        number = hash(raw)
        if number not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(number)
        elif len(raw) <= MAX_HEAD_BYTES:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[raw] = read
