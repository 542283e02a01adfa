"""A client's connection that speaks HTTP/2 (RFC 9113): many requests at once, each of which is a stream of its own.

    state      reads              leaves by
    OPEN       frames             GOAWAY with the last stream -> LEAVING; an error, a flood -> LINGER
    LEAVING    frames             its last stream -> LINGER
    LINGER     and discards       the client's FIN, 5 s of silence or 30 s in all
    CLOSED     nothing

What frames mean is the codec's (protocol/h2/connection.py), what a request is its stream's (http2_stream.py). Here is
what they share: the socket, whose turn it is to send, the deadlines of the connection, and how it ends. The client is
told of the end in two steps (section 6.8): that no more is wanted, and a second later, or when it has seen that, which
stream was the last one. What it sent in between is served.

One object has it all, and its class comes in three parts, each of which knows those before it:

    http2_connection.py    Http2Life          its state, life and end; sending
    http2_timed.py         TimedHttp2         what time does to it; making way and stopping
    http2.py               Http2Connection    what it reads, and what follows from that
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

from lbproxy import errors
from lbproxy.dataplane.client.connection import HIGH_WATER, LINGER_IDLE_S, LINGER_TOTAL_S, NEVER
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.http2_codec import ClientCodec, FrameOwner
from lbproxy.dataplane.client.http2_stream import Http2Stream, StreamOwner
from lbproxy.dataplane.counters import LOOKUPS, count_lookups
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.template import Template
from lbproxy.dataplane.net.socket_transport import FIRST_READ
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.net.turn_end import Writer
from lbproxy.dataplane.room import Guest
from lbproxy.dataplane.runtime import JITTER, Http2Settings
from lbproxy.dataplane.services import Services, abort
from lbproxy.errors import Fault
from lbproxy.protocol.h2.codes import MAX_STREAM_ID, NO_ERROR
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.h2.stream_table import StreamTable
from lbproxy.telemetry.slots import GOAWAYS, LISTENER

OPEN: Final = 0
LEAVING: Final = 1
LINGER: Final = 2
CLOSED: Final = 3

STREAM_WINDOW: Final = 256 * 1024
"""Octets of a request's body that may wait here for its server."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""The same of all requests of a connection."""
MOST_HELD: Final = 1024 * 1024
"""Octets of answers that are kept for want of a window. Beyond that of each answer only its share is read at once, so
that many that nobody takes are not many large pieces; none is held back, as they may be taken in any order."""
LEAST_SHARE: Final = 8 * 1024
MOST_UNTAKEN: Final = 256 * 1024
"""Octets written and not taken by the client. Beyond that it is not read: what it asks for would only add to them."""
READS_HEADS: Final = 16 * 1024
"""Octets that are read at once until a body comes: what is read is looked at before others have their turn, and of
heads that are refused, which may cost a hundred times as much as they are long, nobody gets further than this."""
READS_SUSPECT: Final = 4 * 1024
SUSPECT_S: Final = 10.0
"""For so long after a head that was too large, or against the rules, only that is read at once, bodies too."""
END_AT_ONCE: Final = 8
"""Requests. Where more are under way when their client leaves they take turns with what else there is much of."""
BEHIND_S: Final = 1.0
"""For so long after it sent more than was looked at in its turn, what it sends, and the answers to it, are read behind
those of others."""
DRAIN_S: Final = 1.0
"""From the first GOAWAY to the second, if the client does not show sooner that it has seen it."""
_FLOOD_LINGER_S: Final = 1.0
DRAIN_PING: Final = b"lbproxy\0"
GOAWAY: Final = {reason: LISTENER.column("h2_goaways_total", reason) for reason in GOAWAYS}


