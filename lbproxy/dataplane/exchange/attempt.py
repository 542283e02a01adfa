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
from lbproxy.dataplane.exchange.ports import Endpoint, ServerStream
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.domain.lease import Lease
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.proxy_protocol import ProxyHeader
from lbproxy.protocol.upgrade import WEBSOCKET, is_answer_to
from lbproxy.protocol.websocket import accepts, key_of

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
            stream = take_bound(side, runtime, now)
            if stream is not None:
                self.opened(stream, now)
                return
        cast(Endpoint, runtime.endpoint).open(self, owner.services, now, wants_fresh=wants_fresh)
        if self.pending is not None:
            self.deadline = now + self.timeouts().dial

    # --- what the endpoint reports (AnswerSink) -----------------------------------------------------------------------

    def dialled(self, connect_s: float) -> None:
        self.owner.connect_s = connect_s

    def broke(self) -> None:
        self.owner.fail(errors.INTERNAL_ERROR, "internal error")

    def wants_websocket(self) -> bool:
        return self.owner.prepared.upgrade == WEBSOCKET

    def is_grpc(self) -> bool:
        return self.owner.prepared.is_grpc

    def websocket_key(self) -> bytes:
        return key_of(self.owner.request_id)

    def proxied(self) -> ProxyHeader | None:
        return self.owner.side.facts.proxied

    # --- the request ------------------------------------------------------------------------------------------------

    def opened(self, stream: ServerStream, now: float) -> None:
        """See AnswerSink: all that there is of the request is sent."""
        self.upstream = stream  # first, so that a defect below does not leave it open
        owner = self.owner
        prepared, tape = owner.prepared, owner.body
        route = prepared.route
        facts = owner.side.facts
        lines = facts.forwarding_lines(owner)
        own = facts.own_lines(owner)
        body = tape.content()
        is_whole = tape.is_whole
        self.phase = WAITING
        self.sent_at = now
        self.is_behind = False
        expects = False
        if prepared.needs_care:
            if prepared.binds:
                bind(owner.side, stream)
            expects = prepared.expects_continue and not body and not is_whole and not owner.continue_sent
            if expects:
                self.is_behind = True
                self.expect_at = now + EXPECT_WAIT_S
        tape.drop_beyond(route.retry.body_bytes)
        timeouts = route.timeouts
        assert timeouts is not None
        self.deadline = now + timeouts.response_head if is_whole else NEVER
        if owner.is_body_paused:
            owner.resume_body()  # first: what is written now may be more than the server takes
        stream.begin(self, prepared, lines, own, body, is_done=is_whole, expects=expects, trailers=tape.trailers)
        if owner.reads_at_most:
            self.read_at_most(owner.reads_at_most)
        if owner.stands_behind and self.upstream is not None:
            self.upstream.stand_behind()

    def body_came(self, data: bytes, *, is_done: bool) -> None:
        """See Follower."""
        stream = self.upstream
        if stream is None:
            return
        if self.is_behind:
            self._send_held_body(stream)
        else:
            self._send_body(stream, data)

    def _send_held_body(self, stream: ServerStream) -> None:
        """The client did not wait for 100, or has it: what it sent of the body goes up."""
        self.is_behind = False
        self.expect_at = NEVER
        self._send_body(stream, self.owner.body.content())

    def _send_body(self, stream: ServerStream, data: bytes) -> None:
        owner = self.owner
        tape = owner.body
        is_whole = tape.is_whole
        tape.drop_beyond(owner.prepared.route.retry.body_bytes)
        if is_whole and self.phase == WAITING:
            self.deadline = owner.services.clock() + self.timeouts().response_head
        stream.write(data, is_done=is_whole, trailers=tape.trailers)

    def go_on(self) -> None:
        """The client has its 100 Continue, or is told by the server to send: the body is held back no longer."""
        self.expect_at = NEVER
        if self.upstream is not None and self.is_behind:
            self._send_held_body(self.upstream)

    # --- what the server's stream reports (AnswerSink) -------------------------------------------------------------

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
        if is_done and head.is_grpc:
            self.call_ended(head, trailers)
        self.owner.answered(self, head, body, now, is_done=is_done, trailers=trailers)

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        owner = self.owner
        now = owner.services.now()
        if self.half_kept is not None:
            self._more_kept(self.half_kept, data, now, is_done=is_done, trailers=trailers)
            return
        if is_done:
            if self._head is not None:
                if self._head.is_grpc:
                    self.call_ended(self._head, trailers)
                self.ended_with(self._head, now)
        else:
            self.deadline = NEVER if owner.client_is_blocked else now + self.timeouts().read
            if self._lease is not None:
                self._lease.server.progress_at = now
        owner.more(data, now, is_done=is_done, trailers=trailers)

    def _more_kept(
        self, kept: KeptAnswer, data: bytes, now: float, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        kept.add(data, trailers)
        if is_done and kept.head.is_grpc:
            self.call_ended(kept.head, trailers)
        self.deadline = now + self.timeouts().read
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
        stream, owner = self.upstream, self.owner
        assert stream is not None
        detail = ""
        if not is_answer_to(head.upgrade, owner.prepared.upgrade) or not owner.body.is_whole:
            detail = "101 to a protocol that was not offered"
        elif owner.prepared.is_connect and head.status == 101 and not accepts(head, self.websocket_key()):
            detail = "101 without the Sec-WebSocket-Accept that answers the key"
        if detail:
            stream.abort()
            self.attempt_failed(errors.BAD_UPGRADE, detail)
            return
        now = owner.services.clock()
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
        if self.is_to_be_cut(now):
            self._cut_for_maintenance()
            return
        stream = self.upstream
        if stream is not None:
            # Once an answer is on its way, a server that takes no more of the request is no reason to cut it.
            if self.phase == WAITING or self.phase == KEEPING:
                self._check_upstream_write(stream, now)
            elif self.phase == STREAMING and self.deadline != NEVER:
                # A server that answers while it reads may be silent for as long as it is given something to read.
                progress = self._taken(stream)
                if progress != self._taken_before:
                    self._taken_before = progress
                    self.deadline = now + self.timeouts().read
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self.phase == CONNECTING:
            if self.pending is not None:
                self.pending.expire()
                self.pending = None
            self.attempt_failed(errors.CONNECT_TIMEOUT, "no answer to the connection request")
            return
        fault = errors.RESPONSE_TIMEOUT if self.phase == WAITING else errors.IDLE_TIMEOUT
        if self.upstream is not None:
            self.upstream.abort()
        self.attempt_failed(fault, "the time-out passed")

    def _cut_for_maintenance(self) -> None:
        if self.pending is not None:
            self.pending.cancel()
            self.pending = None
        self._stop_kernel()
        if self.upstream is not None:
            self.upstream.abort()
        self.attempt_failed(errors.MAINTENANCE, "it was taken into maintenance, and the time for what was left is over")

    def _taken(self, stream: ServerStream) -> int:
        """Bytes of the request that the server's kernel, or ours, has taken."""
        taken = stream.taken_bytes()
        return taken - self.kernel.n_upward if self.kernel is not None else taken

    def _check_upstream_write(self, stream: ServerStream, now: float) -> None:
        unsent = stream.unsent_bytes()
        if self.kernel is not None:
            unsent += self.kernel.n_upward
        progress = self._taken(stream)
        if not unsent or progress != self._taken_before:
            self._taken_before = progress
            self._progress_at = now
        elif now - max(self._progress_at, self.sent_at) >= self.timeouts().write:
            stream.abort()
            self.attempt_failed(errors.UPSTREAM_WRITE_TIMEOUT, "the server does not read")

    def client_blocked(self) -> None:
        """The client does not take what is sent: stop reading from the server."""
        if self.upstream is not None and self.phase == STREAMING:
            self.deadline = NEVER
            self.upstream.pause()

    def client_unblocked(self) -> None:
        """It takes more again."""
        if self.upstream is not None and self.phase == STREAMING:
            self.deadline = self.owner.services.clock() + self.timeouts().read
            if self.kernel is None or not self.kernel.client_emptied():
                self.upstream.resume()

    def read_at_most(self, size: int) -> None:
        """See ServerStream."""
        if self.upstream is not None:
            self.upstream.read_at_most(size)

    def unsent_bytes(self) -> int:
        """See Follower."""
        return self.upstream.unsent_bytes() if self.upstream is not None else 0

    def buffered_bytes(self) -> int:
        """What waits in this process, apart from the copy of the request's body."""
        size = self.kernel.n_upward + self.kernel.n_downward if self.kernel is not None else 0
        return size + self.unsent_bytes() if self.owner.body.is_dropped else size

    # --- large bodies, left to the kernel ---------------------------------------------------------------------------

    def splice_response(self, reader: BodyReader) -> bool:
        """See AnswerSink."""
        stream = self.upstream
        return stream is not None and self.phase == STREAMING and self._path(stream).takes_response(reader)

    def splice_request(self, reader: BodyReader) -> bool:
        """The same for the request, once it is too long to be sent again."""
        stream = self.upstream
        if stream is None or not self.owner.body.is_dropped or self.is_behind:
            return False
        return self.phase in (WAITING, STREAMING) and self._path(stream).takes_request(reader)

    def _path(self, stream: ServerStream) -> KernelPath:
        if self.kernel is None:
            self.kernel = KernelPath(self.owner, self, self.owner.side, stream)
        return self.kernel

    def response_spliced(self, size: int, *, is_blocked: bool) -> None:
        """See AnswerSink."""
        owner = self.owner
        now = owner.services.clock()
        owner.bytes_out += size
        owner.client_is_blocked = is_blocked
        self.deadline = NEVER if is_blocked else now + self.timeouts().read
        if size and self._lease is not None:
            self._lease.server.progress_at = now

    @property
    def n_unsent(self) -> int:
        """Bytes of the response that have left the server's connection and not reached the client's."""
        return self.kernel.n_downward if self.kernel is not None else 0
