"""What the processes of one lbproxy say of themselves all the time, in memory that they share: cells with one writer.

    PID, RESTARTS, STARTED_MS    by the supervisor
    BEAT_MS                      by the process: when its loop ran last
    STATE                        by the process: what it does
    GENERATION                   by the process: of the config that it keeps to
    REFUSES_AT                   by the process: it takes no requests as so many octets wait in it, 0: it does

A process is known by its number: 0 is the controller, 1 and up are the workers.
"""

from __future__ import annotations

import time
from collections.abc import MutableSequence
from typing import Final

from lbproxy.shared.segment import Segment

CONTROLLER: Final = 0

STARTING: Final = 0
SERVING: Final = 1
DRAINING: Final = 2

_WIDTH: Final = 8
_PID, _BEAT, _STATE, _RESTARTS, _GENERATION, _REFUSES_AT, _HAS_RUN = range(7)
BEAT_S: Final = 0.5


def name_of(number: int) -> str:
    """For people."""
    return "controller" if number == CONTROLLER else f"worker {number}"


class Board:
    """n_workers: without the controller. cells: given by tests. Raises SegmentError."""

    def __init__(self, n_workers: int, cells: MutableSequence[int] | None = None) -> None:
        self.n_workers = n_workers
        self._cells: MutableSequence[int] = (
            Segment((n_workers + 1) * _WIDTH).cells if cells is None else cells  # type: ignore[assignment]
        )

    @property
    def workers(self) -> range:
        """Their numbers."""
        return range(1, self.n_workers + 1)

    # --- the supervisor ---------------------------------------------------------------------------------------------

    def started(self, number: int, pid: int, now: float) -> None:
        """A process was forked; it is not there before `now`, monotonic seconds."""
        self._put(number, _STATE, STARTING)
        self._put(number, _HAS_RUN, 0)
        self._put(number, _BEAT, int(now * 1000))
        self._put(number, _PID, pid)

    def ended(self, number: int) -> None:
        """It was reaped."""
        self._put(number, _PID, 0)
        self._put(number, _STATE, STARTING)
        self._put(number, _REFUSES_AT, 0)

    def restarted(self, number: int) -> None:
        """It has a successor."""
        self._put(number, _RESTARTS, self.restarts(number) + 1)

    # --- the process ------------------------------------------------------------------------------------------------

    def beat(self, number: int, now: float | None = None) -> None:
        """Its loop runs. now: monotonic seconds."""
        self._put(number, _BEAT, int((time.monotonic() if now is None else now) * 1000))
        self._put(number, _HAS_RUN, 1)

    def tell(self, number: int, state: int) -> None:
        """It starts, serves or drains."""
        self._put(number, _STATE, state)

    def keeps_to(self, number: int, generation: int) -> None:
        """Of which config it is."""
        self._put(number, _GENERATION, generation)

    def refuses(self, number: int, n_bytes: int) -> None:
        """It takes no requests, as so many octets wait in it; 0: it does."""
        self._put(number, _REFUSES_AT, n_bytes)

    # --- whoever asks -----------------------------------------------------------------------------------------------

    def pid(self, number: int) -> int:
        """0: there is none."""
        return self._get(number, _PID)

    def state(self, number: int) -> int:
        """STARTING, SERVING or DRAINING."""
        return self._get(number, _STATE)

    def restarts(self, number: int) -> int:
        return self._get(number, _RESTARTS)

    def generation(self, number: int) -> int:
        return self._get(number, _GENERATION)

    def refuses_at(self, number: int) -> int:
        return self._get(number, _REFUSES_AT)

    def silent_s(self, number: int, now: float) -> float:
        """How long ago its loop ran."""
        return max(0.0, now - self._get(number, _BEAT) / 1000)

    def has_run(self, number: int) -> bool:
        """Has its loop, since it was forked?"""
        return bool(self._get(number, _HAS_RUN))

    def is_serving(self, number: int) -> bool:
        return bool(self.pid(number)) and self.state(number) == SERVING

    def _get(self, number: int, cell: int) -> int:
        return self._cells[number * _WIDTH + cell]

    def _put(self, number: int, cell: int, value: int) -> None:
        self._cells[number * _WIDTH + cell] = value
