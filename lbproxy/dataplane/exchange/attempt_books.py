"""What an attempt holds, whose it is, and how it gives everything back, once.

An attempt (attempt.py) tells its owner what happened, and decides nothing about the request: there may be another one
for it before, after or beside this one. The owner, which is the exchange, answers with one of the calls below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.body_tape import BodyTape
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.kept_answer import KeptAnswer
from lbproxy.dataplane.exchange.kernel_path import KernelPath
from lbproxy.dataplane.exchange.ports import AnswerSink, ServerStream, Underway
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.verdicts import (
    BAD_ANSWERS,
    STILL_WORKING,
    outcome_of,
    outcome_of_call,
    plural_of,
    request_key,
)
from lbproxy.dataplane.runtime import ServerRuntime, UpstreamTimeouts
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.server import PENALTY_S
from lbproxy.errors import Fault, Side
from lbproxy.protocol import grpc
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field

CONNECTING: Final = 0
WAITING: Final = 1
KEEPING: Final = 2
STREAMING: Final = 3
TUNNEL: Final = 4
OVER: Final = 5

NEVER: Final = float("inf")


class _LastCall:
    """What was said last behind a call of gRPC: servers say the same behind most of them, and equal trailers that come
    one after the other are the same object."""

    __slots__ = ("push_back_s", "status", "trailers")

    def __init__(self) -> None:
        self.trailers: Sequence[Field] = ()
        self.status = grpc.NO_STATUS
        self.push_back_s = -1.0

    def read(self, trailers: Sequence[Field]) -> None:
        self.trailers = trailers
        self.status = grpc.status_of(trailers)
        self.push_back_s = grpc.push_back_s(trailers)


_LAST: Final = _LastCall()


@mypyc_attr(allow_interpreted_subclasses=True)
class AttemptOwner(Underway):
    """A request as its attempts know it.

    client_is_blocked: the client takes no more for now. continue_sent: it has its 100 Continue. is_body_paused: it is
    not read, since a server takes no more. reads_at_most: bytes of the answer at once, 0: as usual. stands_behind: the
    client asks for more at once than others do, who go first.
    """

    __slots__ = (
        "body",
        "client_is_blocked",
        "continue_sent",
        "is_body_paused",
        "reads_at_most",
        "services",
        "side",
        "stands_behind",
    )

    def __init__(self, side: ClientStream, prepared: Prepared, id_line: bytes) -> None:
        super().__init__(prepared, id_line)
        self.side = side
        services = self.services = side.services
        self.body = BodyTape(services.pressure)
        self.client_is_blocked = self.continue_sent = self.is_body_paused = self.stands_behind = False
        self.reads_at_most = 0

    def is_trusted(self) -> bool:
        """See Claimant."""
        return self.side.facts.is_trusted

    def interim(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""
        raise NotImplementedError

    def answered(
        self,
        attempt: AttemptBooks,
        head: ResponseHead,
        body: bytes,
        now: float,
        *,
        is_done: bool,
        trailers: Sequence[Field],
    ) -> None:
        """The final head, and what came of the body. The attempt waits for its `succeeded`, `ended_with`, `keep` or
        `stream`."""
        raise NotImplementedError

    def more(self, data: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """More of an answer that is streamed; with `is_done` its attempt is over."""
        raise NotImplementedError

    def kept_whole(self, attempt: AttemptBooks, kept: KeptAnswer, now: float) -> None:
        """All of an answer that was kept back has come; the attempt waits for its `ended_with`."""
        raise NotImplementedError

    def kept_too_long(self, attempt: AttemptBooks, kept: KeptAnswer, now: float, *, is_done: bool) -> None:
        """One that is kept back is more than may be; the attempt waits for its `ended_with` or `stream`."""
        raise NotImplementedError

    def lost(self, attempt: AttemptBooks, fault: Fault, detail: str) -> None:
        """The attempt has failed, and holds nothing any more."""
        raise NotImplementedError

    def switched(self, attempt: AttemptBooks, head: ResponseHead, rest: bytes, now: float) -> None:
        """101 to what the client asked for, and the bytes behind it; the connection is the attempt's `upstream`."""
        raise NotImplementedError

    def tunnel_over(self, end: str, now: float) -> None:
        """A tunnel has ended. end: with which word."""
        raise NotImplementedError

    def pause_body(self) -> None:
        """Stop reading from the client: a server takes no more."""
        if not self.is_body_paused:
            self.is_body_paused = True
            self.side.pause_body()

    def resume_body(self) -> None:
        """Read from the client again."""
        if self.is_body_paused:
            self.is_body_paused = False
            self.side.resume_body()


