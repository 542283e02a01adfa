"""How many requests a server answers on one connection, where it closes it without a word: learned.

Some servers close each connection after its first answer, a moment later, and do not say so in that answer. A request
that is sent on such a connection before the close has arrived is lost, and for a POST that is a 502: every second one,
for ever. An idle time-out does not explain it, because even the quickest next request is too late.

Learned from connections that end early, which is soon after an answer:

    the same number of answers   on two connections, of which the second was opened after the first had ended: so they
                                 are two events, and not one restart. Does not count while another connection is known
                                 to have had more answers in the last minutes; then it is an idle time-out that is short
    few answers                  three such connections in a row that ended within MIN_AGE_S of an answer

What is learned is tried again now and then, without risking a request: a connection that has given its last answer is
left open and unused. If the server does not close it within TRIAL_S, there is no such limit any more.
"""

from __future__ import annotations

from math import inf
from typing import Final

from lbproxy.domain.idle_timeout import EARLY_S, EVIDENCE_S, MIN_AGE_S

NO_LIMIT: Final = 1 << 40
TRIAL_S: Final = 1.0
FIRST_TRIAL_S: Final = 10.0  # after it was learned; doubled each time that it is confirmed
MAX_TRIAL_S: Final = 300.0
_FEW: Final = 4
_ROW: Final = 3


class ReuseLimit:
    """What is known about one server. All times are monotonic seconds given by the caller.

    limit: after so many answers a connection is not used again, NO_LIMIT = any number.
    """

    __slots__ = ("_ended_at", "_few", "_last", "_most", "_most_at", "_pause_s", "_trial_at", "limit")

    def __init__(self) -> None:
        self.limit = NO_LIMIT
        self._last = 0  # answers of the connection that ended early last
        self._ended_at = -inf
        self._few: list[int] = []
        self._most = 0
        self._most_at = -inf
        self._pause_s = FIRST_TRIAL_S
        self._trial_at = inf

    def seen(self, answers: int, now: float) -> None:
        """A connection has had so many answers."""
        if answers >= self._most or now - self._most_at > EVIDENCE_S:
            self._most = answers
            self._most_at = now

    def explains(self, answers: int, age_s: float, opened_at: float, now: float) -> bool:
        """Take in that a connection ended `age_s` after its last answer. False: it says nothing about a limit.

        It had `answers` and was opened at `opened_at`. See `limit` for what follows.
        """
        is_known_more = answers < self._most and now - self._most_at <= EVIDENCE_S
        self.seen(answers, now)
        if age_s >= EARLY_S:
            return False
        if is_known_more and age_s >= MIN_AGE_S:
            return False
        if opened_at <= self._ended_at:
            return True  # the same event
        is_same = answers == self._last and not is_known_more
        self._last = answers
        self._ended_at = now
        self._few = [*self._few[1 - _ROW :], answers] if answers <= _FEW and age_s < MIN_AGE_S else []
        if is_same:
            self._learn(answers, now)
        elif len(self._few) == _ROW:
            self._learn(min(self._few), now)
        return True

    def _learn(self, answers: int, now: float) -> None:
        if answers < self.limit:
            self.limit = answers
            self._most = 0  # whatever was seen before
            self._trial_at = now + self._pause_s

    def is_trial_due(self, now: float) -> bool:
        """Shall a connection that has reached the limit be watched, to see whether the server closes it?"""
        return now >= self._trial_at

    def confirmed(self, now: float) -> None:
        """The server has closed the connection that was watched."""
        self._pause_s = min(2.0 * self._pause_s, MAX_TRIAL_S)
        self._trial_at = now + self._pause_s

    def lifted(self, now: float) -> None:
        """The server has left it open. If it turns out soon that this meant nothing, the next trial comes later."""
        self.limit = NO_LIMIT
        self._pause_s = min(2.0 * self._pause_s, MAX_TRIAL_S)
        self._trial_at = inf
        self._last = 0
        self._few = []
