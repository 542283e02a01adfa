"""What time does to a client's connection of HTTP/2, and how it makes way for others, and stops."""

from __future__ import annotations

from typing import Final

from lbproxy import errors
from lbproxy.dataplane.client.connection import NEVER
from lbproxy.dataplane.client.http2_connection import CLOSED, LINGER, OPEN, Http2Life
from lbproxy.dataplane.services import abort
from lbproxy.telemetry.slots import LISTENER

_EVICTED_IDLE: Final = LISTENER.column("client_connections_evicted_total", "idle")
_EVICTED_ANSWERED: Final = LISTENER.column("client_connections_evicted_total", "answered")


class TimedHttp2(Http2Life):
    """See the module."""

    __slots__ = ()

    # --- what time does ---------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        self._count_lookups()
        self._check_write(now)
        for stream in self._streams.values():
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
            if self.codec.n_output:
                self.written()

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
            for stream in self._streams.values():
                stream.connection_lost(errors.CLIENT_WRITE_TIMEOUT)
            abort(self.transport)
            self._leave(errors.CLIENT_WRITE_TIMEOUT)

    def _deadline_passed(self) -> None:
        self._deadline = NEVER
        if self._state == LINGER:
            self.transport.abort()
        elif self._state != CLOSED:
            self._end("idle" if self._idle_since != NEVER and self.codec.last_peer_stream else "timeout")

    # --- making way for others (room.py) ----------------------------------------------------------------------------

    def idle_since(self) -> float:
        if self._streams.count or (self._state < LINGER and not self.codec.is_between):
            return NEVER
        if self._n_untaken() or self.codec.n_output:
            return NEVER
        return self._idle_since

    def makes_way(self) -> bool:
        if self._state == LINGER:
            self.transport.abort()
        elif self._state == CLOSED or self._streams.count or self._is_waiting or self.transport.has_unread:
            return False
        else:
            self._end("room")
            self.transport.close()
        self._facts.listener.row[_EVICTED_IDLE] += 1
        return True

    def closes_after_answer(self) -> bool:
        if self._state != OPEN or self._goaway or not self._streams.count:
            return False
        self._go_away("room", self.services.clock())
        self._facts.listener.row[_EVICTED_ANSWERED] += 1
        return True

    def buffered_bytes(self) -> int:
        if self._state == CLOSED:
            return 0
        size = self._n_untaken() + self.codec.n_output + self.codec.n_waiting
        for stream in self._streams.values():
            size += stream.buffered_bytes()
        return size

    # --- stopping ---------------------------------------------------------------------------------------------------

    def end_with_answer(self, now: float) -> None:
        """Its listener is no more."""
        self._go_away("stop", now)

    def shut_down(self) -> None:
        """The grace period is over: 503 where nothing was sent yet, a reset where something was."""
        for stream in self._streams.values():
            if stream.shut_down():
                self.services.n_cut += 1
        if self._state < LINGER:
            self._end("stop")
        if self._state != CLOSED:
            self.transport.close()
