"""How long whoever runs lbproxy has to wait after SIGTERM before it sends SIGKILL."""

from __future__ import annotations

from lbproxy.control.state_file import STOP_S
from lbproxy.process.workers.supervisor import OVERTIME_S


def stops_within_s(grace_s: float) -> float:
    """With workers, of which the last one hangs, and a state file on a disk that does."""
    return grace_s + OVERTIME_S + STOP_S
