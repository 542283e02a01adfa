"""Whether a process that does not say that its loop runs is stuck, or only waits for a processor.

A process that is stopped, or hangs in a call or in a loop of its own, is replaced. One that is ready to run and is not
given a processor would be no quicker as another process, and everything that it has in hand would be lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SILENT_S: Final = 4.0
START_S: Final = 60.0  # until its loop runs for the first time: a thousand pools take seconds to be made
BUSY_S: Final = 3.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """state: as in proc(5), R, S, D, T ... cpu_s: that it has used since its start."""

    state: str
    cpu_s: float


def look(pid: int, proc: Path = Path("/proc")) -> Look | None:
    """None if there is no such process."""
    try:
        fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Look(fields[0], (int(fields[11]) + int(fields[12])) / _TICKS)


class Watch:
    """Of one process. To be asked about twice a second."""

    def __init__(self) -> None:
        self._cpu_s: float | None = None  # when it became silent

    def is_stuck(self, silent_s: float, seen: Look | None, patience_s: float = SILENT_S) -> bool:
        """silent_s: for how long its loop has not run. seen: None: it is gone, and will be reaped."""
        if silent_s < 1.0 or seen is None:
            self._cpu_s = None
            return False
        if self._cpu_s is None:
            self._cpu_s = seen.cpu_s
        if silent_s < patience_s or seen.state == "D":  # no signal reaches it there
            return False
        return seen.state != "R" or seen.cpu_s - self._cpu_s >= BUSY_S
