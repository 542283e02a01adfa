"""Which requests may be sent again: pure decisions over facts.

An answer with a status that `status` lists is a failed attempt too, as is a time-out if the config says so.
The caller states what is known about a failed attempt; the answer is yes or no. Every yes also needs that no byte of a
final answer went to the client, that the client is still there, and that the body can be replayed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final

from lbproxy.domain.rng import Rng
from lbproxy.errors import Fault, Retry

BUDGET_WINDOW_S: Final = 10.0
_NO_BACKOFF: Final[tuple[str, ...]] = ("connect", "dns", "tls")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The `retry` key of a pool or route. attempts: extra tries. body_bytes: how much of a body is kept for replay.

    unacked: a FIN with nothing acknowledged proves that nothing was taken in, for servers that
    are directly connected ("auto"), for all ("on") or for none ("off").
    status: answers that are retried; grpc: statuses of gRPC that are, if nothing came before them. backoff_base_s,
    backoff_max_s: see `backoff_s`. trust_retry_after: a 503 with Retry-After was not executed, so that any method may
    be repeated. idempotency_key: a request with that header may be repeated.
    """

    attempts: int = 2
    on_connect: bool = True
    on_reset: bool = True
    on_timeout: bool = False
    idempotent: bool = False
    body_bytes: int = 1 << 20
    unacked: str = "auto"
    status: frozenset[int] = frozenset()
    grpc: frozenset[int] = frozenset()
    backoff_base_s: float = 0.025
    backoff_max_s: float = 0.25
    trust_retry_after: bool = False
    idempotency_key: bool = False


def may_retry(
    policy: RetryPolicy, fault: Fault, *, is_idempotent: bool, retries_done: int, is_replayable: bool
) -> bool:
    """May an attempt that ended in `fault` be repeated?

    is_idempotent: by method, or because the config says so. is_replayable: every body byte that was sent is still held.
    """
    if fault.retry is Retry.NEVER or retries_done >= policy.attempts or not is_replayable:
        return False
    if fault.retry is Retry.ALWAYS:
        # Provably not executed. `connect` in retry.on switches the dial failures only.
        return policy.on_connect if fault.word.startswith(_NO_BACKOFF) else True
    if not is_idempotent:
        return False
    return policy.on_timeout if fault.word == "response_timeout" else policy.on_reset


def may_retry_status(
    policy: RetryPolicy,
    status: int,
    *,
    has_retry_after: bool,
    is_idempotent: bool,
    retries_done: int,
    is_replayable: bool,
) -> bool:
    """May a request be repeated whose answer has this status? Keep that answer: it is returned if retries fail."""
    if status not in policy.status or retries_done >= policy.attempts or not is_replayable:
        return False
    return is_idempotent or (policy.trust_retry_after and status == 503 and has_retry_after)


def may_retry_grpc(
    policy: RetryPolicy, status: int, *, is_idempotent: bool, retries_done: int, is_replayable: bool
) -> bool:
    """The same of a call of gRPC that was answered with this status and no message."""
    return status in policy.grpc and is_idempotent and is_replayable and retries_done < policy.attempts


def backoff_s(retry_number: int, policy: RetryPolicy, rng: Rng, fault: Fault | None = None) -> float:
    """Seconds to wait before retry 1, 2, ...: uniform in [0, (2^n - 1) x base), at most the maximum (Envoy's form).

    fault: what the last attempt met, None for an answer with a retryable status. After a failed dial the next attempt
    goes to another server at once: 0.
    """
    if fault is not None and fault.word.startswith(_NO_BACKOFF):
        return 0.0
    # 2**20 times any base is more than any maximum.
    ceiling = (2.0 ** min(retry_number, 20) - 1.0) * policy.backoff_base_s
    return rng.random() * min(ceiling, policy.backoff_max_s)


class RetryBudget:
    """Keeps retries from multiplying an outage: at most `ratio` of what goes on anyway, `min_` always.

    Two bounds. Concurrency (Envoy): retries in progress, their back-off included, stay within max(min_, ratio x active
    requests). That alone does not hold back retries that fail within a millisecond, hence the rate, for callers that
    give it the numbers: retries of the last ten seconds stay within max(min_ a second, ratio x requests of that time).
    """

    __slots__ = ("_marks", "_min", "_n_attempts", "_ratio", "_started", "active", "n_started")

    def __init__(self, ratio: float = 0.2, min_: int = 3) -> None:
        self._ratio = ratio
        self._min = min_
        self._marks: deque[tuple[float, int]] = deque([(-inf, 0)])
        self._started: deque[float] = deque()
        self._n_attempts = 0
        self.active = 0
        self.n_started = 0

    def reconfigure(self, ratio: float, min_: int) -> None:
        """Other bounds from the next retry on."""
        self._ratio = ratio
        self._min = min_

    def may_start(self, active_requests: int, *, requests_total: int | None = None, now: float = 0.0) -> bool:
        """Take a permit for one retry; False: the budget is spent. Every True is followed by one `finished()`.

        active_requests: in progress or queued in the pool. requests_total: how many first attempts the servers that
        are here now ever had, with `now` in monotonic seconds. It falls when a server leaves, and may be below 0.
        """
        granted = self.active < max(self._min, self._ratio * active_requests) and (
            requests_total is None or self._is_rate_left(requests_total, now)
        )
        if granted:
            self.active += 1
            self.n_started += 1
            if requests_total is not None:
                self._started.append(now)
        return granted

    @property
    def ratio(self) -> float:
        """Retries for each request that goes on anyway, at most."""
        return self._ratio

    @property
    def at_least(self) -> int:
        """How many retries there may be at once, and in a second, however few requests there are."""
        return self._min

    def finished(self) -> None:
        """The retry has ended, however. Raises RuntimeError if none is in progress."""
        if not self.active:
            raise RuntimeError("a retry finished that never started")
        self.active -= 1

    def note(self, requests_total: int, now: float) -> None:
        """Keep the count of the window: called now and then, also while nothing is retried."""
        horizon = now - BUDGET_WINDOW_S
        marks = self._marks
        n_attempts = requests_total + self.n_started  # falls for no other reason than that a server has left
        gone, self._n_attempts = self._n_attempts - n_attempts, n_attempts
        if gone > 0:
            # Its requests were made all the same: what the window holds stays what it was.
            self._marks = marks = deque((at, total - gone) for at, total in marks)
        # The newest mark that is older than the window stays: it is where the window begins.
        while len(marks) > 1 and marks[1][0] <= horizon:
            marks.popleft()
        if now - marks[-1][0] >= BUDGET_WINDOW_S / 100:
            marks.append((now, requests_total))

    def _is_rate_left(self, requests_total: int, now: float) -> bool:
        self.note(requests_total, now)
        started = self._started
        while started and started[0] <= now - BUDGET_WINDOW_S:
            started.popleft()
        floor = self._min * BUDGET_WINDOW_S
        return len(started) < max(floor, self._ratio * (requests_total - self._marks[0][1]))
