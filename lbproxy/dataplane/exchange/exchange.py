"""One request and its response: pick a server, forward, retry where that is safe, finish exactly once.

The exchange knows a client side (`ClientStream`) and an upstream connection by narrow interfaces, and owns everything
that
a request holds: the lease on a server, the connection, the dial, the body kept for replay. `_finish` releases all of it
and is the only way out, so that no path can leak a slot.

    phase        waits for                        ends with
    QUEUED       a server                         lease -> CONNECTING or WAITING
    CONNECTING   a connection                     -> WAITING, or a dial fault -> retry
    WAITING      the response head                -> STREAMING, or a fault -> retry where safe
    KEEPING      the end of a retryable answer    -> QUEUED (retry), or the answer goes to the client after all
    STREAMING    the end of the body              -> DONE, or a cut (the truncation must show)
    TUNNEL       both ends of an upgraded stream  -> DONE

This module is longer than 600 lines because the table above is one state machine: each method changes its books, and
reading them side by side is how one sees that nothing leaks.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, cast

from lbproxy import errors
from lbproxy.dataplane.counters import (
    ABORTED,
    BUDGET_EXHAUSTED,
    BYTES_IN,
    BYTES_OUT,
    CODE_INDEX,
    DURATION,
    DURATION_SUM,
    FAIL_OPEN,
    REJECTED,
    RETRY,
    SERVER_REQUESTS,
    STALE,
    TCP_IN,
    TCP_OUT,
    TTFB,
    TTFB_SUM,
    UPSTREAM_ERROR,
    retry_reason,
)
from lbproxy.dataplane.exchange.binding import bind, take_bound
from lbproxy.dataplane.exchange.body_splice import Download, Upload, spliceable
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.kept_answer import KEEP_BYTES, KeptAnswer
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import Prepared
from lbproxy.dataplane.exchange.relay import Relay, RelayEnd
from lbproxy.dataplane.exchange.verdicts import (
    BAD_ANSWERS,
    STILL_WORKING,
    has_retry_after,
    outcome_of,
    plural_of,
    request_key,
)
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.net.pieces import SMALL_BODY, add_piece
from lbproxy.dataplane.pressure import COUNTED_FROM
from lbproxy.dataplane.runtime import PoolRuntime, ServerRuntime, UpstreamTimeouts
from lbproxy.dataplane.server import connector
from lbproxy.dataplane.server.connector import DIAL_FAULTS
from lbproxy.dataplane.server.introduction import introduction
from lbproxy.dataplane.server.tls_client import TlsUpstream
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.retry import backoff_s, may_retry, may_retry_status
from lbproxy.domain.server import PENALTY_S
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault, Side
from lbproxy.protocol.body import BodyReader, chunked
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.upgrade import is_answer_to
from lbproxy.telemetry.slots import DURATION_BUCKETS, observe

QUEUED: Final = 0
CONNECTING: Final = 1
WAITING: Final = 2
KEEPING: Final = 3
STREAMING: Final = 4
TUNNEL: Final = 5
DONE: Final = 6
PHASES: Final[tuple[str, ...]] = ("queued", "connecting", "waiting", "waiting", "streaming", "tunnel", "")

NEVER: Final = float("inf")
EXPECT_WAIT_S: Final = 1.0
DIAL_BUFFER: Final = 64 * 1024
_NO_BODY: Final[list[bytes]] = []  # replaced by `start` before anything is added


class Exchange(Underway):
    """See the module. The access log reads it as a LogRecord."""

    # Slots: an instance dictionary of more than 30 keys is not shared (CPython 3.11) and costs 0.5 us a request.
    __slots__ = (
        "_attempted_at",
        "_body",
        "_body_bytes",
        "_client_is_blocked",
        "_continue_sent",
        "_deadline",
        "_dialing",
        "_download",
        "_dropped_body",
        "_expect_deadline",
        "_half_kept",
        "_has_permit",
        "_head",
        "_kept",
        "_lease",
        "_phase",
        "_progress_at",
        "_retried",
        "_retries",
        "_runtime",
        "_started",
        "_timer",
        "_total_deadline",
        "_unsent",
        "_upload",
        "_upstream_unsent",
        "_wants_fresh",
        "is_body_paused",  # the server takes no more for now
        "pool_runtime",
        "response_started",
        "side",
        "upstream",
    )

    def __init__(
        self, side: ClientStream, prepared: Prepared, identity: tuple[str, bytes], client: str, now: float
    ) -> None:
        """identity: the request id and its field line. client: the address of whose request it is."""
        self.request_id, id_line = identity
        super().__init__(prepared, id_line, now)
        self.side = side
        self._started = self._progress_at = now
        self.wall = now + side.services.wall_offset
        self.client = client
        self.listener = side.facts.listener.name
        self.log_head = prepared.log_head
        self.pool_runtime: PoolRuntime | None = None
        self.upstream: UpstreamConnection | None = None
        self._lease: Lease | None = None
        self._runtime: ServerRuntime | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._retried: Fault | None = None
        self._head: ResponseHead | None = None
        self._kept: KeptAnswer | None = None  # whole, of an earlier attempt
        self._half_kept: KeptAnswer | None = None  # in phase KEEPING: what has come of this attempt's
        self._download: Download | None = None
        self._upload: Upload | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.connect_s = None
        self.ttfb_s = None
        self._phase = self.status = self.attempts = self.bytes_in = self.bytes_out = self._body_bytes = (
            self._retries
        ) = 0
        self._upstream_unsent = -1
        self.pool = self.server = self.end = ""
        self.total_s = 0.0
        self._deadline = self._expect_deadline = self._total_deadline = NEVER
        self.tries = ()
        self._attempted_at = now
        self._body: list[bytes] = _NO_BODY
        self.response_started = self._wants_fresh = self.is_body_paused = False
        self._client_is_blocked = self._dropped_body = self._unsent = self._continue_sent = self._has_permit = False

    # --- what is asked of it ----------------------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        return PHASES[self._phase]

    @property
    def is_done(self) -> bool:
        return self._phase == DONE

    def time_left_s(self) -> float:
        """Seconds until the whole time for this request is over, inf if there is no such time."""
        return self._total_deadline - self.side.services.clock()

    def buffered_bytes(self) -> int:
        size = self._body_bytes
        if self._dropped_body and self.upstream is not None:
            size += self.upstream.transport.get_write_buffer_size()
        return size + sum(splice.pending for splice in (self._download, self._upload) if splice is not None)

    def spare_bytes(self) -> int:
        """What `give_up_spare` frees: the body was written to a server, and is kept in case it must be sent again."""
        if self.upstream is None or self._unsent or self._phase not in (WAITING, KEEPING, STREAMING):
            return 0
        return self._body_bytes - self.upstream.transport.get_write_buffer_size()

    def give_up_spare(self) -> None:
        """Memory is short (pressure.py): this request can't be repeated any more."""
        self._drop_body()

    # --- attempts ---------------------------------------------------------------------------------------------------

    def start(self, body: bytes, *, is_done: bool) -> None:
        """The head is there, and what came of the body with it."""
        self.request_done = is_done
        if body:
            self.bytes_in = self._body_bytes = len(body)
            self._body = [body]
            if len(body) > COUNTED_FROM:
                self.side.services.pressure.copy_grew(self, len(body))
        elif not is_done:
            self._body = []
        prepared = self.prepared
        pool = prepared.pool
        if pool is None or self.side.services.pressure.is_refusing:
            self._answer_here(prepared)
            return
        self.pool_runtime = pool
        self.pool = pool.name
        if prepared.total_s != NEVER:
            self._total_deadline = self._started + prepared.total_s
            if not prepared.total_s:
                self.fail(errors.TOTAL_TIMEOUT, "there was no time left for it when it came")
                return
        self._attempt(pool, self._started)

    def _answer_here(self, prepared: Prepared) -> None:
        """This request goes to no server."""
        pool = self.pool_runtime = prepared.route.pool
        if pool is not None:
            self.pool = pool.name
        if prepared.fault is not None:
            self.fail(prepared.fault, prepared.fault_detail)
        elif pool is None or prepared.is_local:
            self.side.answer_locally(self)
        else:
            self.fail(errors.OVERLOADED, "")

    def _attempt(self, pool: PoolRuntime, now: float) -> None:
        bound = self.side.bound
        if bound is not None and bound.runtime.pool is pool and not self._retries and not self._wants_fresh:
            lease = pool.pool.acquire_at(bound.runtime.server, now)
            if lease is not None:
                self.leased(lease, now)
                return
        context = PickContext(self.client, self.prepared.head)
        self.claim(self.side.services, pool.pool, pool.row, context, now, self._total_deadline)

    def waits(self) -> None:
        """See Claimant."""
        self._phase = QUEUED

    def not_placed(self, fault: Fault, detail: str) -> None:
        """See Claimant."""
        self.fail(fault, detail)

    def broke(self, error: Exception) -> None:
        """See Claimant."""
        self.fail(errors.INTERNAL_ERROR, "internal error")

    def leased(self, lease: Lease, now: float) -> None:
        """See Claimant."""
        self._lease = lease
        pool = self.pool_runtime
        assert pool is not None
        self._attempted_at = now
        self.attempts += 1
        if self.queue_s is None:
            self.queue_s = 0.0
        runtime = self._runtime = pool.servers[lease.server]
        self.server = runtime.label
        if pool.pool.is_failing_open:
            pool.row[FAIL_OPEN] += 1
        if self.side.bound is not None:
            connection = take_bound(self.side, runtime, now)
            if connection is not None:
                self._send(connection, now)
                return
        if pool.keep_alive is not None and not self._wants_fresh:
            idle = runtime.idle.connections
            if idle and idle[-1].expires_at > now and not idle[-1].poll(0):
                # The usual case of IdlePool.take, without the call.
                self._send(cast(UpstreamConnection, idle.pop()), now)
                return
            kept = runtime.idle.take(now)
            if kept is not None:
                self._send(cast(UpstreamConnection, kept), now)
                return
        self._phase = CONNECTING
        self._deadline = now + self._timeouts().dial
        services = self.side.services
        opening = connector.dial_now(services, runtime)
        if opening is not None and opening.is_open:
            connection = connector.attached(runtime, opening, UpstreamConnection(services, runtime))
            if connection.has_ended:  # a defect, reported already
                self.fail(errors.INTERNAL_ERROR, "internal error")
                return
            opened_at = services.clock()
            self.connect_s = opened_at - now
            self._send(connection, opened_at)
            return
        self._dialing = services.tasks.spawn(self._dial(runtime, now, opening), "dial")

    def _timeouts(self) -> UpstreamTimeouts:
        timeouts = self.prepared.route.timeouts
        assert timeouts is not None  # a route with a pool has them
        return timeouts

    async def _dial(self, runtime: ServerRuntime, started: float, opening: Opening | None) -> None:
        try:
            await self._connect(runtime, started, opening)
        except Exception as error:  # a defect: confined to this exchange
            self.side.services.internal_error("dial", error)
            self.broke(error)

    async def _connect(self, runtime: ServerRuntime, started: float, opening: Opening | None) -> None:
        services = self.side.services
        me = self._dialing
        secure = runtime.pool.tls is not None
        connection = TlsUpstream(services, runtime) if secure else UpstreamConnection(services, runtime)
        try:
            header = introduction(runtime.pool, self.side.transport, self.side.facts.proxied)
            connection.introduced = len(header)
            await connector.dial(services, runtime, lambda: connection, self._timeouts(), header, opening)
        except asyncio.CancelledError:
            connection.abandoned()
            del me  # the task keeps the traceback, which keeps this frame
            raise
        except connector.DialError as error:
            if self._phase == CONNECTING and self._dialing is me:
                self._dialing = None
                self.attempt_failed(error.fault, error.detail)
            return
        if self._phase != CONNECTING or self._dialing is not me:
            connection.close_idle()
            return
        self._dialing = None
        now = services.clock()
        self.connect_s = now - started
        if connection.has_ended:
            # Lost between the kernel's accept and this line: nothing was sent, so any method may try again.
            self.attempt_failed(errors.CLOSED_UNSENT, "closed as soon as it was opened")
            return
        self._send(connection, now)

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        self.upstream = connection  # first, so that a defect below does not leave it open
        prepared = self.prepared
        route = prepared.route
        head = prepared.forward + self.side.facts.forwarding_lines(self)
        pieces = self._body
        body = b"".join(pieces) if len(pieces) != 1 else pieces[0]
        self._phase = WAITING
        self.sent_at = now
        if prepared.needs_care:
            if prepared.binds:
                bind(self.side, connection)
            head, body = self._careful_start(head, body, now)
        else:
            head += b"\r\n"
        if self._body_bytes > route.retry.body_bytes:
            self._drop_body()
        timeouts = route.timeouts
        assert timeouts is not None
        self._deadline = now + timeouts.response_head if self.request_done else NEVER
        if self.is_body_paused:
            self._resume_body()  # first: what is written now may be more than the server takes
        connection.begin(self, head + body if len(body) <= SMALL_BODY else head)
        if len(body) > SMALL_BODY:
            connection.write(body)

    def _careful_start(self, head: bytes, body: bytes, now: float) -> tuple[bytes, bytes]:
        """The first bytes of a chunked request, or of one that waits for 100 Continue."""
        if self.prepared.expects_continue and not body and not self.request_done and not self._continue_sent:
            self._unsent = True
            self._expect_deadline = now + EXPECT_WAIT_S
            return head + b"Expect: 100-continue\r\n\r\n", b""
        if self.prepared.chunked:
            body = chunked(body, is_done=self.request_done)
        return head + b"\r\n", body

    def _drop_body(self) -> None:
        """What is sent is kept for a replay up to `retry.body_bytes`; beyond it the request can't be repeated."""
        if self._body_bytes > COUNTED_FROM:
            self.side.services.pressure.copy_gone(self)
        self._body = []
        self._body_bytes = 0
        self._dropped_body = True

    def request_body(self, data: bytes, *, is_done: bool) -> None:
        """More of the request's body arrived; `is_done` with its last byte."""
        self.bytes_in += len(data)
        self.request_done = is_done
        if data and not self._dropped_body:
            add_piece(self._body, data)
            self._body_bytes += len(data)
            if self._body_bytes > COUNTED_FROM:
                self.side.services.pressure.copy_grew(self, self._body_bytes)
        connection = self.upstream
        if connection is None:
            if not is_done and (self._body_bytes > DIAL_BUFFER or self.side.services.pressure.is_holding):
                self._pause_body()
            return
        if self._unsent:
            self._send_held_body(connection)
            return
        if self.prepared.chunked:
            data = chunked(data, is_done=is_done)
        if self._body_bytes > self.prepared.route.retry.body_bytes:
            self._drop_body()
        if is_done:
            connection.request_done = True
            self._request_sent()
        if data:
            connection.write(data)

    def _request_sent(self) -> None:
        if self._phase == WAITING:
            self._deadline = self.side.services.clock() + self._timeouts().response_head

    def _send_held_body(self, connection: UpstreamConnection) -> None:
        """The client did not wait for 100, or has it: what it sent of the body goes up."""
        self._unsent = False
        self._expect_deadline = NEVER
        body = b"".join(self._body)
        if self.prepared.chunked:
            body = chunked(body, is_done=self.request_done)
        if self._body_bytes > self.prepared.route.retry.body_bytes:
            self._drop_body()
        if self.request_done:
            connection.request_done = True
            self._request_sent()
        if body:
            connection.write(body)

    # --- what the upstream connection reports -----------------------------------------------------------------------

    def trusts_unacked(self, runtime: ServerRuntime) -> bool:
        """Does a FIN with nothing acknowledged prove, for this server, that nothing was delivered?"""
        mode = self.prepared.route.retry.unacked
        return mode == "on" or (mode == "auto" and runtime.is_direct)

    def interim_received(self, head: ResponseHead) -> None:
        """A 1xx other than 101: passed on, except a 100 that was not asked for or was sent by lbproxy already."""
        if head.status == 100:
            if self._unsent and self.upstream is not None:
                self._send_held_body(self.upstream)
            if not self.prepared.expects_continue or self._continue_sent:
                return
            self._continue_sent = True
        self.side.send_interim(head)

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        """The final head, with what came of the body; the connection has let go of this exchange if `is_done`."""
        ttfb = self.ttfb_s = now - self.sent_at
        runtime, lease = self._runtime, self._lease
        assert runtime is not None and lease is not None
        row = runtime.row
        row[TTFB + bisect_left(DURATION_BUCKETS, ttfb)] += 1
        row[TTFB_SUM] += int(ttfb * 1e9)
        self.status = head.status
        route = self.prepared.route
        is_notable = head.status >= route.notable_from
        if is_notable and self._is_kept_back(head, body, now, is_done=is_done, trailers=trailers):
            return
        self.response_started = True
        self.bytes_out = len(body)
        if self._retried is not None:
            self._count_retry("failure" if head.status in route.retry.status else "success")
        if is_done:
            self.upstream = self._lease = None
            self.ended_at = now
            if is_notable:
                self._release_by_status(lease, head, now)
            else:
                lease.release(Outcome.SUCCESS, now)
            self.side.respond(self, head, body, is_done=True, trailers=trailers)
            self._finish("ok", now)
            return
        self._phase = STREAMING
        self._head = head
        self._kept = None  # a better answer has come
        if self._body_bytes and not self._unsent:
            self._drop_body()  # an answer has begun: there is no retry any more
        self._expect_deadline = NEVER
        self._deadline = now + self._timeouts().read
        lease.server.progress_at = now
        self.side.respond(self, head, body, is_done=False, trailers=trailers)

    def _release_by_status(self, lease: Lease, head: ResponseHead, now: float) -> None:
        pool = self.pool_runtime
        assert pool is not None
        wall = now + self.side.services.wall_offset
        outcome, penalty_s, what = outcome_of(head, pool.failure_statuses, wall)
        key = 0
        if outcome is Outcome.ERROR:
            key = request_key(self.client, self.prepared.head.target)
            if head.status in self.prepared.route.retry.status:
                penalty_s = PENALTY_S  # the config takes it for a failure
        lease.release(outcome, now, penalty_s=penalty_s, what=what, request_key=key)

    # --- answers that may be retried ---------------------------------------------------------------------------

    def _is_kept_back(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]
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
            self._kept_whole(answer, now)
        else:
            self._half_kept = answer
            self._phase = KEEPING
            self._deadline = now + self._timeouts().read
        return True

    def _may_retry_answer(self, head: ResponseHead) -> bool:
        return may_retry_status(
            self.prepared.route.retry,
            head.status,
            has_retry_after=has_retry_after(head),
            is_idempotent=self.prepared.is_idempotent,
            retries_done=self._retries,
            is_replayable=not self._dropped_body and self.request_done,
        )

    def _more_kept(
        self, kept: KeptAnswer, data: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        kept.add(data, trailers)
        self._deadline = now + self._timeouts().read
        if kept.is_too_long:
            # Too long to hold: it goes to the client, and there is no retry.
            self._half_kept = self._kept = None
            if self._retried is not None:
                self._count_retry("failure")
            if is_done:
                self._release_kept(kept, now)
                self._give_kept(kept, now)
                return
            self._phase = STREAMING
            self._head = kept.head
            self.response_started = True
            self.bytes_out = kept.size
            self.side.respond(self, kept.head, kept.body(), is_done=False, trailers=())
        elif is_done:
            self._half_kept = None
            self._kept_whole(kept, now)

    def _release_kept(self, kept: KeptAnswer, now: float) -> None:
        lease, self._lease = self._lease, None
        self.upstream = None
        if lease is not None:
            self._release_by_status(lease, kept.head, now)

    def _kept_whole(self, kept: KeptAnswer, now: float) -> None:
        runtime = self._runtime
        assert runtime is not None
        self._kept = kept
        may_retry_it = self._may_retry_answer(kept.head)
        if may_retry_it:
            runtime.row[UPSTREAM_ERROR[errors.RETRYABLE_STATUS.word]] += 1
        self._release_kept(kept, now)
        if self._retried is not None:
            self._count_retry("failure")
        if may_retry_it and self._may_spend(now, is_lost=False):
            self._retry(errors.RETRYABLE_STATUS, runtime, is_stale=False)
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

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """More of the response's body."""
        now = self.side.services.clock()
        if self._half_kept is not None:
            self._more_kept(self._half_kept, data, now, is_done=is_done, trailers=trailers)
            return
        self.bytes_out += len(data)
        if not is_done:
            self._deadline = NEVER if self._client_is_blocked else now + self._timeouts().read
            lease = self._lease
            if lease is not None:
                lease.server.progress_at = now
            self.side.send_body(self, data, is_done=False, trailers=trailers)
            return
        self.upstream = None
        lease, head = self._lease, self._head
        if lease is not None and head is not None:
            self._lease = None
            self._release_by_status(lease, head, now)
        self.side.send_body(self, data, is_done=True, trailers=trailers)
        self._finish("ok", now)

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        """The attempt is over; its connection, if there was one, is gone already."""
        if self._phase == DONE:
            return
        self.upstream = None
        self._stop_splices()
        runtime, pool = self._runtime, self.pool_runtime
        assert runtime is not None and pool is not None
        if fault.word in UPSTREAM_ERROR:
            runtime.row[UPSTREAM_ERROR[fault.word]] += 1
        is_stale = fault in (errors.CLOSED_REUSED, errors.CLOSED_UNACKED)
        if is_stale:
            runtime.row[STALE] += 1
        broken, self._half_kept = self._half_kept, None  # it is not whole, and nothing of it went to the client
        self._release_after(fault)
        if fault in DIAL_FAULTS:
            pool.dial_failed(runtime.server, fault)
        if self._retried is not None:
            self._count_retry("failure")
        if self.response_started:
            self._cut(fault)
            return
        if broken is not None:
            if self._may_retry_answer(broken.head) and self._may_spend(self.side.services.clock(), is_lost=True):
                self._retry(errors.RETRYABLE_STATUS, runtime, is_stale=False)
            else:
                self.fail(errors.BAD_RESPONSE, f"server {runtime.label}: the answer broke off", is_counted=True)
            return
        if may_retry(
            self.prepared.route.retry,
            fault,
            is_idempotent=self.prepared.is_idempotent,
            retries_done=self._retries,
            is_replayable=not self._dropped_body,
        ) and connector.is_worth_a_retry(fault, runtime, self.tried):
            if (
                fault.retry is errors.Retry.ALWAYS  # it did no work anywhere, so it multiplies none
                or is_stale
                or self._may_spend(self.side.services.clock(), is_lost=fault is not errors.RESPONSE_TIMEOUT)
            ):
                self._retry(fault, runtime, is_stale=is_stale)
            else:
                self.fail(fault, f"server {runtime.label}: {detail}; no retry, the budget is spent", is_counted=True)
        elif fault is errors.CONNECT_REFUSED and not pool.pool.eligible():
            self._note_last_try(fault.word, self.side.services.clock())  # what this one did, not what it led to
            self.fail(errors.NO_SERVER, f"pool {pool.name} has no usable server; the last one refused the connection")
        else:
            self.fail(fault, f"server {runtime.label}: {detail}", is_counted=True)

    def _may_spend(self, now: float, *, is_lost: bool) -> bool:
        """Take a permit of the pool's retry budget, which keeps retries from multiplying an outage."""
        pool = self.pool_runtime
        assert pool is not None
        if pool.may_retry(now, is_lost=is_lost):
            self._has_permit = True
            return True
        pool.row[BUDGET_EXHAUSTED] += 1
        return False

    def _retry(self, fault: Fault, runtime: ServerRuntime, *, is_stale: bool) -> None:
        self._retried = fault
        self._note_try(fault.word, self.side.services.clock())
        self._unsent = False
        if is_stale:
            # Not an attempt: the server may be well, only the kept connection was not. A fresh one can't be stale.
            self._wants_fresh = True
        else:
            self._retries += 1
            self.tried = (*self.tried, runtime.server)
        self._phase = QUEUED
        self._deadline = self._expect_deadline = NEVER
        services, pool = self.side.services, self.pool_runtime
        assert pool is not None
        delay_s = 0.0
        if not is_stale:
            known = None if fault is errors.RETRYABLE_STATUS else fault
            delay_s = backoff_s(self._retries, self.prepared.route.retry, pool.rng, known)
        if delay_s > 0.0:
            self._timer = services.loop.call_later(delay_s, self._retry_now)
        else:
            self._attempt(pool, services.clock())

    def _note_try(self, reason: str, now: float) -> None:
        """For the log, which names each server that was tried; only if there are several."""
        self.tries = (*self.tries, (self.server, reason, now - self._attempted_at))

    def _note_last_try(self, reason: str, now: float) -> None:
        """The one that ended the exchange, if it was not the only one and is not noted yet."""
        if self.tries and self.attempts > len(self.tries):
            self._note_try(reason, now)

    def _retry_now(self) -> None:
        self._timer = None
        pool = self.pool_runtime
        if self._phase == QUEUED and pool is not None:
            self._attempt(pool, self.side.services.clock())

    def _count_retry(self, outcome: str) -> None:
        if self._retried is not None and self.pool_runtime is not None:
            self.pool_runtime.row[RETRY[retry_reason(self._retried), outcome]] += 1
        self._retried = None
        self._return_permit()

    def _return_permit(self) -> None:
        if self._has_permit and self.pool_runtime is not None:
            self._has_permit = False
            self.pool_runtime.budget.finished()

    # --- ends -------------------------------------------------------------------------------------------------------

    def fail(self, fault: Fault, detail: str, *, is_counted: bool = False) -> None:
        """End the exchange with a fault: its answer if nothing was sent yet, else a cut that shows."""
        if self._phase == DONE:
            return
        self._half_kept = None
        self._drop_upstream(fault)
        if self._kept is not None and not self.response_started and fault is not errors.INTERNAL_ERROR:
            self._give_kept(self._kept, self.side.services.clock())
            return
        if not is_counted and fault.word in UPSTREAM_ERROR and self._runtime is not None:
            self._runtime.row[UPSTREAM_ERROR[fault.word]] += 1
        if fault.word in REJECTED:
            self.side.facts.listener.row[REJECTED[fault.word]] += 1
        if self.response_started:
            self._cut(fault)
            return
        self.status = fault.status
        self._note_last_try(fault.word, self.side.services.clock())  # the answer names it, too
        retry_after = (
            self.pool_runtime.retry_after(fault, self.side.services.clock()) if self.pool_runtime is not None else None
        )
        self.side.answer_fault(self, fault, detail, retry_after)
        self._finish(fault.word, self.side.services.clock())

    def answered_locally(self, status: int, bytes_out: int) -> None:
        """The client side has sent a redirect, a fixed response or an answer to OPTIONS."""
        self.status = status
        self.bytes_out = bytes_out
        self._finish("ok", self.side.services.clock())

    def _cut(self, fault: Fault) -> None:
        self.side.cut()
        self._finish(fault.word, self.side.services.clock())

    def client_left(self, fault: Fault = errors.CLIENT_ABORT, phase: str = "") -> None:
        """The client is gone: stop everything at once; the server is not to blame."""
        if self._phase == DONE:
            return
        phase = phase or ("request_body" if not self.request_done and not self.response_started else self.phase)
        self._drop_upstream(fault)
        if self.pool_runtime is not None:
            self.pool_runtime.row[ABORTED[phase]] += 1
        self.status = 499
        self._finish(fault.word, self.side.services.clock())

    def shut_down(self) -> None:
        """The grace period is over, in the middle of the response."""
        self._drop_upstream(errors.SHUTDOWN_CUT)
        self._finish(errors.SHUTDOWN_CUT.word, self.side.services.clock())

    def _drop_upstream(self, fault: Fault) -> None:
        self._stop_splices()
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._place is not None:
            self.stop_waiting(self.side.services.clock())
        if self.upstream is not None:
            self.upstream.abort()
            self.upstream = None
        self._release_after(fault)

    def _release_after(self, fault: Fault) -> None:
        """Give the slot back. After an abort or a time-out the server may still be at work: the slot is used last."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        quarantine_s = 0.0
        outcome = Outcome.FAILURE if fault.blames else Outcome.NEUTRAL
        if fault in STILL_WORKING or (fault.side is Side.CLIENT and self._phase in (WAITING, STREAMING, KEEPING)):
            quarantine_s = self._timeouts().response_head
            if not fault.blames:
                outcome = Outcome.ABORTED
        key = 0
        if fault in BAD_ANSWERS:
            outcome, key = Outcome.BAD_ANSWER, request_key(self.client, self.prepared.head.target)
        what, now = plural_of(fault), self.side.services.clock()
        lease.release(outcome, now, quarantine_s=quarantine_s, what=what, request_key=key)

    def _finish(self, end: str, now: float) -> None:
        """Count, log and let go. Runs once per exchange, on every path."""
        self._phase = DONE
        self._stop_splices()
        if self._has_permit:
            self._return_permit()
        self.end = end
        if self.tries:
            self._note_last_try(end, now)
        total = self.total_s = now - self._started
        side, prepared = self.side, self.prepared
        code = CODE_INDEX[self.status]
        prepared.route.traffic[prepared.requests_column + code] += 1
        row = side.facts.listener.row
        row[BYTES_IN] += self.bytes_in
        row[BYTES_OUT] += self.bytes_out
        pool = self.pool_runtime
        if pool is not None:
            # The histogram is counted in line (slots.observe): a call more per request is 0.2 us.
            row = pool.row
            row[DURATION + bisect_left(DURATION_BUCKETS, total)] += 1
            row[DURATION_SUM] += int(total * 1e9)
            runtime = self._runtime
            if runtime is not None:
                runtime.row[SERVER_REQUESTS + code] += 1
        services = side.services
        if self._body_bytes:
            if self._body_bytes > COUNTED_FROM:
                services.pressure.copy_gone(self)
            self._body = []
            self._body_bytes = 0
        if services.access_writer is not None:
            services.access_writer.append(services.log_format.line(self))

    # --- deadlines and back-pressure --------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called a few times a second while the exchange is active."""
        if self._phase == DONE:
            return
        if now >= self._expect_deadline:
            # RFC 9110 section 10.1.1: nobody waits for ever. The client gets its 100 from us.
            self._expect_deadline = NEVER
            self._continue_sent = True
            self.side.send_interim(None)
            if self._unsent and self.upstream is not None:
                self._send_held_body(self.upstream)
        if now >= self._total_deadline and self._phase != TUNNEL:
            self.fail(errors.TOTAL_TIMEOUT, "the whole time for this request is over")
            return
        # Once an answer is on its way, a server that takes no more of the request is no reason to cut it.
        if self._phase in (WAITING, KEEPING) and self.upstream is not None:
            self._check_upstream_write(self.upstream, now)
        elif self._phase == STREAMING and self.upstream is not None and self._deadline != NEVER:
            # A server that answers while it reads may be silent for as long as it is given something to read.
            progress = self._taken(self.upstream)
            if progress != self._upstream_unsent:
                self._upstream_unsent = progress
                self._deadline = now + self._timeouts().read
        if now < self._deadline:
            return
        self._deadline = NEVER
        if self._phase == CONNECTING:
            if self._dialing is not None:
                self._dialing.cancel()
                self._dialing = None
            if self._runtime is not None:
                connector.count_dial(self._runtime, errors.CONNECT_TIMEOUT)
            self.attempt_failed(errors.CONNECT_TIMEOUT, "no answer to the connection request")
        elif self._phase in (WAITING, KEEPING, STREAMING):
            fault = errors.RESPONSE_TIMEOUT if self._phase == WAITING else errors.IDLE_TIMEOUT
            if self.upstream is not None:
                self.upstream.abort()
            self.attempt_failed(fault, "the time-out passed")

    def _taken(self, connection: UpstreamConnection) -> int:
        """Bytes of the request that the server's kernel, or ours, has taken."""
        taken = connection.transport.taken(connection.written)
        return taken - self._upload.pending if self._upload is not None else taken

    def _check_upstream_write(self, connection: UpstreamConnection, now: float) -> None:
        unsent = connection.transport.get_write_buffer_size()
        if self._upload is not None:
            unsent += self._upload.pending
        progress = self._taken(connection)
        if not unsent or progress != self._upstream_unsent:
            self._upstream_unsent = progress
            self._progress_at = now
        elif now - max(self._progress_at, self.sent_at) >= self._timeouts().write:
            connection.abort()
            self.attempt_failed(errors.UPSTREAM_WRITE_TIMEOUT, "the server does not read")

    def _pause_body(self) -> None:
        if not self.is_body_paused:
            self.is_body_paused = True
            self.side.pause_body()

    def _resume_body(self) -> None:
        if self.is_body_paused:
            self.is_body_paused = False
            self.side.resume_body()

    def upstream_blocked(self) -> None:
        if not self.request_done:
            self._pause_body()

    def upstream_unblocked(self) -> None:
        if self._upload is not None:
            self._upload.sink_emptied()
        else:
            self._resume_body()

    def client_blocked(self) -> None:
        """The client does not take what is sent: stop reading from the server."""
        self._client_is_blocked = True
        if self.upstream is not None and self._phase == STREAMING:
            self._deadline = NEVER
            self.upstream.pause_reading()

    def client_unblocked(self) -> None:
        self._client_is_blocked = False
        if self.upstream is not None and self._phase == STREAMING:
            self._deadline = self.side.services.clock() + self._timeouts().read
            if self._download is not None:
                self._download.sink_emptied()
            else:
                self.upstream.resume_reading()

    # --- large bodies, left to the kernel ---------------------------------------------------------------------------

    def bind_upstream(self) -> None:
        """See Underway."""
        if self.upstream is not None:
            bind(self.side, self.upstream)

    def client_transport(self) -> asyncio.Transport | None:
        """See Underway."""
        return self.side.transport

    def splice_response(self, reader: BodyReader) -> bool:
        """See Underway."""
        sink, connection = self.side.raw_sink(), self.upstream
        if connection is None:
            return False
        found = spliceable(reader, self.side.services.pipes, connection.transport, sink)
        if found is None or sink is None or self._phase != STREAMING:
            return False
        connection.pause_reading()
        self._download = Download(self, self.side, connection, found, connection.transport, sink)
        self._download.begin()
        return True

    def splice_request(self, reader: BodyReader) -> bool:
        """The same for the request, once it is too long to be sent again."""
        connection, source = self.upstream, self.side.raw_source()
        if connection is None or not self._dropped_body or self._unsent or self._phase not in (WAITING, STREAMING):
            return False
        found = spliceable(reader, self.side.services.pipes, source, connection.transport)
        if found is None or source is None:
            return False
        self._pause_body()
        self._upload = Upload(self, self.side, connection, found, source, connection.transport)
        self._upload.begin()
        return True

    def response_spliced(self, size: int, *, is_blocked: bool) -> None:
        """So much of the response is on its way to the client, who takes it or does not."""
        now = self.side.services.clock()
        self.bytes_out += size
        self._client_is_blocked = is_blocked
        self._deadline = NEVER if is_blocked else now + self._timeouts().read
        if size and self._lease is not None:
            self._lease.server.progress_at = now

    def splice_over(self, splice: object) -> None:
        """The transports have the connections back."""
        if splice is self._download:
            self._download = None
        elif splice is self._upload:
            self._upload = None

    def _stop_splices(self) -> None:
        for splice in (self._download, self._upload):
            if splice is not None:
                splice.close()
        self._download = self._upload = None

    @property
    def n_unsent(self) -> int:
        """Bytes of the response that have left the server's connection and not reached the client's."""
        return self._download.pending if self._download is not None else 0

    # --- upgrade ----------------------------------------------------------------------------------------------------

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """101: if it is what the client asked for, both transports become a tunnel, with the bytes already read."""
        connection, runtime = self.upstream, self._runtime
        assert connection is not None and runtime is not None
        if not is_answer_to(head.upgrade, self.prepared.upgrade) or not self.request_done:
            connection.abort()
            self.attempt_failed(errors.BAD_UPGRADE, "101 to a protocol that was not offered")
            return
        now = self.side.services.clock()
        self.status = 101
        self.response_started = True
        self.ttfb_s = now - self.sent_at
        observe(runtime.row, TTFB, DURATION_BUCKETS, self.ttfb_s)
        self._phase = TUNNEL
        self._deadline = NEVER
        self.upstream = None
        timeouts = self._timeouts()
        relay = Relay(
            self.side.services,
            tunnel_s=timeouts.tunnel,
            half_closed_s=timeouts.half_closed,
            write_s=min(timeouts.write, self.side.facts.listener.timeouts.write),
            on_done=self._tunnel_done,
        )
        up = connection.detach()
        down, ahead, has_ended = self.side.give_stream(self, head)
        client, server = RelayEnd(relay), RelayEnd(relay)
        relay.join(client, down, server, up)
        if ahead:
            client.data_received(ahead)
        if rest:
            server.data_received(rest)
        if has_ended:
            client.eof_received()  # it came before the 101, and comes once

    def _tunnel_done(self, relay: Relay, end: str, side: Side | None) -> None:
        now = self.side.services.clock()
        if self._runtime is not None:
            self._runtime.n_connections -= 1
        traffic = self.prepared.route.traffic
        traffic[TCP_IN] += relay.client.n_received
        traffic[TCP_OUT] += relay.server.n_received
        self.bytes_in += relay.client.n_received
        self.bytes_out += relay.server.n_received
        if side is Side.CLIENT and self.pool_runtime is not None:
            self.pool_runtime.row[ABORTED["tunnel"]] += 1
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release(Outcome.SUCCESS if end == "ok" else Outcome.NEUTRAL, now, is_timed=False)
        self.side.stream_over()
        self._finish(end, now)
