"""What a request has tried so far, and whether it may try again."""

from __future__ import annotations

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.exchange.attempt_books import AttemptBooks, AttemptOwner
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.verdicts import has_retry_after, is_worth_a_retry
from lbproxy.dataplane.runtime import PoolRuntime
from lbproxy.domain.retry import backoff_s, may_retry, may_retry_grpc, may_retry_status
from lbproxy.errors import Fault
from lbproxy.protocol.grpc import push_back_s
from lbproxy.protocol.http1 import ResponseHead


@mypyc_attr(allow_interpreted_subclasses=True)
class Retrying(AttemptOwner):
    """See the module. attempt: the last one, which may be over. pool_runtime: where the route leads."""

    __slots__ = ("_has_permit", "_retried", "_retries", "_wants_fresh", "attempt", "pool_runtime")

    def __init__(self, side: ClientStream, prepared: Prepared, id_line: bytes) -> None:
        super().__init__(side, prepared, id_line)
        self.pool_runtime: PoolRuntime | None = None
        self.attempt: Attempt | None = None
        self.attempts = self._retries = 0
        self.tries = ()
        self._retried: Fault | None = None  # why there is a further attempt, until something comes of it
        self._wants_fresh = self._has_permit = False

    def _may_retry_answer(self, head: ResponseHead) -> bool:
        if head.grpc_status > 0:
            return (
                may_retry_grpc(
                    self.prepared.route.retry,
                    head.grpc_status,
                    is_idempotent=self.prepared.is_idempotent,
                    retries_done=self._retries,
                    is_replayable=not self.body.is_dropped and self.request_done,
                )
                and push_back_s(head.fields) < 0.0
            )
        return may_retry_status(
            self.prepared.route.retry,
            head.status,
            has_retry_after=has_retry_after(head),
            is_idempotent=self.prepared.is_idempotent,
            retries_done=self._retries,
            is_replayable=not self.body.is_dropped and self.request_done,
        )

    def _may_repeat(self, attempt: AttemptBooks, fault: Fault) -> bool:
        return may_retry(
            self.prepared.route.retry,
            fault,
            is_idempotent=self.prepared.is_idempotent,
            retries_done=self._retries,
            is_replayable=not self.body.is_dropped,
        ) and is_worth_a_retry(fault, attempt.runtime, self.tried)

    def _may_spend(self, now: float, *, is_lost: bool) -> bool:
        """Take a permit of the pool's retry budget, which keeps retries from multiplying an outage."""
        pool = self.pool_runtime
        assert pool is not None
        if pool.may_retry(now, is_lost=is_lost):
            self._has_permit = True
            return True
        accounts.not_retried(pool)
        return False

    def _begin_retry(self, attempt: AttemptBooks, fault: Fault, now: float, *, is_stale: bool) -> float:
        """There will be a further attempt, after so many seconds. fault: why."""
        pool = self.pool_runtime
        assert pool is not None
        self._retried = fault
        self._note_try(attempt, fault.word, now)
        if is_stale:
            # Not an attempt: the server may be well, only the kept connection was not. A fresh one can't be stale.
            self._wants_fresh = True
            return 0.0
        self._retries += 1
        self.tried = (*self.tried, attempt.runtime.server)
        known = None if fault is errors.RETRYABLE_STATUS else fault
        return backoff_s(self._retries, self.prepared.route.retry, pool.rng, known)

    def _note_try(self, attempt: AttemptBooks, reason: str, now: float) -> None:
        """For the log, which names each server that was tried; only if there are several."""
        self.tries = (*self.tries, (attempt.runtime.label, reason, now - attempt.started_at))

    def _note_last_try(self, reason: str, now: float) -> None:
        """The one that ended the exchange, if it was not the only one and is not noted yet."""
        if self.tries and self.attempts > len(self.tries) and self.attempt is not None:
            self._note_try(self.attempt, reason, now)

    def _count_retry(self, outcome: str) -> None:
        if self._retried is not None and self.pool_runtime is not None:
            accounts.retried(self.pool_runtime, self._retried, outcome)
        self._retried = None
        self._return_permit()

    def _return_permit(self) -> None:
        if self._has_permit and self.pool_runtime is not None:
            self._has_permit = False
            self.pool_runtime.budget.finished()
