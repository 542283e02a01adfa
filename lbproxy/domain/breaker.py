"""Circuit breaker of one server: what its answers say about it.

    state     event                          next      note
    closed    `failures` in a row            ejected   "consecutive_failures", if the pool can spare the server
    closed    share of failures over window  ejected   "error_rate", likewise, from `min_requests` answers on
    ejected   its time is over               probing   `tick`; the time doubles with each ejection, up to `max_open_s`
    probing   a real request is answered     closed    counters start at 0
    probing   a real request fails           ejected   "probe_failed"
    probing   a request ends without verdict probing   its permit goes back
    closed    errors where others give none  ejected   "outlier": the pool compares (domain/outliers.py)

The breaker proposes and the pool disposes: `observe` returns the reason to eject, and the pool, which knows how many
servers are out already, calls `eject` or leaves it; if the server goes on failing the next answer proposes again.

Generations. Each change of state starts a new one, and an answer counts only in the generation in which its request
began: what was sent before the flip says nothing about the time after it. Permits belong to a generation too, so a
probe that outlives its own probing period holds nothing.

Bad answers. What cannot be used as an answer (not valid HTTP, cut off, too long) may be the request's doing: a server
that puts a query into a field echoes a control octet to whoever sends one. So such a failure counts once for each of
the last SEEN sorts of requests (`is_news`), and one client that repeats one request never ejects a server.

Levels. Open time is open_s x 2^level; every ejection adds a level, every `open_s` spent closed takes one off.

Invariants: permits in use are 0 outside probing and never above `probes`; probing ends by a verdict only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy.domain.states import Breaker

_BUCKETS: Final = 10
OUTLIER: Final = "outlier"
REASONS: Final[tuple[str, ...]] = ("", "consecutive_failures", "error_rate", OUTLIER, "probe_failed")
WORDS: Final = 16 + 4 * (_BUCKETS - 1)
_STATES: Final[tuple[Breaker, ...]] = tuple(Breaker)
SEEN: Final = 16  # sorts of requests with bad answers that are remembered


def to_ns(time_s: float) -> int:
    """A monotonic time as a whole number; 0 is minus infinity."""
    return int(time_s * 1e9) if time_s > 0.0 else 0


def from_ns(time_ns: int) -> float:
    """See `to_ns`."""
    return time_ns / 1e9 if time_ns else float("-inf")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The `circuit_breaker` key of a pool.

    failures: in a row, at least 1. error_rate: share of failed answers, above 0 and at most 1, judged from
    min_requests answers within window_s seconds. open_s, max_open_s: how long an ejection lasts at first and at most.
    probes: requests at once to a server that is probed.
    """

    failures: int = 5
    error_rate: float = 0.5
    min_requests: int = 20
    window_s: float = 10.0
    open_s: float = 10.0
    max_open_s: float = 300.0
    probes: int = 1


