"""One side of a relay: a connection whose bytes go to its peer, through the transports or past them.

A direction begins with its transports. Once it proves to be bulk, the kernel moves its bytes (splice.py), and the
transports have it back when it is no longer bulk, or when it ends: a FIN is always found by the transport.

    COPYING    reads of BULK_READ and more add up to SPLICE_FROM   -> EMPTYING: the source is paused
    EMPTYING   the peer's write buffer is empty                    -> SPLICING, or COPYING when out of pipes
    SPLICING   SMALL_MOVES small moves in a row, or IDLE_S without -> COPYING
               one, or the end of the stream
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.net.pieces import add_piece
from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.dataplane.net.splice import Flow, is_plain
from lbproxy.dataplane.services import Services
from lbproxy.errors import INTERNAL_ERROR, Side

HIGH_WATER: Final = 64 * 1024
BULK_READ: Final = 16 * 1024
SPLICE_FROM: Final = 192 * 1024
SMALL_MOVES: Final = 8
NOT_SOON: Final = 64 * 1024 * 1024  # bytes to copy before the next attempt, after there was no pipe


def longer_run(run: int, size: int) -> int:
    """The length in bytes of a run of large reads, after one more read. A small one ends it, unless it is a debt."""
    if size >= BULK_READ or run < 0:
        return run + size
    return 0


def more_small_moves(count: int, size: int) -> int:
    """How many moves in a row were small, after one more. Copying them would have been as cheap."""
    return count + 1 if size < BULK_READ else 0


class Joining:
    """The relay, as its ends know it."""

    __deletable__ = ("client", "server")  # mypyc asks for it
    __slots__ = ("client", "server", "services")

    services: Services
    client: RelayEnd
    server: RelayEnd

    def direction_ended(self, end: RelayEnd) -> None:
        """A FIN arrived from `end`."""
        raise NotImplementedError

    def end_lost(self, end: RelayEnd, exc: Exception | None) -> None:
        """A connection is gone; exc: why, None after a clean end."""
        raise NotImplementedError

    def fail(self, word: str, side: Side | None) -> None:
        """End it from outside, with a reset to whoever is connected. side: whose fault it is."""
        raise NotImplementedError


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
        "taken_at",
        "taken_before",
        "transport",
        "was_connected",
    )

    transport: TunnelTransport

    def __init__(self, relay: Joining) -> None:
        self.relay = relay
        self.peer: RelayEnd | None = None
        self.is_connected = False
        self.was_connected = False
        self.is_flushed = False
        self.has_ended = False  # its FIN was seen
        self.n_received = 0
        self.early: list[bytes] | None = None  # what came before there was a peer to take it
        self.flow: Flow | None = None  # moves what this end receives
        self.moved_at = 0.0  # a sweep saw n_received differ from n_seen
        self.n_seen = 0
        self.taken_before = 0  # what it had taken and sent in the last sweep that saw that change, and when that was
        self.taken_at = -1.0  # in no sweep yet
        self._is_writing_ended = False
        self._paused = False
        self._sink: TunnelTransport | None = None  # the peer's transport, once everything early was passed on
        self._is_over = False  # nobody takes what is received
        self._run = 0
        self._small_moves = 0
        self._awaits_empty = False

    def attach(self, transport: TunnelTransport) -> None:
        """Take over a connected transport."""
        self.transport = transport
        self.is_connected = self.was_connected = True
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast(TunnelTransport, transport))

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
        if self.early is None:
            self.early = []
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
        if self.early is not None:
            for data in self.early:
                sink.write(data)
            self.early = None
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
