"""Health of one server from the results of its checks: up after `rise` passes in a row, down after `fall` failures.

    now      PASS               FAIL               BUSY
    unknown  up                 down               busy
    up       up                 down after `fall`  busy
    busy     up                 down after `fall`  busy
    down     up after `rise`    down               down

BUSY is a check that timed out while the server made progress: no failure (a saturated server must not be thrown out)
and no pass. "After n" means n equal results in a row; any other result in between starts the count again, so results
that alternate never flip a server while n > 1. A server that timed out without progress gives FAIL, hence a wedged one
leaves after `fall` checks, once its last progress is too long ago to excuse it.

`unknown` exists only at start: such a server takes traffic, so the first result decides. A server that joined later is
down until its first pass. When nobody else is usable one pass is enough.

Refused: the kernel says that nobody listens. That is a fact and not a sample: down at once, whether a check or a
request met it. The checks after it come quickly (QUICK_S, then doubled each time up to the interval), because a server
that is being restarted is back within seconds; a pass makes them quick again, so that `rise` passes do not take `rise`
intervals.

Invariants: down is left only through a pass; `reason` is empty unless down, and REFUSED only if nobody listened at the
last attempt.
"""

from __future__ import annotations

import enum
from typing import Final

from lbproxy.domain.rng import Rng
from lbproxy.domain.states import REFUSED, Health

QUICK_S: Final = 0.25
JITTER: Final = 0.1


class CheckResult(enum.Enum):
    """How one check ended."""

    PASS = "pass"
    FAIL = "fail"
    BUSY = "busy"


class _After(enum.Enum):
    """How many equal results in a row a transition needs."""

    ONE = "one"
    RISE = "rise"
    FALL = "fall"


_PASS: Final = CheckResult.PASS
_FAIL: Final = CheckResult.FAIL
_BUSY: Final = CheckResult.BUSY

_TRANSITIONS: Final[dict[tuple[Health, CheckResult], tuple[Health, _After]]] = {
    (Health.UNKNOWN, _PASS): (Health.UP, _After.ONE),
    (Health.UNKNOWN, _FAIL): (Health.DOWN, _After.ONE),
    (Health.UNKNOWN, _BUSY): (Health.BUSY, _After.ONE),
    (Health.UP, _PASS): (Health.UP, _After.ONE),
    (Health.UP, _FAIL): (Health.DOWN, _After.FALL),
    (Health.UP, _BUSY): (Health.BUSY, _After.ONE),
    (Health.BUSY, _PASS): (Health.UP, _After.ONE),
    (Health.BUSY, _FAIL): (Health.DOWN, _After.FALL),
    (Health.BUSY, _BUSY): (Health.BUSY, _After.ONE),
    (Health.DOWN, _PASS): (Health.UP, _After.RISE),
    (Health.DOWN, _FAIL): (Health.DOWN, _After.ONE),
    (Health.DOWN, _BUSY): (Health.DOWN, _After.ONE),
}


class HealthMachine:
    """The state of one server's checks. `rise` and `fall` are at least 1.

    health: what is believed now. reason: why it is down, as the last result said.
    """

    __slots__ = ("_fall", "_last", "_quick_checks", "_rise", "_rise_needed", "_run", "health", "reason")

    def __init__(self, rise: int, fall: int, *, has_joined: bool = False) -> None:
        """has_joined: the server was added to a running pool, not there from the start."""
        if rise < 1 or fall < 1:
            raise ValueError(f"rise and fall are at least 1, not {rise} and {fall}")
        self._rise = rise
        self._fall = fall
        self._rise_needed = 1 if has_joined else rise
        self._last: CheckResult | None = None
        self._run = 0
        self._quick_checks: int | None = None
        self.health = Health.DOWN if has_joined else Health.UNKNOWN
        self.reason = "not checked yet" if has_joined else ""

    def reconfigure(self, rise: int, fall: int) -> None:
        """Other numbers from the next result on; what was counted stays."""
        if self._rise_needed == self._rise:
            self._rise_needed = rise
        self._rise = rise
        self._fall = fall

    def observe(self, result: CheckResult, reason: str, now: float, *, is_only_hope: bool = False) -> Health | None:
        """A check ended. Returns the health to record, or None if nothing changed.

        reason: for a failure, what was wrong; REFUSED is special. is_only_hope: no other server of the pool is usable.
        DOWN is returned again when a server that is down stops or begins to refuse connections: fail-open cares.
        """
        if result is CheckResult.FAIL and reason == REFUSED:
            self._count_quick_check(result)
            return self.refused(now)
        self._run = self._run + 1 if result is self._last else 1
        self._last = result
        self._count_quick_check(result)
        target, after = _TRANSITIONS[self.health, result]
        if self._run < self._needed(after, is_only_hope):
            return None
        return self._become(target, reason if target is Health.DOWN else "", now)

    def refused(self, now: float) -> Health | None:
        """A connection was refused, by a check or under traffic. Returns DOWN unless that was known."""
        self._last = None
        self._run = 0
        if self._quick_checks is None:
            self._quick_checks = 0
        return self._become(Health.DOWN, REFUSED, now)

    def next_check_delay(self, interval_s: float, rng: Rng) -> float:
        """Seconds until the next check."""
        return next_check_delay(interval_s, self._quick_checks, rng)

    def _needed(self, after: _After, is_only_hope: bool) -> int:
        if after is _After.FALL:
            return self._fall
        if after is _After.RISE and not is_only_hope:
            return self._rise_needed
        return 1

    def _count_quick_check(self, result: CheckResult) -> None:
        if self._quick_checks is not None:
            self._quick_checks = 0 if result is CheckResult.PASS else self._quick_checks + 1

    def _become(self, health: Health, reason: str, now: float) -> Health | None:
        is_new = health is not self.health or (
            health is Health.DOWN and (reason == REFUSED) != (self.reason == REFUSED)
        )
        self.health = health
        self.reason = reason
        if health is not Health.DOWN:
            self._quick_checks = None
            self._rise_needed = self._rise
        if not is_new:
            return None
        return health


def next_check_delay(interval_s: float, quick_checks: int | None, rng: Rng) -> float:
    """Seconds until the next check: the interval +-10 %, so that checks of many servers drift apart.

    quick_checks: how many checks there were since the connection was refused, None if it was not: then QUICK_S doubled
    as many times, up to the interval.
    """
    base = interval_s
    if quick_checks is not None:
        # 2**20 quarter seconds are three days: no interval is longer, and the power stays a small number.
        base = min(interval_s, QUICK_S * 2 ** min(quick_checks, 20))
    return base * (1.0 + JITTER * (2.0 * rng.random() - 1.0))
