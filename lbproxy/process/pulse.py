"""How the process does: how late its event loop is, and what the access log lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, QUEUE_BUCKETS, Row, observe

TICK_S: Final = 0.25
LAG_WARNING_S: Final = 1.0
_LAG: Final = PROCESS.offset["loop_lag_seconds"]
_LOG_DROPPED: Final = PROCESS.column("log_dropped_total")


class Pulse:
    """Told of each tick of TICK_S. row: the PROCESS counters. log_dropped: lines that the access log lost so far."""

    def __init__(self, row: Row, log_dropped: Callable[[], int], log: ThrottledLog) -> None:
        self._row = row
        self._log_dropped = log_dropped
        self._log = log
        self._due = 0.0

    def start(self, now: float) -> None:
        """The first tick comes TICK_S from now."""
        self._due = now + TICK_S

    def tick(self, now: float) -> None:
        """It came. now: monotonic seconds."""
        lag_s = max(0.0, now - self._due)
        self._due = now + TICK_S
        observe(self._row, _LAG, QUEUE_BUCKETS, lag_s)
        if lag_s > LAG_WARNING_S:
            self._log.warning("lag", "the event loop was %.1f s late: the process was stopped or is overloaded", lag_s)
        dropped = self._log_dropped()
        if dropped > self._row[_LOG_DROPPED]:
            self._log.warning(
                "dropped", "the access log lost lines (%d so far): its output is blocked or full", dropped
            )
        self._row[_LOG_DROPPED] = dropped
