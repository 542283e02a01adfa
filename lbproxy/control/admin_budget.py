"""How much of the loop's time strangers at the admin address may take: a bucket of seconds, which fills steadily.

What is spent is measured, not guessed, as the price of a piece of work depends on the machine. The last piece may cost
more than there was: whoever comes next waits for that, too.
"""

from __future__ import annotations

from collections.abc import Callable


class Budget:
    """share: of the time that passes. burst_s: as much may be spent at once. step_s: who has spent it all waits until
    there is as much again. clock: monotonic seconds.
    """

    def __init__(self, share: float, burst_s: float, step_s: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._burst_s = burst_s
        self._step_s = step_s
        self._clock = clock
        self._left_s = burst_s
        self._filled_at = clock()

    def spend(self, seconds: float) -> float:
        """So much was spent; gives the `wait_s` after that. Less than 0: it is given back."""
        left_s = self._left_s = min(self.left_s - seconds, self._burst_s)
        return 0.0 if left_s > 0.0 else (self._step_s - left_s) / self._share

    @property
    def left_s(self) -> float:
        """What may be spent now; 0 or less: nothing."""
        now = self._clock()
        filled_s = max(now - self._filled_at, 0.0) * self._share
        self._left_s = min(self._left_s + filled_s, self._burst_s)
        self._filled_at = now
        return self._left_s

    @property
    def wait_s(self) -> float:
        """So long nothing may be spent; 0: something may be spent now."""
        left_s = self.left_s
        return 0.0 if left_s > 0.0 else (self._step_s - left_s) / self._share
