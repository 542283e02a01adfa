"""A stream on which a server of HTTP/2 is asked for a WebSocket: extended CONNECT (RFC 8441).

A 2xx opens the tunnel, and from then on DATA are its bytes; any other answer is one as to a request without a body.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy import errors
from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.framed_transport import Carried, FramedTransport, TunnelTransport
from lbproxy.dataplane.server.http2_stream import Carrier, Http2Stream
from lbproxy.dataplane.services import Services
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import CANCEL, NO_ERROR, PROTOCOL_ERROR
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.request import request_head
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.upgrade import WEBSOCKET
from lbproxy.protocol.websocket import switched, without_keys


class ConnectStream(Http2Stream, Carried):
    """See the module."""

    __slots__ = ("_services", "_tunnel")

    def __init__(self, carrier: Carrier, stream_id: int, services: Services) -> None:
        super().__init__(carrier, stream_id)
        self._services = services
        self._tunnel: FramedTransport | None = None

    # --- the request (ServerStream) -----------------------------------------------------------------------------------

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
        carrier = self.carrier
        self.sink = sink
        self._is_begun = True
        carrier.n_requests += 1
        self.written_before = carrier.n_written + carrier.n_output
        self.wire_before = carrier.wire_written()
        head = request_head(prepared.forward)
        carrier.send_request(
            self.stream_id,
            b"CONNECT",
            carrier.scheme,
            head.authority,
            head.path,
            without_keys(head.lines),
            lines + own,
            False,
            WEBSOCKET,
            prepared.head.secrets,
        )
        carrier.flush()

    def write(self, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """It has no body."""

    def detach(self) -> TunnelTransport:
        tunnel = self._tunnel = FramedTransport(self._services.loop, self, self._services.internal_error)
        return tunnel

    # --- the answer, as it is read ------------------------------------------------------------------------------------

    def _understood(self, head: H2Head, is_end: bool) -> ResponseHead:
        return self._read(head, is_end)  # not one that is shared: `switched` changes it

    def data_came(self, data: bytes, n_flow: int, is_end: bool) -> None:
        tunnel = self._tunnel
        if tunnel is None:
            super().data_came(data, n_flow, is_end)
            return
        self.is_ended = is_end
        self.carrier.renew_connection(n_flow)  # no other stream waits for the client of this one
        tunnel.received(data, n_flow, is_end=is_end)

    def trailers_came(self, trailers: Sequence[Field]) -> None:
        if self._tunnel is None:
            super().trailers_came(trailers)
        else:  # RFC 9113 section 8.5
            self.fail(errors.BAD_RESPONSE, "trailers in a tunnel", PROTOCOL_ERROR)

    def deliver(self) -> None:
        head = self._head
        if head is None or head.status >= 300:
            super().deliver()
            return
        self._head = None
        self._is_touched = False
        sink = self.sink
        if sink is None:
            return
        body = self._taken_body()
        n_new, self._n_new = self._n_new, 0
        switched(head)
        sink.upgraded(head, body)
        self.carrier.renew_connection(n_new)
        if self._tunnel is None:
            return
        self.taken_back(n_new)
        if self.is_ended:
            self._tunnel.received(b"", 0, is_end=True)

    # --- what the transport asks (Carried) ----------------------------------------------------------------------------

    def send(self, data: bytes, *, is_end: bool) -> None:
        if self.sink is None:
            return
        self._is_last = is_end
        if data or is_end:
            self._send(data)
            self.carrier.flush()

    def room_came(self) -> None:
        if self._tunnel is not None:
            self._tunnel.emptied()
        else:
            super().room_came()

    def taken_back(self, n_flow: int) -> None:
        self.carrier.renew_stream(self.stream_id, n_flow)
        self.carrier.flush()

    def unsent_size(self) -> int:
        return self._n_unsent or (1 if self._is_last and not self._is_sent else 0)

    def sent_size(self) -> int:
        return self._n_taken

    def let_go_of_stream(self, *, is_abort: bool) -> None:
        if is_abort or not self._is_sent or not self.is_ended:
            self.carrier.reset(self.stream_id, CANCEL if is_abort or not self._is_sent else NO_ERROR)
        self._tunnel = None  # which knows this object
        self.let_go()
        self.carrier.flush()

    # --- ends ---------------------------------------------------------------------------------------------------------

    def fail(self, fault: Fault, detail: str, code: int = -1) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is None:
            super().fail(fault, detail, code)
            return
        if code >= 0:
            self.carrier.reset(self.stream_id, code)
        self.let_go()
        tunnel.lost(ConnectionResetError(detail))