class CircuitBreaker:
    """The breaker of one server. All times are monotonic seconds given by the caller.

    bucket_ends_at: `observe` must be called from that time on; before it, a caller in a hurry may count a success in
    the closed state by itself (`n_ok += 1; in_a_row = 0`), which is what the pool does.
    """

    __slots__ = (
        "_bad",
        "_closed_at",
        "_errors",
        "_hold_until",
        "_index",
        "_level",
        "_ok",
        "_permits",
        "_policy",
        "_repeats",
        "_seen",
        "bucket_ends_at",
        "changed_at",
        "generation",
        "in_a_row",
        "is_outlier",
        "n_bad",
        "n_errors",
        "n_ok",
        "n_repeats",
        "open_until",
        "reason",
        "state",
        "what",
    )

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._level = 0
        self._permits = 0
        self._hold_until = float("-inf")
        self._closed_at = float("-inf")
        self.state = Breaker.CLOSED
        self.generation = 0
        self.open_until = float("-inf")
        self.changed_at = float("-inf")
        self.reason = ""
        self.what = ""
        self.is_outlier = False  # it is out because of errors that are not failures: so probes may fail by such
        self._index = 0
        self.n_ok = 0
        self.n_bad = 0
        self.n_errors = 0  # answers 5xx that are not failures: they are among `n_ok` too
        self.n_repeats = 0  # bad answers to sorts of requests that had one before: they are nowhere else
        self.in_a_row = 0
        self.bucket_ends_at = float("-inf")
        self._seen: list[int] = []
        self._reset_window()

    def reconfigure(self, policy: BreakerPolicy) -> None:
        """Other rules from the next answer on; what was counted, and an ejection that has begun, stand."""
        self._policy = policy

    # --- answers ----------------------------------------------------------------------------------------------------

    def observe(self, ok: bool, generation: int, now: float) -> str | None:
        """An answer, of a request that began in `generation`. Returns why the server should be ejected now, or None."""
        if generation != self.generation or self.state is Breaker.EJECTED:
            return None
        if self.state is Breaker.PROBING:
            return self._judge(ok, now)
        if now >= self.bucket_ends_at:
            self._turn_buckets(now)
        if ok:
            self.in_a_row = 0
            self.n_ok += 1
            return None
        self.in_a_row += 1
        self.n_bad += 1
        if self.in_a_row >= self._policy.failures:
            return "consecutive_failures"
        return "error_rate" if self._is_rate_exceeded() else None

    def _is_rate_exceeded(self) -> bool:
        bad, total = self.counts()
        return total >= self._policy.min_requests and bad >= self._policy.error_rate * total

    def counts(self) -> tuple[int, int]:
        """Failures and all answers within the window, to within a tenth of it."""
        bad = self.n_bad + sum(self._bad)
        return bad, bad + self.n_ok + sum(self._ok)

    def errors(self, now: float) -> tuple[int, int]:
        """All bad ends and all answers within the window: failures, errors 5xx and bad answers, repeats included."""
        if now >= self.bucket_ends_at:
            self._turn_buckets(now)
        repeats = self.n_repeats + sum(self._repeats)
        bad, total = self.counts()
        return bad + self.n_errors + sum(self._errors) + repeats, total + repeats

    def is_exceeded_by(self, errors: int, total: int) -> bool:
        """Would so many bad ends of so many answers be too many, by the pool's settings?"""
        return total >= self._policy.min_requests and errors >= self._policy.error_rate * total

    def is_enough(self, total: int) -> bool:
        """Can a share be taken of so many answers?"""
        return total >= self._policy.min_requests

    @property
    def failures(self) -> int:
        """How many failures in a row are too many."""
        return self._policy.failures

    def is_news(self, request_key: int) -> bool:
        """A bad end. True if this sort of request is not among those that had one lately."""
        seen = self._seen
        if request_key in seen:
            seen.remove(request_key)
            seen.append(request_key)
            return False
        seen.append(request_key)
        if len(seen) > SEEN:
            del seen[0]
        return True

    @property
    def n_seen(self) -> int:
        """How many sorts of requests had a bad end lately."""
        return len(self._seen)

    def _turn_buckets(self, now: float) -> None:
        """Put the counts of the current bucket into the ring and start as many new ones as time has passed."""
        length = self._policy.window_s / _BUCKETS
        turns = 1
        if self.bucket_ends_at > float("-inf"):
            turns += min(int((now - self.bucket_ends_at) / length), _BUCKETS)
        for _ in range(turns):
            self._index = (self._index + 1) % (_BUCKETS - 1)
            self._ok[self._index], self._bad[self._index] = self.n_ok, self.n_bad
            self._errors[self._index], self._repeats[self._index] = self.n_errors, self.n_repeats
            self.n_ok = self.n_bad = self.n_errors = self.n_repeats = 0
        self.bucket_ends_at = now + length

    def _reset_window(self) -> None:
        self._ok = [0] * (_BUCKETS - 1)
        self._bad = [0] * (_BUCKETS - 1)
        self._errors = [0] * (_BUCKETS - 1)
        self._repeats = [0] * (_BUCKETS - 1)
        self._index = 0
        self.n_ok = self.n_bad = self.n_errors = self.n_repeats = self.in_a_row = 0
        self.bucket_ends_at = float("-inf")

    # --- changes of state -------------------------------------------------------------------------------------------

    def eject(self, reason: str, now: float, what: str = "failures") -> None:
        """Open. reason: a word of `observe`. what: the failures as a noun, for people."""
        policy = self._policy
        self.reason = reason
        self.what = self._describe(reason, what, now)
        self.is_outlier = reason == OUTLIER or (reason == "probe_failed" and self.is_outlier)
        if self.state is Breaker.CLOSED:
            self._level = max(0, self._level - int(min((now - self._closed_at) / policy.open_s, 64.0)))
        self.open_until = now + min(policy.open_s * 2.0**self._level, policy.max_open_s)
        if policy.open_s * 2.0**self._level < policy.max_open_s:
            self._level += 1
        self._become(Breaker.EJECTED, now)

    @property
    def level(self) -> int:
        """How often it was ejected of late: see Levels."""
        return self._level

    def resume(self, reason: str, what: str, level: int, open_until: float, now: float) -> None:
        """It was ejected by another process, whose `reason`, `what` and `level` these are: go on from there."""
        self.reason, self.what, self.is_outlier = reason, what, reason == OUTLIER
        self._level = level
        self.open_until = min(open_until, now + self._policy.max_open_s)
        self._become(Breaker.EJECTED, now)

    def tick(self, now: float) -> bool:
        """Time passed: True if the server is to be probed from now on."""
        if self.state is not Breaker.EJECTED or now < self.open_until:
            return False
        self._hold_until = now
        self._become(Breaker.PROBING, now)
        return True

    def close(self, now: float) -> None:
        """A probe succeeded, or the pool cannot spare the server any more."""
        self._closed_at = now
        self._become(Breaker.CLOSED, now)

    def _become(self, state: Breaker, now: float) -> None:
        self.state = state
        self.generation += 1
        self.changed_at = now
        self._permits = 0
        self._reset_window()

    def _describe(self, reason: str, what: str, now: float) -> str:
        if reason == "consecutive_failures":
            return f"{self.in_a_row} consecutive {what}"
        if reason == "error_rate":
            bad, total = self.counts()
            return f"{bad} of {total} requests failed within {self._policy.window_s:g} s, the last ones by {what}"
        if reason == OUTLIER:
            errors, total = self.errors(now)
            return f"{errors} of {total} answers within {self._policy.window_s:g} s were errors, of the others' few"
        return f"the probe met {what}" if what != "failures" else "the probe failed"

    # --- probes -----------------------------------------------------------------------------------------------------

    def may_probe(self, now: float) -> bool:
        """May a real request go there to find out?"""
        return self.state is Breaker.PROBING and self._permits < self._policy.probes and now >= self._hold_until

    @property
    def has_probes_out(self) -> bool:
        return self._permits > 0

    def probe_started(self) -> None:
        """Take a permit; only after `may_probe` said yes."""
        self._permits += 1

    def probe_finished(self, ok: bool | None, now: float, *, hold_s: float = 0.0) -> str | None:
        """Give the permit back. ok None: no verdict, the next request is a probe again, after `hold_s` seconds.

        Call it for requests of the present generation only. Returns "probe_failed" if the server is to be ejected.
        """
        self._permits -= 1
        if ok is None:
            self._hold_until = max(self._hold_until, now + hold_s)
            return None
        return self._judge(ok, now)

    def _judge(self, ok: bool, now: float) -> str | None:
        if not ok:
            return "probe_failed"
        self.close(now)
        return None

    # --- the same breaker in several processes -----------------------------------------------------------------------

    def to_words(self) -> list[int]:
        """What it knows as WORDS whole numbers, times in ns: all but `what`, permits and the sorts of requests that it
        saw."""
        return [
            _STATES.index(self.state),
            self.generation,
            self._level,
            REASONS.index(self.reason),
            int(self.is_outlier),
            to_ns(self.open_until),
            to_ns(self.changed_at),
            to_ns(self._hold_until),
            to_ns(self._closed_at),
            to_ns(self.bucket_ends_at),
            self._index,
            self.in_a_row,
            self.n_ok,
            self.n_bad,
            self.n_errors,
            self.n_repeats,
            *self._ok,
            *self._bad,
            *self._errors,
            *self._repeats,
        ]

    def take_words(self, words: Sequence[int], permits: int) -> None:
        """Know what another one's `to_words` said. permits: probes that are out, of all processes."""
        self.state = _STATES[words[0]]
        self.generation = words[1]
        self._level = words[2]
        self.reason = REASONS[words[3]]
        self.is_outlier = words[4] != 0
        self.open_until = from_ns(words[5])
        self.changed_at = from_ns(words[6])
        self._hold_until = from_ns(words[7])
        self._closed_at = from_ns(words[8])
        self.bucket_ends_at = from_ns(words[9])
        self._index = words[10]
        self.in_a_row = words[11]
        self.n_ok, self.n_bad, self.n_errors, self.n_repeats = words[12], words[13], words[14], words[15]
        n, at = _BUCKETS - 1, 16
        self._ok, self._bad = list(words[at : at + n]), list(words[at + n : at + 2 * n])
        self._errors, self._repeats = list(words[at + 2 * n : at + 3 * n]), list(words[at + 3 * n : at + 4 * n])
        self._permits = permits

    @property
    def permits(self) -> int:
        """Probes that are out."""
        return self._permits

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state} generation {self.generation} permits {self._permits}>"
