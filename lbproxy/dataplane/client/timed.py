"""What time does to a client's connection: its deadlines, clients that take or send too slowly, and making way.

All of it happens in the sweep, a few times a second, or when somebody looks for room (room.py) or stops the program.
"""

from __future__ import annotations

from typing import Final

from lbproxy import errors
from lbproxy.dataplane.client.body_intake import BodyIntake
from lbproxy.dataplane.client.connection import (
    BODY,
    CLOSED,
    HEAD,
    LINGER,
    LINGER_IDLE_S,
    LINGER_TOTAL_S,
    NEVER,
    TUNNEL,
    ClientConnection,
)
from lbproxy.dataplane.services import abort
from lbproxy.protocol.http1 import HeadError
from lbproxy.telemetry.slots import LISTENER

DRAIN_IDLE_S: Final = 1.0
_EVICTED_IDLE: Final = LISTENER.column("client_connections_evicted_total", "idle")
_EVICTED_ANSWERED: Final = LISTENER.column("client_connections_evicted_total", "answered")


class TimedConnection(ClientConnection):
    """See the module."""

    __slots__ = ()

    # --- the sweeper's calls ----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        self._check_write(now)  # first: an answer that the exchange gives now is not late
        exchange = self._exchange
        if exchange is not None:
            exchange.sweep(now)
        if self._intake is not None:
            self._check_upload(self._intake, now)
        if now >= self._deadline:
            self._deadline_passed()

    def _check_write(self, now: float) -> None:
        """RUDY's sister: a client that does not read is reset after `timeouts.write` without progress.

        One that is still sending its request has not stopped: many read nothing before they have sent all.
        """
        if self._state == CLOSED:
            return
        unsent = self.transport.get_write_buffer_size()
        taken = self.transport.taken(self._written)
        if self._exchange is not None:
            unsent += self._exchange.n_unsent
            taken -= self._exchange.n_unsent
            if self._state == BODY:
                taken += self._exchange.bytes_in
        elif unsent:
            self._not_idle_yet(now)
        if not unsent or taken != self._taken:
            self._taken = taken
            self._taken_at = now
        elif now - self._taken_at >= self.facts.listener.timeouts.write:
            exchange, self._exchange = self._exchange, None
            if exchange is not None:
                exchange.client_left(errors.CLIENT_WRITE_TIMEOUT, "write_timeout")
            self._cut_off()

    def _not_idle_yet(self, now: float) -> None:
        """The client's silence counts from when it has been sent its answer; until then `timeouts.write` bounds it."""
        if self._state == LINGER:
            self._linger_end = now + LINGER_TOTAL_S
            self._deadline = now + LINGER_IDLE_S
        elif self._state == HEAD and not self._buffer:
            idle_s = DRAIN_IDLE_S if self.services.is_draining else self.facts.listener.timeouts.keep_alive
            self._idle_since = now
            self._deadline = now + idle_s

    def _check_upload(self, intake: BodyIntake, now: float) -> None:
        exchange = self._exchange
        if self._state != BODY or exchange is None or exchange.response_started:
            return
        if intake.is_too_slow(exchange.bytes_in, now):
            self._closes = True
            exchange.fail(errors.BODY_TOO_SLOW, f"less than {self.facts.listener.min_rate:g} bytes a second")

    def _deadline_passed(self) -> None:
        self._deadline = NEVER
        state = self._state
        if state == HEAD:
            if self._buffer:
                self._refuse(self._buffer, HeadError(errors.HEADER_TIMEOUT, "the head did not arrive in time"))
            else:
                self.transport.close()
        elif state == BODY and self._exchange is not None:
            self._closes = True
            if not self._exchange.response_started:  # a client may stop when it sees an early answer
                self._exchange.fail(errors.BODY_TIMEOUT, "the body stalled")
        elif state == LINGER:
            self.transport.abort()

    # --- making way for others (room.py) ----------------------------------------------------------------------------

    def idle_since(self) -> float:
        if self._state == LINGER:
            return self._linger_end - LINGER_TOTAL_S
        if self._state != HEAD or self._buffer or self._ahead is not None or self.transport.get_write_buffer_size():
            return NEVER
        return self._idle_since

    def makes_way(self) -> bool:
        if self._state == LINGER:
            self.transport.abort()  # it was sent all there is, a while ago
        elif self._state != HEAD or self.transport.has_unread:
            return False
        else:
            self.transport.close()
        self.facts.listener.row[_EVICTED_IDLE] += 1
        return True

    def closes_after_answer(self) -> bool:
        exchange = self._exchange
        if exchange is None or exchange.response_started or self._closes or self._ahead is not None:
            return False  # what it sent in advance would be lost
        if self._client_fin or exchange.prepared.upgrade:
            return False
        self._closes = True
        self.facts.listener.row[_EVICTED_ANSWERED] += 1
        return True

    def buffered_bytes(self) -> int:
        if self._state in (CLOSED, TUNNEL):
            return 0
        size = self.transport.get_write_buffer_size() + len(self._buffer)
        if self._ahead is not None:
            size += self._ahead.size
        return size + self._exchange.buffered_bytes() if self._exchange is not None else size

    # --- stopping ---------------------------------------------------------------------------------------------------

    def begin_drain(self, now: float) -> None:
        """Stopping: an idle connection gets a second for a request that may be on its way."""
        if self._state == HEAD and not self._buffer:
            self._deadline = min(self._deadline, now + DRAIN_IDLE_S)

    def end_with_answer(self, now: float) -> None:
        """Its listener is no more: the answer that is due is the last one, and an idle connection gets a second."""
        exchange = self._exchange
        if exchange is None:
            self.begin_drain(now)
        elif not exchange.response_started and self._ahead is None and not exchange.prepared.upgrade:
            self._closes = True

    def shut_down(self) -> None:
        """The grace period is over: 503 where nothing was sent yet, a reset where something was."""
        exchange = self._exchange
        if exchange is None:
            if self.transport.get_write_buffer_size():  # of the last answer
                self.services.n_cut += 1
                abort(self.transport)
            else:
                self.transport.abort()
            return
        self.services.n_cut += 1
        if exchange.response_started:
            self._exchange = None
            exchange.shut_down()
            self._cut_off()
        else:
            exchange.fail(errors.DRAINING, "the grace period is over")
