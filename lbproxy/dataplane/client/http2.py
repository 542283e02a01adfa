"""A client's connection that speaks HTTP/2 (RFC 9113): many requests at once, each of which is a stream of its own.

    state      reads              leaves by
    OPEN       frames             GOAWAY with the last stream -> LEAVING; an error, a flood -> LINGER
    LEAVING    frames             its last stream -> LINGER
    LINGER     and discards       the client's FIN, 5 s of silence or 30 s in all
    CLOSED     nothing

What frames mean is the codec's (protocol/h2/connection.py), what a request is its stream's (http2_stream.py). Here is
what they share: the socket, whose turn it is to send, the deadlines of the connection, and how it ends. It is told of
its end in two steps (section 6.8): that no more is wanted, and a second later, or when the client has seen it, which
stream was the last one. What the client sent in between is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, cast

from lbproxy import errors
from lbproxy.dataplane.client.connection import HIGH_WATER, LINGER_IDLE_S, LINGER_TOTAL_S, NEVER
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.http2_heads import request_octets
from lbproxy.dataplane.client.http2_stream import Http2Stream, StreamOwner
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.forwarding import kept_identity
from lbproxy.dataplane.exchange.prepare import Prepared, prepare, rejected
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.room import Guest
from lbproxy.dataplane.runtime import JITTER, Http2Settings
from lbproxy.dataplane.services import abort
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import MAX_STREAM_ID, NO_ERROR, error_name
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.http1 import HeadError, line_too_long
from lbproxy.protocol.message import Field
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import GOAWAYS, LISTENER

log = ThrottledLog(logging.getLogger("lbproxy"))

OPEN: Final = 0
LEAVING: Final = 1
LINGER: Final = 2
CLOSED: Final = 3

STREAM_WINDOW: Final = 256 * 1024
"""Octets of a request's body that may wait here for its server."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""The same of all requests of a connection."""
MOST_UNTAKEN: Final = 256 * 1024
"""Octets written and not taken by the client. Beyond that it is not read: what it asks for would only add to them."""
DRAIN_S: Final = 1.0
"""From the first GOAWAY to the second, if the client does not show sooner that it has seen it."""
_FLOOD_LINGER_S: Final = 1.0
_DRAIN_PING: Final = b"lbproxy\0"
_GOAWAY: Final = {reason: LISTENER.column("h2_goaways_total", reason) for reason in GOAWAYS}
_EVICTED_IDLE: Final = LISTENER.column("client_connections_evicted_total", "idle")
_EVICTED_ANSWERED: Final = LISTENER.column("client_connections_evicted_total", "answered")
_REJECTED: Final = {
    fault.word: LISTENER.column("rejected_total", fault.reason)
    for fault in (errors.MALFORMED_STREAM, errors.H2_CONNECTION, errors.H2_FLOOD)
}


