"""TLS between the transport of a socket and a protocol object that does not know of it.

A TlsTransport is the protocol of the raw transport and the transport of the application's protocol, so that everything
above (Http1Connection, UpstreamConnection, Relay, BulkReader) works unchanged. The loop's own TLS is not used, as it
hides what a proxy must know and decide:

- which connections are still in their handshake, to bound and time them, and why one failed, to count it;
- whether the peer's stream ended with close_notify or was cut off (RFC 8446 section 6.1), and that an abort sends none,
  so that a truncated answer shows as truncated;
- the end of one direction: close_notify ends the sender's direction only, as a FIN does, so half-closed tunnels work;
- what was really written to the socket, to know whether a server acknowledged any of a request, and whether the peer
  takes anything;
- records that bring no data, of which a peer may send without end: a key update (RFC 8446 section 4.6.3), which has an
  answer, or an attempt to renegotiate. No time-out sees them, so they are bounded.

    state       raw data goes to     leaves by
    HANDSHAKE   OpenSSL              `_handshake_done` -> OPEN; `_handshake_failed` (the subclass closes)
    OPEN        the application      close, abort, a bad record, the raw connection's end -> CLOSED
    CLOSED      nowhere

Costs. In the usual case a message is one read (no exception that says "no more": the BIO tells) and a piece to be sent
one write: 0.1 us in and out, besides OpenSSL's own 1.6 (benchmarks/micro/tls.py). An SSLSocket, where OpenSSL reads and
writes the socket itself, costs half a microsecond more, since it takes each record in two reads. Small messages come as
bytes, which costs 0.2 us less than a BufferedProtocol; once a read is large, a RecordReader takes over. Both buffers
between us and OpenSSL keep the size that they once had, hence the bound on pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.record_reader import RecordReader
from lbproxy.dataplane.net.socket_transport import Receiver, SocketTransport

HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSED: Final = 2

RECORD: Final = 16 * 1024  # the longest plaintext of a record
PIECE: Final = 64 * 1024  # read or written at once
_MUCH: Final = 32 * 1024  # a read of so much is followed by others
BARREN_BYTES: Final = 32 * 1024  # received in a row without data: a whole record, and a thousand key updates
ANSWER_BYTES: Final = 16 * 1024  # to records without data, while the peer does not take what it is sent


@mypyc_attr(allow_interpreted_subclasses=True)
class TlsTransport(Receiver, asyncio.Transport):
    """See the module. Subclasses make the SSLObject (`begin`) and say what follows the handshake."""

    __slots__ = (
        "_answered",
        "_app",
        "_barren",
        "_defect",
        "_error",
        "_get_buffer",
        "_has_app",
        "_has_fin",
        "_incoming",
        "_is_eof",
        "_is_paused",
        "_is_writing_ended",
        "_kept",
        "_loop",
        "_outgoing",
        "_raw",
        "_receiver",
        "_recv",
        "_send",
        "_state",
        "has_close_notify",
        "ssl_object",
        "wire_written",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, defect: Callable[[str, BaseException], None]) -> None:
        """defect: who is told of exceptions that should not be (Services.internal_error)."""
        self._loop = loop
        self._defect = defect
        self._state = CLOSED  # until `begin`
        self._app: Any = None  # a Protocol or BufferedProtocol
        self._receiver: Receiver | None = None  # the application, unless it has a buffer
        self._has_app = False
        self._get_buffer: Any = None
        self._error: Exception | None = None
        self._is_eof = False
        self._is_paused = False
        self._kept = b""  # raw data that came in one read with what made the application pause
        self._is_writing_ended = False  # our close_notify is sent
        self._has_fin = False  # and the FIN behind it
        self.has_close_notify = False  # the peer has ended its direction as it should
        self.wire_written = 0  # bytes handed to the raw transport
        self._barren = 0  # bytes received since there was data
        self._answered = 0  # bytes of answers since the peer had taken everything

    # --- what subclasses do -----------------------------------------------------------------------------------------

    def begin(self, context: ssl.SSLContext, *, is_server: bool, name: str | None = None, session: Any = None) -> None:
        """Start the handshake; the raw transport is connected."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=is_server, server_hostname=name, session=session
        )
        # An SSLObject hands these two calls on in Python, 0.1 us each.
        plain = getattr(self.ssl_object, "_sslobj", self.ssl_object)
        self._recv: Any = plain.read
        self._send: Any = plain.write
        self._state = HANDSHAKE
        if not is_server:
            self._step()

    def _handshake_done(self) -> None:
        """The connection stands: call `start`."""
        raise NotImplementedError

    def _handshake_failed(self, error: Exception) -> None:
        """It does not; an alert, if there is one to send, was written. The raw transport is still open."""
        raise NotImplementedError

    def start(self, app: asyncio.BaseProtocol) -> None:
        """Give the connection to its application."""
        self._has_app = True
        self.set_protocol(app)
        app.connection_made(self)

    # --- protocol of the raw transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(SocketTransport, transport)

    def data_received(self, data: bytes) -> None:
        if (
            self._state != OPEN
            or self._get_buffer is not None
            or self._is_paused
            or self.has_close_notify
            or len(data) >= _MUCH
        ):
            self._other_data(data)
            return
        incoming = self._incoming
        incoming.write(data)
        size = len(data)
        try:
            # What a record holds is shorter than the record, so as much as was asked for means that there is more, of
            # one whose first part came before. To ask for RECORD would cost a large block of memory each time.
            record = self._recv(size)
            if record and len(record) < size and not incoming.pending:
                self._barren = 0
                if self._receiver is not None:
                    self._receiver.data_received(record)
                if self._outgoing.pending:
                    self._answer()
            else:
                self._read(record)
        except ssl.SSLError as error:
            self._barren += size
            self._no_data(error)
        except Exception as defect:  # confined to this connection
            self._defect("tls", defect)
            self.abort()

    def _other_data(self, data: bytes) -> None:
        if len(data) >= _MUCH and not self._raw.is_closing():
            self._raw.set_protocol(RecordReader(self, self._raw))
        self.records_received(data)

    def records_received(self, data: bytes | memoryview) -> None:
        """The same for any amount, in any state, and whatever the application is."""
        if self._kept:
            data = self._kept + data
            self._kept = b""
        try:
            for at in range(0, len(data), PIECE):
                if self._state == CLOSED or self.has_close_notify:
                    return  # RFC 8446 section 6.1: what follows close_notify is ignored
                if self._is_paused:
                    self._kept = bytes(data[at:])
                    return
                self._incoming.write(data[at : at + PIECE])
                self._barren += min(PIECE, len(data) - at)
                if self._state == OPEN:
                    self._read()
                else:
                    self._step()
        except Exception as error:  # as above
            self._defect("tls", error)
            self.abort()

    def eof_received(self) -> bool:
        if self._state == HANDSHAKE:
            self._handshake_failed(ConnectionResetError("closed during the handshake"))
        elif self._state == OPEN:
            self._end_of_input()
        return self._state != CLOSED

    def connection_lost(self, exc: Exception | None) -> None:
        was_in_handshake = self._state == HANDSHAKE
        self._state = CLOSED
        if was_in_handshake:
            self._handshake_failed(exc or ConnectionResetError("closed during the handshake"))
        error, self._error = self._error or exc, None  # its traceback knows this object
        if self._has_app:
            self._has_app = False
            self._app.connection_lost(error)
        self._kept = b""
        self._let_go()

    def _let_go(self) -> None:
        # Application and transport know each other, and OpenSSL's part is large: it must not wait for the collector.
        self._app = self._receiver = self._get_buffer = self._recv = self._send = None
        self.ssl_object = self._incoming = self._outgoing = cast(Any, None)

    def pause_writing(self) -> None:
        if self._has_app:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._has_app:
            self._app.resume_writing()

    # --- from OpenSSL to the application ----------------------------------------------------------------------------

    def _step(self) -> None:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ValueError) as error:  # ValueError: a certificate that the library can't decode
            self._flush()
            self._handshake_failed(error)
            return
        self._flush()
        self._state = OPEN
        self._barren = 0
        self._handshake_done()
        if self._state == OPEN and self._incoming.pending:
            self._read()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._has_fin:
            self.wire_written += len(data)
            self._raw.write(data)

    def _read(self, first: bytes | None = None) -> None:
        """Hand on what there is, until the application pauses or ends the connection. first: of what was read already,
        b"" for close_notify."""
        try:
            while self._state == OPEN and not self._is_paused and not self.has_close_notify:
                if self._get_buffer is not None and first is None:
                    self._read_into()
                else:
                    data = self._recv(RECORD) if first is None else first
                    first = None
                    if data and self._has_more():
                        data = self._read_more(data)
                    if data:
                        self._barren = 0
                        self._app.data_received(data)
                    else:
                        self._close_notify_received()
                if not self._has_more():
                    break
        except ssl.SSLError as error:
            self._no_data(error)
            return
        if self._outgoing.pending:
            self._answer()

    def _no_data(self, error: ssl.SSLError) -> None:
        """What a read says that gave no data."""
        if isinstance(error, ssl.SSLZeroReturnError):
            self._close_notify_received()
        elif not isinstance(error, ssl.SSLWantReadError):
            self._fail(error)
            return
        # Or a record is not complete, or what came was no data: a session ticket, a key update with its answer.
        if self._outgoing.pending:
            self._answer()
        if self._barren > BARREN_BYTES:
            self._fail(ConnectionAbortedError("the peer sends TLS records without data"))

    def _answer(self) -> None:
        """Send what OpenSSL says to a key update."""
        size = self._outgoing.pending
        self._answered = self._answered + size if self._raw.get_write_buffer_size() else size
        self._flush()
        if self._answered > ANSWER_BYTES:
            self._fail(ConnectionAbortedError("the peer does not take the answers to its TLS key updates"))

    def _has_more(self) -> bool:
        """Is something left to decode, or of a record to hand on?"""
        return bool(self._incoming.pending or self.ssl_object.pending())

    def _read_more(self, first: bytes) -> bytes:
        """The application gets large pieces: what several records hold, up to PIECE."""
        pieces = [first]
        size = len(first)
        try:
            while size < PIECE and self._has_more():
                data = self._recv(RECORD)
                if not data:
                    self._end_soon()
                    break
                pieces.append(data)
                size += len(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end_soon()
        return b"".join(pieces) if len(pieces) > 1 else first

    def _read_into(self) -> None:
        """The same for a BufferedProtocol."""
        buffer = self._get_buffer(-1)
        room, filled = len(buffer), 0
        try:
            while room - filled >= RECORD or not filled:
                count = self._recv(room - filled, buffer[filled:])
                if not count:
                    self._end_soon()
                    break
                filled += count
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            if not filled:
                raise
        except ssl.SSLZeroReturnError:
            self._end_soon()
        if filled:
            self._barren = 0
            self._app.buffer_updated(filled)

    def _close_notify_received(self) -> None:
        self.has_close_notify = True
        self._end_of_input()

    def _end_soon(self) -> None:
        """close_notify came (as no data; as an exception if ours is sent already) behind data to be handed on first."""
        self.has_close_notify = True
        self._loop.call_soon(self._close_notify_later)

    def _close_notify_later(self) -> None:
        if self._state == OPEN and not self._is_paused:
            self._end_of_input()

    def _end_of_input(self) -> None:
        """The peer's direction is over, by close_notify or by the FIN that follows it or comes alone."""
        if not self._is_eof:
            self._is_eof = True
            if not self._app.eof_received():
                self.close()

    def _fail(self, error: Exception) -> None:
        """A record that can't be what the peer sent: tell it, and end."""
        self._error = error
        self._flush()
        self.abort()

    # --- transport of the application -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state != OPEN or self._is_writing_ended or not data:
            return
        if len(data) > PIECE:
            self._write_long(memoryview(data))
            return
        try:
            self._send(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()

    def _write_long(self, data: memoryview) -> None:
        """In pieces for OpenSSL's buffer, and all of them in one system call."""
        records = []
        try:
            for at in range(0, len(data), PIECE):
                self._send(data[at : at + PIECE])
                records.append(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)
            return
        self.wire_written += sum(map(len, records))
        self._raw.writelines(records)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """End our direction: close_notify, then FIN. The other one goes on."""
        if self._state == OPEN and not self._is_writing_ended:
            self._send_close_notify()
            if not self._raw.is_closing():
                self._has_fin = True
                self._raw.write_eof()

    def expect_nothing(self) -> None:
        """See SocketTransport. The peer may say one thing more, its own close_notify."""

    def _send_close_notify(self) -> None:
        self._is_writing_ended = True
        with contextlib.suppress(ssl.SSLError, OSError):  # it is sent; the peer's own has not come yet
            self.ssl_object.unwrap()
        self._flush()

    def close(self) -> None:
        if self._state == CLOSED:
            return
        if self._state == OPEN and not self._is_writing_ended:
            self._send_close_notify()
        self._state = CLOSED
        self._raw.close()

    def abort(self) -> None:
        """End at once, without close_notify: the peer must be able to tell."""
        self._state = CLOSED
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._state == CLOSED or self._raw.is_closing()

    def read_at_most(self, size: int) -> None:
        """See SocketTransport."""
        self._raw.read_at_most(size)

    def stand_behind(self, *, is_behind: bool) -> None:
        """See SocketTransport."""
        self._raw.stand_behind(is_behind=is_behind)

    def pause_reading(self) -> None:
        self._is_paused = True
        if not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._go_on_reading)

    def watch_end(self, on_fin: Callable[[], None] | None) -> None:
        """See SocketTransport. A close_notify among what was not read can't be seen; the FIN behind it can."""
        self._raw.watch_end(on_fin)

    def _go_on_reading(self) -> None:
        if self._is_paused or self._state != OPEN:
            return
        if self.has_close_notify:
            self._end_of_input()
        elif self._has_more():
            self._read()
        if self._kept and not self._is_paused:
            self.records_received(b"")
        if self.is_reading():
            self._raw.resume_reading()

    @property
    def has_unread(self) -> bool:
        """Has something arrived that was not read yet, or an end?"""
        return bool(self._kept) or self._raw.has_unread

    def is_reading(self) -> bool:
        return not self._is_paused and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def taken(self, written: int) -> int:
        """See SocketTransport. In bytes of the connection: what TLS adds must not look like progress, or hide it."""
        return self.wire_written - self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app = protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._get_buffer = protocol.get_buffer
        else:
            self._get_buffer = None
            self._receiver = cast(Receiver, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self.ssl_object
        if name == "peercert" and self._state != CLOSED:
            return self.ssl_object.getpeercert()
        return self._raw.get_extra_info(name, default)


StreamTransport: TypeAlias = SocketTransport | TlsTransport
"""What a protocol of lbproxy can stand on; named, since compiled code calls a class that it knows directly."""
