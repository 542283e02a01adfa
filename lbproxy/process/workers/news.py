"""What a worker sees of servers and the controller must know, as messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No connection to a server. is_refused: its kernel said that nobody listens there."""

    pool: str
    server: str
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """After how many seconds a server closes an idle connection (0.0: not known), and how many answers it gives on one
    (NO_LIMIT of domain/reuse.py: any number)."""

    pool: str
    server: str
    idle_timeout_s: float
    most_requests: int
