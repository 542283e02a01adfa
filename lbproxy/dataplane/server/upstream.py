"""What a connection to a server reads: one answer at a time, handed to whoever asked."""

from __future__ import annotations

import asyncio
from typing import Final

from lbproxy import errors
from lbproxy.compiling import cut
from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.net import bulk
from lbproxy.dataplane.server.sending import SendingConnection
from lbproxy.protocol.body import BodyError, ChunkedReader, LengthReader, UntilCloseReader
from lbproxy.protocol.http1 import (
    END,
    HeadError,
    ResponseHead,
    check_partial,
    parse_response_head,
    read_response_head,
)
from lbproxy.protocol.repair import lenient_end

# A server that says 102 or 103 now and then while it works for an hour is not the flood that the limit is for.
INTERIM_EVERY_S: Final = 5.0


class UpstreamConnection(SendingConnection):
    """One connection to one server; serves one request at a time."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            self._unasked_data()
            return
        try:
            if self._reader is None and not len(self._buffer):
                # The usual: a whole response in one piece.
                head = self._heads.find(data)
                if head is None and not self._is_lenient:
                    head = self._read_head(data)
                if head is not None and head.status >= 200:
                    body = cut(data, head.size, len(data))
                    if head.body_length == len(body) and not sink.is_head:
                        now = self._services.now()
                        self._release(head, b"", now)
                        sink.response_received(head, body, now, is_done=True)
                    else:
                        self._final_head(head, body, sink)
                        self._look_for_bulk(data, sink)
                    return
            self._other_data(data, sink)
        except HeadError as error:
            self._fail(sink, error.fault, error.detail)
        except BodyError as bad_body:
            self._fail(sink, errors.RESPONSE_BAD_CHUNK, bad_body.detail)
        except Exception as defect:  # confined to this request
            self._defect(defect, sink)

    def _other_data(self, data: bytes, sink: AnswerSink) -> None:
        if self._reader is None:
            self._head_data(data, sink)
        else:
            self._body_data(data, sink)
        self._look_for_bulk(data, sink)

    def _look_for_bulk(self, data: bytes, sink: AnswerSink) -> None:
        """Is so much coming that it is read, or left to the kernel, in large pieces?"""
        reader = self._reader
        if (
            reader is not None
            and self._bulk is None
            and not self._reads_at_most
            and len(data) >= bulk.FROM_BYTES
            and not self.has_ended
            and bulk.is_much_left(reader)
            and not sink.splice_response(reader)
        ):
            self._bulk = bulk.BulkReader(self, self._client_transport)

    def _client_transport(self) -> asyncio.Transport | None:
        return self.sink.client_transport() if self.sink is not None else None

    def _head_data(self, data: bytes, sink: AnswerSink) -> None:
        if self._buffer:
            checked = len(self._buffer)
            data = self._buffer + data
            self._buffer = b""
        else:
            checked = 0
        pool = self.runtime.pool
        while True:
            end = lenient_end(data) if pool.is_lenient else data.find(b"\r\n\r\n", max(0, checked - 3)) + 4
            if end < 4:
                if not pool.is_lenient:
                    check_partial(bytearray(data), checked, head_bytes=pool.head_bytes, is_response=True)
                if len(data) > pool.head_bytes:
                    raise _too_large(pool.head_bytes)
                if data and not b"HTTP/1.".startswith(data[:7]) and data[:7] != b"HTTP/1.":
                    raise HeadError(errors.BAD_RESPONSE, "the answer does not begin with HTTP/1.")
                self._buffer = data
                return
            head = self._heads.find(data)
            if head is None:
                head = self._parse_head(data[:end])
            if head.status >= 200:
                self._final_head(head, data[end:], sink)
                return
            data = data[end:]
            if head.status == 101:
                sink.upgraded(head, data)
                return
            self._interim += 1
            if self._interim > pool.max_interim + (self._services.clock() - sink.sent_at) / INTERIM_EVERY_S:
                raise HeadError(errors.TOO_MANY_INTERIM, f"more than {pool.max_interim} interim responses")
            sink.interim_received(head)
            checked = 0
            if not data or self.sink is not sink:
                return

    def _read_head(self, data: bytes) -> ResponseHead | None:
        """The head that an answer of a strict server begins with, which is not remembered. None: not all of it is there
        yet."""
        pool = self.runtime.pool
        try:
            head = read_response_head(data, max_fields=pool.max_fields)
            if head is None:
                return None
            if head.size <= pool.head_bytes:
                pool.response_memo.learn(data, head.size, head)
                return head
        except HeadError:
            end = data.find(END)
            if end < 0:
                return None
            if end + len(END) <= pool.head_bytes:
                raise
        raise _too_large(pool.head_bytes)

    def _parse_head(self, raw: bytes) -> ResponseHead:
        """Read a whole head that is not remembered; that of a lenient server may end in its own way."""
        pool = self.runtime.pool
        if len(raw) > pool.head_bytes:
            raise _too_large(pool.head_bytes)
        head = parse_response_head(raw, max_fields=pool.max_fields, is_lenient=pool.is_lenient)
        if raw.endswith(END):
            pool.response_memo.learn(raw, head.size, head)
        return head

    def _final_head(self, head: ResponseHead, data: bytes, sink: AnswerSink) -> None:
        length = head.content_length
        now = self._services.now()
        if sink.is_head or head.is_bodiless:
            length = 0
        elif head.chunked:
            self._head = head
            self._reader = ChunkedReader(is_lenient=self.runtime.pool.is_lenient)
            self._first_body(head, data, sink, now)
            return
        elif length is None:
            self._head = head
            self._reader = UntilCloseReader()
            sink.response_received(head, data, now, is_done=False)
            return
        if len(data) == length:
            self._release(head, b"", now)
            sink.response_received(head, data, now, is_done=True)
        elif len(data) > length:
            self._release(head, data[length:], now)
            sink.response_received(head, data[:length], now, is_done=True)
        else:
            self._head = head
            self._reader = LengthReader(length)
            self._first_body(head, data, sink, now)

    def _first_body(self, head: ResponseHead, data: bytes, sink: AnswerSink, now: float) -> None:
        reader = self._reader
        assert reader is not None
        body = reader.feed(data) if data else b""
        if reader.done:
            self._release(head, reader.rest, now)
        sink.response_received(head, body, now, is_done=reader.done, trailers=reader.trailers)

    def _body_data(self, data: bytes, sink: AnswerSink) -> None:
        reader, head = self._reader, self._head
        assert reader is not None and head is not None
        body = reader.feed(data)
        if reader.done:
            self._release(head, reader.rest, self._services.now())
            sink.response_body(body, is_done=True, trailers=reader.trailers)
        elif body:
            sink.response_body(body, is_done=False)

    def response_spliced(self) -> None:
        sink, head = self.sink, self._head
        assert sink is not None and head is not None
        self.resume()
        self._release(head, b"", self._services.clock())
        sink.response_body(b"", is_done=True)


def _too_large(limit: int) -> HeadError:
    return HeadError(errors.RESPONSE_HEADER_TOO_LARGE, f"the head is longer than {limit} bytes")
