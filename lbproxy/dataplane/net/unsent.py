"""What a socket has not taken yet: the pieces as they came, since joining 1 MiB of them means copying it.

Small ones are joined (pieces.py says why).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from lbproxy.dataplane.net.pieces import SMALL

Data = bytes | bytearray | memoryview
MOST_AT_ONCE: Final = 64  # pieces for one system call; the kernel takes up to 1024


class Unsent:
    """A queue of bytes. size: how many."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0

    def add(self, data: Data, start: int = 0) -> None:
        """Keep what is behind `start`. What is not bytes may change, and is copied."""
        if start < len(data):
            fixed = data if isinstance(data, bytes) else bytes(data)
            self.size += len(data) - start
            if len(fixed) < SMALL and self._pieces:
                last = self._pieces[-1]
                if isinstance(last, bytes) and len(last) < SMALL:
                    self._pieces[-1] = last + fixed[start:]  # a stream of words, each of which has its own object
                    return
            self._pieces.append(memoryview(fixed)[start:] if start else fixed)

    def add_rest(self, pieces: Sequence[Data], sent: int) -> None:
        """Keep of these pieces what is behind the first `sent` bytes."""
        for piece in pieces:
            self.add(piece, min(sent, len(piece)))
            sent = max(0, sent - len(piece))

    def first(self) -> list[bytes | memoryview]:
        """The pieces to send next."""
        return list(islice(self._pieces, MOST_AT_ONCE))

    def take(self, count: int) -> None:
        """The first `count` bytes are sent."""
        self.size -= count
        pieces = self._pieces
        while count:
            size = len(pieces[0])
            if count < size:
                pieces[0] = memoryview(pieces[0])[count:]
                return
            count -= size
            pieces.popleft()
