"""A connection to a server of HTTP/2: its life, what its end means for its streams, and how they share it.

    OPEN       takes streams, as many as the server allows; until it says that, as many as it allowed last time, or one
    DRAINING   takes no more (GOAWAY, its age, its number of requests, its server has gone), and ends with the last one
    ENDED      nothing

Streams of which the server says that it has not processed them go elsewhere, whatever their method. When the
connection dies, the others are judged as requests on a connection of HTTP/1 are.

One read may hold hundreds of answers, or thousands of frames of a server that means ill, while clients of other pools
wait. So it is looked at in turns (net/read_turns.py), and nothing more is read until all of it was.
"""

from __future__ import annotations

import logging
import select
import ssl
from collections.abc import Sequence
from typing import Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.counters import UPSTREAM_LOOKUPS, count_lookups
from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.net.last_bytes import read_what_is_left
from lbproxy.dataplane.net.read_turns import ANSWERS
from lbproxy.dataplane.net.tls_transport import StreamTransport, TlsTransport
from lbproxy.dataplane.net.turn_end import Writer
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.connection import acknowledged
from lbproxy.dataplane.server.http2_stream import FRAME, Carrier, Http2Stream
from lbproxy.dataplane.server.http2_tunnel import ConnectStream
from lbproxy.dataplane.server.tls import tls_fault
from lbproxy.dataplane.services import Services, abort
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import CANCEL, ENHANCE_YOUR_CALM, NO_ERROR, REFUSED_STREAM, error_name
from lbproxy.protocol.h2.fields import NO_FIELDS, H2Field
from lbproxy.protocol.h2.head import H2Head, trailers_of
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.h2.stream_table import StreamTable
from lbproxy.protocol.message import Field

log = logging.getLogger("lbproxy")

MOST_STREAMS: Final = 256
"""On one connection, if the server allows more, or any number."""
HIGH_WATER: Final = 64 * 1024
MOST_UNREAD: Final = 512 * 1024
"""Octets that may wait for a server that does not read: no body is among them, but heads, and answers to its PINGs."""
PONG_S: Final = 10.0
# gRPC's servers end a connection on the third PING within five minutes of another, while they send nothing themselves.
PINGS_AT_ONCE: Final = 3
PINGS_APART_S: Final = 310.0
_PING: Final = b"lbproxy?"
_POLL_EVENTS: Final = select.POLLRDHUP
_NEVER: Final = float("inf")


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class Http2Owner:
    """Whose connections they are, as they know it."""

    __slots__ = ()

    def has_waiting(self) -> bool:
        """Does somebody wait for room?"""
        raise NotImplementedError

    def room_changed(self, connection: Http2Connection) -> None:
        """It may take more streams than before, or the server has said how many."""
        raise NotImplementedError

    def connection_over(self, connection: Http2Connection) -> None:
        """It takes no more streams, or has ended."""
        raise NotImplementedError


