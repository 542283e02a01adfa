"""Slow start: a server that came back or joined gets its full share of requests bit by bit.

Its caches are cold, and with the least load of all it would draw every new request. For `slow_start` seconds its weight
and its limit are multiplied by the share of that time which has passed, at least 0.1 (one request at once at least).

No ramp: at process start (all are equally cold), after an absence of less than MIN_ABSENCE_S (nothing was lost), and
for a server with which more than half of the pool would be ramping (nobody is left to take the load meanwhile, and a
single server must serve what there is).
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.server import Server

MIN_ABSENCE_S: Final = 1.0
RAMP_FLOOR: Final = 0.1


class SlowStart:
    """The ramps of one pool. window_s 0: none. All times are monotonic seconds given by the caller."""

    __slots__ = ("_away_since", "_started_at", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._away_since: dict[Server, float] = {}
        self._started_at: dict[Server, float] = {}

    def reconfigure(self, window_s: float) -> None:
        """Another length, for ramps under way too; 0 ends them."""
        self.window_s = window_s
        if window_s <= 0.0:
            for server in self._started_at:
                server.set_ramp(1.0)
            self._started_at.clear()
            self._away_since.clear()

    def left(self, server: Server, now: float) -> None:
        """It went down, was ejected or went into maintenance; -inf: it is new. The first call of an absence counts."""
        if self.window_s > 0.0:
            self._away_since.setdefault(server, now)

    def forget(self, server: Server) -> None:
        """It is no member any more."""
        self._away_since.pop(server, None)
        if self._started_at.pop(server, None) is not None:
            server.set_ramp(1.0)

    def came_back(self, server: Server, now: float, n_servers: int) -> bool:
        """It is usable (again). True if a ramp has begun: strategies must be rebuilt."""
        if now - self._away_since.pop(server, now) < MIN_ABSENCE_S:
            return False
        is_new = server not in self._started_at
        if is_new and 2 * (len(self._started_at) + 1) > n_servers:
            return False
        self._started_at[server] = now
        server.set_ramp(RAMP_FLOOR)
        return True

    def step(self, now: float) -> bool:
        """Raise weights and limits. True if a ramp has ended: strategies must be rebuilt (in between they need not be:
        a rebuild clears what some of them remember)."""
        has_ended = False
        for server, started_at in tuple(self._started_at.items()):
            share = (now - started_at) / self.window_s
            server.set_ramp(min(1.0, max(RAMP_FLOOR, share)))
            if share >= 1.0:
                del self._started_at[server]
                has_ended = True
        return has_ended
