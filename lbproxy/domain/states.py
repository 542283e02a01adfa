"""The three axes of a server's state, which are never mixed. What they come to together: domain/server.py."""

from __future__ import annotations

import enum
from typing import Final


class Admin(enum.StrEnum):
    """What the operator wants of it."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class Health(enum.StrEnum):
    """What checks and connects say about it."""

    UNKNOWN = "unknown"
    UP = "up"
    BUSY = "busy"
    DOWN = "down"


class Breaker(enum.StrEnum):
    """What its answers say about it."""

    CLOSED = "closed"
    EJECTED = "ejected"
    PROBING = "probing"


REFUSED: Final = "refused"  # why a server is down: its kernel said that nobody listens there
