"""What a client's HTTP/1 connection reads: heads, bodies, what is pipelined behind them, and what follows from that.

One request at a time, answered in order. The connection is kept only if the request was read to its exact end and its
head said nothing else: what is left over would be read as the next request.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lbproxy import errors
from lbproxy.compiling import add_to, cut
from lbproxy.dataplane.client.answering import AnsweringConnection
from lbproxy.dataplane.client.body_intake import BodyIntake
from lbproxy.dataplane.client.connection import BODY, CLOSED, HEAD, LINGER, LINGER_IDLE_S, NEVER, WAIT
from lbproxy.dataplane.client.http2 import Http2Connection
from lbproxy.dataplane.client.read_ahead import ReadAhead
from lbproxy.dataplane.client.upload_rate import UploadRate
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.forwarding import kept_identity
from lbproxy.dataplane.exchange.prepare import prepare_head, rejected
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net import bulk
from lbproxy.protocol.body import BodyError, ChunkedReader, LengthReader
from lbproxy.protocol.h2.codes import PREFACE
from lbproxy.protocol.http1 import END, HeadError, RequestHead, check_partial, line_too_long, read_request_head
from lbproxy.telemetry.accesslog import HeadPart

_CR: Final = 13
_HTTP2: Final = PREFACE.partition(b"\n")[0]


class Http1Connection(AnsweringConnection):
    """See the module; one client connection of an HTTP listener (connection.py)."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        try:
            if self._state == HEAD and not len(self._buffer) and self._ahead is None and not self._write_blocked:
                # The usual: a head in one piece, with nothing waiting before it.
                self._head_data(data, is_whole=False)
            else:
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

    # --- heads ------------------------------------------------------------------------------------------------------

    def _head_data(self, data: bytes, *, is_whole: bool) -> None:
        """A head begins here. is_whole: all of it is known to be there."""
        if self.facts.listener is not self._owner.runtime:
            self._renew()
        prepared = self._memo.find(data)
        if prepared is None:
            prepared = self._read_head(data, is_whole=is_whole)
        if prepared is not None:
            self._begin(prepared, cut(data, prepared.meaning.size, len(data)))

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
        if data.find(END, max(0, checked - 3)) >= 0:
            self._buffer = b""
            self._head_data(data, is_whole=True)
            return
        self._buffer = data
        try:
            limits = self.facts.listener
            check_partial(bytearray(data), checked, head_bytes=limits.head_bytes, line_bytes=limits.line_bytes)
        except HeadError as error:
            if not self._becomes_http2(data):
                self._refuse(data, error)

    def _becomes_http2(self, data: bytes) -> bool:
        """Is what can't be read the beginning of HTTP/2? Then that takes over (RFC 9113 section 3.3, prior knowledge).

        It has to be the first that the client says; with TLS it is agreed on in the handshake.
        """
        facts = self.facts
        if not data.startswith(_HTTP2) or facts.listener.http2 is None or facts.scheme != b"http" or self._written:
            return False
        self._state = CLOSED
        self._buffer = b""
        self.services.swept.discard(self)
        Http2Connection(self._owner, facts).take_over(self.transport, data)
        return True

    def _renew(self) -> None:
        """The listener has other settings since the last head: they hold for this one."""
        facts = self.facts = self.facts.renewed(self._owner.runtime, self.transport)
        self._memo = self._owner.memo_trusted if facts.is_trusted else self._owner.memo

    def _read_head(self, data: bytes, *, is_whole: bool) -> Prepared | None:
        """What to do with a head that is not remembered. None: it was refused, or is not all there yet."""
        facts = self.facts
        listener = facts.listener
        try:
            head: RequestHead | None = None
            if is_whole or data[0] != _CR:  # an empty line before it is ignored, by `_partial_head`
                if len(data) > listener.head_bytes:
                    self._check_size(data)
                head = read_request_head(
                    data,
                    max_fields=listener.max_fields,
                    underscores=listener.underscores,
                    line_bytes=listener.line_bytes,
                )
            if head is not None:
                prepared = prepare_head(
                    listener,
                    head,
                    is_trusted=facts.is_trusted,
                    log_format=listener.log_format if self.services.access_writer is not None else None,
                    local_host=facts.local_host,
                )
                if head.host:  # without one the Host that is made up is that of this connection
                    self._memo.learn(data, head.size, prepared)
                return prepared
        except HeadError as error:
            if self._becomes_http2(data):
                return None
            end = data.find(END)
            if end >= 0:
                self._refuse(data[: end + len(END)], error)
                return None
        self._partial_head(data)
        return None

    def _check_size(self, data: bytes) -> None:
        limit = self.facts.listener.head_bytes
        end = data.find(END)
        if end + len(END) > limit:
            raise self._too_large(data[: end + len(END)])

    def _too_large(self, raw: bytes) -> HeadError:
        if raw.find(b"\r\n") > self.facts.listener.line_bytes:
            return line_too_long(self.facts.listener.line_bytes)
        return HeadError(errors.HEADER_TOO_LARGE, f"the head is longer than {self.facts.listener.head_bytes} bytes")

    def _refuse(self, raw: bytes, error: HeadError) -> None:
        self._buffer = b""
        listener = self.facts.listener
        self._begin(rejected(listener, raw, error, listener.log_format), b"", is_refused=True)

    def _drop_part(self, raw: bytes) -> None:
        """Nobody gets what came of a head before the client's FIN. It has its line in the log."""
        self._buffer = b""
        listener = self.facts.listener
        prepared = rejected(listener, raw, HeadError(errors.CLIENT_ABORT, ""), listener.log_format)
        services = self.services
        exchange = Exchange(self, prepared, services.next_request_id(), self.facts.address, services.clock())
        exchange.client_left()

    def _begin(self, prepared: Prepared, rest: bytes, *, is_refused: bool = False) -> None:
        services = self.services
        if prepared.dropped:
            row = services.row
            for column, count in prepared.dropped:
                add_to(row, column, count)
        facts = self.facts
        if facts.is_trusted:
            known = prepared.meaning.forwarding
            identity = kept_identity(known) or services.next_request_id()
            exchange = Exchange(self, prepared, identity, facts.address_behind(known), services.now())
        else:
            exchange = Exchange(self, prepared, services.next_request_id(), facts.address, services.now())
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
            self._intake = self._new_intake(prepared)
            self._deadline = services.now() + self.facts.listener.timeouts.request_body
            if prepared.expects_continue:
                self._deadline = NEVER  # the client may be waiting for its 100, and the exchange for a server
            exchange.start(b"", is_done=False)
            if rest and self._state == BODY:
                self._body_data(rest)
        else:
            self._state = WAIT
            self._deadline = NEVER
            if not is_refused:
                self._keep_for_later(rest)
            exchange.start(b"", is_done=True)

    def _new_intake(self, prepared: Prepared) -> BodyIntake:
        limits = self.facts.listener
        reader: LengthReader | ChunkedReader
        if prepared.chunked:
            reader = ChunkedReader(overhead_bytes=limits.chunk_overhead, trailer_bytes=limits.trailer_bytes)
        else:
            reader = LengthReader(prepared.content_length)
        if not limits.min_rate:
            return BodyIntake(reader, None)
        return BodyIntake(reader, UploadRate(limits.min_rate, self.services.clock(), waits=prepared.expects_continue))

    def _named_head(self, prepared: Prepared) -> HeadPart:
        """The head's part of the log line, with the subject of the client's certificate. The last one is kept: heads
        repeat."""
        if self._named is None or self._named[0] is not prepared:
            log_format = self.facts.listener.log_format
            self._named = prepared, log_format.with_subject(prepared.log_head, self.facts.subject)
        return self._named[1]

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _body_data(self, data: bytes) -> None:
        intake, exchange = self._intake, self._exchange
        assert intake is not None and exchange is not None
        reader = intake.reader
        try:
            body = reader.feed(data)
        except BodyError as error:
            self._closes = True
            exchange.fail(error.fault, error.detail)
            return
        if exchange.bytes_in + len(body) > self.facts.listener.body_bytes:
            self._closes = True
            exchange.fail(errors.BODY_TOO_LARGE, f"more than {self.facts.listener.body_bytes:.0f} bytes of body")
            return
        if not reader.done:
            self._deadline = (
                NEVER if self._is_paused else self.services.clock() + self.facts.listener.timeouts.request_body
            )
            if body:
                exchange.request_body(body, is_done=False)
            if len(data) >= bulk.FROM_BYTES and self._state == BODY:
                self._read_in_bulk(exchange, intake)
            return
        self._body_ended()
        if reader.rest:
            self._keep_for_later(reader.rest)
        exchange.request_body(body, is_done=True)

    def _read_in_bulk(self, exchange: Exchange, intake: BodyIntake) -> None:
        if exchange.splice_request(intake.reader):
            intake.end_bulk()
        else:
            intake.grow(self, self._server_transport)

    def _body_ended(self) -> None:
        self._end_intake()
        self._state = WAIT
        self._deadline = NEVER

    def _server_transport(self) -> asyncio.Transport | None:
        return self._exchange.server_transport() if self._exchange is not None else None

    def request_moved(self, *, is_blocked: bool) -> None:
        now = self.services.clock()
        self._deadline = NEVER if is_blocked else now + self.facts.listener.timeouts.request_body
        if self._intake is not None:
            if is_blocked:
                self._intake.stop(now)
            else:
                self._intake.go(now)

    def request_spliced(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._body_ended()
        exchange.request_body(b"", is_done=True)

    # --- what comes behind a request --------------------------------------------------------------------------------

    def _keep_for_later(self, data: bytes) -> None:
        """Bytes behind the request: the next ones, if the client pipelines. Bounded; then reading pauses."""
        if not data:
            return
        if self._closes and not (self._exchange is not None and self._exchange.prepared.upgrade):
            self._said_more = True
            return  # RFC 9112 section 9.6: nothing after a last request is looked at; but a tunnel may be coming
        ahead = self._ahead
        if ahead is None:
            ahead = self._ahead = ReadAhead(data)
        else:
            ahead.add(data)
        if ahead.is_full or self.services.pressure.is_holding:
            self.pause_body()

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

    def _may_read_on(self) -> bool:
        """Reading paused behind a request; has what was read made room, and does nobody else want it paused?"""
        if self._state == BODY:
            return self._exchange is not None and not self._exchange.is_body_paused
        return self._state in (HEAD, WAIT) and (self._ahead is None or self._ahead.has_room)
