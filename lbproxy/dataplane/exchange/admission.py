"""May a request go on, by the rate limits that hold for it at this moment?

It must pass all of them. Its tokens are taken one after the other, and given back if a later one refuses it, so that
what is refused uses nothing up. With buckets of the fleet the answer may come later.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

from lbproxy.compiling import i64
from lbproxy.dataplane.guard import Check, Limit, client_bytes
from lbproxy.protocol.message import Fields
from lbproxy.telemetry.slots import LIMIT

LIMITED: Final = LIMIT.column("rate_limited_total")


class TooMany:
    """A request is too many. wait_s: after so many seconds one like it would not be."""

    __slots__ = ("limit", "wait_s")

    def __init__(self, limit: Limit, wait_s: float) -> None:
        self.limit = limit
        self.wait_s = wait_s

    @property
    def retry_after_s(self) -> int:
        """For Retry-After: at least 1."""
        return max(1, ceil(self.wait_s))

    @property
    def detail(self) -> str:
        """What a person is told."""
        return f"the rate limit {self.limit.name} is used up"

    def fields(self) -> Fields:
        """For programs (draft-ietf-httpapi-ratelimit-headers): the limit, and that nothing of it is left for now."""
        limit = self.limit
        name = limit.name.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "replace")
        window_s = max(1, ceil(limit.window_s))
        return [
            (b"RateLimit-Policy", b'"%b";q=%d;w=%d' % (name, limit.burst, window_s)),
            (b"RateLimit", b'"%b";r=0;t=%d' % (name, self.retry_after_s)),
        ]


class Admission:
    """Of one request. client: its address. clock: monotonic seconds. refusal: None while nothing has refused it."""

    __slots__ = ("_at", "_checks", "_client", "_clock", "_done", "refusal")

    def __init__(self, checks: tuple[Check, ...], client: str, clock: Callable[[], float]) -> None:
        self._checks = checks
        self._client = client
        self._clock = clock
        self._at = 0
        self._done: Callable[[], None] | None = None
        self.refusal: TooMany | None = None

    def ask(self, done: Callable[[], None]) -> bool:
        """True: it is decided. False: it will be, and then `done` is called, once."""
        checks = self._checks
        now: i64 = int(self._clock() * 1e9)
        while self._at < len(checks):
            check = checks[self._at]
            limit = check.limit
            mark = self._mark(check)
            wait: i64 = limit.buckets.take(mark, limit.interval, limit.depth, now)
            if not wait and limit.fleet is not None:
                key = check.key or client_bytes(self._client)
                wait = limit.fleet.take(limit, key, self._told)
                if wait < 0:
                    self._done = done
                    return False
                if wait:
                    limit.buckets.give_back(mark, limit.interval)
            if wait:
                self._refuse(limit, wait)
                return True
            self._at += 1
        return True

    def _mark(self, check: Check) -> i64:
        return check.mark if check.mark else check.limit.mark_of(client_bytes(self._client))

    def _told(self, wait: int) -> None:
        """The fleet's answer."""
        done = self._done
        self._done = None
        if done is None:
            return
        check = self._checks[self._at]
        if wait > 0:
            check.limit.buckets.give_back(self._mark(check), check.limit.interval)
            self._refuse(check.limit, wait)
        else:
            self._at += 1
            if not self.ask(done):
                return
        done()

    def _refuse(self, limit: Limit, wait: i64) -> None:
        self.refusal = TooMany(limit, int(wait) / 1e9)
        limit.row[LIMITED] += 1
        for check in self._checks[: self._at]:
            check.limit.buckets.give_back(self._mark(check), check.limit.interval)

    def drop(self) -> None:
        """Nobody wants to know any more."""
        self._done = None
