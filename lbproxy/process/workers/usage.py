"""What a process of lbproxy costs, as /proc tells it (proc_pid_stat(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21  # fields 14, 15 and 24 there; what comes before the first of these is cut off


@dataclass(frozen=True, slots=True)
class Usage:
    """cpu_s: seconds of processor time, of the process and of the kernel for it, since its start. rss: octets of memory
    that it has, those shared with the other processes counted in."""

    cpu_s: float
    rss: int


def usage_of(pid: int, proc: Path = Path("/proc")) -> Usage | None:
    """None: it is gone, or there is no /proc."""
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may have any characters in it
    return Usage((int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_A_SECOND, int(fields[_RSS]) * _PAGE)
