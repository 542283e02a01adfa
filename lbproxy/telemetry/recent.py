"""The last lines of the access log, for who asks about one of them.

A request pays nothing for it: what is kept are the batches of lines that the writer hands to its thread, as they are
(log_writer.py). Only a question searches them, from the newest to the oldest. Both the lines and their bytes are
bounded; what is over a bound goes batch by batch, the oldest first, so there may be some more lines than the bound, by
less than a batch, but never more bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii as _json_string
from typing import Final

LIMIT_BYTES: Final = 16 << 20
MOST_FOUND: Final = 16
"""Lines of one id that are told: a client may send an id again and again."""


class RecentLines:
    """See the module. most: lines that are kept, at least 1. limit_bytes: of all together."""

    __slots__ = ("_batches", "_limit_bytes", "_most", "n_bytes", "n_lines")

    def __init__(self, most: int, limit_bytes: int = LIMIT_BYTES) -> None:
        self._most = most
        self._limit_bytes = limit_bytes
        self._batches: deque[tuple[int, bytes]] = deque()
        self.n_lines = 0
        self.n_bytes = 0

    def keep(self, count: int, data: bytes) -> None:
        """So many lines, each with its newline."""
        batches = self._batches
        batches.append((count, data))
        self.n_lines += count
        self.n_bytes += len(data)
        while batches and (self.n_bytes > self._limit_bytes or self.n_lines - batches[0][0] >= self._most):
            gone, octets = batches.popleft()
            self.n_lines -= gone
            self.n_bytes -= len(octets)

    def newest_first(self) -> Iterator[bytes]:
        """The batches that are there now."""
        for _, data in reversed(list(self._batches)):
            yield data


def needle_of(request_id: str) -> bytes:
    """What stands in the JSON line of this request, and in no other: values of clients are escaped."""
    return f'"request_id":{_json_string(request_id)},'.encode()


def lines_with(needle: bytes, data: bytes) -> list[bytes]:
    """The lines of a batch that hold this, the newest first, MOST_FOUND at most."""
    found: list[bytes] = []
    end = len(data)
    for _ in range(MOST_FOUND):
        place = data.rfind(needle, 0, end)
        if place < 0:
            break
        start = data.rfind(b"\n", 0, place) + 1
        stop = data.find(b"\n", place)
        found.append(data[start : stop if stop >= 0 else len(data)])
        end = start
    return found
