"""Bounds of the admin address: how many connections, and how long each may say nothing.

Its descriptors come out of the same limit as those of the traffic, and whoever can reach it needs no token to connect.
So there are few, the longest silent one makes room for a new one, and a head has to come in time. aiohttp has a bound
for none of these; this stands between its protocol object and the loop.

The first head of a connection is shown to the gate (admin_gate.py), one head in a turn of the loop, so that requests
that came meanwhile are not behind a queue of calls. aiohttp's protocol object is made when the gate has let it pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from lbproxy.control.admin_gate import HEAD_BYTES, peer_of
from lbproxy.telemetry.log import ThrottledLog

log = logging.getLogger(__name__)

CONNECTIONS = 64
BACKLOG = 16
"""A short queue: the loop accepts all of it before anybody is asked."""
HEAD_S = 10.0
IDLE_S = 75.0
WRITE_S = 30.0
REQUEST_S = 30.0
CHECK_S = 1.0
LINGER_S = 5.0
"""After a refusal. A reset, which a close would be while octets come, could take the answer from its reader."""
DISCARDED_BYTES = 4 * 1024 * 1024  # of a body that was refused; no more is read then, as reading costs too

Gate = Callable[[bytes, str], bytes | None]
"""From a head and its peer: the answer that refuses it, or None."""


def _open(head: bytes, peer: str) -> bytes | None:
    return None


class AdminGuard:
    """Every connection of the admin address. limit: connections at once. clock: monotonic seconds."""

    def __init__(self, limit: int, clock: Callable[[], float], gate: Gate = _open) -> None:
        self.limit = limit
        self.gate = gate
        self._clock = clock
        self._connections: dict[GuardedConnection, None] = {}  # the oldest first
        self._by_inner: dict[object, GuardedConnection] = {}  # those that the gate has let pass
        self._waiting: deque[GuardedConnection] = deque()  # their heads are there; each at most once
        self._log = ThrottledLog(log, clock=clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle = loop.call_later(CHECK_S, self._tick, loop)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for connection in list(self._connections):
            if connection.inner is None:
                connection.end()  # aiohttp ends the others

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_later(CHECK_S, self._tick, loop)
        self.sweep()

    def guarded(self, make: Callable[[], asyncio.BaseProtocol]) -> GuardedConnection:
        """What the loop talks to in place of aiohttp's protocol object. make: makes that."""
        return GuardedConnection(self, make)

    def now(self) -> float:
        return self._clock()

    def opened(self, connection: GuardedConnection) -> None:
        if len(self._connections) >= self.limit:
            self._make_room()
        self._connections[connection] = None
        if len(self._connections) > self.limit:  # all the others are being answered
            connection.end()

    def passed(self, connection: GuardedConnection) -> None:
        """The gate has let it pass, and it has an `inner`."""
        self._by_inner[connection.inner] = connection

    def closed(self, connection: GuardedConnection) -> None:
        self._connections.pop(connection, None)
        self._by_inner.pop(connection.inner, None)

    def head_came(self, connection: GuardedConnection) -> None:
        """Its turn comes: in this turn of the loop if nobody waits, else in one of the next."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._next_turn()

    def _next_turn(self) -> None:
        if self._loop is None:
            self._judge_next()
        else:
            self._loop.call_soon(self._judge_next)

    def _judge_next(self) -> None:
        try:
            self._waiting[0].judge()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._next_turn()

    def _make_room(self) -> None:
        self._log.warning(
            "full", "the admin address has %d connections, its limit: the longest silent one is closed", self.limit
        )
        silent = [item for item in self._connections if not item.n_requests]
        if silent:
            min(silent, key=lambda item: item.since).end()

    def began(self, inner: object) -> None:
        """A request's head is complete, and it is being answered."""
        connection = self._by_inner.get(inner)
        if connection is not None:
            connection.n_requests += 1
            connection.reads_head = False

    def ended(self, inner: object) -> None:
        """It is answered."""
        connection = self._by_inner.get(inner)
        if connection is not None:
            connection.n_requests -= 1
            connection.since = self._clock()
            connection.is_new = False

    def sweep(self) -> None:
        """Close who takes too long."""
        now = self._clock()
        for connection in list(self._connections):
            if not connection.n_requests and now - connection.since >= connection.patience_s:
                connection.end()


class GuardedConnection(asyncio.Protocol):
    """One connection; `inner` is aiohttp's protocol object, which does the work, None until the gate lets it pass.

    since: when it was opened, was answered or refused, or began a head. reads_head: bytes came, and no request began.
    """

    def __init__(self, guard: AdminGuard, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self.inner: asyncio.Protocol | None = None
        self._make = make
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._waits = False  # for the gate
        self._may_discard = 0
        self.since = guard.now()
        self.n_requests = 0
        self.reads_head = False
        self.is_new = True
        self.is_refused = False

    @property
    def patience_s(self) -> float:
        """For how long it may go on like this."""
        if self.is_refused:
            return LINGER_S
        if self._transport is not None and self._transport.get_write_buffer_size():
            return WRITE_S
        return HEAD_S if self.is_new or self.reads_head else IDLE_S

    def end(self) -> None:
        if self._transport is not None:
            self._guard.closed(self)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._guard.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.closed(self)
        self._transport = None
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            self._discard(len(data))
        elif self.inner is None:
            self._collect(data)
        else:
            if not self.n_requests and not self.reads_head:
                self.reads_head = True
                if not self.is_new:
                    self.since = self._guard.now()
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self.inner is None else self.inner.eof_received()

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    # --- the gate ---

    def _collect(self, data: bytes) -> None:
        self.reads_head = True
        self._head += data
        if not self._waits and (b"\r\n\r\n" in self._head or len(self._head) > HEAD_BYTES):
            self._waits = True
            if self._transport is not None:
                self._transport.pause_reading()
            self._guard.head_came(self)

    def judge(self) -> None:
        """It is its turn: refuse it, or let aiohttp have it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        head, self._head = self._head, b""
        answer = self._guard.gate(head, peer_of(transport))
        if answer is None:
            self._pass(transport, head)
            return
        self.is_refused = True
        self.since = self._guard.now()
        self._may_discard = DISCARDED_BYTES
        transport.write(answer)
        transport.write_eof()
        transport.resume_reading()

    def _pass(self, transport: asyncio.Transport, head: bytes) -> None:
        inner = self.inner = cast(asyncio.Protocol, self._make())
        self._guard.passed(self)
        inner.connection_made(transport)
        transport.resume_reading()
        inner.data_received(head)

    def _discard(self, n_bytes: int) -> None:
        self._may_discard -= n_bytes
        if self._may_discard < 0 and self._transport is not None:
            self._transport.pause_reading()  # the sweep ends it
