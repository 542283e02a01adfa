"""What a client's HTTP/1 connection is told to send: answers in their framing, 1xx, and the change to a tunnel.

What the bytes are is in answers.py. When an answer is complete the next request may be read, or the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from lbproxy.compiling import join_five
from lbproxy.dataplane.client.answers import (
    answer_bytes,
    interim_head,
    response_head,
    sent_trailers,
    switching_head,
)
from lbproxy.dataplane.client.connection import BODY, CLOSED, HEAD, TUNNEL, WAIT
from lbproxy.dataplane.client.timed import TimedConnection
from lbproxy.dataplane.exchange.binding import unbind
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.net.pieces import SMALL_BODY
from lbproxy.protocol.body import chunked
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field, Fields

_CLOSE: Final = b"Connection: close\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class AnsweringConnection(TimedConnection):
    """See the module. The public methods are those of ClientStream."""

    __slots__ = ()

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        """Send the final head, re-framed for this client, and what there is of the body."""
        self._is_chunking = False
        closes = self._closes or not request.request_done or self.services.is_draining
        if head.is_plain and request.prepared.passes_responses and not len(request.cookie_line):
            if closes:
                self._closes = True
                if is_done and len(body) <= SMALL_BODY:
                    self._write(join_five(head.wire, _CLOSE, request.id_line, b"\r\n", body))
                    self._exchange_done()
                    return
                data = join_five(head.wire, _CLOSE, request.id_line, b"\r\n", b"")
            elif is_done and len(body) <= SMALL_BODY:
                data = join_five(head.wire, request.id_line, b"\r\n", body, b"")
                self._written += len(data)
                self.transport.write(data)
                if not self._client_fin:
                    self._exchange = None
                    self._state = HEAD
                    self._idle_since = request.ended_at
                    self._deadline = self._idle_since + self.facts.listener.timeouts.keep_alive
                    if self._ahead is not None or self._is_paused:
                        self.services.loop.call_soon(self._next_request)
                    return
                self._exchange_done()
                return
            else:
                data = b"%b%b\r\n" % (head.wire, request.id_line)
        else:
            data, self._is_chunking, self._closes = response_head(
                request.prepared, head, request.id_line, request.cookie_line, closes=closes
            )
            self._nominated = head.nominated
            if self._is_chunking:
                body = self._chunked(request.prepared, body, trailers, is_done=is_done)
        self._written += len(data) + len(body)
        if len(body) <= SMALL_BODY:
            self.transport.write(data + body)
        else:
            self.transport.writelines((data, body))  # one system call and one wake-up of the client, without a copy
        if is_done:
            self._exchange_done()

    def _chunked(self, prepared: Prepared, data: bytes, trailers: Sequence[Field], *, is_done: bool) -> bytes:
        lines = b""
        if is_done and trailers and prepared.meaning.accepts_trailers:
            lines = sent_trailers(prepared, trailers, self._nominated)
        return chunked(data, is_done=is_done, trailers=lines)

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """Send more of the body, in the same turn of the loop in which it was read."""
        if self._is_chunking:
            data = self._chunked(request.prepared, data, trailers, is_done=is_done)
        if data:
            self._write(data)
        if is_done:
            self._exchange_done()

    def answer(self, request: Underway, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        """Send a whole answer of lbproxy's own."""
        if self._state == CLOSED:
            return
        if closes or not request.request_done or self.services.is_draining:
            self._closes = True
        self._write(answer_bytes(request.prepared, status, fields, body, request.id_line, closes=self._closes))
        self._exchange_done()

    def send_interim(self, head: ResponseHead | None) -> None:
        """Send a 1xx; None is lbproxy's own 100. Never to HTTP/1.0 clients (RFC 9110 section 15.2)."""
        exchange = self._exchange
        if exchange is None or not exchange.prepared.minor or self._state not in (BODY, WAIT):
            return
        if head is None or head.status == 100:
            self._body_invited()
        if head is None:
            self._write(_CONTINUE)
        else:
            self._write(interim_head(exchange.prepared, head))

    def _body_invited(self) -> None:
        """The client has its 100: from now on it is the one who takes time."""
        if self._state == BODY and not self._is_paused:
            now = self.services.clock()
            self._deadline = now + self.facts.listener.timeouts.request_body
            if self._intake is not None:
                self._intake.go(now)

    def _exchange_done(self) -> None:
        """The answer is complete and written."""
        exchange = self._exchange
        if exchange is None or self._state in (CLOSED, TUNNEL):
            return
        self._exchange = None
        if self._closes or not exchange.request_done or (self._client_fin and self._ahead is None):
            prepared = exchange.prepared
            # RFC 9112 section 9.6: who says `close` in a request sends nothing behind it. HTTP/1.0 has no such promise.
            said_close = not prepared.meaning.keep_alive and prepared.minor > 0 and prepared.fault is None
            self._linger(is_last_word=said_close and exchange.request_done)
            return
        self._state = HEAD
        now = self._idle_since = self.services.now()
        self._deadline = now + self.facts.listener.timeouts.keep_alive
        if self.services.is_draining:  # the head had left before, so the client does not know: its next answer says it
            self.begin_drain(now)
        if self._ahead is not None or self._is_paused:
            self.services.loop.call_soon(self._next_request)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    # --- past this object -------------------------------------------------------------------------------------------

    def raw_sink(self) -> asyncio.Transport | None:
        return None if self._is_chunking else self.transport

    def raw_source(self) -> asyncio.Transport | None:
        return self.transport

    def response_moved(self, size: int) -> None:
        self._written += size

    def give_stream(self, request: Underway, head: ResponseHead) -> tuple[TunnelTransport, bytes, bool]:
        """Send the 101 and let go of the transport and of what was read ahead."""
        self._write(switching_head(request.prepared, head, request.id_line, request.cookie_line))
        self._state = TUNNEL
        unbind(self)  # from the connection that is the tunnel's other end, or any other
        self.services.swept.discard(self)
        ahead, self._ahead = self._ahead, None
        return self.transport, ahead.take() if ahead is not None else b"", self._client_fin

    def stream_over(self) -> None:
        """The relay that had the transport is done."""
        if self._state == TUNNEL:
            self._exchange = None
            self._state = CLOSED
            self._owner.connection_closed(self.facts.peer_ip)