class Http2Life(Guest, StreamOwner, FrameOwner):
    """See the module."""

    __slots__ = (
        "_age_at",
        "_behind_until",
        "_codec",
        "_deadline",
        "_door",
        "_drain_at",
        "_facts",
        "_failure",
        "_goaway",
        "_idle_since",
        "_is_behind",
        "_is_crowded",
        "_is_due",
        "_is_inside",
        "_is_paused",
        "_is_waiting",
        "_last_template",
        "_linger_end",
        "_lookups",
        "_n_held",
        "_now",
        "_outlet",
        "_reads_little",
        "_ready",
        "_stalled",
        "_state",
        "_streams",
        "_suspect_until",
        "_taken",
        "_taken_at",
        "_templates",
        "_turn_end",
        "_turns",
        "_unstarted",
        "_write_blocked",
        "_written",
    )

    def __init__(self, door: Door, facts: ClientFacts) -> None:
        self._door = door
        self._facts = facts
        self.services = door.services
        self._turns = door.services.read_turns
        settings = facts.listener.http2 or Http2Settings()
        self.codec = self._codec = ClientCodec(
            self,
            OwnSettings(
                streams=settings.streams,
                head_bytes=facts.listener.head_bytes,
                headers=facts.listener.max_fields,
                websocket=settings.opens_websockets,
                stream_window=STREAM_WINDOW,
                connection_window=CONNECTION_WINDOW,
                resets=settings.resets[0],
                resets_period_s=settings.resets[1],
                control_frames=settings.control_frames[0],
                control_frames_period_s=settings.control_frames[1],
            ),
            self._turns,
        )
        self._state = OPEN
        self._streams: StreamTable[Http2Stream] = StreamTable()
        self._unstarted: Http2Stream | None = None  # of the last head: its body may be in the same read
        self._ready: deque[Http2Stream] = deque()  # may send, and wait for their turn
        self._stalled: dict[int, Http2Stream] = {}  # wait for a window
        self._templates: dict[H2Head, Template] = {}  # by what is before their tails, which one connection has
        self._last_template: Template | None = None  # of these
        self._is_inside = False  # of a read
        self._now = 0.0  # when the read began
        self._turn_end = door.services.poller.turn_end
        self._outlet: _Outlet | None = None
        self._is_due = False  # the end of the turn will be told
        self._is_paused = False  # it does not take what it is sent
        self._is_waiting = False  # for its turn to be read on; nothing more is read meanwhile
        self._is_behind = False
        self._behind_until = 0.0
        self._reads_little = True
        self._suspect_until = 0.0
        self._write_blocked = False
        self._n_held = 0
        self._is_crowded = False
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
        self._lookups = self._codec.lookups()  # that were counted

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """After a TLS handshake. The facts learn what the connection says of itself."""
        self._facts.connected(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self._begin(cast(StreamTransport, transport))

    def _begin(self, transport: StreamTransport) -> None:
        self.transport = transport
        self._outlet = _Outlet(self)
        transport.read_at_most(READS_HEADS)
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
        self.written()

    def _chance(self) -> float:
        """0 to 1, so that connections that began together do not end together."""
        return int(self.services.next_request_id()[0][:4], 16) / 65536

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave(errors.CLIENT_ABORT)

    def eof_received(self) -> bool:
        """The client has left: without its window updates there would be no end of an answer."""
        self._leave_streams(self._failure or errors.CLIENT_ABORT)
        self._flush_last()
        return False

    def _leave(self, fault: Fault) -> None:
        if self._state == CLOSED:
            return
        self._state = CLOSED
        self.services.swept.discard(self)
        self._count_lookups()
        self._door.connection_closed(self._facts.peer_ip)
        self._leave_streams(fault)
        self._codec.owner = None  # which knows this object, as the other one does
        if self._outlet is not None:
            self._outlet.connection = None

    def _count_lookups(self) -> None:
        now = self._codec.lookups()
        if now != self._lookups:
            count_lookups(self._facts.listener.row, LOOKUPS, now, self._lookups)
            self._lookups = now

    def _leave_streams(self, fault: Fault) -> None:
        """Many end a few at a time: each may be a server's connection to close, and so much that all others wait."""
        is_many = self._streams.count > END_AT_ONCE
        departed: deque[Http2Stream] = deque()
        for stream in self._streams.values():
            try:
                if is_many:
                    departed.append(stream)
                    stream.let_go()
                else:
                    stream.connection_lost(fault)
            except Exception as error:  # a defect: the others must hear of it all the same
                self.services.internal_error("downstream", error)
        if is_many:
            self._turns.wait(_Departed(departed, fault, self.services).take_turn)
        self._streams.clear()
        self._ready.clear()
        self._stalled.clear()
        self._unstarted = None

    def comes_through(self, door: Door) -> bool:
        """Was it accepted there?"""
        return self._door is door

    def _defect(self, error: Exception) -> None:
        self.services.internal_error("downstream", error)
        self._leave_streams(errors.INTERNAL_ERROR)
        abort(self.transport)
        self._leave(errors.INTERNAL_ERROR)

    def _set_deadline(self, now: float) -> None:
        """How long the client may be silent from here."""
        if self._is_waiting:  # the client has said more than was looked at
            self._deadline = self._idle_since = NEVER
            return
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
        elif self._streams.count:
            self._deadline = self._idle_since = NEVER
        elif self._idle_since == NEVER:
            self._idle_since = now
            self._deadline = now + timeouts.keep_alive

    # --- sending (StreamOwner) --------------------------------------------------------------------------------------

    def may_send(self) -> bool:
        if self.codec.n_output >= HIGH_WATER:
            self._flush()
        return not self._write_blocked and self._state < LINGER

    def written(self) -> None:
        """What is said in a turn leaves in one write at its end, and so in one record of TLS, unless it is much."""
        if self.codec.n_output >= HIGH_WATER:
            self._flush()
        elif not self._is_due and self._outlet is not None:
            self._is_due = True
            self._turn_end.add(self._outlet)

    def turn_ended(self) -> None:
        """What waits leaves."""
        self._is_due = False
        self._flush_last()

    def _flush_last(self) -> None:
        """The same where the transport may have ended, or is about to."""
        if self._state < LINGER:
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

    def holds(self, n_more: int) -> None:
        held = self._n_held = self._n_held + n_more
        if held > MOST_HELD:
            if not self._is_crowded:
                self._crowd(is_crowded=True)
        elif self._is_crowded and held < MOST_HELD // 2:
            self._crowd(is_crowded=False)

    def _crowd(self, *, is_crowded: bool) -> None:
        self._is_crowded = is_crowded
        share = self._share() if is_crowded else 0
        for stream in self._streams.values():
            stream.read_at_most(share)

    def _share(self) -> int:
        """Of what may be kept of the answers, for one of those that there are now; 0: more than is read at once."""
        count = max(1, self._streams.count)
        if self._is_waiting:  # others are about to begin, perhaps as many as may
            count = max(count, self.codec.own.streams)
        share = max(LEAST_SHARE, MOST_HELD // count)
        return share if share < FIRST_READ else 0

    def stream_over(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.number) is not None:
            self._door.n_streams -= 1
        if stream.is_queued:
            self._stalled.pop(stream.number, None)
        if stream is self._unstarted:
            self._unstarted = None
        if not self._streams.count:
            if not self._is_inside:
                self._set_deadline(self.services.clock())
            if self._state == LEAVING:
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
            if not self._is_waiting and not self.transport.is_closing():
                self.transport.resume_reading()
        self._pump()
        self.written()

    def _pause(self) -> None:
        """Read nothing more of a client that does not take what it is sent."""
        if not self.transport.is_closing():
            self._is_paused = True
            self._deadline = NEVER  # until it is read again `timeouts.write` bounds it
            self.transport.pause_reading()
            self.transport.watch_end(self._hung_up)

    def _wait(self) -> None:
        """For its turn, and read nothing until then."""
        self._is_waiting = True
        self._stand_behind(is_behind=True)
        self.transport.pause_reading()
        self._turns.wait(self.take_turn)

    def _stand_behind(self, *, is_behind: bool) -> None:
        self._is_behind = is_behind
        self.transport.stand_behind(is_behind=is_behind)

    def _end_wait(self) -> None:
        self._is_waiting = False
        self._behind_until = self.services.clock() + BEHIND_S
        if not self._is_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _suspect(self) -> None:
        """What came costs more than it is worth: so let others have their turn more often."""
        self._suspect_until = self._now + SUSPECT_S
        self._reads_little = True
        self.transport.read_at_most(READS_SUSPECT)

    def _body_came(self) -> None:
        """Bodies are long, and are read as such."""
        if self._now >= self._suspect_until:
            self._reads_little = False
            self.transport.read_at_most(0)

    def _hung_up(self) -> None:
        self._leave_streams(errors.CLIENT_ABORT)
        self._flush_last()
        self.transport.close()

    # --- its end ----------------------------------------------------------------------------------------------------

    def _go_away(self, reason: str, now: float) -> None:
        """No more requests are wanted, though those that are on their way are served."""
        if self._goaway or self._state != OPEN:
            return
        self._goaway = reason
        self._facts.listener.row[GOAWAY[reason]] += 1
        self.codec.goaway(MAX_STREAM_ID, NO_ERROR, reason.encode())
        self.codec.ping(DRAIN_PING)
        self._drain_at = now + DRAIN_S
        self.written()

    def _say_last(self) -> None:
        """Which request was the last one: the client may repeat others elsewhere."""
        self._drain_at = NEVER
        if self._state != OPEN:
            return
        self._state = LEAVING
        self.codec.goaway(self.codec.last_peer_stream, NO_ERROR, self._goaway.encode())
        if not self._streams.count:
            self._linger()
        self.written()

    def _end(self, reason: str) -> None:
        """At once: nothing is under way, or what is will not be missed."""
        if not self._goaway:
            self._goaway = reason
            self._facts.listener.row[GOAWAY[reason]] += 1
        self._leave_streams(errors.CLIENT_ABORT)
        if self._state >= LINGER:
            return  # it was LEAVING, so that its last stream has ended it
        self.codec.goaway(self.codec.last_peer_stream, NO_ERROR, reason.encode())
        self._linger()

    def _linger(self) -> None:
        """FIN now, and discard what comes until the client's, so that it can read what it was sent."""
        self._state = LINGER
        self.codec.drop_waiting()
        self._flush()
        now = self.services.clock()
        self._linger_end = now + LINGER_TOTAL_S
        self._idle_since = now
        self._deadline = now + (_FLOOD_LINGER_S if self._failure is errors.H2_FLOOD else LINGER_IDLE_S)
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_paused or self._is_waiting:
            self._is_paused = self._is_waiting = False
            self.transport.resume_reading()

    def begin_drain(self, now: float) -> None:
        """Stopping: what is under way is served, and what may be on its way."""
        self._go_away("stop", now)

    # --- what the other parts do ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        raise NotImplementedError

    def take_turn(self) -> bool:
        """Look at more of what was read. True: there is more."""
        raise NotImplementedError

    def buffered_bytes(self) -> int:
        raise NotImplementedError

    def shut_down(self) -> None:
        raise NotImplementedError


class _Departed:
    """Requests of a connection that is no more."""

    __slots__ = ("_fault", "_services", "_streams")

    def __init__(self, streams: deque[Http2Stream], fault: Fault, services: Services) -> None:
        self._streams = streams
        self._fault = fault
        self._services = services

    def take_turn(self) -> bool:
        stream = self._streams.popleft()
        try:
            stream.connection_lost(self._fault)
        except Exception as error:  # as above
            self._services.internal_error("downstream", error)
        return bool(self._streams)


class _Outlet(Writer):
    """Whom the end of a turn tells; a connection has its base class already. connection: None when it has ended."""

    __slots__ = ("connection",)

    def __init__(self, connection: Http2Life) -> None:
        self.connection: Http2Life | None = connection

    def flush(self) -> None:
        if self.connection is not None:
            self.connection.turn_ended()