class _Codec(H2Connection):
    """Tells the connection what came."""

    def __init__(self, owner: Http2Connection, own: OwnSettings) -> None:
        super().__init__(True, own)
        self.owner: Http2Connection | None = owner

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        if self.owner is not None:
            self.owner.head_received(stream_id, head, is_end)

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        if self.owner is not None:
            self.owner.trailers_received(stream_id, fields)

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        if self.owner is not None:
            self.owner.body_received(stream_id, data, n_flow, is_end)

    def malformed(self, stream_id: int, why: str) -> None:
        if self.owner is not None:
            self.owner.malformed(stream_id, why)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self.owner is not None:
            self.owner.stream_reset(stream_id)

    def window_opened(self, stream_id: int) -> None:
        if self.owner is not None:
            self.owner.window_opened(stream_id)

    def ping_acknowledged(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.ping_acknowledged(data)

    def connection_failed(self, code: int, why: str) -> None:
        if self.owner is not None:
            self.owner.failed(code, why)

    def flooded(self, what: str) -> None:
        if self.owner is not None:
            self.owner.flooded()


class Http2Connection(Guest, StreamOwner):
    """See the module."""

    __slots__ = (
        "_age_at",
        "_codec",
        "_deadline",
        "_door",
        "_drain_at",
        "_facts",
        "_failure",
        "_goaway",
        "_idle_since",
        "_is_inside",
        "_is_paused",
        "_linger_end",
        "_ready",
        "_stalled",
        "_state",
        "_streams",
        "_taken",
        "_taken_at",
        "_unstarted",
        "_write_blocked",
        "_written",
    )

    def __init__(self, door: Door, facts: ClientFacts) -> None:
        self._door = door
        self._facts = facts
        self.services = door.services
        settings = facts.listener.http2 or Http2Settings()
        self.codec = self._codec = _Codec(
            self,
            OwnSettings(
                streams=settings.streams,
                head_bytes=facts.listener.head_bytes,
                headers=facts.listener.max_fields,
                stream_window=STREAM_WINDOW,
                connection_window=CONNECTION_WINDOW,
                resets=settings.resets[0],
                resets_period_s=settings.resets[1],
                control_frames=settings.control_frames[0],
                control_frames_period_s=settings.control_frames[1],
            ),
        )
        self._state = OPEN
        self._streams: dict[int, Http2Stream] = {}
        self._unstarted: Http2Stream | None = None  # of the last head: its body may be in the same read
        self._ready: deque[Http2Stream] = deque()  # may send, and wait for their turn
        self._stalled: dict[int, Http2Stream] = {}  # wait for a window
        self._is_inside = False  # of a read: what is said leaves when all of it was looked at
        self._is_paused = False
        self._write_blocked = False
        self._written = 0
        self._taken = 0
        self._taken_at = 0.0
        self._deadline = NEVER  # of silence: for the first request, within a frame, between requests
        self._idle_since = NEVER
        self._linger_end = NEVER
        self._age_at = NEVER
        self._drain_at = NEVER  # when the second GOAWAY is due
        self._goaway = ""  # why the first was sent
        self._failure: Fault | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """After a TLS handshake. The facts learn what the connection says of itself."""
        self._facts.connected(cast(StreamTransport, transport))
        self._begin(cast(StreamTransport, transport))

    def take_over(self, transport: StreamTransport, data: bytes) -> None:
        """A connection of a plain listener has begun with these octets, which are those of HTTP/2."""
        transport.set_protocol(self)
        self._begin(transport)
        self.data_received(data)

    def _begin(self, transport: StreamTransport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        now = self.services.clock()
        self._idle_since = now
        self._deadline = now + self._facts.listener.timeouts.request_head
        settings = self._facts.listener.http2
        if settings is not None and settings.max_age_s != NEVER:
            self._age_at = now + settings.max_age_s * (1.0 - JITTER * self._chance())
        self.services.swept.add(self)
        if self.services.is_draining:
            self.begin_drain(now)
        self._flush()

    def _chance(self) -> float:
        """0 to 1, so that connections that began together do not end together."""
        return int(self.services.next_request_id()[0][:4], 16) / 65536

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave(errors.CLIENT_ABORT)

    def eof_received(self) -> bool:
        """The client has left: without its window updates there would be no end of an answer."""
        self._leave_streams(self._failure or errors.CLIENT_ABORT)
        return False

    def _leave(self, fault: Fault) -> None:
        if self._state == CLOSED:
            return
        self._state = CLOSED
        self.services.swept.discard(self)
        self._door.connection_closed(self._facts.peer_ip)
        self._leave_streams(fault)
        self._codec.owner = None  # which knows this object

    def _leave_streams(self, fault: Fault) -> None:
        for stream in list(self._streams.values()):
            try:
                stream.connection_lost(fault)
            except Exception as error:  # a defect: the others must hear of it all the same
                self.services.internal_error("downstream", error)
        self._streams.clear()
        self._ready.clear()
        self._stalled.clear()
        self._unstarted = None

    def comes_through(self, door: Door) -> bool:
        """Was it accepted there?"""
        return self._door is door

    # --- what comes -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = self.services.clock()
        if self._state >= LINGER:
            if self._failure is not errors.H2_FLOOD:
                self._deadline = min(now + LINGER_IDLE_S, self._linger_end)
            return
        self._is_inside = True
        try:
            self.codec.received(data, now)
            if self._unstarted is not None:
                self._start()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
        self._is_inside = False
        if self._state < LINGER:
            self._set_deadline(now)
            self._pump()
        self._flush()

    def _defect(self, error: Exception) -> None:
        self.services.internal_error("downstream", error)
        self._leave_streams(errors.INTERNAL_ERROR)
        abort(self.transport)
        self._leave(errors.INTERNAL_ERROR)

    def _set_deadline(self, now: float) -> None:
        """How long the client may be silent from here."""
        timeouts = self._facts.listener.timeouts
        begun = self.codec.data_begun
        if begun:
            stream = self._streams.get(begun)
            if stream is not None:
                stream.is_coming(now)
            self._deadline = now + timeouts.request_body
            self._idle_since = NEVER
        elif not self.codec.is_between:
            if self._deadline == NEVER or self._idle_since != NEVER:
                self._deadline = now + timeouts.request_head
                self._idle_since = NEVER
        elif self._streams:
            self._deadline = self._idle_since = NEVER
        elif self._idle_since == NEVER:
            self._idle_since = now
            self._deadline = now + timeouts.keep_alive

    # --- the codec's calls ------------------------------------------------------------------------------------------

    def head_received(self, number: int, head: H2Head, is_end: bool) -> None:
        """A request."""
        if self._unstarted is not None:
            self._start()
        if self._facts.listener is not self._door.runtime:
            self._facts = self._facts.renewed(self._door.runtime, self.transport)
        facts = self._facts
        stream = Http2Stream(self, number, facts, is_end=is_end)
        self._streams[number] = stream
        self._door.n_streams += 1
        services = self.services
        raw = request_octets(head, is_end=is_end)
        prepared = self._prepared(raw, head)
        if prepared.dropped:
            for column, count in prepared.dropped:
                services.row[column] += count
        identity: tuple[str, bytes] | None = None
        address = facts.address
        if facts.is_trusted:
            known = prepared.head.forwarding
            identity = kept_identity(known)
            address = facts.address_behind(known)
        exchange = stream.begin(prepared, identity or services.next_request_id(), address, services.clock())
        if facts.subject:
            exchange.log_head = facts.listener.log_format.with_subject(prepared.log_head, facts.subject)
        if is_end:
            stream.start(is_end=True)
        else:
            self._unstarted = stream

    def _prepared(self, raw: bytes, head: H2Head) -> Prepared:
        facts = self._facts
        listener = facts.listener
        memo = self._door.http2_memo_trusted if facts.is_trusted else self._door.http2_memo
        prepared = memo.find(raw)
        if prepared is not None and not self.is_misdirected(prepared.head.host):
            return prepared
        try:
            if head.excess:
                raise HeadError(errors.HEADER_TOO_LARGE, head.excess)
            if raw.find(b"\r\n") > listener.line_bytes:
                raise line_too_long(listener.line_bytes)
            prepared = prepare(
                listener,
                raw,
                is_trusted=facts.is_trusted,
                log_format=listener.log_format if self.services.access_writer is not None else None,
                local_host=facts.local_host,
                is_http2=True,
            )
            if self.is_misdirected(prepared.head.host):
                raise HeadError(errors.MISDIRECTED, "the connection was made for another name")
        except HeadError as error:
            return rejected(listener, raw, error, listener.log_format, is_http2=True)
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
        trailers = [(field.name, field.value) for field in fields]
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
        if data == _DRAIN_PING and self._drain_at != NEVER:
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
        listener.row[_GOAWAY[reason]] += 1
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

    # --- sending (StreamOwner) --------------------------------------------------------------------------------------

    def may_send(self) -> bool:
        if self.codec.n_output >= HIGH_WATER:
            self._flush()
        return not self._write_blocked and self._state < LINGER

    def written(self) -> None:
        if not self._is_inside:
            self._flush()

    def _flush(self) -> None:
        data = self.codec.take_output()
        if data:
            self._written += len(data)
            self.transport.write(data)
            if self._write_blocked and not self._is_paused and self._n_untaken() > MOST_UNTAKEN:
                self._pause()

    def _n_untaken(self) -> int:
        return self.transport.get_write_buffer_size()

    def has_unsent(self, stream: Http2Stream, *, is_stalled: bool) -> None:
        if stream.is_queued:
            return
        stream.is_queued = True
        if is_stalled:
            self._stalled[stream.number] = stream
        else:
            self._ready.append(stream)

    def stream_over(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.number, None) is not None:
            self._door.n_streams -= 1
        self._stalled.pop(stream.number, None)
        if stream is self._unstarted:
            self._unstarted = None
        if not self._streams and not self._is_inside:
            self._set_deadline(self.services.clock())
        if not self._streams and self._state == LEAVING:
            self._linger()

    def _pump(self) -> None:
        """A frame of each stream that has something to send, and again, while the socket takes it."""
        ready = self._ready
        while ready and self.may_send():
            stream = ready.popleft()
            try:
                has_moved = stream.send_some()
            except Exception as error:  # a defect: confined to this request
                stream.broke(error)
                continue
            if not stream.n_unsent:
                stream.is_queued = False
            elif has_moved:
                ready.append(stream)
            else:
                self._stalled[stream.number] = stream

    def pause_writing(self) -> None:
        self._write_blocked = True

    def resume_writing(self) -> None:
        self._write_blocked = False
        if self._is_paused:
            self._is_paused = False
            if self._state < LINGER:
                self._idle_since = NEVER
                self._set_deadline(self.services.clock())
            if not self.transport.is_closing():
                self.transport.resume_reading()
        self._pump()
        self._flush()

    def _pause(self) -> None:
        """Read nothing more of a client that does not take what it is sent."""
        if not self.transport.is_closing():
            self._is_paused = True
            self._deadline = NEVER  # until it is read again `timeouts.write` bounds it
            self.transport.pause_reading()
            self.transport.watch_end(self._hung_up)

    def _hung_up(self) -> None:
        self._leave_streams(errors.CLIENT_ABORT)
        self.transport.close()

    # --- what time does ---------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        self._check_write(now)
        for stream in list(self._streams.values()):
            try:
                stream.sweep(now)
            except Exception as error:  # a defect: confined to this request
                stream.broke(error)
        if now >= self._drain_at:
            self._say_last()
        if now >= self._age_at:
            self._age_at = NEVER
            self._go_away("max_age", now)
        if now >= self._deadline:
            self._deadline_passed()
        if self._state != CLOSED:
            self._pump()
            self._flush()

    def _check_write(self, now: float) -> None:
        """A client that takes nothing at all, on any stream, is reset after `timeouts.write`."""
        if self._state == CLOSED:
            return
        unsent = self._n_untaken()
        taken = self.transport.taken(self._written)
        if not unsent or taken != self._taken:
            self._taken = taken
            self._taken_at = now
        elif now - self._taken_at >= self._facts.listener.timeouts.write:
            for stream in list(self._streams.values()):
                stream.connection_lost(errors.CLIENT_WRITE_TIMEOUT)
            abort(self.transport)
            self._leave(errors.CLIENT_WRITE_TIMEOUT)

    def _deadline_passed(self) -> None:
        self._deadline = NEVER
        if self._state == LINGER:
            self.transport.abort()
        elif self._state != CLOSED:
            self._end("idle" if self._idle_since != NEVER and self.codec.last_peer_stream else "timeout")

    # --- its end ----------------------------------------------------------------------------------------------------

    def _go_away(self, reason: str, now: float) -> None:
        """No more requests are wanted, though those that are on their way are served."""
        if self._goaway or self._state != OPEN:
            return
        self._goaway = reason
        self._facts.listener.row[_GOAWAY[reason]] += 1
        self.codec.goaway(MAX_STREAM_ID, NO_ERROR, reason.encode())
        self.codec.ping(_DRAIN_PING)
        self._drain_at = now + DRAIN_S
        self.written()

    def _say_last(self) -> None:
        """Which request was the last one: the client may repeat others elsewhere."""
        self._drain_at = NEVER
        if self._state != OPEN:
            return
        self._state = LEAVING
        self.codec.goaway(self.codec.last_peer_stream, NO_ERROR, self._goaway.encode())
        if not self._streams:
            self._linger()
        self.written()

    def _end(self, reason: str) -> None:
        """At once: nothing is under way, or what is will not be missed."""
        if not self._goaway:
            self._goaway = reason
            self._facts.listener.row[_GOAWAY[reason]] += 1
        self._leave_streams(errors.CLIENT_ABORT)
        self.codec.goaway(self.codec.last_peer_stream, NO_ERROR, reason.encode())
        self._linger()

    def _linger(self) -> None:
        """FIN now, and discard what comes until the client's, so that it can read what it was sent."""
        self._state = LINGER
        self._flush()
        now = self.services.clock()
        self._linger_end = now + LINGER_TOTAL_S
        self._idle_since = now
        self._deadline = now + (_FLOOD_LINGER_S if self._failure is errors.H2_FLOOD else LINGER_IDLE_S)
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    # --- making way for others (room.py) ----------------------------------------------------------------------------

    def idle_since(self) -> float:
        if self._streams or (self._state < LINGER and not self.codec.is_between) or self._n_untaken():
            return NEVER
        return self._idle_since

    def makes_way(self) -> bool:
        if self._state == LINGER:
            self.transport.abort()
        elif self._state == CLOSED or self._streams or self.transport.has_unread:
            return False
        else:
            self._end("room")
            self.transport.close()
        self._facts.listener.row[_EVICTED_IDLE] += 1
        return True

    def closes_after_answer(self) -> bool:
        if self._state != OPEN or self._goaway or not self._streams:
            return False
        self._go_away("room", self.services.clock())
        self._facts.listener.row[_EVICTED_ANSWERED] += 1
        return True

    def buffered_bytes(self) -> int:
        if self._state == CLOSED:
            return 0
        size = self._n_untaken() + self.codec.n_output
        for stream in self._streams.values():
            size += stream.buffered_bytes()
        return size

    # --- stopping ---------------------------------------------------------------------------------------------------

    def begin_drain(self, now: float) -> None:
        """Stopping: what is under way is served, and what may be on its way."""
        self._go_away("stop", now)

    def end_with_answer(self, now: float) -> None:
        """Its listener is no more."""
        self._go_away("stop", now)

    def shut_down(self) -> None:
        """The grace period is over: 503 where nothing was sent yet, a reset where something was."""
        for stream in list(self._streams.values()):
            if stream.shut_down():
                self.services.n_cut += 1
        if self._state < LINGER:
            self._end("stop")
        if self._state != CLOSED:
            self.transport.close()
