"""What a connection to a server is told: a request in its framing, and what else an exchange asks of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy.compiling import join_five
from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.net.pieces import SMALL_BODY
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.connection import ServerConnection
from lbproxy.protocol.body import chunked
from lbproxy.protocol.message import Field


class SendingConnection(ServerConnection):
    """See the module. The public methods are those of ServerStream. Trailer fields of requests are not passed on."""

    __slots__ = ()

    def begin(
        self,
        sink: AnswerSink,
        prepared: Prepared,
        lines: bytes,
        own: bytes,
        body: bytes,
        *,
        is_done: bool,
        expects: bool,
        trailers: Sequence[Field],
    ) -> None:
        if self.sink is not None:  # a defect, after which neither must get the other's answer
            raise RuntimeError("this connection to a server has a request already")
        self.sink = sink
        self.n_requests += 1
        self.request_done = is_done
        if prepared.needs_care:
            if expects:
                own += b"Expect: 100-continue\r\n"
            if prepared.is_connect:
                own += b"Sec-WebSocket-Key: %b\r\n" % sink.websocket_key()
            self._is_last = prepared.closes
            if prepared.chunked:
                self._is_chunking = not is_done
                body = chunked(body, is_done=is_done)
        written = self._written_before = self.written
        if not is_done:
            head_size = len(prepared.forward) + len(lines) + len(own) + 2
            self._complete_at = -1 if prepared.chunked else written + head_size + prepared.content_length
        if len(body) <= SMALL_BODY:
            data = join_five(prepared.forward, lines, own, b"\r\n", body)
            self.written = written + len(data)
            self.transport.write(data)
            return
        data = b"%b%b%b\r\n" % (prepared.forward, lines, own)
        self.written = written + len(data) + len(body)
        self.transport.write(data)
        self.transport.write(body)

    def write(self, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        if self._is_chunking:
            data = chunked(data, is_done=is_done)
        if is_done:
            self.request_done = True
            self._is_chunking = False
        if data:
            self.written += len(data)
            self.transport.write(data)

    def pause(self) -> None:
        if not self.has_ended:
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.has_ended:
            self.transport.resume_reading()

    def read_at_most(self, size: int) -> None:
        if self.has_ended or self.sink is None or self._reads_at_most == size:
            return
        self._reads_at_most = size
        self.transport.read_at_most(size)
        if size and self._bulk is not None:
            self._bulk.end()
            self._bulk = None

    def stand_behind(self) -> None:
        if not self.has_ended and self.sink is not None:
            self._is_behind = True
            self.transport.stand_behind(is_behind=True)

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def taken_bytes(self) -> int:
        return self.transport.taken(self.written)

    # --- one client's -----------------------------------------------------------------------------------------------

    def whose(self) -> ServerRuntime:
        return self.runtime

    def bind(self) -> None:
        self.is_bound = True

    def unbind(self) -> None:
        if not self.has_ended and self.sink is None:
            self.close_idle()

    def is_ready(self, now: float) -> bool:
        return not self.has_ended and self.expires_at > now and not self.is_disturbed()

    # --- past this object -------------------------------------------------------------------------------------------

    def raw_source(self) -> asyncio.Transport | None:
        return self.transport

    def raw_sink(self) -> asyncio.Transport | None:
        return self.transport

    def request_moved(self, size: int) -> None:
        self.written += size

    def detach(self) -> TunnelTransport:
        self.sink = None
        self.has_ended = True
        if self._is_behind:
            self._stand_among()
        return self.transport
