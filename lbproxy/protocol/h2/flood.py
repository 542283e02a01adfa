"""How often a peer may do what costs it little and this end much: buckets that leak."""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64

_MAX_EXCUSED: Final = 1_000
_EXCUSED_BY_FRAME: Final = 4


class Bucket:
    """At most `most` in `period_s` seconds; what was counted is forgotten evenly over that time. most 0: any number."""

    __slots__ = ("_at", "_level", "_most", "_per_s")

    def __init__(self, most: int, period_s: float) -> None:
        self._most = float(most)
        self._per_s = most / period_s
        self._level = 0.0
        self._at = 0.0

    def is_over(self, now: float) -> bool:
        """Count one more. now: seconds of a clock that does not go back."""
        level = max(0.0, self._level - (now - self._at) * self._per_s) + 1.0
        self._at = now
        self._level = level
        return self._most > 0.0 and level > self._most


class ControlFrames:
    """Frames that ask for no work: PING, SETTINGS, PRIORITY, empty DATA, WINDOW_UPDATE of little, unknown ones.

    Some are owed to what this end sends: receivers measure the way with a PING, and tell what they took. So each frame
    of HEADERS or DATA that was sent excuses a few, and only what is beyond that counts.
    """

    __slots__ = ("_bucket", "_excused")

    def __init__(self, most: int, period_s: float) -> None:
        self._bucket = Bucket(most, period_s)
        self._excused: i64 = 0

    def sent(self) -> None:
        """A frame of HEADERS or DATA."""
        if self._excused < _MAX_EXCUSED:
            self._excused += _EXCUSED_BY_FRAME

    def is_over(self, now: float) -> bool:
        """One more that nothing excuses."""
        return self._bucket.is_over(now)

    def is_over_answering(self, now: float) -> bool:
        """One more of a kind that answers what was sent."""
        if self._excused > 0:
            self._excused -= 1
            return False
        return self._bucket.is_over(now)
