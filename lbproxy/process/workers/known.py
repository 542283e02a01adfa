"""What the controller knows of servers, kept by the supervisor for the next controller: at once, whenever it changes.

Where that takes long, because there are many servers, it is told less often, so that it takes a small part of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from lbproxy.process.workers.lines import Line

RESTS: Final = 20
"""So many times as long as it took, nothing is told."""


class Known:
    """snapshot: plain data. clock: monotonic seconds."""

    def __init__(self, snapshot: Callable[[], object], line: Line, clock: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._line = line
        self._clock = clock
        self._rests_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something is another than before."""
        if self._timer is not None:
            return
        wait_s = self._rests_until - self._clock()
        if wait_s <= 0:
            self.tell()
        else:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.tell)

    def tell(self) -> None:
        """Tell it now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        begun = self._clock()
        self._line.say_all("known", self._snapshot())
        now = self._clock()
        self._rests_until = now + RESTS * (now - begun)
