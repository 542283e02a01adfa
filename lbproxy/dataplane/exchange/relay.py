"""Bytes both ways between two transports: TCP mode, and tunnels after an upgrade.

Each direction ends by itself: a FIN of one side is passed on after its last byte, and the other direction goes on
(bounded by half_closed). A reset of one side resets the other, so that a peer can tell an error from a clean end.
A transport does not close itself when its two directions have ended; `direction_ended` does.

A direction begins with its transports. Once it proves to be bulk, the kernel moves its bytes (splice.py), and the
transports have it back when it is no longer bulk, or when it ends: a FIN is always found by the transport.

    COPYING    reads of BULK_READ and more add up to SPLICE_FROM   -> EMPTYING: the source is paused
    EMPTYING   the peer's write buffer is empty                    -> SPLICING, or COPYING when out of pipes
    SPLICING   SMALL_MOVES small moves in a row, or IDLE_S without -> COPYING
               one, or the end of the stream
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from lbproxy.dataplane.net.pieces import add_piece
from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.dataplane.net.splice import Flow, is_plain, is_reset
from lbproxy.dataplane.net.tls_transport import StreamTransport
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

HIGH_WATER: Final = 64 * 1024
BULK_READ: Final = 16 * 1024
SPLICE_FROM: Final = 192 * 1024
SMALL_MOVES: Final = 8
IDLE_S: Final = 1.0
NOT_SOON: Final = 64 * 1024 * 1024  # bytes to copy before the next attempt, after there was no pipe

OnDone = Callable[["Relay", str, Side | None], None]


def longer_run(run: int, size: int) -> int:
    """The length in bytes of a run of large reads, after one more read. A small one ends it, unless it is a debt."""
    if size >= BULK_READ or run < 0:
        return run + size
    return 0


def more_small_moves(count: int, size: int) -> int:
    """How many moves in a row were small, after one more. Copying them would have been as cheap."""
    return count + 1 if size < BULK_READ else 0


class Watcher(Protocol):
    """Somebody with a deadline of its own while the relay is being set up."""

    def sweep(self, now: float) -> None: ...


class RelayEnd(Receiver):
    """One side of a relay. What it receives goes to its peer."""

    __slots__ = (
        "_awaits_empty",
        "_is_over",
        "_is_writing_ended",
        "_paused",
        "_run",
        "_sink",
        "_small_moves",
        "early",
        "flow",
        "has_ended",
        "is_connected",
        "is_flushed",
        "moved_at",
        "n_received",
        "n_seen",
        "peer",
        "relay",
        "transport",
        "was_connected",
    )

    transport: StreamTransport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.peer: RelayEnd | None = None
        self.is_connected = False
        self.was_connected = False
        self.is_flushed = False
        self.has_ended = False  # its FIN was seen
        self.n_received = 0
        self.early: list[bytes] = []
        self.flow: Flow | None = None  # moves what this end receives
        self.moved_at = 0.0  # a sweep saw n_received differ from n_seen
        self.n_seen = 0
        self._is_writing_ended = False
        self._paused = False
        self._sink: StreamTransport | None = None  # the peer's transport, once everything early was passed on
        self._is_over = False  # nobody takes what is received
        self._run = 0
        self._small_moves = 0
        self._awaits_empty = False

    def attach(self, transport: StreamTransport) -> None:
        """Take over a connected transport."""
        self.transport = transport
        self.is_connected = self.was_connected = True
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast(StreamTransport, transport))

    def _defect(self, error: Exception) -> None:
        """Confined to this relay, and the end of it."""
        self.relay.services.internal_error("relay", error)
        self.relay.fail(INTERNAL_ERROR.word, None)

    def data_received(self, data: bytes) -> None:
        try:
            size = len(data)
            self.n_received += size
            sink = self._sink
            if sink is None:
                self._keep_early(data)
                return
            sink.write(data)
            if size >= BULK_READ or self._run:
                self._run = longer_run(self._run, size)
                if self._run >= SPLICE_FROM:
                    self._leave_to_kernel()
        except Exception as error:  # a defect
            self._defect(error)

    def _keep_early(self, data: bytes) -> None:
        if self._is_over:
            return
        add_piece(self.early, data)
        if self.n_received > HIGH_WATER and not self._paused:  # all of it is early
            self._paused = True
            self.transport.pause_reading()
            self._watch_reset()

    def _watch_reset(self) -> None:
        """A client that waits for a server, and of which nothing more is read: a reset ends the waiting."""
        if self._sink is None and not self._is_over and self is self.relay.client:
            self.transport.watch_end(None)

    def flush_early(self) -> None:
        """The peer is there now: pass on what came before. Until this, neither data nor FIN may go past it."""
        peer = self.peer
        assert peer is not None
        self.is_flushed = True
        sink = self._sink = peer.transport
        for data in self.early:
            sink.write(data)
        self.early.clear()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if self.has_ended:
            self.relay.direction_ended(self)

    def eof_received(self) -> bool:
        self.has_ended = True
        try:
            self._watch_reset()
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
        if peer is None or not peer.is_connected or peer.transport.is_closing():
            return
        if peer._awaits_empty:
            peer._splice(self)
        elif peer.flow is None:
            peer.transport.resume_reading()

    # --- the kernel's turn (splice.Owner) ---------------------------------------------------------------------------

    def _leave_to_kernel(self) -> None:
        """This direction is bulk: stop reading, and splice once the peer has taken everything."""
        peer = self.peer
        if peer is None:
            return  # it is over
        self._run = 0
        if not self.relay.services.pipes.has_room or self.transport.is_closing() or peer.transport.is_closing():
            self._run = -NOT_SOON
            return
        if not is_plain(self.transport) or not is_plain(peer.transport):
            self._run = -(1 << 62)
            return
        self.transport.pause_reading()
        if peer.transport.get_write_buffer_size():
            self._awaits_empty = True
            peer.transport.set_write_buffer_limits(high=0)  # resume_writing comes when nothing is left in it
        else:
            self._splice(peer)

    def _splice(self, peer: RelayEnd) -> None:
        services = self.relay.services
        if self._awaits_empty:
            self._awaits_empty = False
            peer.transport.set_write_buffer_limits(high=HIGH_WATER)
        flow = services.pipes.open_flow(services.loop, self.transport, peer.transport, self)
        if flow is None:
            self._run = -NOT_SOON
            self.transport.resume_reading()
            return
        self.flow = flow
        self._small_moves = 0
        self.moved_at = services.clock()
        flow.run()

    def flow_moved(self, size: int, *, is_blocked: bool) -> None:
        if size:
            self.n_received += size
            self._small_moves = more_small_moves(self._small_moves, size)
            if self._small_moves >= SMALL_MOVES:
                self.take_back()

    def take_back(self) -> None:
        """No longer bulk: back to the transports, unless bytes are under way."""
        if self.flow is not None and self.flow.give_up():
            self.flow_ended()

    def flow_ended(self) -> None:
        self.flow = None
        if self.is_connected and not self.transport.is_closing():
            self.transport.resume_reading()

    def flow_failed(self, error: OSError, *, at_source: bool) -> None:
        self.flow = None
        end = self if at_source else self.peer
        assert end is not None
        self.relay.end_lost(end, error)

    def flow_crashed(self, error: Exception) -> None:
        self.flow = None
        self._defect(error)

    def stop_flow(self) -> None:
        if self.flow is not None:
            self.flow.close()
            self.flow = None
        self._awaits_empty = False

    def let_go(self) -> None:
        """The relay is over: forget the peer, which knows this end too."""
        self.peer = None
        self._sink = None
        self._is_over = True

    @property
    def unsent(self) -> int:
        """Bytes of the peer that this end has not taken yet."""
        size = self.transport.get_write_buffer_size()
        peer = self.peer
        return size if peer is None or peer.flow is None else size + peer.flow.pending


class Relay:
    """Two ends and what is known of both. `on_done(relay, end, side)` is called once: side is whose fault it was."""

    __deletable__ = ("client", "server")  # mypyc asks for it
    __slots__ = (
        "_half_closed_s",
        "_is_done",
        "_n_received",
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
        self._on_done: OnDone | None = on_done
        self._is_done = False
        self._n_received = 0
        self._progress: dict[RelayEnd, tuple[int, float]] = {}
        self.watcher: Watcher | None = None
        services.swept.add(self)

    def pair(self, client: RelayEnd, server: RelayEnd) -> None:
        """Make the two ends each other's peer."""
        self.client, self.server = client, server
        client.peer, server.peer = server, client

    def join(self, client: RelayEnd, down: StreamTransport, server: RelayEnd, up: StreamTransport) -> None:
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
        self.active_at = self.services.clock()
        peer = end.peer
        if peer is None or not end.is_flushed:
            return  # flush_early passes it on, or it is over
        peer.end_writing()
        if self.client.has_ended and self.server.has_ended and peer.is_flushed:
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
            self._progress.clear()
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
        before, since = self._progress.get(end, (None, now))
        if not unsent or taken != before:
            self._progress[end] = (taken, now)
            if taken != before and before is not None:
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
