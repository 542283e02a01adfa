"""Slow uploads (RUDY): `limits.min_rate` of a listener, judged in the sweep.

The rate is all bytes of the body over all the time in which the client could have sent them, so a connection costs its
client at least min_rate bytes for every second that it is held. A pause between two reads has a bound of its own,
`timeouts.request_body`. Time does not count while lbproxy does not read, or while the client may be waiting for its
100 Continue: the slowness is not the client's then.
"""

from __future__ import annotations

from typing import Final

GRACE_S: Final = 10.0


class UploadRate:
    """Watches one body. min_rate: bytes a second. waits: the client sends after 100 Continue. Times are seconds."""

    __slots__ = ("_counted_s", "_grace_s", "_min_rate", "_running_since", "_waits")

    def __init__(self, min_rate: float, now: float, *, waits: bool = False, grace_s: float = GRACE_S) -> None:
        self._min_rate = min_rate
        self._grace_s = grace_s
        self._counted_s = 0.0
        self._waits = waits
        self._running_since: float | None = None if waits else now

    def stop(self, now: float) -> None:
        """lbproxy reads no more of the body for now."""
        if self._running_since is not None:
            self._counted_s += now - self._running_since
            self._running_since = None

    def go(self, now: float) -> None:
        """lbproxy reads again, or has sent 100 Continue."""
        self._waits = False
        if self._running_since is None:
            self._running_since = now

    def is_too_slow(self, n_bytes: int, now: float) -> bool:
        """Have these bytes of the body, all so far, taken too long?"""
        if n_bytes and self._waits:
            self.go(now)  # it did not wait for its 100
        running_s = now - self._running_since if self._running_since is not None else 0.0
        counted_s = self._counted_s + running_s
        return counted_s > self._grace_s and n_bytes < self._min_rate * counted_s
