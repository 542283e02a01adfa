"""Call-backs at an instant, to within some 50 microseconds.

The timers of event loops are rounded to whole milliseconds. A server whose every request takes up to a millisecond too
long is overloaded by 1 %, and at a load of 0.9 that is 10 % more waiting.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from heapq import heappop, heappush

from benchmarks.timerfd import Timer


class Alarm:
    """One timerfd for all call-backs of a loop. Times are those of time.monotonic()."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer = Timer()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        loop.add_reader(self._timer.fd, self._ring)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """In the order of `when`; equal ones in the order of these calls."""
        self._serial += 1
        heappush(self._due, (when, self._serial, call))
        if self._due[0][1] == self._serial:
            self._timer.arm(when)

    def _ring(self) -> None:
        try:
            os.read(self._timer.fd, 8)
        except BlockingIOError:
            return  # armed anew since it rang
        while self._due and self._due[0][0] <= time.monotonic():
            heappop(self._due)[2]()
        if self._due:
            self._timer.arm(self._due[0][0])

    def close(self) -> None:
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()
