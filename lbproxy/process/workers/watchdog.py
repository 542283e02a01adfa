"""Ends processes that are stuck, or have had their time."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from typing import Final

from lbproxy.process.workers.board import Board
from lbproxy.process.workers.child import Child
from lbproxy.process.workers.stuck import SILENT_S, START_S, look

log = logging.getLogger("lbproxy")

LOOK_S: Final = 0.5


class Watchdog:
    """Looks at the children every LOOK_S. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._looked_at = 0.0
        self._trusted_at = 0.0

    def is_due(self, now: float) -> bool:
        """Is it time to look again?"""
        return now - self._looked_at >= LOOK_S

    def look(self, children: Iterable[Child], board: Board, now: float, *, is_late: bool) -> None:
        """is_late: all of them should have ended by now."""
        if now - self._looked_at > LOOK_S + SILENT_S / 2:  # this one was stopped itself, and so were they, perhaps
            self._trusted_at = now + SILENT_S
        self._looked_at = now
        for child in children:
            if not child.pid:
                continue
            silent_s = board.silent_s(child.number, now)
            seen = look(child.pid) if silent_s >= 1.0 else None
            patience_s = SILENT_S if board.has_run(child.number) else START_S
            is_stuck = child.watch.is_stuck(silent_s, seen, patience_s) and now >= self._trusted_at
            if is_stuck and seen is not None:
                log.error(
                    "the %s (%d) has not answered for %.1f s (its state is %s): it is killed",
                    child.name,
                    child.pid,
                    silent_s,
                    seen.state,
                )
            elif is_late:
                log.error("the %s (%d) does not end: it is killed", child.name, child.pid)
            if is_stuck or is_late:
                os.kill(child.pid, signal.SIGKILL)
