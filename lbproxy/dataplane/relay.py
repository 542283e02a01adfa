"""Bytes both ways between two transports: TCP mode, and tunnels after an upgrade.

Each direction ends by itself: a FIN of one side is passed on after its last byte, and the other direction goes on
(bounded
by half_closed). A reset of one side resets the other, so that a peer can tell an error from a clean end. Neither
asyncio nor uvloop closes a transport whose two directions have ended; `_direction_ended` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from lbproxy.dataplane.services import Services, abort
from lbproxy.errors import (
    CLIENT_ABORT,
    CLIENT_WRITE_TIMEOUT,
    INTERNAL_ERROR,
    RESET,
    SHUTDOWN_CUT,
    TUNNEL_TIMEOUT,
    UPSTREAM_WRITE_TIMEOUT,
    Side,
)

HIGH_WATER = 64 * 1024

OnDone = Callable[["Relay", str, Side | None], None]


class Watcher(Protocol):
    """Somebody with a deadline of its own while the relay is being set up."""

    def sweep(self, now: float) -> None: ...


class RelayEnd(asyncio.Protocol):
    """One side of a relay. What it receives goes to its peer."""

    __slots__ = (
        "_is_writing_ended",
        "_paused",
        "early",
        "has_ended",
        "is_connected",
        "is_flushed",
        "n_received",
        "n_written",
        "peer",
        "relay",
        "transport",
        "was_connected",
    )

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.peer: RelayEnd | None = None
        self.is_connected = False
        self.was_connected = False
        self.is_flushed = False
        self.has_ended = False  # its FIN was seen
        self.n_received = 0
        self.n_written = 0
        self.early: list[bytes] = []
        self._is_writing_ended = False
        self._paused = False

    def attach(self, transport: asyncio.Transport) -> None:
        """Take over a connected transport."""
        self.transport = transport
        self.is_connected = self.was_connected = True
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast(asyncio.Transport, transport))  # uvloop's is none by inheritance

    def _defect(self, error: Exception) -> None:
        """Confined to this relay, and the end of it."""
        self.relay.services.internal_error("relay", error)
        self.relay.fail(INTERNAL_ERROR.word, None)

    def data_received(self, data: bytes) -> None:
        try:
            self._pass_on(data)
        except Exception as error:  # a defect
            self._defect(error)

    def _pass_on(self, data: bytes) -> None:
        self.n_received += len(data)
        relay = self.relay
        relay.active_at = relay.services.clock()
        peer = self.peer
        if peer is None or not self.is_flushed:
            self.early.append(data)
            if sum(map(len, self.early)) > HIGH_WATER and not self._paused:
                self._paused = True
                self.transport.pause_reading()
            return
        peer.n_written += len(data)
        peer.transport.write(data)

    def flush_early(self) -> None:
        """The peer is there now: pass on what came before. Until this, neither data nor FIN may go past it."""
        peer = self.peer
        assert peer is not None
        self.is_flushed = True
        for data in self.early:
            peer.n_written += len(data)
            peer.transport.write(data)
        self.early.clear()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if self.has_ended:
            self.relay.direction_ended(self)

    def eof_received(self) -> bool:
        self.has_ended = True
        try:
            self.relay.direction_ended(self)
        except Exception as error:  # a defect
            self._defect(error)
        return True

    def end_writing(self) -> None:
        """Pass on the peer's FIN, after what is still in the buffer."""
        if not self._is_writing_ended and self.is_connected:
            self._is_writing_ended = True
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_connected = False
        try:
            self.relay.end_lost(self, exc)
        except Exception as error:  # a defect
            self._defect(error)

    def pause_writing(self) -> None:
        """What the loop catches here ends the connection (process/loop_errors.py), and with it the relay."""
        peer = self.peer
        if peer is not None and peer.is_connected and not peer.transport.is_closing():
            peer.transport.pause_reading()

    def resume_writing(self) -> None:
        peer = self.peer
        if peer is not None and peer.is_connected and not peer.transport.is_closing():
            peer.transport.resume_reading()


