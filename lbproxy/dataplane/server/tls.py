"""TLS towards servers: the handshake, what its failures mean, and what differs on a connection that has it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

from lbproxy import errors
from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.last_bytes import read_what_is_left
from lbproxy.dataplane.net.tls_reasons import reason_of
from lbproxy.dataplane.net.tls_transport import CLOSED, OPEN, RECORD, TlsTransport
from lbproxy.dataplane.server.connection import acknowledged
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.dataplane.services import Services, abort
from lbproxy.errors import Fault
from lbproxy.protocol.body import UntilCloseReader
from lbproxy.protocol.message import Field

if TYPE_CHECKING:
    from lbproxy.dataplane.tls_settings import PoolTlsSettings, SessionHolder

NO_PROTOCOL: Final = "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"
_HINTS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port",
    "HTTP_REQUEST": "it does not speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "it has no TLS 1.2 or newer",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it has no TLS version in common with lbproxy",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (tls.cert and tls.key of the pool)",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the client certificate (tls.cert of the pool)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the client certificate (tls.cert of the pool), or wants one",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake; perhaps it wants a client certificate",
    NO_PROTOCOL: "it speaks none of the protocols that it was offered (ALPN)",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know the name that it was asked for (tls.server_name)",
}


def tls_fault(error: Exception) -> tuple[Fault, str]:
    """The row for a failed handshake, and a sentence without a subject."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.TLS_VERIFY, f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.CertificateError):
        return errors.TLS_VERIFY, f"its certificate is not accepted: {error}"
    if isinstance(error, ssl.SSLError):
        reason = reason_of(error)
        return errors.TLS_HANDSHAKE, _HINTS.get(
            reason
        ) or f"the TLS handshake failed: {reason.replace('_', ' ').lower()}"
    if isinstance(error, Unwanted):
        return errors.TLS_HANDSHAKE, str(error)
    return errors.TLS_HANDSHAKE, "it closed the connection during the TLS handshake"


class Unwanted(Exception):
    """The handshake was well, but what was agreed on is of no use. The text says what it is, without a subject."""


class ServerTlsTransport(TlsTransport):
    """A connection to a server; `done` gives its application once the handshake is over, or raises the SSLError.

    factory: makes the application, and is told what ALPN chose, "" if nothing. is_http1: HTTP/2 is not offered.
    """

    __deletable__ = ("_factory", "done")  # mypyc asks for it
    __slots__ = ("_factory", "_is_http1", "_name", "_server", "_tls", "done")

    def __init__(
        self,
        services: Services,
        tls: PoolTlsSettings,
        name: str | None,
        server: SessionHolder,
        factory: Callable[[str | None], asyncio.Protocol],
        *,
        is_http1: bool = False,
    ) -> None:
        super().__init__(services.loop, services.internal_error)
        self._is_http1 = is_http1
        self._tls = tls
        self._name = name
        self._server = server
        self._factory = factory
        self.done: asyncio.Future[asyncio.Protocol] = services.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tls = self._tls
        context = tls.http1 if self._is_http1 else tls.context
        session = tls.session(self._server) if context is tls.context else None  # which knows its context
        try:
            self.begin(context, is_server=False, name=self._name, session=session)
        except ValueError as error:  # a name that can't be asked for
            self._handshake_failed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_app:
            if exc is not None and self._state == OPEN:
                self._read_what_is_left()
            self._tls.keep_session(self._server, self.ssl_object)
        super().connection_lost(exc)

    def _read_what_is_left(self) -> None:
        """Perhaps an alert, or an early answer, that explains why a write failed."""
        sock = self._raw.get_extra_info("socket")
        read_what_is_left(sock, RECORD, self.records_received, lambda: self._state == OPEN)

    def _handshake_done(self) -> None:
        try:
            app = self._factory(self.ssl_object.selected_alpn_protocol() or "")
        except Unwanted as error:
            self._handshake_failed(error)
            return
        if self.done.done():
            self.abort()
            return
        self.start(app)
        self.done.set_result(app)

    def _handshake_failed(self, error: Exception) -> None:
        self._state = CLOSED
        self._tls.forget(self._server)
        if not self.done.done():
            self.done.set_exception(error)
        self._raw.abort()

    def dialled(self) -> None:
        """The application has been told: let go of what knows it, so that both are freed when they are over."""
        del self._factory, self.done

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()  # seen
        if self._state != CLOSED:
            self._state = CLOSED
            abort(self._raw)


class ServerTlsConnection(UpstreamConnection):
    """An HTTP connection to a server over TLS."""

    __slots__ = ("_wire_before",)

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
        self._wire_before = cast(TlsTransport, self.transport).wire_written
        super().begin(sink, prepared, lines, own, body, is_done=is_done, expects=expects, trailers=trailers)

    def _nothing_has_left(self) -> bool:
        """Records are longer than what they hold: the rest of a request may be more than was written of it."""
        transport = cast(TlsTransport, self.transport)
        return transport.get_write_buffer_size() >= transport.wire_written - self._wire_before

    def _nothing_was_acked(self) -> bool:
        """The kernel counts what TLS made of the request, not what we wrote."""
        return acknowledged(self.transport) == self.introduced + self._wire_before

    def _ended(self, *, is_fin: bool) -> None:
        # RFC 9112 section 9.8: an answer that ends with the connection is whole only after close_notify.
        if isinstance(self._reader, UntilCloseReader) and not cast(TlsTransport, self.transport).has_close_notify:
            is_fin = False
        super()._ended(is_fin=is_fin)

    def connection_lost(self, exc: Exception | None) -> None:
        sink = self.sink
        if not isinstance(exc, ssl.SSLError) or sink is None or self.has_ended or not self._has_read_nothing():
            super().connection_lost(exc)
            return
        # TLS 1.3: the server judges our certificate when we are done already, and reads no request then.
        self._uncount()
        self.has_ended = True
        self.sink = None
        try:
            sink.attempt_failed(*tls_fault(exc))
        except Exception as error:  # a defect: confined to this request
            self._defect(error, sink)

    def _read_what_is_left(self) -> None:
        """ServerTlsTransport has done that: what is in the socket is not HTTP."""

    def _has_read_nothing(self) -> bool:
        return self.n_requests == 1 and self._reader is None and not self._buffer and not self._interim
