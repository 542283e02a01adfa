"""A connection to a server, whatever is read on it: its life, whether it may be kept, and what its end means.

A connection is used again only after this: request fully sent, response fully read, framing known, no surplus byte, the
server did not say close, not after 101, an error, a time-out or an early answer. Bytes on an idle connection close it:
they are nobody's answer.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

from lbproxy import errors
from lbproxy.compiling import has_news, i64
from lbproxy.dataplane.exchange.ports import AnswerSink, ServerStream
from lbproxy.dataplane.idle_pool import Kept
from lbproxy.dataplane.net import bulk
from lbproxy.dataplane.net.last_bytes import read_what_is_left
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.services import Services, abort
from lbproxy.domain.idle_timeout import EARLY_S, RETIRE_AT
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader, UntilCloseReader
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.telemetry.slots import SERVER

HIGH_WATER: Final = 64 * 1024
_EXTRA_DATA: Final = SERVER.column("upstream_errors_total", errors.EXTRA_DATA.reason)
_BYTES_ACKED: Final = slice(120, 128)  # struct tcp_info: tcpi_bytes_acked


class ServerConnection(Kept, ServerStream):
    """See the module. What it sends and reads is its subclasses' (sending.py, upstream.py)."""

    __deletable__ = ("transport",)  # mypyc asks for it
    __slots__ = (
        "_buffer",
        "_bulk",
        "_complete_at",
        "_fd",
        "_head",
        "_heads",
        "_interim",
        "_is_behind",
        "_is_chunking",
        "_is_counted",
        "_is_last",
        "_is_lenient",
        "_max_requests",
        "_reader",
        "_reads_at_most",
        "_retires_at",
        "_services",
        "_written_before",
        "introduced",
        "is_bound",
        "request_done",
        "runtime",
        "sink",
        "transport",
        "written",
    )

    transport: StreamTransport

    def __init__(self, services: Services, runtime: ServerRuntime) -> None:
        super().__init__()
        self._fd: i64 = -1  # no number is one until it is connected, and then nobody asks for another
        self._services = services
        self.runtime = runtime
        self.sink: AnswerSink | None = None
        self._buffer = b""
        self._reader: BodyReader | None = None
        self._head: ResponseHead | None = None
        self._interim = 0
        self._is_counted = False
        self._is_last = False  # was the server told to close? The pool may keep connections by the time it answers
        self._is_chunking = False  # is there more to come of a body in chunks?
        self._bulk: bulk.BulkReader | None = None
        self._reads_at_most = 0
        self._is_behind = False
        self._heads = runtime.pool.response_memo
        self._is_lenient = runtime.pool.is_lenient
        self.is_bound = False  # to one client: see binding.py
        self._written_before = 0
        self._complete_at = -1  # `written`, when all of a request is that declares its length; -1: it does not
        self._max_requests = self._retires_at = float("inf")
        self.request_done = False
        self.written = 0
        self.introduced = 0  # bytes of a PROXY header, which went before what is counted as written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(StreamTransport, transport)
        try:
            self._connected(self.transport)
        except Exception as error:  # a defect: who dialled finds the connection ended
            self._defect(error, None)

    def _connected(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._fd = transport.get_extra_info("socket").fileno()
        self.created_at = self._services.clock()
        settings = self.runtime.pool.keep_alive
        if settings is not None and settings.is_limited:
            self._max_requests, age_s = settings.limits_of_one(self.runtime.pool.rng)
            self._retires_at = self.created_at + age_s
        self._is_counted = True
        self.runtime.n_connections += 1

    def is_disturbed(self) -> bool:
        """See Kept."""
        return has_news(self._fd)

    def abandoned(self) -> None:
        """Its dial was cancelled: if it was connected by then, nothing reports it as lost."""
        self.has_ended = True
        self._uncount()
        if hasattr(self, "transport"):
            del self.transport  # and then the two would know each other for good

    def _uncount(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self.runtime.n_connections -= 1

    def close_idle(self) -> None:
        """End a connection that nobody uses, cleanly."""
        self.has_ended = True
        self.transport.close()

    def abort(self) -> None:
        """End a connection in the middle of something: the server sees a reset and can stop working."""
        self.sink = None
        self.has_ended = True
        abort(self.transport)

    def give_up(self) -> None:
        """Let go of a request that has its answer while the request is not fully sent, or after surplus bytes."""
        self.sink = None
        self.has_ended = True
        if self.request_done and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            abort(self.transport)

    def _defect(self, error: Exception, sink: AnswerSink | None) -> None:
        self._services.internal_error("upstream", error)
        self.runtime.idle.discard(self)
        if sink is not None and not sink.is_done:
            self._fail(sink, errors.INTERNAL_ERROR, "internal error")
        else:
            self.abort()

    def _fail(self, sink: AnswerSink, fault: Fault, detail: str) -> None:
        self._buffer = b""
        self.abort()
        if fault.side is errors.Side.CLIENT:
            fault = errors.BAD_RESPONSE
        sink.attempt_failed(fault, detail)

    def _unasked_data(self) -> None:
        """Bytes on an idle connection are nobody's answer: it is closed."""
        if not self.has_ended:
            self.runtime.row[_EXTRA_DATA] += 1
            self.runtime.idle.discard(self)
            self.close_idle()

    # --- may it be kept? --------------------------------------------------------------------------------------------

    def _release(self, head: ResponseHead, surplus: bytes, now: float) -> None:
        """The response is complete: keep the connection if every condition of the reuse rule holds."""
        if self._reader is not None or self._interim:
            self._end_body()
        if not self.request_done and self.written == self._complete_at:
            self.request_done = True  # a client of HTTP/2 may be about to say so, in a frame without octets
        if self._reads_at_most:
            self.read_at_most(0)
        if self._is_behind:
            self._stand_among()
        runtime = self.runtime
        settings = runtime.pool.keep_alive
        promise_s = head.keep_alive_timeout_s
        if promise_s >= 0.0:
            runtime.server.idle_timeout.announced_s = promise_s
        if (
            settings is None
            or self._is_last
            or not head.is_shared
            or self.is_bound
            or not self.request_done
            or len(surplus)
            or self.has_ended
            or self._services.is_draining
            or self.transport.get_write_buffer_size()
        ):
            if surplus:
                runtime.row[_EXTRA_DATA] += 1
            elif self._may_stay_bound(head, now):
                return
            self.give_up()
            return
        self.sink = None
        self.idle_since = now
        self.expires_at = now + runtime.idle_timeout_s
        if promise_s >= 0.0:
            self.expires_at = min(self.expires_at, now + RETIRE_AT * promise_s)
        if settings.is_limited:
            self.expires_at = min(self.expires_at, self._retires_at)
            if self.n_requests >= self._max_requests:
                self.close_idle()
                return
        if self.n_requests >= runtime.most_requests:
            runtime.idle.put_used_up(self, now)
            return
        runtime.idle.put(self, settings.idle)

    def _stand_among(self) -> None:
        self._is_behind = False
        self.transport.stand_behind(is_behind=False)

    def _may_stay_bound(self, head: ResponseHead, now: float) -> bool:
        """Leave a connection on which a user is authenticated to its client, if it would be kept otherwise."""
        sink, runtime = self.sink, self.runtime
        if (
            sink is None
            or runtime.pool.keep_alive is None
            or self._is_last
            or not (head.binds or self.is_bound)
            or not head.keep_alive
            or not self.request_done
            or self.has_ended
            or self._services.is_draining
            or self.transport.get_write_buffer_size()
            or self.n_requests >= min(self._max_requests, runtime.most_requests)
        ):
            return False
        self.sink = None
        self.idle_since = now
        self.expires_at = min(now + runtime.idle_timeout_s, self._retires_at)
        if head.keep_alive_timeout_s >= 0.0:
            self.expires_at = min(self.expires_at, now + RETIRE_AT * head.keep_alive_timeout_s)
        self.is_bound = True
        sink.bind_upstream()
        return True

    def _end_body(self) -> None:
        """Leave behind what is not there in the usual case."""
        self._reader = self._head = None
        self._interim = 0
        if self._bulk is not None:
            self._bulk.end()
            self._bulk = None

    # --- the end ----------------------------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        sink = self.sink
        try:
            self._ended(is_fin=True)
        except Exception as error:  # a defect: confined to this request
            self._defect(error, sink)
        if self.transport.get_write_buffer_size():
            # Closing would send the rest of a request that is over, which the server might execute after all, and wait
            # for the server to take it.
            abort(self.transport)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._uncount()
        if not self.has_ended:
            self._lost(exc)
        self._bulk = None  # which knows this object

    def _lost(self, exc: Exception | None) -> None:
        sink = self.sink
        try:
            if sink is not None and exc is not None:
                self._read_what_is_left()
            self._ended(is_fin=exc is None)
        except Exception as error:  # as above
            self._defect(error, sink)

    def _read_what_is_left(self) -> None:
        """Perhaps an answer that explains why a write failed: 413, then RST."""
        sock = self.transport.get_extra_info("socket")
        read_what_is_left(sock, 65536, self.data_received, lambda: self.sink is not None)

    def reset_inside(self) -> None:
        """An error of the connection was met outside the transport, which would now take it for a clean end."""
        if self.has_ended:
            return
        abort(self.transport)
        self._read_what_is_left()
        self._ended(is_fin=False)

    def _ended(self, *, is_fin: bool) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        sink = self.sink
        if sink is None:
            self.runtime.idle.ended(self, self._services.clock(), is_fin=is_fin)
            return
        reader = self._reader
        self.sink = None
        if isinstance(reader, UntilCloseReader) and is_fin:
            self._reader = None
            sink.response_body(b"", is_done=True)
        elif reader is not None:
            sink.attempt_failed(errors.TRUNCATED_BODY, "the connection ended inside the body")
        elif self._buffer:
            sink.attempt_failed(errors.TRUNCATED_HEAD, "the connection ended inside the head")
        elif self.n_requests > 1 and not self._interim:
            # Is all of the request still here? Then it is not the server's acknowledgements that one has to trust.
            is_unsent = self._nothing_has_left()
            is_crossed = is_unsent or (is_fin and self._nothing_was_acked())
            self._note_lost(sink, is_crossed=is_crossed, is_fin=is_fin)
            if is_unsent or (is_crossed and sink.trusts_unacked(self.runtime)):
                sink.attempt_failed(errors.CLOSED_UNACKED, "closed before the request arrived")
            else:
                sink.attempt_failed(errors.CLOSED_REUSED, "closed while the request was sent on a kept connection")
        elif is_fin:
            # A 1xx is no part of an answer (RFC 9110 section 15.2), but shows that the server had the request.
            sink.attempt_failed(errors.CLOSED_EARLY, "closed without an answer")
        else:
            sink.attempt_failed(errors.RESET, "reset without an answer")

    def _note_lost(self, sink: AnswerSink, *, is_crossed: bool, is_fin: bool) -> None:
        """Learn from a request that was not answered on a kept connection, if it was the connection's end that met it.

        A FIN after the server's kernel had taken the request means that somebody read it; a reset, that nobody did, or
        that the server died: a while after it was sent that is more likely.
        """
        now = self._services.clock()
        if is_crossed if is_fin else now - sink.sent_at < EARLY_S:
            self.runtime.closed_by_server(now - self.idle_since, self.n_requests - 1, self.created_at, now)

    def _nothing_has_left(self) -> bool:
        """Is every byte of this request still in our buffer?"""
        return self.transport.get_write_buffer_size() >= self.written - self._written_before

    def _nothing_was_acked(self) -> bool:
        """After a FIN: the server's kernel has taken no byte of this request, and all that was sent before it.

        After an RST this proves nothing (delayed ACK), hence FIN only.
        """
        return acknowledged(self.transport) == self.introduced + self._written_before

    # --- back-pressure ----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        sink = self.sink
        if sink is not None:
            try:
                sink.upstream_blocked()
            except Exception as error:  # a defect: confined to this request
                self._defect(error, sink)

    def resume_writing(self) -> None:
        sink = self.sink
        if sink is not None:
            try:
                sink.upstream_unblocked()
            except Exception as error:  # as above
                self._defect(error, sink)


def acknowledged(transport: asyncio.Transport) -> int | None:
    """Bytes written to this connection that the peer's kernel has taken; None if that can't be known.

    Linux counts the SYN as one byte. Some kernels (gVisor) and some sockets (in a BPF sockmap) never move this counter:
    so only a number that is exactly right proves anything. Less than what was answered already: nobody counts.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return None
    return int.from_bytes(info[_BYTES_ACKED], "little") - 1 if len(info) >= 128 else None