class Relay:
    """Two ends and what is known of both. `on_done(relay, end, side)` is called once: side is whose fault it was."""

    __slots__ = (
        "_half_closed_s",
        "_is_done",
        "_on_done",
        "_progress",
        "_tunnel_s",
        "_write_s",
        "active_at",
        "client",
        "server",
        "services",
        "watcher",
    )

    def __init__(
        self, services: Services, *, tunnel_s: float, half_closed_s: float, write_s: float, on_done: OnDone
    ) -> None:
        self.services = services
        self.active_at = services.clock()
        self.client: RelayEnd
        self.server: RelayEnd
        self._tunnel_s = tunnel_s
        self._half_closed_s = half_closed_s
        self._write_s = write_s
        self._on_done = on_done
        self._is_done = False
        self._progress: dict[RelayEnd, tuple[int, float]] = {}
        self.watcher: Watcher | None = None
        services.swept.add(self)

    def pair(self, client: RelayEnd, server: RelayEnd) -> None:
        """Make the two ends each other's peer."""
        self.client, self.server = client, server
        client.peer, server.peer = server, client

    def join(self, client: RelayEnd, down: asyncio.Transport, server: RelayEnd, up: asyncio.Transport) -> None:
        """Turn two connected transports into a tunnel."""
        self.pair(client, server)
        client.attach(down)
        server.attach(up)
        client.is_flushed = server.is_flushed = True
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
        self.active_at = self.services.clock()
        peer = end.peer
        if peer is None or not end.is_flushed:
            return  # flush_early passes it on
        peer.end_writing()
        if self.client.has_ended and self.server.has_ended:
            self._close("ok", None)

    def end_lost(self, end: RelayEnd, exc: Exception | None) -> None:
        """A transport is gone. Before both FINs that is a reset, or a failed write."""
        if self._is_done:
            return
        if exc is None and self.client.has_ended and self.server.has_ended:
            self._close("ok", None)
            return
        is_client = end is self.client
        self._cut(CLIENT_ABORT.word if is_client else RESET.word, Side.CLIENT if is_client else Side.UPSTREAM)

    def _close(self, word: str, side: Side | None) -> None:
        self._done(word, side)
        for end in (self.client, self.server):
            if end.is_connected:
                end.transport.close()

    def _cut(self, word: str, side: Side | None) -> None:
        self._done(word, side)
        for end in (self.client, self.server):
            if end.is_connected:
                abort(end.transport)

    def fail(self, word: str, side: Side | None) -> None:
        """End it from outside, with a reset to whoever is connected."""
        if not self._is_done:
            self._cut(word, side)

    def _done(self, word: str, side: Side | None) -> None:
        if self._is_done:
            return
        self._is_done = True
        self.services.swept.discard(self)
        self._on_done(self, word, side)

    # --- the sweeper's calls ----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        if self.watcher is not None:
            self.watcher.sweep(now)
        if self._is_done:
            return
        for end in (self.client, self.server):
            if end.is_connected and self._is_stuck(end, now):
                is_client = end is self.client
                word = CLIENT_WRITE_TIMEOUT.word if is_client else UPSTREAM_WRITE_TIMEOUT.word
                self._cut(word, Side.CLIENT if is_client else Side.UPSTREAM)
                return
        limit = self._half_closed_s if self.client.has_ended or self.server.has_ended else self._tunnel_s
        if self.client.is_connected and self.server.is_connected and now - self.active_at >= limit:
            self._cut(TUNNEL_TIMEOUT.word, None)

    def _is_stuck(self, end: RelayEnd, now: float) -> bool:
        """Has this end taken nothing of what waits for it for the write time-out?"""
        unsent = end.transport.get_write_buffer_size()
        taken = end.n_written - unsent
        before, since = self._progress.get(end, (None, now))
        if not unsent or taken != before:
            self._progress[end] = (taken, now)
            if taken != before and before is not None:
                self.active_at = now  # a reader that drains slowly keeps its tunnel
            return False
        return now - since >= self._write_s

    def buffered_bytes(self) -> int:
        return sum(end.transport.get_write_buffer_size() for end in (self.client, self.server) if end.is_connected)

    def begin_drain(self, now: float) -> None:
        """A relay is work in flight: it may finish until grace is over."""

    def shut_down(self) -> None:
        """The grace period is over."""
        if not self._is_done:
            self.services.n_cut += 1
            self._cut(SHUTDOWN_CUT.word, None)
