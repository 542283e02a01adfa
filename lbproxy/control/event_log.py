"""What happened lately: a ring of events that the stream of events is fed from (control/event_stream.py).

Whoever changes something of interest says so here, in one sentence. The ring is bounded in events and in bytes, since
strangers can make servers flap; the same news about the same server counts once a second.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from lbproxy.telemetry.throttle import Throttle

Kind = Literal["flip", "ejection", "reload", "live", "fail_open", "names", "process"]
EVENTS: Final = 1000
BYTES: Final = 256 * 1024
TEXT_CHARS: Final = 500
VALUE_BYTES: Final = 2048  # of old and new each, as JSON
REPEAT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Event:
    """number: 1, 2, 3 ... in the order of time. text: a JSON object, on one line."""

    number: int
    text: str


class EventLog:
    """clock: unix seconds. n_events, n_bytes: how much is kept."""

    def __init__(self, clock: Callable[[], float] = time.time, *, n_events: int = EVENTS, n_bytes: int = BYTES) -> None:
        self._clock = clock
        self._most_events = n_events
        self._most_bytes = n_bytes
        self._ring: deque[Event] = deque()
        self._size = 0
        self._repeats = Throttle(REPEAT_S)
        self._run = f"{int(clock() * 1000):x}"  # tells events of this process from those of the one before it
        self.last = 0

    def add(
        self,
        kind: Kind,
        text: str,
        *,
        pool: str | None = None,
        server: str | None = None,
        by: str | None = None,
        old: object = None,
        new: object = None,
    ) -> None:
        """Something happened. text: one sentence. by: who did it. old, new: as JSON has them.

        What is too long is cut, a value that is too large is left out, and one that JSON has no word for is its text.
        """
        now = self._clock()
        if kind in ("flip", "ejection"):
            skipped = self._repeats.admit(f"{pool}/{server} {new}", now)
            if skipped is None:
                return
            text += f" ({skipped} more like this were left out)" if skipped else ""
        told = json.dumps(
            {
                "t": round(now, 3),
                "kind": kind,
                "pool": pool,
                "server": server,
                "text": text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 3] + "...",
                "by": by,
                "old": _small(old),
                "new": _small(new),
            },
            default=str,
        )
        self.last += 1
        self._ring.append(Event(self.last, told))
        self._size += len(told)
        while len(self._ring) > self._most_events or self._size > self._most_bytes:
            self._size -= len(self._ring.popleft().text)

    def until(self, number: int, most: int) -> list[Event]:
        """The newest `most` events up to this number, the newest last."""
        last = min(number, self.last)
        return self._between(max(last - most, 0), last)

    def after(self, number: int) -> list[Event]:
        """What came after this number and is still there, the newest last."""
        if number >= self.last:
            return []
        return self._between(number, self.last)

    def _between(self, after: int, last: int) -> list[Event]:
        first = self.last - len(self._ring)  # the number before the oldest
        return list(islice(self._ring, max(after - first, 0), max(last - first, 0)))

    # --- ids --------------------------------------------------------------------------------------------------------

    def id_of(self, number: int) -> str:
        """What a reader gives back to be told what came after this event."""
        return f"{self._run}-{number}"

    def position(self, given: str | None) -> int:
        """The number of the event with this id: what comes after it is news to the reader.

        None, or what is no id: nothing is. An id of another process: everything is.
        """
        run, dash, text = (given or "").partition("-")
        if not dash or not text.isascii() or not text.isdigit() or len(text) > 18:
            return self.last
        return min(int(text), self.last) if run == self._run else 0


def _small(value: object) -> object:
    return value if value is None or len(json.dumps(value, default=str)) <= VALUE_BYTES else None
