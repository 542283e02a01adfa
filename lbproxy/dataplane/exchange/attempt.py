"""One try at one server: from the lease to the last byte of the answer, or to whatever ends it before.

    phase        waits for                        ends with
    CONNECTING   a connection                     -> WAITING, or a dial fault
    WAITING      the response head                the owner decides -> STREAMING, KEEPING, OVER; or a fault
    KEEPING      the end of a retryable answer    the owner decides -> STREAMING, OVER; or a fault
    STREAMING    the end of the body              -> OVER
    TUNNEL       both ends of a stream            -> OVER (tunnel.py)
    OVER         nothing, and holds nothing

A fault ends it in any phase, and the owner hears of it. What it holds, and its owner, are in attempt_books.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.attempt_books import (
    CONNECTING,
    KEEPING,
    NEVER,
    STREAMING,
    TUNNEL,
    WAITING,
    AttemptBooks,
    AttemptOwner,
)
from lbproxy.dataplane.exchange.binding import bind, take_bound
from lbproxy.dataplane.exchange.kept_answer import KeptAnswer
from lbproxy.dataplane.exchange.kernel_path import KernelPath
from lbproxy.dataplane.net.dialer import Opening
from lbproxy.dataplane.net.pieces import SMALL_BODY
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server import connector
from lbproxy.dataplane.server.introduction import introduction
from lbproxy.dataplane.server.tls import ServerTlsConnection
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.domain.lease import Lease
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader, chunked
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.upgrade import is_answer_to

EXPECT_WAIT_S: Final = 1.0


@mypyc_attr(free_list_len=1)
class Attempt(AttemptBooks):
    """See the module."""

    __slots__ = ("_progress_at", "_taken_before")

    def __init__(self, owner: AttemptOwner, lease: Lease, now: float) -> None:
        super().__init__(owner, lease, now)
        self._progress_at = now
        self._taken_before = -1

    def start(self, runtime: ServerRuntime, now: float, *, wants_fresh: bool = False) -> None:
        """Send the request. wants_fresh: on no connection that was used before."""
        self.runtime = runtime
        owner = self.owner
        owner.body.follow(self)
        side = owner.side
        if side.bound is not None:
            connection = take_bound(side, runtime, now)
            if connection is not None:
                self._send(connection, now)
                return
        if runtime.pool.keep_alive is not None and not wants_fresh:
            idle = runtime.idle.connections
            if idle and idle[-1].expires_at > now and not idle[-1].poll(0):
                # The usual case of IdlePool.take, without the call.
                self._send(cast(UpstreamConnection, idle.pop()), now)
                return
            kept = runtime.idle.take(now)
            if kept is not None:
                self._send(cast(UpstreamConnection, kept), now)
                return
        self.deadline = now + self._timeouts().dial
        services = side.services
        opening = connector.dial_now(services, runtime)
        if opening is not None and opening.is_open:
            connection = connector.attached(runtime, opening, UpstreamConnection(services, runtime))
            if connection.has_ended:  # a defect, reported already
                owner.fail(errors.INTERNAL_ERROR, "internal error")
                return
            opened_at = services.clock()
            owner.connect_s = opened_at - now
            self._send(connection, opened_at)
            return
        self.dialing = services.tasks.spawn(self._dial(now, opening), "dial")

    # --- a new connection -------------------------------------------------------------------------------------------

    async def _dial(self, started: float, opening: Opening | None) -> None:
        try:
            await self._connect(started, opening)
        except Exception as error:  # a defect: confined to this request
            self.owner.side.services.internal_error("dial", error)
            self.owner.broke(error)

    async def _connect(self, started: float, opening: Opening | None) -> None:
        side, runtime = self.owner.side, self.runtime
        services = side.services
        me = self.dialing
        secure = runtime.pool.tls is not None
        connection = ServerTlsConnection(services, runtime) if secure else UpstreamConnection(services, runtime)
        try:
            header = introduction(runtime.pool, side.transport, side.facts.proxied)
            connection.introduced = len(header)
            await connector.dial(services, runtime, lambda: connection, self._timeouts(), header, opening)
        except asyncio.CancelledError:
            connection.abandoned()
            del me  # the task keeps the traceback, which keeps this frame
            raise
        except connector.DialError as error:
            if self.phase == CONNECTING and self.dialing is me:
                self.dialing = None
                self.attempt_failed(error.fault, error.detail)
            return
        if self.phase != CONNECTING or self.dialing is not me:
            connection.close_idle()
            return
        self.dialing = None
        now = services.clock()
        self.owner.connect_s = now - started
        if connection.has_ended:
            # Lost between the kernel's accept and this line: nothing was sent, so any method may try again.
            self.attempt_failed(errors.CLOSED_UNSENT, "closed as soon as it was opened")
            return
        self._send(connection, now)

    # --- the request ------------------------------------------------------------------------------------------------

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        self.upstream = connection  # first, so that a defect below does not leave it open
        owner = self.owner
        prepared, tape = owner.prepared, owner.body
        route = prepared.route
        lines = owner.side.facts.forwarding_lines(owner)
        body = tape.content()
        is_whole = tape.is_whole
        self.phase = WAITING
        self.sent_at = now
        self.is_behind = False
        if prepared.needs_care:
            if prepared.binds:
                bind(owner.side, connection)
            head, body = self._careful_start(prepared.forward + lines, body, now)
        elif len(body) <= SMALL_BODY:
            head, body = b"%b%b\r\n%b" % (prepared.forward, lines, body), b""
        else:
            head = b"%b%b\r\n" % (prepared.forward, lines)
        tape.drop_beyond(route.retry.body_bytes)
        timeouts = route.timeouts
        assert timeouts is not None
        self.deadline = now + timeouts.response_head if is_whole else NEVER
        if owner.is_body_paused:
            owner.resume_body()  # first: what is written now may be more than the server takes
        connection.begin(self, head + body if 0 < len(body) <= SMALL_BODY else head, is_done=is_whole)
        if len(body) > SMALL_BODY:
            connection.write(body)

    def _careful_start(self, head: bytes, body: bytes, now: float) -> tuple[bytes, bytes]:
        """The first bytes of a chunked request, or of one that waits for 100 Continue."""
        owner = self.owner
        is_whole = owner.body.is_whole
        if owner.prepared.expects_continue and not body and not is_whole and not owner.continue_sent:
            self.is_behind = True
            self.expect_at = now + EXPECT_WAIT_S
            return head + b"Expect: 100-continue\r\n\r\n", b""
        if owner.prepared.chunked:
            body = chunked(body, is_done=is_whole)
        return head + b"\r\n", body

    def body_came(self, data: bytes, *, is_done: bool) -> None:
        """See Follower."""
        connection = self.upstream
        if connection is None:
            return
        if self.is_behind:
            self._send_held_body(connection)
        else:
            self._send_body(connection, data)

    def _send_held_body(self, connection: UpstreamConnection) -> None:
        """The client did not wait for 100, or has it: what it sent of the body goes up."""
        self.is_behind = False
        self.expect_at = NEVER
        self._send_body(connection, self.owner.body.content())

    def _send_body(self, connection: UpstreamConnection, data: bytes) -> None:
        prepared, tape = self.owner.prepared, self.owner.body
        is_whole = tape.is_whole
        if prepared.chunked:
            data = chunked(data, is_done=is_whole)
        tape.drop_beyond(prepared.route.retry.body_bytes)
        if is_whole:
            connection.request_done = True
            if self.phase == WAITING:
                self.deadline = self.owner.side.services.clock() + self._timeouts().response_head
        if data:
            connection.write(data)

    def go_on(self) -> None:
        """The client has its 100 Continue, or is told by the server to send: the body is held back no longer."""
        self.expect_at = NEVER
        if self.upstream is not None and self.is_behind:
            self._send_held_body(self.upstream)

    # --- what the upstream connection reports (AnswerSink) ------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        return self.owner.is_done

    def trusts_unacked(self, runtime: ServerRuntime) -> bool:
        mode = self.owner.prepared.route.retry.unacked
        return mode == "on" or (mode == "auto" and runtime.is_direct)

    def interim_received(self, head: ResponseHead) -> None:
        if head.status == 100 and self.upstream is not None and self.is_behind:
            self._send_held_body(self.upstream)
        self.owner.interim(head)

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        assert self._lease is not None
        accounts.answer_began(self.runtime, now - self.sent_at)
        self.owner.answered(self, head, body, now, is_done=is_done, trailers=trailers)

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        owner = self.owner
        now = owner.side.services.clock()
        if self.half_kept is not None:
            self._more_kept(self.half_kept, data, now, is_done=is_done, trailers=trailers)
            return
        if is_done:
            if self._head is not None:
                self.ended_with(self._head, now)
        else:
            self.deadline = NEVER if owner.client_is_blocked else now + self._timeouts().read
            if self._lease is not None:
                self._lease.server.progress_at = now
        owner.more(data, now, is_done=is_done, trailers=trailers)

    def _more_kept(
        self, kept: KeptAnswer, data: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        kept.add(data, trailers)
        self.deadline = now + self._timeouts().read
        if kept.is_too_long:
            self.half_kept = None
            self.owner.kept_too_long(self, kept, now, is_done=is_done)
        elif is_done:
            self.half_kept = None
            self.owner.kept_whole(self, kept, now)

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        owner = self.owner
        if owner.is_done:
            return
        self.upstream = None
        accounts.server_failed(self.runtime, fault)
        self._over_after(fault)
        owner.lost(self, fault, detail)

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """If it is what the client asked for, both transports become a tunnel."""
        connection, owner = self.upstream, self.owner
        assert connection is not None
        if not is_answer_to(head.upgrade, owner.prepared.upgrade) or not owner.body.is_whole:
            connection.abort()
            self.attempt_failed(errors.BAD_UPGRADE, "101 to a protocol that was not offered")
            return
        now = owner.side.services.clock()
        accounts.answer_began(self.runtime, now - self.sent_at)
        self.phase = TUNNEL
        self.deadline = NEVER
        owner.body.leave(self)
        owner.switched(self, head, rest, now)

    def upstream_blocked(self) -> None:
        if not self.owner.body.is_whole:
            self.owner.pause_body()

    def upstream_unblocked(self) -> None:
        if self.kernel is None or not self.kernel.server_emptied():
            self.owner.resume_body()

    def bind_upstream(self) -> None:
        if self.upstream is not None:
            bind(self.owner.side, self.upstream)

    def client_transport(self) -> asyncio.Transport | None:
        return self.owner.side.transport

    # --- deadlines and back-pressure --------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called a few times a second."""
        connection = self.upstream
        if connection is not None:
            # Once an answer is on its way, a server that takes no more of the request is no reason to cut it.
            if self.phase == WAITING or self.phase == KEEPING:
                self._check_upstream_write(connection, now)
            elif self.phase == STREAMING and self.deadline != NEVER:
                # A server that answers while it reads may be silent for as long as it is given something to read.
                progress = self._taken(connection)
                if progress != self._taken_before:
                    self._taken_before = progress
                    self.deadline = now + self._timeouts().read
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self.phase == CONNECTING:
            if self.dialing is not None:
                self.dialing.cancel()
                self.dialing = None
            connector.count_dial(self.runtime, errors.CONNECT_TIMEOUT)
            self.attempt_failed(errors.CONNECT_TIMEOUT, "no answer to the connection request")
            return
        fault = errors.RESPONSE_TIMEOUT if self.phase == WAITING else errors.IDLE_TIMEOUT
        if self.upstream is not None:
            self.upstream.abort()
        self.attempt_failed(fault, "the time-out passed")

    def _taken(self, connection: UpstreamConnection) -> int:
        """Bytes of the request that the server's kernel, or ours, has taken."""
        taken = connection.transport.taken(connection.written)
        return taken - self.kernel.n_upward if self.kernel is not None else taken

    def _check_upstream_write(self, connection: UpstreamConnection, now: float) -> None:
        unsent = connection.transport.get_write_buffer_size()
        if self.kernel is not None:
            unsent += self.kernel.n_upward
        progress = self._taken(connection)
        if not unsent or progress != self._taken_before:
            self._taken_before = progress
            self._progress_at = now
        elif now - max(self._progress_at, self.sent_at) >= self._timeouts().write:
            connection.abort()
            self.attempt_failed(errors.UPSTREAM_WRITE_TIMEOUT, "the server does not read")

    def client_blocked(self) -> None:
        """The client does not take what is sent: stop reading from the server."""
        if self.upstream is not None and self.phase == STREAMING:
            self.deadline = NEVER
            self.upstream.pause_reading()

    def client_unblocked(self) -> None:
        """It takes more again."""
        if self.upstream is not None and self.phase == STREAMING:
            self.deadline = self.owner.side.services.clock() + self._timeouts().read
            if self.kernel is None or not self.kernel.client_emptied():
                self.upstream.resume_reading()

    def unsent_bytes(self) -> int:
        """See Follower."""
        return self.upstream.transport.get_write_buffer_size() if self.upstream is not None else 0

    def buffered_bytes(self) -> int:
        """What waits in this process, apart from the copy of the request's body."""
        size = self.kernel.n_upward + self.kernel.n_downward if self.kernel is not None else 0
        return size + self.unsent_bytes() if self.owner.body.is_dropped else size

    # --- large bodies, left to the kernel ---------------------------------------------------------------------------

    def splice_response(self, reader: BodyReader) -> bool:
        """See AnswerSink."""
        connection = self.upstream
        return connection is not None and self.phase == STREAMING and self._path(connection).takes_response(reader)

    def splice_request(self, reader: BodyReader) -> bool:
        """The same for the request, once it is too long to be sent again."""
        connection = self.upstream
        if connection is None or not self.owner.body.is_dropped or self.is_behind:
            return False
        return self.phase in (WAITING, STREAMING) and self._path(connection).takes_request(reader)

    def _path(self, connection: UpstreamConnection) -> KernelPath:
        if self.kernel is None:
            self.kernel = KernelPath(self.owner, self, self.owner.side, connection)
        return self.kernel

    def response_spliced(self, size: int, *, is_blocked: bool) -> None:
        """See AnswerSink."""
        owner = self.owner
        now = owner.side.services.clock()
        owner.bytes_out += size
        owner.client_is_blocked = is_blocked
        self.deadline = NEVER if is_blocked else now + self._timeouts().read
        if size and self._lease is not None:
            self._lease.server.progress_at = now

    @property
    def n_unsent(self) -> int:
        """Bytes of the response that have left the server's connection and not reached the client's."""
        return self.kernel.n_downward if self.kernel is not None else 0
