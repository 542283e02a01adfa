"""A client's connection of an HTTP/1 listener: its state, what it keeps between two events, and how it lives and ends.

    state      reads                                         leaves by
    HEAD       a request head (or nothing: kept alive)       _begin -> BODY or WAIT; a bad head -> LINGER
    BODY       the request's body                            its last byte -> WAIT
    WAIT       ahead, up to 64 KiB or 32 requests            exchange done -> HEAD, or LINGER if it is the last one
    LINGER     and discards, writing is shut down            the client's FIN, 5 s of silence or 30 s in all;
                                                             at once if the client has said that it sends no more
    TUNNEL     nothing: the transport belongs to a Relay
    CLOSED     nothing

One object has it all, and its class comes in four parts, each of which knows those before it:

    connection.py    ClientConnection       its state, life and end; pausing
    timed.py         TimedConnection        what time does to it
    answering.py     AnsweringConnection    what it is told to send
    http1.py         Http1Connection        what it reads, and what follows from that
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from lbproxy import errors
from lbproxy.dataplane.client.body_intake import BodyIntake
from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.read_ahead import ReadAhead
from lbproxy.dataplane.exchange.binding import unbind
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.room import Guest
from lbproxy.dataplane.services import abort
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import HeadError
from lbproxy.telemetry.accesslog import HeadPart

HEAD: Final = 0
BODY: Final = 1
WAIT: Final = 2
LINGER: Final = 3
TUNNEL: Final = 4
CLOSED: Final = 5

NEVER: Final = float("inf")
HIGH_WATER: Final = 64 * 1024
LINGER_IDLE_S: Final = 5.0
LINGER_TOTAL_S: Final = 30.0


class ClientConnection(Guest, ClientStream):
    """See the module."""

    __slots__ = (
        "_ahead",
        "_buffer",
        "_client_fin",
        "_closes",
        "_deadline",
        "_exchange",
        "_idle_since",
        "_intake",
        "_is_chunking",
        "_is_paused",
        "_linger_end",
        "_memo",
        "_named",
        "_nominated",
        "_noted",
        "_owner",
        "_refusal",
        "_said_more",
        "_state",
        "_taken",
        "_taken_at",
        "_write_blocked",
        "_written",
    )

    def __init__(self, owner: Door, facts: ClientFacts, refusal: Fault | None = None) -> None:
        """refusal: why it may not be served, known before it said anything."""
        self._owner = owner
        self.facts = facts
        self._refusal = refusal
        self.bound = None
        self.services = owner.services
        self._state = HEAD
        self._buffer = b""
        self._intake: BodyIntake | None = None  # in BODY
        self._exchange: Exchange | None = None
        self._ahead: ReadAhead | None = None
        self._deadline = NEVER
        self._linger_end = NEVER
        self._idle_since = NEVER  # in HEAD
        self._is_chunking = False
        self._closes = False
        self._client_fin = False
        self._said_more = False  # behind its last request
        self._is_paused = False
        self._write_blocked = False
        self._written = 0
        self._taken = 0
        self._taken_at = 0.0
        self._noted = 0  # of what is not sent, told to the services since this connection is blocked
        self._nominated: frozenset[bytes] = frozenset()
        self._memo = owner.memo
        self._named: tuple[Prepared, HeadPart] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(StreamTransport, transport)
        try:
            self._connected(self.transport)
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)

    def _connected(self, transport: StreamTransport) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER)
        facts = self.facts
        facts.connected(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        if facts.is_trusted:
            self._memo = self._owner.memo_trusted
        self._idle_since = self.services.now()
        self._deadline = self._idle_since + facts.listener.timeouts.request_head
        self.services.swept.add(self)
        if self._refusal is not None:
            self._refuse(b"", HeadError(self._refusal, ""))

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._leave()
        except Exception as error:  # a defect: what is left of the connection goes all the same
            self._defect(error)
            self._leave()

    def _leave(self) -> None:
        if self._state == CLOSED:
            return
        was_tunnel = self._state == TUNNEL
        self._state = CLOSED
        self.services.swept.discard(self)
        self._owner.connection_closed(self.facts.peer_ip)
        self._note_buffered(0)
        self._buffer = b""
        self._ahead = None
        self._intake = None  # whose reader of large pieces knows this object
        exchange = self._exchange
        if exchange is not None and not was_tunnel:
            exchange.client_left()  # if this has a defect, `_defect` still finds the exchange
        self._exchange = None
        if self.bound is not None:
            unbind(self)

    def _defect(self, error: Exception) -> None:
        self.services.internal_error("downstream", error)
        exchange = self._exchange
        if exchange is not None and not exchange.is_done:
            try:
                exchange.fail(errors.INTERNAL_ERROR, "internal error")
                return
            except Exception as second:  # whatever is broken, the connection must not stay
                self.services.internal_error("downstream", second)
        self._cut_off()

    # --- its end ----------------------------------------------------------------------------------------------------

    def _linger(self, *, is_last_word: bool = False) -> None:
        """End the connection so that the client can read the answer: FIN now, discard until its FIN (RFC 9112 9.6).

        is_last_word: it said that it will send nothing more. Who holds to that need not be waited for.
        """
        self._state = LINGER
        unbind(self)
        self._end_intake()
        self._buffer = b""
        self._ahead = None
        now = self.services.now()
        self._linger_end = now + LINGER_TOTAL_S
        self._deadline = now + LINGER_IDLE_S
        if self.transport.is_closing():
            return
        if self._client_fin:
            self.transport.close()
            return
        if is_last_word and not self._said_more:
            self.transport.expect_nothing()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_paused:
            self.resume_body()

    def _end_intake(self) -> None:
        if self._intake is not None:
            self._intake.end_bulk()
            self._intake = None

    def eof_received(self) -> bool:
        try:
            return self._eof_received()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)
            return False

    def _eof_received(self) -> bool:
        if self._state == HEAD and self._buffer:
            self._drop_part(self._buffer)
        is_asked = self._state == WAIT or (self._state == HEAD and self._ahead is not None)
        if is_asked and self.facts.listener.answers_half_closed:
            self._client_fin = True
            self.transport.watch_end(None)  # it waits for its answers, unless it is reset
            return True
        if self._exchange is None or self._state in (HEAD, LINGER):
            return False
        self._client_fin = True
        self._client_left()
        return False

    def _client_left(self) -> None:
        """In HTTP a FIN says that the client has left: a time-out of `requests` looks like this."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()
        self._cut_off()

    def _hung_up(self) -> None:
        """The FIN of a client that is not being read."""
        if self._state in (BODY, WAIT):
            self._client_left()
        elif self._state == HEAD:
            self.transport.close()  # what it asked in advance is not begun; the last answer still leaves

    def cut(self, fault: Fault) -> None:
        """With a reset, so that a truncated answer can't look complete; HTTP/1 has no way to say more."""
        self._cut_off()

    def _cut_off(self) -> None:
        self._exchange = None
        if self._state not in (CLOSED, TUNNEL):
            abort(self.transport)
            self._leave()

    # --- back-pressure ----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._write_blocked = True
        try:
            self._note_buffered(self.transport.get_write_buffer_size())
            if self._exchange is not None:
                self._exchange.client_blocked()
        except Exception as error:  # a defect: confined to this connection
            self._defect(error)

    def resume_writing(self) -> None:
        self._write_blocked = False
        try:
            self._note_buffered(0)
            if self._exchange is not None:
                self._exchange.client_unblocked()
            elif self._state == HEAD:
                self._next_request()
        except Exception as error:  # as above
            self._defect(error)

    def _note_buffered(self, n_bytes: int) -> None:
        self.services.pressure.count(n_bytes - self._noted)
        self._noted = n_bytes

    def pause_body(self) -> None:
        """Stop reading from the client; that it leaves is seen all the same."""
        if self._is_paused or self._state in (CLOSED, TUNNEL, LINGER) or self.transport.is_closing():
            return
        self._is_paused = True
        self._deadline = NEVER
        if self._intake is not None:
            self._intake.stop(self.services.clock())
        self.transport.pause_reading()
        self.transport.watch_end(None if self.facts.listener.answers_half_closed else self._hung_up)

    def resume_body(self) -> None:
        if not self._is_paused:
            return
        self._is_paused = False
        if self._state == BODY:
            self._deadline = self.services.clock() + self.facts.listener.timeouts.request_body
            if self._intake is not None:
                self._intake.go(self.services.clock())
        if self._state not in (CLOSED, TUNNEL) and not self.transport.is_closing():
            self.transport.resume_reading()

    def comes_through(self, door: Door) -> bool:
        """Was it accepted there?"""
        return self._owner is door

    # --- what the other parts do ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        raise NotImplementedError

    def buffered_bytes(self) -> int:
        raise NotImplementedError

    def begin_drain(self, now: float) -> None:
        raise NotImplementedError

    def end_with_answer(self, now: float) -> None:
        raise NotImplementedError

    def shut_down(self) -> None:
        raise NotImplementedError

    def _refuse(self, raw: bytes, error: HeadError) -> None:
        """Answer what came of a head with a fault."""
        raise NotImplementedError

    def _drop_part(self, raw: bytes) -> None:
        """Nobody gets what came of a head before the client's FIN."""
        raise NotImplementedError

    def _next_request(self) -> None:
        """Go on with what was read ahead."""
        raise NotImplementedError
