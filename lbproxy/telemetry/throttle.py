"""Not the same line again and again."""

from __future__ import annotations


class Throttle:
    """Lets one line a second pass per cause and says how many were left out.

    cause: a short word from code or configuration, never from the network; at most 1024 are remembered.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, cause: str, now: float) -> int | None:
        """None: keep quiet. Otherwise log, and the number is how many of this cause were kept quiet since the last."""
        last, skipped = self._seen.get(cause, (float("-inf"), 0))
        if now - last < self._interval_s:
            self._seen[cause] = (last, skipped + 1)
            return None
        if len(self._seen) >= 1024:
            self._seen.clear()
        self._seen[cause] = (now, 0)
        return skipped
