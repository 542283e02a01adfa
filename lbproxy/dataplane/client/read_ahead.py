"""What a client sends behind the request that is being answered: kept in order, counted, and bounded.

Reading pauses when it is full and goes on when there is room. Both look at the same two numbers, and room means half of
either bound, so a client that sends without end is not paused and resumed for each answer.
"""

from __future__ import annotations

from typing import Final

MOST_BYTES: Final = 64 * 1024
MOST_REQUESTS: Final = 32
_END: Final = b"\r\n\r\n"


def heads_in(data: bytes, at: int = 0) -> int:
    """How many heads end in `data` from `at` on; it stops behind MOST_REQUESTS. A body may look like heads."""
    count = 0
    while count <= MOST_REQUESTS:
        at = data.find(_END, at)
        if at < 0:
            break
        count += 1
        at += len(_END)
    return count


class ReadAhead:
    """Bytes in their order. Adding costs what is added, not what is there."""

    __slots__ = ("_first", "_n_requests", "_others", "_tail", "size")

    def __init__(self, data: bytes) -> None:
        self._first = data
        self._others: bytearray | None = None
        self.size = len(data)
        self._n_requests = heads_in(data)
        self._tail = data[-3:]  # an end may have begun in it

    def add(self, data: bytes) -> None:
        """More arrived."""
        if self._others is None:
            self._others = bytearray(data)
        else:
            self._others += data
        self.size += len(data)
        # Four bytes make an end, so one that is found behind three old ones was not counted yet.
        seam = self._tail + data
        self._n_requests += heads_in(seam)
        self._tail = seam[-3:]

    def take(self) -> bytes:
        """All of it."""
        return self._first if self._others is None else self._first + bytes(self._others)

    @property
    def is_full(self) -> bool:
        """Is it time to stop reading?"""
        return self.size > MOST_BYTES or self._n_requests > MOST_REQUESTS

    @property
    def has_room(self) -> bool:
        """May reading go on, after it was stopped?"""
        return self.size <= MOST_BYTES // 2 and self._n_requests <= MOST_REQUESTS // 2