class Http2Connection(Carrier):
    """See the module. Times are monotonic seconds."""

    def __init__(self, services: Services, runtime: ServerRuntime, owner: Http2Owner, *, expected: int) -> None:
        """expected: how many streams the server allowed last time; 0 if that is not known."""
        pool = runtime.pool
        own = OwnSettings(head_bytes=pool.head_bytes, headers=pool.max_fields, resets=0)
        super().__init__(own, runtime, b"http" if pool.tls is None else b"https")
        self.services = services
        self._owner: Http2Owner | None = owner
        self._expected = expected
        self._transport: StreamTransport | None = None
        self._poller = select.poll()
        self.streams: StreamTable[Http2Stream] = StreamTable()
        self._waiting: dict[int, Http2Stream] = {}  # that have more to send, in turn
        self.is_draining = False
        self.has_ended = False
        self.was_answered = False
        self._is_counted = False
        self._turns = services.read_turns
        self._is_put_off = False  # it waits for its turn to be read on; nothing more is read meanwhile
        self._is_over = False  # what was read is all that there is, and is looked at whoever waits
        self._turn_end = services.poller.turn_end
        self._outlet = _Outlet(self)
        self._is_due = False  # the end of the turn will be told
        self.created_at = self.idle_since = self.now = services.clock()
        self._heard_at = self._silent_since = self.now
        self._max_requests = self._retires_at = _NEVER
        self._pinged_at = 0.0  # while an answer is waited for
        self._n_pings = 0  # since something else came
        self._why = ""  # it failed
        self._last_trailer_fields = NO_FIELDS  # the last, and how they go on
        self._last_trailers: list[Field] = []
        self._lookups = self.lookups()  # that were counted

    # --- room ---------------------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Streams that may be open at once."""
        if self.peer.is_known:
            return min(self.peer.max_concurrent_streams, MOST_STREAMS)
        return self._expected or 1

    def has_room(self) -> bool:
        """May one more stream begin here?"""
        return (
            not self.is_draining
            and not self.has_ended
            and not self.is_failed
            and not self.is_blocked
            and self.streams.count < self.capacity
            and (self.streams.count > 0 or not self._poller.poll(0))
        )

    def begin(self, sink: AnswerSink, now: float, *, is_tunnel: bool = False) -> bool:
        """Open a stream for somebody. False if there is none, after all. is_tunnel: for a WebSocket."""
        number = self.open_stream()
        if not number:
            self.drain()
            return False
        stream = ConnectStream(self, number, self.services) if is_tunnel else Http2Stream(self, number)
        self.streams.put(number, stream)
        if self.streams.count == 1:
            self._silent_since = now
        if self.n_requests + 1 >= self._max_requests:
            self.drain()
        sink.opened(stream, now)
        return True

    # --- Carrier ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """What is said in a turn leaves in one write at its end, and so in one record of TLS, unless it is much.

        What waits for that when the connection dies has not left, and its requests go elsewhere.
        """
        if self.n_output >= HIGH_WATER:
            self._write()
        elif self.n_output and not self._is_due:
            self._is_due = True
            self._turn_end.add(self._outlet)

    def turn_ended(self) -> None:
        """What waits leaves."""
        self._is_due = False
        self._write()

    def _write(self) -> None:
        transport = self._transport
        if not self.n_output or transport is None or transport.is_closing():
            return
        data = self.take_output()
        self.n_written += len(data)
        transport.write(data)

    def wait_for_room(self, stream: Http2Stream) -> None:
        self._waiting[stream.stream_id] = stream

    def forget(self, stream: Http2Stream) -> None:
        if self._waiting:
            self._waiting.pop(stream.stream_id, None)
        if self.streams.pop(stream.stream_id) is None or self.has_ended:
            return
        if not self.streams.count:
            self.idle_since = self.services.clock()
            if self.is_draining or self._is_surplus():
                self.services.loop.call_soon(self.close_if_idle)
                return
        owner = self._owner
        if owner is not None and not self.is_draining and owner.has_waiting():
            # Not from here: who lets go of a stream may be in the middle of something.
            self.services.loop.call_soon(owner.room_changed, self)

    def abandon(self, stream: Http2Stream) -> None:
        self._forget(stream.stream_id)
        self.forget(stream)

    def wire_written(self) -> int:
        transport = self._transport
        return transport.wire_written if isinstance(transport, TlsTransport) else self.n_written

    def _is_surplus(self) -> bool:
        return self.runtime.pool.keep_alive is None

    def _pump(self) -> None:
        """Whoever has something to send does, a frame each in turn, as far as the windows and the kernel allow."""
        done: list[Http2Stream] = []
        is_moving = True
        while self._waiting and is_moving and not self.is_blocked:
            is_moving = False
            for stream in list(self._waiting.values()):
                before = stream.taken_bytes()
                if stream.send_some(FRAME) and not stream.unsent_bytes():
                    self._waiting.pop(stream.stream_id, None)
                    done.append(stream)
                if stream.taken_bytes() != before:
                    is_moving = True
                if self.n_output >= HIGH_WATER:
                    self._write()
                    if self.is_blocked:
                        break
        self.flush()
        for stream in done:
            stream.room_came()

    # --- from the transport -------------------------------------------------------------------------------------------

    def connected(self, transport: StreamTransport) -> None:
        """It stands."""
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._poller.register(transport.get_extra_info("socket").fileno(), _POLL_EVENTS)
        self.created_at = self.idle_since = self._heard_at = self._silent_since = self.now = self.services.clock()
        settings = self.runtime.pool.keep_alive
        if settings is not None and settings.is_limited:
            self._max_requests, age_s = settings.limits_of_one(self.runtime.pool.rng)
            self._retires_at = self.created_at + age_s
        self._is_counted = True
        self.runtime.n_connections += 1
        self.flush()

    def octets_came(self, data: bytes) -> None:
        """A read."""
        if self.has_ended:
            return
        self.now = self._heard_at = self._silent_since = self.services.clock()
        self._pinged_at = 0.0
        if not self.peer.is_known and data.startswith(b"HTTP/1."):
            self._why = "it speaks HTTP/1 there"
        self.n_left = self._turns.answers(self.now)
        self.received(data, self.now)
        self._have_read()
        if self.n_waiting:
            self._put_off()

    def has_turn(self) -> bool:
        """See H2Control. What follows from what was read is most of the work."""
        self._deliver()
        if self._is_over:
            return super().has_turn()
        self.n_left = self._turns.more_answers()
        return self.n_left > 0

    def _put_off(self) -> None:
        transport = self._transport  # None: it has ended
        if transport is not None and not self._is_put_off and not self._is_over:
            self._is_put_off = True
            transport.pause_reading()
            self._turns.wait(self.take_turn)

    def take_turn(self) -> bool:
        """Look at more of what was read. True: there is more."""
        if self.has_ended or not self._is_put_off:
            return False
        self.now = self.services.clock()
        self.n_left = ANSWERS
        self.go_on()
        self._have_read()
        if self.n_waiting:
            return not self.has_ended
        self._is_put_off = False
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()
        return False

    def _have_read(self) -> None:
        """What came was looked at; what follows from it leaves."""
        self._deliver()
        if self._waiting:
            self._pump()
        if self.is_failed:
            self._end_failed()
        else:
            self.flush()
            if self.is_blocked and self._unread() + self.n_output > MOST_UNREAD:
                self.break_off(errors.H2_PROTOCOL, "it does not take what it asks for")

    def _deliver(self) -> None:
        touched = self.touched
        while touched:
            streams = touched[:]
            touched.clear()
            for stream in streams:
                try:
                    stream.deliver()
                except Exception as error:  # a defect: confined to this request
                    self._defect(error, stream)

    def _unread(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _defect(self, error: Exception, stream: Http2Stream) -> None:
        self.services.internal_error("http2 upstream", error)
        self.reset(stream.stream_id, CANCEL)
        stream.fail(errors.INTERNAL_ERROR, "internal error")

    def blocked(self) -> None:
        """The kernel takes no more."""
        self.is_blocked = True

    def unblocked(self) -> None:
        """It takes more again."""
        self.is_blocked = False
        self._pump()
        if self._owner is not None and not self.is_draining and not self.has_ended:
            self._owner.room_changed(self)

    # --- from the codec -----------------------------------------------------------------------------------------------

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        self._n_pings = 0
        self.was_answered = True
        stream = self.streams.get(stream_id)
        if stream is not None:
            try:
                stream.head_came(head, is_end)
            except Exception as error:  # a defect: confined to this request
                self._defect(error, stream)

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        self._n_pings = 0
        stream = self.streams.get(stream_id)
        if stream is None:
            self.consumed(stream_id, n_flow)
        else:
            stream.data_came(data, n_flow, is_end)

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            if fields is not self._last_trailer_fields:  # the codec gives equal ones as the same object
                self._last_trailer_fields = fields
                self._last_trailers = trailers_of(fields)
            stream.trailers_came(self._last_trailers)

    def malformed(self, stream_id: int, why: str) -> None:
        self._fail_stream(stream_id, errors.BAD_RESPONSE, why)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if code == REFUSED_STREAM:
            stream = self.streams.get(stream_id)
            if stream is not None and not stream.has_head:
                self._fail_stream(stream_id, errors.REFUSED_STREAM, "refused (REFUSED_STREAM)")
                return
        fault = errors.STREAM_CANCELLED if code in (CANCEL, NO_ERROR) else errors.STREAM_RESET
        self._fail_stream(stream_id, fault, f"RST_STREAM with {error_name(code)}")

    def window_opened(self, stream_id: int) -> None:
        """What waits is looked at when the read is over."""

    def settings_changed(self) -> None:
        if self._owner is not None:
            self.services.loop.call_soon(self._owner.room_changed, self)

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        if code not in (NO_ERROR, ENHANCE_YOUR_CALM) or debug:
            log.info(
                "server %s closes an HTTP/2 connection: %s%s",
                self.runtime.label,
                error_name(code),
                f" ({debug[:100].decode('ascii', 'replace')!r})" if debug else "",
            )
        self.drain()
        for number in [number for number in self.streams.numbers() if number > last_stream_id]:
            self._fail_stream(number, errors.GOAWAY_UNPROCESSED, f"not processed (GOAWAY with {error_name(code)})")

    def connection_failed(self, code: int, why: str) -> None:
        """The rest is done when the read is over."""
        self._why = self._why or why

    def _fail_stream(self, stream_id: int, fault: Fault, detail: str) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        try:
            stream.fail(fault, detail)
        except Exception as error:  # as above
            self._defect(error, stream)

    # --- the end ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """No more streams; it ends with the last one."""
        if self.is_draining or self.has_ended:
            return
        self.is_draining = True
        if self._owner is not None:
            self._owner.connection_over(self)
        if not self.streams.count:
            self.services.loop.call_soon(self.close_if_idle)

    def close_if_idle(self) -> None:
        """End a connection on which nothing is under way, cleanly."""
        if self.has_ended or self.streams.count:
            return
        if not self.is_failed:
            self.goaway(0)
        self._write()
        transport = self._transport
        self._let_go()
        if transport is not None:
            transport.close()

    def _let_go(self) -> None:
        """It has ended: nobody uses it any more."""
        self._count_lookups()
        self.has_ended = True
        self._is_put_off = False
        self.drop_waiting()
        owner, self._owner = self._owner, None
        self._outlet.connection = None  # which knows this object
        self._transport = None
        self._waiting.clear()
        if self._is_counted:
            self._is_counted = False
            self.runtime.n_connections -= 1
        if owner is not None:
            owner.connection_over(self)

    def _count_lookups(self) -> None:
        now = self.lookups()
        if now != self._lookups:
            count_lookups(self.runtime.row, UPSTREAM_LOOKUPS, now, self._lookups)
            self._lookups = now

    def break_off(self, fault: Fault, detail: str) -> None:
        """Give it up, with all that is under way."""
        if self.has_ended:
            return
        transport = self._transport
        self._let_go()
        if transport is not None:
            abort(transport)
        self._fail_all(self.streams.values(), fault, detail)

    def _end_failed(self) -> None:
        """The server broke the protocol: it is told so, and the connection ends."""
        if self.has_ended:
            return
        self._write()
        transport = self._transport
        self._let_go()
        if transport is not None:
            transport.close()
        self._fail_all(self.streams.values(), errors.H2_PROTOCOL, self._why)

    def _fail_all(self, streams: Sequence[Http2Stream], fault: Fault, detail: str) -> None:
        for stream in streams:
            of_this = errors.TRUNCATED_BODY if stream.has_head and fault is not errors.PING_TIMEOUT else fault
            try:
                stream.fail(of_this, detail)
            except Exception as error:  # as above
                self._defect(error, stream)

    def lost(self, error: Exception | None, *, is_fin: bool) -> None:
        """The connection is over at the server's end, or on the way."""
        if self.has_ended:
            return
        self._is_over = True
        if self.n_waiting:
            self.n_left = 0
            self.go_on()
            self._have_read()
            if self.has_ended:
                return
        transport = self._transport
        if error is not None and transport is not None and not isinstance(transport, TlsTransport):
            # Perhaps a GOAWAY that says why a write failed, and what was not processed.
            sock = transport.get_extra_info("socket")
            read_what_is_left(sock, 65536, self.octets_came, lambda: not self.has_ended)
            if self.has_ended:
                return
        n_left = transport.taken(self.n_written) if transport is not None else 0
        acked = acknowledged(transport) if transport is not None and is_fin and self.streams.count else None
        self._let_go()
        if is_fin and transport is not None:
            if transport.get_write_buffer_size():
                # Closing would send the rest of requests that are over, which the server might execute after all.
                abort(transport)
            else:
                transport.close()
        streams = self.streams.values()
        if isinstance(error, ssl.SSLError) and not self.was_answered and not self.peer.is_known:
            # TLS 1.3: the server judges our certificate when we are done already, and reads no request then.
            self._fail_all(streams, *tls_fault(error))
            return
        for stream in streams:
            sink = stream.sink
            if sink is None:
                continue
            if stream.has_head:
                fault, detail = errors.TRUNCATED_BODY, "the connection ended inside the body"
            else:
                n_before = stream.wire_before if isinstance(transport, TlsTransport) else stream.written_before
                has_left = n_left > n_before and self.n_written > stream.written_before
                fault, detail = self._judge(stream, sink, acked, has_left=has_left, is_fin=is_fin)
            try:
                stream.fail(fault, detail)
            except Exception as defect:  # as above
                self._defect(defect, stream)

    def _judge(
        self, stream: Http2Stream, sink: AnswerSink, acked: int | None, *, has_left: bool, is_fin: bool
    ) -> tuple[Fault, str]:
        """What the end of the connection means for a request without an answer. has_left: the kernel may have some."""
        if not has_left:
            return errors.CLOSED_UNACKED, "closed before the request left"
        if acked is not None and acked == stream.wire_before and sink.trusts_unacked(self.runtime):
            return errors.CLOSED_UNACKED, "closed before the request arrived"
        if self.was_answered and self._heard_at < sink.sent_at:
            return errors.CLOSED_REUSED, "closed while the request was sent on a kept connection"
        how = "closed" if is_fin else "reset"
        detail = f"{how} without an answer"
        if not self.peer.is_known:
            detail = f"{how} before it has said anything in HTTP/2; does it speak that (`protocol` of the pool)?"
        return errors.CLOSED_EARLY if is_fin else errors.RESET, detail

    # --- time ---------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called a few times a second."""
        if self.has_ended:
            return
        self._count_lookups()
        if now >= self._retires_at:
            self.drain()
        if not self.streams.count:
            if now - self.idle_since >= self.runtime.idle_timeout_s:
                self.close_if_idle()
            return
        if self._is_put_off:
            return  # it has said more than was looked at
        settings = self.runtime.pool.keep_alive
        ping_s = settings.ping_s if settings is not None else _NEVER
        if self._pinged_at:
            if now - self._pinged_at >= min(PONG_S, ping_s):
                self.break_off(errors.PING_TIMEOUT, f"silent for {now - self._silent_since:.0f} s, and to a PING")
            return
        if now - self._silent_since >= (ping_s if self._n_pings < PINGS_AT_ONCE else max(ping_s, PINGS_APART_S)):
            self._pinged_at = now
            self._n_pings += 1
            self.ping(_PING)
            self.flush()


class _Outlet(Writer):
    """Whom the end of a turn tells; a connection has its base class already. connection: None when it has ended."""

    __slots__ = ("connection",)

    def __init__(self, connection: Http2Connection) -> None:
        self.connection: Http2Connection | None = connection

    def flush(self) -> None:
        if self.connection is not None:
            self.connection.turn_ended()
