"""Answers that a request does not pass on at once: one that may be tried again for is kept, until a better one comes.

kept back     its end, or more of it than may be kept    -> kept whole, or streamed to the client
kept whole    a further attempt                          -> dropped for a better answer, or given to the client
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.attempt_books import AttemptBooks
from lbproxy.dataplane.exchange.kept_answer import KEEP_BYTES, KeptAnswer
from lbproxy.dataplane.exchange.retrying import Retrying
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeping(Retrying):
    """See the module. The exchange gives both attributes their first values: a call less for each request.

    _kept: whole, of an earlier attempt. response_started: some of an answer went to the client.
    """

    __slots__ = ("_kept", "response_started")

    _kept: KeptAnswer | None
    response_started: bool

    def _is_kept_back(
        self,
        attempt: AttemptBooks,
        head: ResponseHead,
        body: bytes,
        now: float,
        *,
        is_done: bool,
        trailers: Sequence[Field],
    ) -> bool:
        """Is this an answer to try again for? Then it is kept, to be returned if nothing better comes."""
        size = max(len(body), head.content_length or 0)
        # Is it the last one, but no better than a whole one that is there? Until it is whole itself that may be needed.
        is_no_better = self._kept is not None and not is_done and head.status in self.prepared.route.retry.status
        if size > KEEP_BYTES or not (is_no_better or self._may_retry_answer(head)):
            self._kept = None
            return False
        answer = KeptAnswer(head, body, trailers)
        if is_done:
            self.kept_whole(attempt, answer, now)
        else:
            attempt.keep(answer, now)
        return True

    def kept_too_long(self, attempt: AttemptBooks, kept: KeptAnswer, now: float, *, is_done: bool) -> None:
        """It goes to the client, and there is no retry."""
        self._kept = None
        if self._retried is not None:
            self._count_retry("failure")
        if is_done:
            attempt.ended_with(kept.head, now)
            self._give_kept(kept, now)
            return
        self.response_started = True
        self.bytes_out = kept.size
        attempt.stream(kept.head, now)
        self.side.respond(self, kept.head, kept.body(), is_done=False, trailers=())

    def kept_whole(self, attempt: AttemptBooks, kept: KeptAnswer, now: float) -> None:
        """See AttemptOwner."""
        self._kept = kept
        may_retry_it = self._may_retry_answer(kept.head)
        if may_retry_it:
            accounts.server_failed(attempt.runtime, errors.RETRYABLE_STATUS)
        attempt.ended_with(kept.head, now)
        if self._retried is not None:
            self._count_retry("failure")
        if may_retry_it and self._may_spend(now, is_lost=False):
            self._retry(attempt, errors.RETRYABLE_STATUS, is_stale=False)
        else:
            self._give_kept(kept, now)

    def _give_kept(self, kept: KeptAnswer, now: float) -> None:
        """The last real answer that is whole, after all."""
        self._kept = None
        body = kept.body()
        self.status = kept.head.status
        self.response_started = True
        self.ended_at = now
        self.bytes_out = len(body)
        self.side.respond(self, kept.head, body, is_done=True, trailers=kept.trailers)
        self._finish("ok", now)

    # --- what the exchange does -------------------------------------------------------------------------------------

    def _retry(self, attempt: AttemptBooks, fault: Fault, *, is_stale: bool) -> None:
        """Make a further attempt. fault: what the last one ended with."""
        raise NotImplementedError

    def _finish(self, end: str, now: float) -> None:
        """The request is over."""
        raise NotImplementedError
