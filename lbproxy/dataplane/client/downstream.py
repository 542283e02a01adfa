"""The protocol object towards an HTTP/1 client: one request at a time, answered in order.

    state      reads                                         leaves by
    HEAD       a request head (or nothing: kept alive)       _begin -> BODY or WAIT; a bad head -> LINGER
    BODY       the request's body                            its last byte -> WAIT
    WAIT       ahead, up to 64 KiB or 32 requests            exchange done -> HEAD, or LINGER if it is the last one
    LINGER     and discards, writing is shut down            the client's FIN, 5 s of silence or 30 s in all
    TUNNEL     nothing: the transport belongs to a Relay
    CLOSED     nothing

This module is longer than 600 lines because these states share one connection's books; what needs no state is in
answers.py, forwarding.py and protocol/repeats.py.

The connection is kept only if the request was read to its exact end and its head said nothing else:
what is left over would be read as the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast

from lbproxy import errors
from lbproxy.dataplane.client.answers import (
    answer_bytes,
    edited,
    interim_head,
    local_answer,
    problem,
    response_head,
    sent_trailers,
    switching_head,
)
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.read_ahead import ReadAhead
from lbproxy.dataplane.client.upload_rate import UploadRate
from lbproxy.dataplane.exchange.binding import unbind
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.forwarding import Forwarding, kept_request_id
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import Prepared, prepare, rejected
from lbproxy.dataplane.net import bulk
from lbproxy.dataplane.net.pieces import SMALL_BODY
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.services import abort
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyError, ChunkedReader, LengthReader, chunked
from lbproxy.protocol.http1 import HeadError, ResponseHead, check_partial, line_too_long
from lbproxy.protocol.message import Field, Fields
from lbproxy.telemetry.slots import LISTENER

HEAD: Final = 0
BODY: Final = 1
WAIT: Final = 2
LINGER: Final = 3
TUNNEL: Final = 4
CLOSED: Final = 5

NEVER: Final = float("inf")
HIGH_WATER: Final = 64 * 1024
LINGER_IDLE_S: Final = 5.0
LINGER_TOTAL_S: Final = 30.0
DRAIN_IDLE_S: Final = 1.0
_EVICTED_IDLE: Final = LISTENER.column("client_connections_evicted_total", "idle")
_EVICTED_ANSWERED: Final = LISTENER.column("client_connections_evicted_total", "answered")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Downstream(ClientStream):
    """One client connection of an HTTP listener."""

    __slots__ = (
        "_ahead",
        "_buffer",
        "_bulk",
        "_client_fin",
        "_closes",
        "_deadline",
        "_exchange",
        "_idle_since",
        "_is_chunking",
        "_is_paused",
        "_linger_end",
        "_memo",
        "_named",
        "_nominated",
        "_noted",
        "_owner",
        "_reader",
        "_refusal",
        "_state",
        "_taken",
        "_taken_at",
        "_upload",
        "_write_blocked",
        "_written",
    )

    def __init__(self, owner: Door, facts: ClientFacts, refusal: Fault | None = None) -> None:
        """refusal: why it may not be served, known before it said anything."""
        self._owner = owner
        self.facts = facts
        self._refusal = refusal
        self.bound = None
        self.services = owner.services
        self._state = HEAD
        self._buffer = b""
        self._bulk: bulk.BulkReader | None = None
        self._reader: LengthReader | ChunkedReader | None = None
        self._exchange: Exchange | None = None
        self._ahead: ReadAhead | None = None
        self._deadline = NEVER
        self._linger_end = NEVER
        self._idle_since = NEVER  # in HEAD
        self._is_chunking = False
        self._closes = False
        self._client_fin = False
        self._is_paused = False
        self._write_blocked = False
        self._written = 0
        self._taken = 0
        self._taken_at = 0.0
        self._upload: UploadRate | None = None
        self._noted = 0  # of what is not sent, told to the services since this connection is blocked
        self._nominated: frozenset[bytes] = frozenset()
        self._memo = owner.memo
        self._named: tuple[Prepared, str] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(StreamTransport, transport)
        try:
            self._connected(self.transport)
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)

    def _connected(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER)
        facts = self.facts
        facts.connected(transport)
        if facts.is_trusted:
            self._memo = self._owner.memo_trusted
        self._idle_since = self.services.clock()
        self._deadline = self._idle_since + facts.listener.timeouts.request_head
        self.services.swept.add(self)
        if self._refusal is not None:
            self._refuse(b"", HeadError(self._refusal, ""))

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._leave()
        except Exception as error:  # a defect: what is left of the connection goes all the same
            self._defect(error)
            self._leave()

    def _leave(self) -> None:
        if self._state == CLOSED:
            return
        was_tunnel = self._state == TUNNEL
        self._state = CLOSED
        self.services.swept.discard(self)
        self._owner.connection_closed(self.facts.peer_ip)
        self._note_buffered(0)
        self._buffer = b""
        self._ahead = None
        self._bulk = None  # which knows this object
        exchange = self._exchange
        if exchange is not None and not was_tunnel:
            exchange.client_left()  # if this has a defect, `_defect` still finds the exchange
        self._exchange = None
        if self.bound is not None:
            unbind(self)

    # --- receiving --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            if self._state == HEAD and not self._buffer and self._ahead is None and not self._write_blocked:
                # The usual: a whole head in one piece, with nothing waiting before it.
                text, blank, rest = data.partition(b"\r\n\r\n")
                if blank:
                    prepared = self._memo.find(text) or self._prepare(text)
                    if prepared is not None:
                        self._begin(prepared, rest)
                    return
            self._other_data(data)
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)

    def _other_data(self, data: bytes) -> None:
        state = self._state
        if state == HEAD:
            # What came before is not parsed yet (_next_request), or the last answer is not taken.
            if self._ahead is not None or self._write_blocked:
                self._keep_for_later(data)
            else:
                self._partial_head(data)
        elif state == BODY:
            self._body_data(data)
        elif state == WAIT:
            self._keep_for_later(data)
        elif state == LINGER:
            self._deadline = min(self.services.clock() + LINGER_IDLE_S, self._linger_end)

    def _defect(self, error: Exception) -> None:
        self.services.internal_error("downstream", error)
        exchange = self._exchange
        if exchange is not None and not exchange.is_done:
            try:
                exchange.fail(errors.INTERNAL_ERROR, "internal error")
                return
            except Exception as second:  # whatever is broken, the connection must not stay
                self.services.internal_error("downstream", second)
        self.cut()

    def _partial_head(self, data: bytes) -> None:
        """A head that comes in pieces; looked through once, refused as early as possible."""
        checked = len(self._buffer)
        data = self._buffer + data if self._buffer else data
        if not checked:
            self._deadline = self.services.clock() + self.facts.listener.timeouts.request_head
            if data[:2] == b"\r\n":
                data = data[2:]  # RFC 9112 section 2.2: one empty line before a request is ignored
                if not data:
                    return
        elif self._buffer == b"\r" and data[:2] == b"\r\n":
            data, checked = data[2:], 0
        end = data.find(b"\r\n\r\n", max(0, checked - 3))
        if end >= 0:
            self._buffer = b""
            text, rest = data[:end], data[end + 4 :]
            prepared = self._memo.find(text) or self._prepare(text)
            if prepared is not None:
                self._begin(prepared, rest)
            return
        self._buffer = data
        try:
            limits = self.facts.listener
            check_partial(bytearray(data), checked, head_bytes=limits.head_bytes, line_bytes=limits.line_bytes)
        except HeadError as error:
            self._refuse(data, error)

    def _prepare(self, text: bytes) -> Prepared | None:
        """What to do with a head that is not remembered; a bad one is answered, and None returned.

        text: the head without its blank line.
        """
        facts = self.facts
        listener = facts.listener
        raw = text + b"\r\n\r\n"
        try:
            if raw[:2] == b"\r\n":
                raw = raw[2:]
            if len(raw) > listener.head_bytes:
                raise self._too_large(raw)
            prepared = prepare(
                listener,
                raw,
                is_trusted=facts.is_trusted,
                log_format=self.services.log_format if self.services.access_writer is not None else None,
                local_host=facts.local_host,
            )
        except HeadError as error:
            self._refuse(raw, error)
            return None
        if prepared.head.host:  # without one the Host that is made up is that of this connection
            self._memo.learn(text, prepared)
        return prepared

    def _too_large(self, raw: bytes) -> HeadError:
        if raw.find(b"\r\n") > self.facts.listener.line_bytes:
            return line_too_long(self.facts.listener.line_bytes)
        return HeadError(errors.HEADER_TOO_LARGE, f"the head is longer than {self.facts.listener.head_bytes} bytes")

    def _refuse(self, raw: bytes, error: HeadError) -> None:
        self._buffer = b""
        self._begin(rejected(self.facts.listener, raw, error, self.services.log_format), b"", is_refused=True)

    def _begin(self, prepared: Prepared, rest: bytes, *, is_refused: bool = False) -> None:
        services = self.services
        if prepared.dropped:
            for column, count in prepared.dropped:
                services.row[column] += count
        facts = self.facts
        if facts.is_trusted:
            known = prepared.head.forwarding
            identity = _kept_identity(known) or services.next_request_id()
            exchange = Exchange(self, prepared, identity, facts.address_behind(known), services.clock())
        else:
            exchange = Exchange(self, prepared, services.next_request_id(), facts.address, services.clock())
        self._exchange = exchange
        if facts.subject:
            exchange.log_head = self._named_head(prepared)
        self._closes = not prepared.keep_alive
        length = prepared.content_length
        if length == len(rest) and not prepared.chunked:
            self._state = WAIT
            self._deadline = NEVER
            exchange.start(rest, is_done=True)
        elif 0 < length < len(rest) and not prepared.chunked:
            self._state = WAIT
            self._deadline = NEVER
            self._keep_for_later(rest[length:])
            exchange.start(rest[:length], is_done=True)
        elif length or prepared.chunked:
            self._state = BODY
            if prepared.chunked:
                limits = self.facts.listener
                self._reader = ChunkedReader(overhead_bytes=limits.chunk_overhead, trailer_bytes=limits.trailer_bytes)
            else:
                self._reader = LengthReader(length)
            self._deadline = services.clock() + self.facts.listener.timeouts.request_body
            if prepared.expects_continue:
                self._deadline = NEVER  # the client may be waiting for its 100, and the exchange for a server
            if self.facts.listener.min_rate:
                self._upload = UploadRate(
                    self.facts.listener.min_rate, services.clock(), waits=prepared.expects_continue
                )
            exchange.start(b"", is_done=False)
            if rest and self._state == BODY:
                self._body_data(rest)
        else:
            self._state = WAIT
            self._deadline = NEVER
            if not is_refused:
                self._keep_for_later(rest)
            exchange.start(b"", is_done=True)

    def _named_head(self, prepared: Prepared) -> str:
        """The head's part of the log line, with the subject of the client's certificate. The last one is kept: heads
        repeat."""
        if self._named is None or self._named[0] is not prepared:
            self._named = prepared, self.services.log_format.with_subject(prepared.log_head, self.facts.subject)
        return self._named[1]

    def _body_data(self, data: bytes) -> None:
        reader, exchange = self._reader, self._exchange
        assert reader is not None and exchange is not None
        try:
            body = reader.feed(data)
        except BodyError as error:
            self._closes = True
            exchange.fail(error.fault, error.detail)
            return
        if exchange.bytes_in + len(body) > self.facts.listener.body_bytes:
            self._closes = True
            exchange.fail(errors.BODY_TOO_LARGE, f"more than {self.facts.listener.body_bytes} bytes of body")
            return
        if not reader.done:
            self._deadline = (
                NEVER if self._is_paused else self.services.clock() + self.facts.listener.timeouts.request_body
            )
            if body:
                exchange.request_body(body, is_done=False)
            if len(data) >= bulk.FROM_BYTES and self._state == BODY:
                self._read_in_bulk(exchange, reader)
            return
        self._body_ended()
        if reader.rest:
            self._keep_for_later(reader.rest)
        exchange.request_body(body, is_done=True)

    def _read_in_bulk(self, exchange: Exchange, reader: LengthReader | ChunkedReader) -> None:
        if exchange.splice_request(reader):
            self._end_bulk()
        elif self._bulk is None and bulk.is_much_left(reader):
            self._bulk = bulk.BulkReader(self, self._server_transport)

    def _body_ended(self) -> None:
        self._reader = self._upload = None
        self._end_bulk()
        self._state = WAIT
        self._deadline = NEVER

    def _server_transport(self) -> asyncio.Transport | None:
        upstream = self._exchange.upstream if self._exchange is not None else None
        return upstream.transport if upstream is not None else None

    def _end_bulk(self) -> None:
        if self._bulk is not None:
            self._bulk.end()
            self._bulk = None

    def _keep_for_later(self, data: bytes) -> None:
        """Bytes behind the request: the next ones, if the client pipelines. Bounded; then reading pauses."""
        if self._closes and not (self._exchange is not None and self._exchange.prepared.upgrade):
            return  # RFC 9112 section 9.6: nothing after a last request is looked at; but a tunnel may be coming
        if not data:
            return
        ahead = self._ahead
        if ahead is None:
            ahead = self._ahead = ReadAhead(data)
        else:
            ahead.add(data)
        if ahead.is_full or self.services.pressure.is_holding:
            self.pause_body()

    # --- the next request, or the end -------------------------------------------------------------------------------

    def _exchange_done(self) -> None:
        """The answer is complete and written."""
        exchange = self._exchange
        if exchange is None or self._state in (CLOSED, TUNNEL):
            return
        self._exchange = None
        if self._closes or not exchange.request_done or (self._client_fin and self._ahead is None):
            self._linger()
            return
        self._state = HEAD
        now = self._idle_since = self.services.clock()
        self._deadline = now + self.facts.listener.timeouts.keep_alive
        if self.services.is_draining:  # the head had left before, so the client does not know: its next answer says it
            self.begin_drain(now)
        if self._ahead is not None or self._is_paused:
            self.services.loop.call_soon(self._next_request)

    def _next_request(self) -> None:
        """Go on with what was read ahead; from the loop, so that a flood of requests can't recurse."""
        if self._state != HEAD:
            return
        if self._write_blocked:
            return  # resume_writing comes back here
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self.data_received(ahead.take())
        if self._client_fin:
            self._end_behind_fin()
        elif self._is_paused and self._may_read_on():
            self.resume_body()

    def _end_behind_fin(self) -> None:
        """The client has ended its side and this is the rest of what it sent: a part of a request is none."""
        if self._state == HEAD and self._ahead is None:
            if self._buffer:
                self._drop_part(self._buffer)
            self._linger()
        elif self._state == BODY:
            self._client_left()

    def _drop_part(self, raw: bytes) -> None:
        """Nobody gets what came of a head before the client's FIN. It has its line in the log."""
        self._buffer = b""
        prepared = rejected(self.facts.listener, raw, HeadError(errors.CLIENT_ABORT, ""), self.services.log_format)
        services = self.services
        exchange = Exchange(self, prepared, services.next_request_id(), self.facts.address, services.clock())
        exchange.client_left()

    def _may_read_on(self) -> bool:
        """Reading paused behind a request; has what was read made room, and does nobody else want it paused?"""
        if self._state == BODY:
            return self._exchange is not None and not self._exchange.is_body_paused
        return self._state in (HEAD, WAIT) and (self._ahead is None or self._ahead.has_room)

    def _linger(self) -> None:
        """End the connection so that the client can read the answer: FIN now, discard until its FIN (RFC 9112 9.6)."""
        self._state = LINGER
        unbind(self)
        self._reader = self._upload = None
        self._end_bulk()
        self._buffer = b""
        self._ahead = None
        now = self.services.clock()
        self._linger_end = now + LINGER_TOTAL_S
        self._deadline = now + LINGER_IDLE_S
        if self.transport.is_closing():
            return
        if self._client_fin:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_paused:
            self.resume_body()

    def eof_received(self) -> bool:
        try:
            return self._eof_received()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
            return False

    def _eof_received(self) -> bool:
        if self._state == HEAD and self._buffer:
            self._drop_part(self._buffer)
        is_asked = self._state == WAIT or (self._state == HEAD and self._ahead is not None)
        if is_asked and self.facts.listener.answers_half_closed:
            self._client_fin = True
            self.transport.watch_end(None)  # it waits for its answers, unless it is reset
            return True
        if self._exchange is None or self._state in (HEAD, LINGER):
            return False
        self._client_fin = True
        self._client_left()
        return False

    def _client_left(self) -> None:
        """In HTTP a FIN says that the client has left: a time-out of `requests` looks like this."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()
        self.cut()

    def cut(self) -> None:
        """End the connection with a reset, so that a truncated answer can't look complete."""
        self._exchange = None
        if self._state not in (CLOSED, TUNNEL):
            abort(self.transport)
            self._leave()

    # --- what an exchange asks for (ClientStream) ---------------------------------------------------------------------

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        """Send the final head, re-framed for this client, and what there is of the body."""
        self._is_chunking = False
        if (
            head.is_plain
            and request.prepared.passes_responses
            and request.request_done
            and not self._closes
            and not self.services.is_draining
        ):
            if is_done and len(body) <= SMALL_BODY:
                data = b"%b%b\r\n%b" % (head.wire, request.id_line, body)
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
            data = b"%b%b\r\n" % (head.wire, request.id_line)
        else:
            closes = self._closes or not request.request_done or self.services.is_draining
            data, self._is_chunking, self._closes = response_head(
                request.prepared, head, request.id_line, closes=closes
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
        if is_done and trailers and prepared.head.accepts_trailers:
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
            if self._upload is not None:
                self._upload.go(now)

    def answer_fault(self, request: Underway, fault: Fault, detail: str, retry_after_s: int | None) -> None:
        """Answer with problem+json."""
        if fault.close:
            self._closes = True
        fields, body = problem(
            fault, detail, request.request_id, retry_after_s, self.facts.listener.allow, request.tries
        )
        request.bytes_out = 0 if request.is_head else len(body)
        self._answer(request, fault.status, edited(request.prepared, fields), body)

    def answer_locally(self, request: Underway) -> None:
        """A route's redirect or fixed response, or OPTIONS with Max-Forwards: 0."""
        status, fields, body = local_answer(request.prepared, self.facts.listener.allow)
        self._answer(request, status, fields, body)
        request.answered_locally(status, len(body))

    def _answer(self, request: Underway, status: int, fields: Fields, body: bytes) -> None:
        if self._state == CLOSED:
            return
        if not request.request_done or self.services.is_draining:
            self._closes = True
        self._write(answer_bytes(request.prepared, status, fields, body, request.id_line, closes=self._closes))
        self._exchange_done()

    def raw_sink(self) -> asyncio.Transport | None:
        return None if self._is_chunking else self.transport

    def raw_source(self) -> asyncio.Transport | None:
        return self.transport

    def response_moved(self, size: int) -> None:
        self._written += size

    def request_moved(self, *, is_blocked: bool) -> None:
        now = self.services.clock()
        self._deadline = NEVER if is_blocked else now + self.facts.listener.timeouts.request_body
        if self._upload is not None:
            if is_blocked:
                self._upload.stop(now)
            else:
                self._upload.go(now)

    def request_spliced(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._body_ended()
        exchange.request_body(b"", is_done=True)
        exchange.upstream_unblocked()

    def give_stream(self, request: Underway, head: ResponseHead) -> tuple[StreamTransport, bytes, bool]:
        """Send the 101 and let go of the transport and of what was read ahead."""
        self._write(switching_head(request.prepared, head, request.id_line))
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

    # --- back-pressure ----------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    def pause_writing(self) -> None:
        self._write_blocked = True
        try:
            self._note_buffered(self.transport.get_write_buffer_size())
            if self._exchange is not None:
                self._exchange.client_blocked()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)

    def resume_writing(self) -> None:
        self._write_blocked = False
        try:
            self._note_buffered(0)
            if self._exchange is not None:
                self._exchange.client_unblocked()
            elif self._state == HEAD:
                self._next_request()
        except Exception as error:  # as above
            self._defect(error)

    def _note_buffered(self, n_bytes: int) -> None:
        self.services.pressure.count(n_bytes - self._noted)
        self._noted = n_bytes

    def pause_body(self) -> None:
        """Stop reading from the client; that it leaves is seen all the same."""
        if self._is_paused or self._state in (CLOSED, TUNNEL, LINGER) or self.transport.is_closing():
            return
        self._is_paused = True
        self._deadline = NEVER
        if self._upload is not None:
            self._upload.stop(self.services.clock())
        self.transport.pause_reading()
        self.transport.watch_end(None if self.facts.listener.answers_half_closed else self._hung_up)

    def resume_body(self) -> None:
        if not self._is_paused:
            return
        self._is_paused = False
        if self._state == BODY:
            self._deadline = self.services.clock() + self.facts.listener.timeouts.request_body
            if self._upload is not None:
                self._upload.go(self.services.clock())
        if self._state not in (CLOSED, TUNNEL) and not self.transport.is_closing():
            self.transport.resume_reading()

    def _hung_up(self) -> None:
        """The FIN of a client that is not being read."""
        if self._state in (BODY, WAIT):
            self._client_left()
        elif self._state == HEAD:
            self.transport.close()  # what it asked in advance is not begun; the last answer still leaves

    # --- the sweeper's calls ----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        self._check_write(now)  # first: an answer that the exchange gives now is not late
        exchange = self._exchange
        if exchange is not None:
            exchange.sweep(now)
        if self._upload is not None:
            self._check_upload(self._upload, now)
        if now >= self._deadline:
            self._deadline_passed()

    def _check_write(self, now: float) -> None:
        """RUDY's sister: a client that does not read is reset after `timeouts.write` without progress.

        One that is still sending its request has not stopped: many read nothing before they have sent all.
        """
        if self._state == CLOSED:
            return
        unsent = self.transport.get_write_buffer_size()
        taken = self.transport.taken(self._written)
        if self._exchange is not None:
            unsent += self._exchange.n_unsent
            taken -= self._exchange.n_unsent
            if self._state == BODY:
                taken += self._exchange.bytes_in
        elif unsent:
            self._not_idle_yet(now)
        if not unsent or taken != self._taken:
            self._taken = taken
            self._taken_at = now
        elif now - self._taken_at >= self.facts.listener.timeouts.write:
            exchange, self._exchange = self._exchange, None
            if exchange is not None:
                exchange.client_left(errors.CLIENT_WRITE_TIMEOUT, "write_timeout")
            self.cut()

    def _not_idle_yet(self, now: float) -> None:
        """The client's silence counts from when it has been sent its answer; until then `timeouts.write` bounds it."""
        if self._state == LINGER:
            self._linger_end = now + LINGER_TOTAL_S
            self._deadline = now + LINGER_IDLE_S
        elif self._state == HEAD and not self._buffer:
            idle_s = DRAIN_IDLE_S if self.services.is_draining else self.facts.listener.timeouts.keep_alive
            self._idle_since = now
            self._deadline = now + idle_s

    def _check_upload(self, upload: UploadRate, now: float) -> None:
        exchange = self._exchange
        if self._state != BODY or exchange is None or exchange.response_started:
            return
        if upload.is_too_slow(exchange.bytes_in, now):
            self._closes = True
            exchange.fail(errors.BODY_TOO_SLOW, f"less than {self.facts.listener.min_rate:g} bytes a second")

    def _deadline_passed(self) -> None:
        self._deadline = NEVER
        state = self._state
        if state == HEAD:
            if self._buffer:
                self._refuse(self._buffer, HeadError(errors.HEADER_TIMEOUT, "the head did not arrive in time"))
            else:
                self.transport.close()
        elif state == BODY and self._exchange is not None:
            self._closes = True
            if not self._exchange.response_started:  # a client may stop when it sees an early answer
                self._exchange.fail(errors.BODY_TIMEOUT, "the body stalled")
        elif state == LINGER:
            self.transport.abort()

    # --- making way for others (room.py) ----------------------------------------------------------------------------

    def idle_since(self) -> float:
        if self._state == LINGER:
            return self._linger_end - LINGER_TOTAL_S
        if self._state != HEAD or self._buffer or self._ahead is not None or self.transport.get_write_buffer_size():
            return NEVER
        return self._idle_since

    def makes_way(self) -> bool:
        if self._state == LINGER:
            self.transport.abort()  # it was sent all there is, a while ago
        elif self._state != HEAD or self.transport.has_unread:
            return False
        else:
            self.transport.close()
        self.facts.listener.row[_EVICTED_IDLE] += 1
        return True

    def closes_after_answer(self) -> bool:
        exchange = self._exchange
        if exchange is None or exchange.response_started or self._closes or self._ahead is not None:
            return False  # what it sent in advance would be lost
        if self._client_fin or exchange.prepared.upgrade:
            return False
        self._closes = True
        self.facts.listener.row[_EVICTED_ANSWERED] += 1
        return True

    def buffered_bytes(self) -> int:
        if self._state in (CLOSED, TUNNEL):
            return 0
        size = self.transport.get_write_buffer_size() + len(self._buffer)
        if self._ahead is not None:
            size += self._ahead.size
        return size + self._exchange.buffered_bytes() if self._exchange is not None else size

    def begin_drain(self, now: float) -> None:
        """Stopping: an idle connection gets a second for a request that may be on its way."""
        if self._state == HEAD and not self._buffer:
            self._deadline = min(self._deadline, now + DRAIN_IDLE_S)

    def shut_down(self) -> None:
        """The grace period is over: 503 where nothing was sent yet, a reset where something was."""
        exchange = self._exchange
        if exchange is None:
            if self.transport.get_write_buffer_size():  # of the last answer
                self.services.n_cut += 1
                abort(self.transport)
            else:
                self.transport.abort()
            return
        self.services.n_cut += 1
        if exchange.response_started:
            self._exchange = None
            exchange.shut_down()
            self.cut()
        else:
            exchange.fail(errors.DRAINING, "the grace period is over")


def _kept_identity(known: Forwarding) -> tuple[str, bytes] | None:
    """The request id of a trusted peer and its line, if it sent one that can be kept."""
    request_id = kept_request_id(known)
    return (request_id, b"X-Request-ID: %b\r\n" % request_id.encode()) if request_id else None
