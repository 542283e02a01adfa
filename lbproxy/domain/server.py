"""A server of a pool: what the operator wants of it, what is observed of it, and what it is doing.

Three axes that are never mixed (decisions, "Server states"):

    admin    what the operator wants          ready | drain | maint
    health   what checks and connects say     unknown | up | busy | down
    breaker  what its answers say             closed | ejected | probing

Truth table of `shown` (what users see) and `is_usable` (may take a new request); the first matching row holds:

    admin   breaker   health        shown     usable
    maint   any       any           maint     no
    drain   any       any           drain     no
    ready   ejected   any           ejected   no
    ready   any       down          down      no       (probing a server that is down makes no sense)
    ready   probing   not down      probing   only by its probe permit
    ready   closed    busy          busy      yes
    ready   closed    up, unknown   up        yes

`down_reason` "refused" means that the kernel said no: nobody listens there, and fail-open never uses such a server.
Any other reason is a verdict of checks, which may be wrong.
"""

from __future__ import annotations

import enum
from math import exp

from lbproxy.address import Address


class Admin(enum.StrEnum):
    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class Health(enum.StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    BUSY = "busy"
    DOWN = "down"


class Breaker(enum.StrEnum):
    CLOSED = "closed"
    EJECTED = "ejected"
    PROBING = "probing"


REFUSED = "refused"
LATENCY_TAU_S = 10.0


class Server:
    """One address of a pool. Identity = pool + address; counters and states survive a change of anything else.

    inflight counts requests (TCP: connections) given to it and not finished; the pool alone changes it. max_inflight 0
    means no limit. progress_at is the last time (monotonic seconds) it finished a request or sent a byte.
    """

    __slots__ = (
        "_latency_at",
        "_latency_s",
        "address",
        "admin",
        "backup",
        "breaker",
        "changed_at",
        "down_reason",
        "errors",
        "health",
        "inflight",
        "key",
        "max_inflight",
        "name",
        "progress_at",
        "requests",
        "weight",
        "why",
    )

    def __init__(
        self, name: str, address: Address, *, weight: int = 1, max_inflight: int = 0, backup: bool = False
    ) -> None:
        self.name = name
        self.address = address
        self.key = str(address)
        self.weight = weight
        self.max_inflight = max_inflight
        self.backup = backup
        self.inflight = 0
        self.admin = Admin.READY
        self.health = Health.UNKNOWN
        self.breaker = Breaker.CLOSED
        self.down_reason = ""
        self.why = ""
        self.changed_at = 0.0
        self.progress_at = float("-inf")
        self.requests = 0
        self.errors = 0
        self._latency_s = 0.0
        self._latency_at = 0.0

    @property
    def is_usable(self) -> bool:
        """May take a new request, as far as the three axes go (see the table above). Weight 0 means drained."""
        return (
            self.admin is Admin.READY
            and self.breaker is Breaker.CLOSED
            and self.health is not Health.DOWN
            and self.weight > 0
        )

    @property
    def is_full(self) -> bool:
        return 0 < self.max_inflight <= self.inflight

    @property
    def shown(self) -> str:
        """The state that users see: up, busy, down, ejected, probing, drain or maint."""
        if self.admin is not Admin.READY:
            return self.admin.value
        if self.breaker is Breaker.EJECTED:
            return "ejected"
        if self.health is Health.DOWN:
            return "down"
        if self.breaker is Breaker.PROBING:
            return "probing"
        return "busy" if self.health is Health.BUSY else "up"

    def latency(self, now: float) -> float:
        """Peak-sensitive moving average of the time to the end of the answer, in seconds, decayed to `now`.

        Finagle's peak EWMA: a slower answer counts at once, faster ones pull the value down with tau = 10 s.
        """
        if self._latency_s == 0.0:
            return 0.0
        return self._latency_s * exp(-max(0.0, now - self._latency_at) / LATENCY_TAU_S)

    def observe_latency(self, elapsed_s: float, now: float) -> None:
        """Feed one answer's time into the average."""
        before = self._latency_s
        if elapsed_s < before:
            # exp(-dt/tau) is 1 - dt/tau to within 1e-7 while answers are closer than 5 ms.
            gap = (now - self._latency_at) / LATENCY_TAU_S
            elapsed_s += (before - elapsed_s) * (1.0 - gap if gap < 0.0005 else exp(-gap))
        self._latency_s = elapsed_s
        self._latency_at = now

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.shown} {self.inflight}/{self.max_inflight or 'inf'}>"
