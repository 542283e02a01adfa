"""After how long a server closes a kept connection that it hears nothing on: learned, so that lbproxy closes first.

A request that is sent on a connection just as its server closes it is lost, and for a POST that is a 502. Two sources:

    announced   the `Keep-Alive: timeout=` field of an answer; each connection goes by its own
    learned     two connections that the server closed after about the same time of silence, at different moments;
                three where that time is short, because then chance makes times look alike

Two, because one close says little: it may have been a restart, a limit on requests or an operator. Different moments,
because a restart closes everything at once, and what became idle together is then of the same age. The shorter of the
two counts: servers look at their connections now and then, so they close late and never early. And a close is no
time-out if another connection was silent for much longer in the last minutes and is still open: so two restarts that
end what was idle for a second do not teach a second.

Connections are retired at RETIRE_AT of the estimate. From then on the server closes none, hence nothing would ever say
that its time-out has become longer. So the estimate grows by GROWTH_A_MINUTE; once it is 1/RETIRE_AT of the truth the
server closes a connection first, and that one close puts it right: closings of the same age are remembered.

Connections that fall idle in waves are closed in waves. Of one wave one closing is remembered, or each wave would push
the one before out of memory. What ends right after an answer is no matter of patience: see domain/reuse.py.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

RETIRE_AT: Final = 0.8
GROWTH_A_MINUTE: Final = 0.01  # from 0.8 of the truth to the truth in 22 minutes
MOST_S: Final = 86_400.0  # longer than any connection is kept: what grows for days must fit where it is written down
_DAY_MINUTES: Final = 1440.0
EARLY_S: Final = 0.25  # closed sooner after an answer, it may have been the end of the answer rather than of patience
MIN_AGE_S: Final = 0.02  # sooner than this it was
MARGIN_S: Final = 0.03  # at least so much before the server: the next request takes time to get there
_NO_PROMISE: Final = -1.0  # seconds: no Keep-Alive field; 0 is a promise
SAME_MOMENT_S: Final = 0.2  # closings this close together are one event
EVIDENCE_S: Final = 300.0  # for how long it counts that a connection was seen open after a longer silence
_REMEMBERED: Final = 8


def is_about(age_s: float, other_s: float) -> bool:
    """Are these the same time-out, as a server applies it that looks once a second or so?"""
    longer = max(age_s, other_s)
    return abs(age_s - other_s) <= 0.15 * longer + min(0.5, longer / 2)


class IdleTimeout:
    """What is known about the idle time-out of one server. All times are monotonic seconds given by the caller.

    announced_s: what its last Keep-Alive field promised, negative without one. learned_s: see the module, 0.0 = not
    known.
    """

    __slots__ = ("_closings", "_grown_at", "_open_at", "_open_s", "announced_s", "learned_s")

    def __init__(self) -> None:
        self.announced_s = _NO_PROMISE
        self.learned_s = 0.0
        self._grown_at = -1.0  # not yet
        self._open_s = 0.0
        self._open_at = -inf
        self._closings: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)  # (moment, age)

    def told(self, learned_s: float) -> None:
        """Another process says what is known. It grows from the next look on, and not for all the time before."""
        if learned_s != self.learned_s:
            self.learned_s = learned_s
            self._grown_at = -1.0

    def closed_by_server(self, age_s: float, now: float) -> bool:
        """A connection that was idle for `age_s` got the server's FIN. True if `learned_s` has changed."""
        if age_s < MIN_AGE_S or self._is_known_longer(age_s, now):
            return False
        twins = [age for at, age in self._closings if now - at > SAME_MOMENT_S and is_about(age, age_s)]
        if all(now - at > SAME_MOMENT_S or not is_about(age, age_s) for at, age in self._closings):
            self._closings.append((now, age_s))
        if len(twins) < (1 if age_s >= EARLY_S else 2):
            return False
        known = self.learned_s
        if known and age_s > known and is_about(age_s, known):
            return False  # it closed late
        self.learned_s = min(age_s, *twins) if not known or age_s > known else age_s
        self._grown_at = now
        return self.learned_s != known

    def still_open(self, age_s: float, now: float) -> None:
        """A connection was idle for `age_s` and the server has not closed it."""
        if age_s >= self._open_s or now - self._open_at > EVIDENCE_S:
            self._open_s = age_s
            self._open_at = now

    def _is_known_longer(self, age_s: float, now: float) -> bool:
        return age_s < self._open_s and now - self._open_at <= EVIDENCE_S and not is_about(age_s, self._open_s)

    def retire_after_s(self, now: float) -> float:
        """After how much silence a connection should be closed, inf if nothing is known. Makes the estimate grow."""
        if not self.learned_s:
            return inf
        if self._grown_at < 0.0:
            self._grown_at = now
        minutes = min((now - self._grown_at) / 60.0, _DAY_MINUTES)
        if minutes >= 1.0:
            self.learned_s = min(self.learned_s * (1.0 + GROWTH_A_MINUTE) ** minutes, MOST_S)
            self._grown_at = now
        return max(0.0, min(RETIRE_AT * self.learned_s, self.learned_s - MARGIN_S))
