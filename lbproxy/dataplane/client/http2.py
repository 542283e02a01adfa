"""What a client's connection of HTTP/2 reads: frames, by way of its codec, and what follows for its streams."""

from __future__ import annotations

import logging
from typing import Final

from lbproxy import errors
from lbproxy.dataplane.client.connection import LINGER_IDLE_S, NEVER
from lbproxy.dataplane.client.http2_connection import DRAIN_PING, GOAWAY, LINGER
from lbproxy.dataplane.client.http2_heads import connect_octets, request_octets
from lbproxy.dataplane.client.http2_stream import Http2Stream
from lbproxy.dataplane.client.http2_timed import TimedHttp2
from lbproxy.dataplane.client.http2_tunnel import ConnectStream
from lbproxy.dataplane.exchange.forwarding import kept_identity
from lbproxy.dataplane.exchange.prepare import prepare, rejected
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.template import Template
from lbproxy.dataplane.net.read_turns import FEW
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.protocol.h2.codes import error_name
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head, trailers_of
from lbproxy.protocol.h2.tail import Tail
from lbproxy.protocol.http1 import HeadError, line_too_long
from lbproxy.protocol.message import Field
from lbproxy.protocol.upgrade import WEBSOCKET
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import LISTENER

_MOST_TEMPLATES: Final = 32
log = ThrottledLog(logging.getLogger("lbproxy"))

_REJECTED: Final = {
    fault.word: LISTENER.column("rejected_total", fault.reason)
    for fault in (errors.MALFORMED_STREAM, errors.H2_CONNECTION, errors.H2_FLOOD)
}