class AttemptBooks(AnswerSink):
    """See the module. Times are monotonic seconds.

    runtime: the server's, once it has begun. upstream: the stream, while there is one. half_kept: in phase KEEPING,
    what has come of the answer. expect_at: when the client gets its 100 without the server's, else inf. deadline: of
    the present phase. judged_as: the status of HTTP that a call of gRPC might have ended with, if that says
    something of its server, else 0; push_back_s: for how long the server wants to be left alone, if it said so.
    """

    __slots__ = (
        "_head",
        "_lease",
        "deadline",
        "expect_at",
        "half_kept",
        "judged_as",
        "kernel",
        "owner",
        "phase",
        "push_back_s",
        "runtime",
        "started_at",
        "upstream",
    )

    runtime: ServerRuntime

    def __init__(self, owner: AttemptOwner, lease: Lease, now: float) -> None:
        super().__init__(now, is_head=owner.is_head)
        self.owner = owner
        self._lease: Lease | None = lease
        self._head: ResponseHead | None = None
        self.kernel: KernelPath | None = None
        self.half_kept: KeptAnswer | None = None
        self.upstream: ServerStream | None = None
        self.judged_as = 0
        self.push_back_s = -1.0
        self.phase = CONNECTING
        self.started_at = now
        self.deadline = self.expect_at = NEVER

    def is_to_be_cut(self, now: float) -> bool:
        """Has an operator's patience with what is in flight at the server come to its end?"""
        return self._lease is not None and now >= self._lease.server.cut_at

    def timeouts(self) -> UpstreamTimeouts:
        timeouts = self.owner.prepared.route.timeouts
        assert timeouts is not None  # a route with a pool has them
        return timeouts

    def succeeded(self, now: float) -> None:
        """The answer is whole, and nothing is remarkable about it."""
        lease, self._lease = self._lease, None
        self._over()
        if lease is not None:
            lease.release(Outcome.SUCCESS, now)

    def call_ended(self, head: ResponseHead, trailers: Sequence[Field]) -> None:
        """All of an answer to a call of gRPC has come: what it is judged by is behind it."""
        last = _LAST
        if trailers is not last.trailers or not len(trailers):
            last.read(trailers or head.fields)
        status = last.status
        if status == grpc.NO_STATUS and head.status == 200:
            status = grpc.UNKNOWN  # what every client takes it for
        accounts.call_ended(self.runtime, status)
        self.push_back_s = last.push_back_s
        judged = grpc.as_http(status, pushes_back=self.push_back_s >= 0.0)
        self.judged_as = judged if judged >= 400 else 0

    def ended_with(self, head: ResponseHead, now: float) -> None:
        """The answer is whole: its status is what the server is judged by."""
        lease, self._lease = self._lease, None
        self._over()
        if lease is None:
            return
        owner = self.owner
        wall = now + owner.services.wall_offset
        failures = self.runtime.pool.failure_statuses
        if self.judged_as:
            outcome, penalty_s, what = outcome_of_call(self.judged_as, self.push_back_s, failures)
        else:
            outcome, penalty_s, what = outcome_of(head, failures, wall)
        key = 0
        if outcome is Outcome.ERROR:
            key = request_key(owner.client, owner.prepared.meaning.target)
            if head.status in owner.prepared.route.retry.status:
                penalty_s = PENALTY_S  # the config takes it for a failure
        lease.release(outcome, now, penalty_s=penalty_s, what=what, request_key=key)

    def tunnelled(self, outcome: Outcome, now: float) -> None:
        """The tunnel is over."""
        lease, self._lease = self._lease, None
        self._over()
        if lease is not None:
            lease.release(outcome, now, is_timed=False)

    def stream(self, head: ResponseHead, now: float) -> None:
        """The rest of the answer goes to the client as it comes."""
        self.phase = STREAMING
        self._head = head
        self.expect_at = NEVER
        self.deadline = now + self.timeouts().read
        if self._lease is not None:
            self._lease.server.progress_at = now

    def keep(self, kept: KeptAnswer, now: float) -> None:
        """The rest of the answer is kept back until it is whole."""
        self.half_kept = kept
        self.phase = KEEPING
        self.deadline = now + self.timeouts().read

    def give_up(self, fault: Fault) -> None:
        """Nobody wants the answer any more: end the stream so that the server sees it. More than once is once."""
        if self.pending is not None:
            self.pending.cancel()
            self.pending = None
        if self.kernel is not None:
            self._stop_kernel()  # first: its duplicates keep the connection open
        if self.upstream is not None:
            self.upstream.abort()
        self._over_after(fault)

    def _over_after(self, fault: Fault) -> None:
        """Give the slot back. After an abort or a time-out the server may still be at work: the slot is used last."""
        phase = self.phase
        lease, self._lease = self._lease, None
        self._over()
        if lease is None:
            return
        quarantine_s = 0.0
        outcome = Outcome.FAILURE if fault.blames else Outcome.NEUTRAL
        if fault in STILL_WORKING or (fault.side is Side.CLIENT and phase in (WAITING, STREAMING, KEEPING)):
            quarantine_s = self.timeouts().response_head
            if not fault.blames:
                outcome = Outcome.ABORTED
        owner, key = self.owner, 0
        if fault in BAD_ANSWERS:
            outcome, key = Outcome.BAD_ANSWER, request_key(owner.client, owner.prepared.meaning.target)
        now = owner.services.clock()
        lease.release(outcome, now, quarantine_s=quarantine_s, what=plural_of(fault), request_key=key)

    def _over(self) -> None:
        self.phase = OVER
        self.upstream = None
        self.deadline = self.expect_at = NEVER
        if self.kernel is not None:
            self._stop_kernel()
        self.owner.body.leave(self)

    def _stop_kernel(self) -> None:
        if self.kernel is not None:
            self.kernel.close()
            self.kernel = None  # which knows this object
