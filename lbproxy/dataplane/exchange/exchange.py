"""One request and its response: whether it is tried again, what the client gets, and the one end (beginning.py: where
it goes).

    no attempt    a place in the queue, or a moment before the next try   -> an attempt, or a fault
    an attempt    what `attempt.py` reports                               -> the answer goes to the client as it comes,
                                                                             is kept while a better one is sought, or
                                                                             there is another attempt, or a fault
    done          nothing

The exchange holds a place, a timer, a permit of the retry budget and an attempt; `_let_go` and `_finish` give all of it
back. `_finish` is the only way out, so that a request counts, and is logged, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.affinity import Affinity
from lbproxy.dataplane.exchange.attempt_books import NEVER, TUNNEL, AttemptBooks
from lbproxy.dataplane.exchange.beginning import Beginning
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.tunnel import Tunnel
from lbproxy.dataplane.exchange.verdicts import DIAL_FAULTS
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field

PHASES: Final[tuple[str, ...]] = ("connecting", "waiting", "waiting", "streaming", "tunnel", "queued")
"""What the counters of aborts call the phases of an attempt; behind one the next has to be placed."""

LONG_HEAD: Final = 4096
"""Octets of a request's head; a longer one counts as buffered, with what is made of it. A connection of HTTP/2 can have
a hundred of up to `limits.head_bytes` each, while their servers or their client take their time."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Exchange(Beginning):
    """See the module. The access log reads it as a LogRecord."""

    # Slots: an instance dictionary of more than 30 keys is not shared (CPython 3.11) and costs 0.5 us a request.
    __slots__ = ("_timer",)

    def __init__(
        self, side: ClientStream, prepared: Prepared, identity: tuple[str, bytes], client: str, now: float
    ) -> None:
        """identity: the request id and its field line. client: the address of whose request it is."""
        self.request_id, id_line = identity
        super().__init__(side, prepared, id_line)
        self._started = now
        self.wall = now + side.services.wall_offset
        self.client = client
        self.listener = side.facts.listener.name
        self.log_head = prepared.log_head
        self.runtime = self._admission = self._affinity = self._choosing = None
        self._timer: asyncio.TimerHandle | None = None
        self.connect_s = None
        self.ttfb_s = None
        self.status = self.bytes_in = self.bytes_out = 0
        self.pool = self.server = self.end = ""
        self.total_s = 0.0
        self._total_deadline = NEVER
        self._kept = None
        self.response_started = self._is_done = False

    # --- what the client's end asks and tells ------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """The request's, as the counters of aborts have it."""
        return PHASES[self.attempt.phase] if self.attempt is not None else "queued"

    def time_left_s(self) -> float:
        return self._total_deadline - self.services.now()

    def buffered_bytes(self) -> int:
        """What waits in this process for one of the two ends."""
        size = self.body.kept + (self.attempt.buffered_bytes() if self.attempt is not None else 0)
        n_head = self.prepared.forward_size
        return size + 2 * n_head if n_head > LONG_HEAD else size

    @property
    def n_unsent(self) -> int:
        """Bytes of the response that have left the server's connection and not reached the client's."""
        return self.attempt.n_unsent if self.attempt is not None else 0

    def server_transport(self) -> asyncio.Transport | None:
        """Where the request goes, for who must know how fast it does."""
        upstream = self.attempt.upstream if self.attempt is not None else None
        return upstream.raw_sink() if upstream is not None else None

    def splice_request(self, reader: BodyReader) -> bool:
        """Leave the rest of the request to the kernel if that is possible and pays."""
        return self.attempt is not None and self.attempt.splice_request(reader)

    def client_blocked(self) -> None:
        """The client does not take what is sent: stop reading from the server."""
        self.client_is_blocked = True
        if self.attempt is not None:
            self.attempt.client_blocked()

    def client_unblocked(self) -> None:
        """It takes more again."""
        self.client_is_blocked = False
        if self.attempt is not None:
            self.attempt.client_unblocked()

    def read_at_most(self, size: int) -> None:
        """See ServerStream; for further attempts, too."""
        self.reads_at_most = size
        if self.attempt is not None:
            self.attempt.read_at_most(size)

    def sweep(self, now: float) -> None:
        """Called a few times a second while the exchange is active."""
        if self._is_done:
            return
        attempt = self.attempt
        if attempt is not None and now >= attempt.expect_at:
            # RFC 9110 section 10.1.1: nobody waits for ever. The client gets its 100 from us.
            attempt.expect_at = NEVER
            self.continue_sent = True
            self.side.send_interim(None)
            attempt.go_on()
        if now >= self._total_deadline and (attempt is None or attempt.phase != TUNNEL):
            self.fail(errors.TOTAL_TIMEOUT, "the whole time for this request is over")
        elif attempt is not None:
            attempt.sweep(now)

    # --- answers ----------------------------------------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        """Passed on, except a 100 that was not asked for or was sent by lbproxy already."""
        if head.status == 100:
            if not self.prepared.expects_continue or self.continue_sent:
                return
            self.continue_sent = True
        self.side.send_interim(head)

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
        """See AttemptOwner."""
        self.ttfb_s = now - attempt.sent_at
        self.status = head.status
        route = self.prepared.route
        is_notable = head.status >= route.notable_from or attempt.judged_as != 0 or head.grpc_status > 0
        if is_notable and self._is_kept_back(attempt, head, body, now, is_done=is_done, trailers=trailers):
            return
        self.response_started = True
        if self._affinity is not None:
            self._bind_client(self._affinity, attempt, head)
        self.bytes_out = len(body)
        if self._retried is not None:
            is_failure = head.status in route.retry.status or head.grpc_status in route.retry.grpc
            self._count_retry("failure" if is_failure else "success")
        if is_done:
            self.ended_at = now
            if is_notable:
                attempt.ended_with(head, now)
            else:
                attempt.succeeded(now)
            self.side.respond(self, head, body, is_done=True, trailers=trailers)
            self._finish("ok", now)
            return
        self._kept = None  # a better answer has come
        if self.body.kept and not attempt.is_behind:
            self.body.drop()  # an answer has begun: there is no retry any more
        attempt.stream(head, now)
        self.side.respond(self, head, body, is_done=False, trailers=trailers)

    def _bind_client(self, affinity: Affinity, attempt: AttemptBooks, head: ResponseHead) -> None:
        if affinity.sticky is not None:
            is_secure = self.side.facts.is_secure(self.prepared.meaning.forwarding)
            self.cookie_line = affinity.cookie_line(attempt.runtime.server, head.status, self.wall, is_secure=is_secure)

    def more(self, data: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """See AttemptOwner."""
        self.bytes_out += len(data)
        self.side.send_body(self, data, is_done=is_done, trailers=trailers)
        if is_done:
            self._finish("ok", now)

    def switched(self, attempt: AttemptBooks, head: ResponseHead, rest: bytes, now: float) -> None:
        """See AttemptOwner."""
        self.status = 200 if self.prepared.is_connect else 101
        self.response_started = True
        if self._affinity is not None:
            self._bind_client(self._affinity, attempt, head)
        self.ttfb_s = now - attempt.sent_at
        Tunnel(self, attempt).open(head, rest)

    def tunnel_over(self, end: str, now: float) -> None:
        """See AttemptOwner."""
        self._finish(end, now)

    # --- further attempts -------------------------------------------------------------------------------------------

    def lost(self, attempt: AttemptBooks, fault: Fault, detail: str) -> None:
        """See AttemptOwner."""
        runtime, pool = attempt.runtime, self.pool_runtime
        assert pool is not None
        broken, attempt.half_kept = attempt.half_kept, None  # it is not whole, and nothing of it went to the client
        if fault in DIAL_FAULTS:
            pool.dial_failed(runtime.server, fault)
        if self._retried is not None:
            self._count_retry("failure")
        if self.response_started:
            self._cut(fault)
        elif broken is not None:
            if self._may_retry_answer(broken.head) and self._may_spend(self.services.clock(), is_lost=True):
                self._retry(attempt, errors.RETRYABLE_STATUS, is_stale=False)
            else:
                self.fail(errors.BAD_RESPONSE, f"server {runtime.label}: the answer broke off", is_counted=True)
        elif self._may_repeat(attempt, fault):
            is_stale = fault in accounts.STALE_FAULTS
            if (
                fault.retry is errors.Retry.ALWAYS  # it did no work anywhere, so it multiplies none
                or is_stale
                or self._may_spend(self.services.clock(), is_lost=fault is not errors.RESPONSE_TIMEOUT)
            ):
                self._retry(attempt, fault, is_stale=is_stale)
            else:
                self.fail(fault, f"server {runtime.label}: {detail}; no retry, the budget is spent", is_counted=True)
        elif fault is errors.CONNECT_REFUSED and not pool.pool.eligible():
            self._note_last_try(fault.word, self.services.clock())  # what this one did, not what it led to
            self.fail(errors.NO_SERVER, f"pool {pool.name} has no usable server; the last one refused the connection")
        else:
            self.fail(fault, f"server {runtime.label}: {detail}", is_counted=True)

    def _retry(self, attempt: AttemptBooks, fault: Fault, *, is_stale: bool) -> None:
        services, pool = self.services, self.pool_runtime
        assert pool is not None
        delay_s = self._begin_retry(attempt, fault, services.clock(), is_stale=is_stale)
        if delay_s > 0.0:
            self._timer = services.loop.call_later(delay_s, self._retry_now)
        else:
            self._place_it(pool, services.clock())

    def _retry_now(self) -> None:
        self._timer = None
        pool = self.pool_runtime
        if not self._is_done and pool is not None:
            self._place_it(pool, self.services.clock())

    # --- ends -------------------------------------------------------------------------------------------------------

    def fail(self, fault: Fault, detail: str, *, is_counted: bool = False) -> None:
        """See Underway."""
        if self._is_done:
            return
        self._let_go(fault)
        if self._kept is not None and not self.response_started and fault is not errors.INTERNAL_ERROR:
            self._give_kept(self._kept, self.services.clock())
            return
        if not is_counted and self.runtime is not None:
            accounts.server_failed(self.runtime, fault)
        accounts.refused(self.side.facts.listener, fault)
        if self.response_started:
            self._cut(fault)
            return
        self.status = fault.status
        self._note_last_try(fault.word, self.services.clock())  # the answer names it, too
        retry_after: int | None = None
        if self.refusal is not None:
            retry_after = self.refusal.retry_after_s
        elif self.pool_runtime is not None:
            retry_after = self.pool_runtime.retry_after(fault, self.services.clock())
        self.side.answer_fault(self, fault, detail, retry_after)
        self._finish(fault.word, self.services.clock())

    def answered_locally(self, status: int, bytes_out: int) -> None:
        """See Underway."""
        self.status = status
        self.bytes_out = bytes_out
        self._finish("ok", self.services.clock())

    def _cut(self, fault: Fault) -> None:
        self.side.cut(fault)
        self._finish(fault.word, self.services.clock())

    def client_left(self, fault: Fault = errors.CLIENT_ABORT, phase: str = "") -> None:
        """See Underway."""
        if self._is_done:
            return
        phase = phase or ("request_body" if not self.request_done and not self.response_started else self.phase)
        self._let_go(fault)
        if self.pool_runtime is not None:
            accounts.client_left(self.pool_runtime, phase)
        self.status = 499
        self._finish(fault.word, self.services.clock())

    def shut_down(self) -> None:
        """The grace period is over, in the middle of the response."""
        self._let_go(errors.SHUTDOWN_CUT)
        self._finish(errors.SHUTDOWN_CUT.word, self.services.clock())

    def _let_go(self, fault: Fault) -> None:
        """Of the server, or of the wait for one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._admission is not None:
            self._admission.drop()
            self._admission = None
        if self._place is not None:
            self.stop_waiting(self.services.clock())
        if self.attempt is not None:
            self.attempt.give_up(fault)

    def _finish(self, end: str, now: float) -> None:
        """Count, log and let go. Runs once per exchange, on every path."""
        self._is_done = True
        if self._has_permit:
            self._return_permit()
        self.end = end
        if self.tries:
            self._note_last_try(end, now)
        self.attempt = None  # which knows this object
        self.total_s = now - self._started
        listener = self.side.facts.listener
        accounts.ended(self, listener, self.pool_runtime, self.runtime)
        if self.body.kept:
            self.body.drop()
        services = self.services
        if services.access_writer is not None:
            services.access_writer.append(listener.log_format.line(self))