class Http2Connection(TimedHttp2):
    """See the module."""

    __slots__ = ()

    def take_over(self, transport: StreamTransport, data: bytes) -> None:
        """A connection of a plain listener has begun with these octets, which are those of HTTP/2."""
        transport.set_protocol(self)
        self._begin(transport)
        self.data_received(data)

    # --- what comes -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = self.services.clock()
        if self._state >= LINGER:
            if self._failure is not errors.H2_FLOOD:
                self._deadline = min(now + LINGER_IDLE_S, self._linger_end)
            return
        codec = self._codec
        if self._is_behind and now >= self._behind_until:
            self._stand_behind(is_behind=False)
        self._is_inside = True
        self._now = now
        try:
            codec.n_left = self._turns.units(now)
            codec.received(data, now)
            if self._unstarted is not None:
                self._start()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
        self._is_inside = False
        if self._state < LINGER:
            if codec.n_waiting and not self._is_waiting:
                self._wait()
            self._have_read(now)

    def take_turn(self) -> bool:
        if self._state >= LINGER or not self._is_waiting:
            return False
        codec = self._codec
        self._is_inside = True
        try:
            codec.n_left = FEW
            codec.go_on()
            if self._unstarted is not None:
                self._start()
        except Exception as error:  # as above
            self._defect(error)
        self._is_inside = False
        if self._state >= LINGER:
            return False
        has_more = codec.n_waiting > 0
        if not has_more:
            self._end_wait()
        self._have_read(self.services.clock())
        return has_more and self._is_waiting

    def _have_read(self, now: float) -> None:
        """What came was looked at; what follows from it leaves."""
        if self._state < LINGER:
            self._set_deadline(now)
            if self._ready:
                self._pump()
            if self.codec.n_output:
                self.written()

    # --- the codec's calls ------------------------------------------------------------------------------------------

    def head_received(self, number: int, head: H2Head, is_end: bool) -> None:
        """A request."""
        self._make_ready()
        facts = self._facts
        if len(head.protocol):
            stream: Http2Stream = ConnectStream(self, number, facts, is_end=is_end)
            raw = connect_octets(head)
            is_end = True  # of the request; what comes behind it is no body
        else:
            stream = Http2Stream(self, number, facts, is_end=is_end)
            raw = request_octets(head, is_end=is_end)
        self._began(number, stream, self._prepared(raw, head), is_end=is_end)

    def tail_received(self, number: int, tail: Tail, is_end: bool) -> None:
        """A request of which all but the tail came before."""
        front = tail.front
        if len(front.protocol):
            self.head_received(number, tail.head(), is_end)
            return
        self._make_ready()
        prepared = self._from_template(tail, is_end=is_end)
        if prepared is None:
            head = tail.head()
            prepared = self._prepared(request_octets(head, is_end=is_end), head)
        self._began(number, Http2Stream(self, number, self._facts, is_end=is_end), prepared, is_end=is_end)

    def _make_ready(self) -> None:
        """For a new request: the one before begins, under the settings of its time."""
        if self._unstarted is not None:
            self._start()
        if self._facts.listener is not self._door.runtime:
            self._facts = self._facts.renewed(self._door.runtime, self.transport)
            self._templates.clear()
            self._last_template = None

    def _began(self, number: int, stream: Http2Stream, prepared: Prepared, *, is_end: bool) -> None:
        """A request has begun."""
        facts = self._facts
        services = self.services
        self._streams.put(number, stream)
        self._door.n_streams += 1
        if len(prepared.dropped):
            for column, count in prepared.dropped:
                services.row[column] += count
        identity: tuple[str, bytes] | None = None
        address = facts.address
        if facts.is_trusted:
            known = prepared.meaning.forwarding
            identity = kept_identity(known)
            address = facts.address_behind(known)
        exchange = stream.begin(prepared, identity or services.next_request_id(), address, self._now)
        if facts.subject:
            exchange.log_head = facts.listener.log_format.with_subject(prepared.log_head, facts.subject)
        if self._is_crowded:
            exchange.reads_at_most = self._share()
        if self._is_behind:
            exchange.stands_behind = True
        if is_end:
            stream.start(is_end=True)
        else:
            self._unstarted = stream

    def _from_template(self, tail: Tail, *, is_end: bool) -> Prepared | None:
        """What is made of a head of which all but the tail came before; None where that may be more."""
        front = tail.front
        template = self._last_template
        if template is None or template.front is not front:
            template = self._templates.get(front)
            if template is None:
                facts = self._facts
                prepared = self._prepared(request_octets(front, is_end=is_end), front)
                template = Template(front, prepared, facts.listener, len(front.fields), is_trusted=facts.is_trusted)
                if len(self._templates) >= _MOST_TEMPLATES:
                    self._templates.clear()
                self._templates[front] = template
            self._last_template = template
        return None if self.is_misdirected(template.prepared.meaning.host) else template.followed_by(tail)

    def _prepared(self, raw: bytes, head: H2Head) -> Prepared:
        facts = self._facts
        listener = facts.listener
        memo = self._door.http2_memo_trusted if facts.is_trusted else self._door.http2_memo
        prepared = memo.find(raw) if not head.secrets else None  # which are no part of these octets
        if prepared is not None and not self.is_misdirected(prepared.meaning.host):
            return prepared
        try:
            if head.excess:
                self._suspect()
                raise HeadError(errors.HEADER_TOO_LARGE, head.excess)
            if raw.find(b"\r\n") > listener.line_bytes:
                raise line_too_long(listener.line_bytes)
            if head.protocol not in (b"", WEBSOCKET):
                raise HeadError(errors.CONNECT_PROTOCOL, f":protocol is {head.protocol[:40].decode()!r}")
            prepared = prepare(
                listener,
                raw,
                is_trusted=facts.is_trusted,
                log_format=listener.log_format if self.services.access_writer is not None else None,
                local_host=facts.local_host,
                is_http2=True,
            )
            if self.is_misdirected(prepared.meaning.host):
                raise HeadError(errors.MISDIRECTED, "the connection was made for another name")
        except HeadError as error:
            return rejected(listener, raw, error, listener.log_format, is_http2=True)
        if head.secrets:
            prepared.meaning.secrets = head.secrets
        else:
            memo.learn(raw, len(raw), prepared)
        return prepared

    @property
    def is_trusted(self) -> bool:
        """Are the peer's forwarding fields believed?"""
        return self._facts.is_trusted

    def is_misdirected(self, host: str) -> bool:
        """Is a request for that host on the wrong connection, which shows another one's certificate?"""
        return False

    def _start(self) -> None:
        stream, self._unstarted = self._unstarted, None
        if stream is not None:
            try:
                stream.start(is_end=False)
            except Exception as error:  # a defect: confined to this request
                stream.broke(error)

    def body_received(self, number: int, data: bytes, n_flow: int, is_end: bool) -> None:
        """DATA."""
        if self._reads_little and data:
            self._body_came()
        stream = self._streams.get(number)
        if stream is None:
            self.codec.consumed(number, n_flow)
            return
        self._give(stream, data, n_flow, is_end, ())

    def trailers_received(self, number: int, fields: list[H2Field]) -> None:
        """The fields behind a request's body, and its end."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if isinstance(stream, ConnectStream):
            self.codec.misused(number, "trailers on a stream of CONNECT")  # RFC 9113 section 8.5
            return
        trailers = trailers_of(fields)
        size = sum([len(name) + len(value) + 4 for name, value in trailers])
        if size > self._facts.listener.trailer_bytes:
            stream.refuse(errors.TRAILER_TOO_LARGE, "the trailer section is too long")
        else:
            self._give(stream, b"", 0, True, trailers)

    def _give(
        self, stream: Http2Stream, data: bytes, n_flow: int, is_end: bool, trailers: tuple[Field, ...] | list[Field]
    ) -> None:
        if stream is self._unstarted:
            self._unstarted = None
        try:
            stream.data_received(data, n_flow, is_end=is_end, trailers=trailers)
        except Exception as error:  # a defect: confined to this request
            stream.broke(error)

    def malformed(self, number: int, why: str) -> None:
        """The codec resets the stream; nothing of it goes on."""
        self._suspect()
        listener = self._facts.listener
        listener.row[_REJECTED[errors.MALFORMED_STREAM.word]] += 1
        log.log(
            logging.INFO,
            f"{listener.name} malformed",
            "listener %s: a malformed HTTP/2 request from %s was refused: %s",
            listener.name,
            self._facts.address,
            why,
        )
        stream = self._streams.get(number)
        if stream is not None:
            stream.connection_lost(errors.MALFORMED_STREAM)

    def stream_reset(self, number: int) -> None:
        """RST_STREAM."""
        stream = self._streams.get(number)
        if stream is not None:
            if stream is self._unstarted:
                self._start()  # so that it is counted and logged as any request that its client gave up
            stream.client_reset()

    def window_opened(self, number: int) -> None:
        """Streams that were stalled may have a window now. 0: all of them."""
        if number:
            stream = self._stalled.pop(number, None)
            if stream is not None:
                self._ready.append(stream)
        elif self._stalled:
            self._ready.extend(self._stalled.values())
            self._stalled.clear()

    def ping_acknowledged(self, data: bytes) -> None:
        """The client has seen the first GOAWAY, if that was what the PING was behind."""
        if data == DRAIN_PING and self._drain_at != NEVER:
            self._say_last()

    def flooded(self) -> None:
        """Over one of limits.h2; `failed` follows."""
        self._failure = errors.H2_FLOOD

    def failed(self, code: int, why: str) -> None:
        """The connection can't go on; its GOAWAY is written."""
        if self._state >= LINGER:
            return
        listener = self._facts.listener
        fault = self._failure = self._failure or errors.H2_CONNECTION
        reason = "flood" if fault is errors.H2_FLOOD else "error"
        listener.row[GOAWAY[reason]] += 1
        log.log(
            logging.INFO,
            f"{listener.name} {reason}",
            "listener %s: an HTTP/2 connection from %s was ended: %s, %s",
            listener.name,
            self._facts.address,
            error_name(code),
            why,
        )
        listener.row[_REJECTED[fault.word]] += 1
        self._leave_streams(fault)
        self._linger()
