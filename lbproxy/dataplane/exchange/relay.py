"""Bytes both ways between two transports: TCP mode, and tunnels after an upgrade.

Each direction ends by itself: a FIN of one side is passed on after its last byte, and the other direction goes on
(bounded by half_closed). A reset of one side resets the other, so that a peer can tell an error from a clean end.
A transport does not close itself when its two directions have ended; `direction_ended` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from lbproxy.dataplane.exchange.relay_end import Joining, RelayEnd
from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.net.splice import is_reset
from lbproxy.dataplane.services import Services, abort
from lbproxy.errors import (
    CLIENT_ABORT,
    CLIENT_WRITE_TIMEOUT,
    RESET,
    SHUTDOWN_CUT,
    TUNNEL_TIMEOUT,
    UPSTREAM_WRITE_TIMEOUT,
    Side,
)

IDLE_S: Final = 1.0

OnDone = Callable[["Relay", str, Side | None], None]


class Watcher(Protocol):
    """Somebody with a deadline of its own while the relay is being set up."""

    def sweep(self, now: float) -> None: ...


class Relay(Joining):
    """Two ends and what is known of both. `on_done(relay, end, side)` is called once: side is whose fault it was."""

    __slots__ = (
        "_half_closed_s",
        "_is_done",
        "_n_received",
        "_on_done",
        "_tunnel_s",
        "_write_s",
        "active_at",
        "watcher",
    )

    def __init__(
        self, services: Services, *, tunnel_s: float, half_closed_s: float, write_s: float, on_done: OnDone
    ) -> None:
        self.services = services
        self.active_at = services.clock()
        self._tunnel_s = tunnel_s
        self._half_closed_s = half_closed_s
        self._write_s = write_s
        self._on_done: OnDone | None = on_done
        self._is_done = False
        self._n_received = 0
        self.watcher: Watcher | None = None
        services.swept.add(self)

    def pair(self, client: RelayEnd, server: RelayEnd) -> None:
        """Make the two ends each other's peer."""
        self.client, self.server = client, server
        client.peer, server.peer = server, client

    def join(self, client: RelayEnd, down: TunnelTransport, server: RelayEnd, up: TunnelTransport) -> None:
        """Turn two connected transports into a tunnel."""
        self.pair(client, server)
        client.attach(down)
        server.attach(up)
        client.flush_early()
        server.flush_early()
        down.set_protocol(client)
        up.set_protocol(server)
        for transport in (down, up):
            if not transport.is_closing():
                transport.resume_reading()

    @property
    def is_done(self) -> bool:
        return self._is_done

    def direction_ended(self, end: RelayEnd) -> None:
        """A FIN arrived from `end`: pass it on, and close both when both directions are over."""
        peer = end.peer
        is_first = peer is None or not peer.has_ended
        if is_first:  # from now on half_closed holds
            self.active_at = self.services.clock()
        if peer is None or not end.is_flushed:
            return  # flush_early passes it on, or it is over
        peer.end_writing()
        if not is_first and peer.is_flushed:
            self._close_if_over()

    def _close_if_over(self) -> None:
        """Both directions have ended: are both ends sent everything? Until then the sweeper asks again."""
        if not self.client.unsent and not self.server.unsent:
            self._close("ok", None)

    def end_lost(self, end: RelayEnd, exc: Exception | None) -> None:
        """A connection is gone. Before both FINs that is a reset, or a failed write."""
        if self._is_done:
            return
        if exc is None and self.client.has_ended and self.server.has_ended:
            self._close("ok", None)
            return
        is_client = end is self.client
        self._cut(CLIENT_ABORT.word if is_client else RESET.word, Side.CLIENT if is_client else Side.UPSTREAM)

    def _close(self, word: str, side: Side | None) -> None:
        for end in self._done(word, side):
            if end.is_connected:
                end.transport.close()

    def _cut(self, word: str, side: Side | None) -> None:
        for end in self._done(word, side):
            if end.is_connected:
                abort(end.transport)

    def fail(self, word: str, side: Side | None) -> None:
        """End it from outside, with a reset to whoever is connected."""
        if not self._is_done:
            self._cut(word, side)

    def _done(self, word: str, side: Side | None) -> tuple[RelayEnd, ...]:
        """Tell the owner, once, and take the circle apart; returns the ends, which nobody else has any more.

        Each of relay, ends and owner knows the others. What reference counting frees, a connection at a time, does not
        wait for the collector with all that it holds.
        """
        if self._is_done:
            return ()
        self._is_done = True
        ends = self.client, self.server
        for end in ends:
            end.stop_flow()
        self.services.swept.discard(self)
        on_done, self._on_done = self._on_done, None
        assert on_done is not None
        try:
            on_done(self, word, side)
        finally:
            self.watcher = None
            for end in ends:
                end.let_go()
            del self.client, self.server
        return ends

    # --- the sweeper's calls ----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        if self.watcher is not None:
            self.watcher.sweep(now)
        if self._is_done:
            return
        self._note_activity(now)
        for end in (self.client, self.server):
            if end.flow is not None:
                self._check_pace(end, now)
            if not end.is_connected:
                continue
            if end.unsent and end.peer is not None and end.peer.is_connected and is_reset(end.peer.transport):
                self.end_lost(end.peer, ConnectionResetError())  # it is not read, so nobody else would notice
                return
            if self._is_stuck(end, now):
                is_client = end is self.client
                word = CLIENT_WRITE_TIMEOUT.word if is_client else UPSTREAM_WRITE_TIMEOUT.word
                self._cut(word, Side.CLIENT if is_client else Side.UPSTREAM)
                return
        if self._is_done:  # a flow that was given up told of an end
            return
        if self.client.has_ended and self.server.has_ended:  # what is left has the time for writing
            self._close_if_over()
            return
        limit = self._half_closed_s if self.client.has_ended or self.server.has_ended else self._tunnel_s
        if self.client.is_connected and self.server.is_connected and now - self.active_at >= limit:
            self._cut(TUNNEL_TIMEOUT.word, None)

    def _note_activity(self, now: float) -> None:
        """Bytes count as received when the sweep sees them: reading the clock for each costs more than relaying it."""
        total = self.client.n_received + self.server.n_received
        if total != self._n_received:
            self._n_received = total
            self.active_at = now

    def _check_pace(self, end: RelayEnd, now: float) -> None:
        """A spliced direction that has become quiet gives its pipe back."""
        if end.n_received != end.n_seen:
            end.n_seen = end.n_received
            end.moved_at = now
        elif now - end.moved_at >= IDLE_S:
            end.take_back()

    def _is_stuck(self, end: RelayEnd, now: float) -> bool:
        """Has this end taken nothing of what waits for it, and sent nothing, for the write time-out?"""
        unsent = end.unsent
        peer = end.peer
        taken = end.n_received
        if peer is not None:
            taken += end.transport.taken(peer.n_received) - (peer.flow.pending if peer.flow is not None else 0)
        before, since = end.taken_before, end.taken_at
        if not unsent or taken != before or since < 0.0:
            end.taken_before, end.taken_at = taken, now
            if taken != before and since >= 0.0:
                self.active_at = now  # a reader that drains slowly keeps its tunnel
            return False
        return now - since >= self._write_s

    def buffered_bytes(self) -> int:
        if self._is_done:  # in the sweep that has ended it
            return 0
        return sum(end.unsent for end in (self.client, self.server) if end.is_connected)

    def begin_drain(self, now: float) -> None:
        """A relay is work in flight: it may finish until grace is over."""

    def shut_down(self) -> None:
        """The grace period is over."""
        if not self._is_done:
            self.services.n_cut += 1
            self._cut(SHUTDOWN_CUT.word, None)
