"""Bounds of the admin address: how many connections, and how long each may say nothing.

Its descriptors come out of the same limit as those of the traffic, and whoever can reach it needs no token to connect.
So there are few, the longest silent one makes room for a new one, and a head has to come in time. aiohttp has a bound
for none of these; this stands between its protocol object and the loop. Who has not been let pass yet is with the door
(admin_door.py), and counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from lbproxy.telemetry.log import ThrottledLog

log = logging.getLogger(__name__)

CONNECTIONS = 64
BACKLOG = 512
"""Who comes while the door rests waits here, as where it is full TCP tries again after a second only, or some: behind
300 callers that are refused and call again at once a probe took 11 s with 64 places, and takes 0.8 s."""
HEAD_S = 10.0
IDLE_S = 75.0
WRITE_S = 30.0
REQUEST_S = 30.0
CHECK_S = 1.0
SWEPT = 8
"""So many connections are closed in one turn of the loop; each is some ten microseconds."""


class Connection(Protocol):
    """since: when it was opened, was answered or refused, or began a head. n_requests: that are being answered."""

    @property
    def since(self) -> float: ...

    @property
    def n_requests(self) -> int: ...

    @property
    def patience_s(self) -> float:
        """For how long it may go on like this."""

    def end(self) -> None:
        """Close it, and tell the guard."""


class AdminGuard:
    """Every connection of the admin address. limit: connections at once. clock: monotonic seconds."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._connections: dict[Connection, None] = {}  # the longest silent first, among those that are silent
        self._by_inner: dict[object, GuardedConnection] = {}
        self._log = ThrottledLog(log, clock=clock)
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_later(CHECK_S, self._tick, loop)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_later(0.0 if self.sweep() else CHECK_S, self._tick, loop)

    def now(self) -> float:
        return self._clock()

    def opened(self, connection: Connection) -> None:
        if len(self._connections) >= self.limit:
            self._make_room()
        self._connections[connection] = None
        if len(self._connections) > self.limit:  # all the others are being answered
            connection.end()

    def touch(self, connection: Connection) -> None:
        """Its `since` is now."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def made(self, connection: GuardedConnection) -> None:
        """It has an `inner` now."""
        self._by_inner[connection.inner] = connection

    def closed(self, connection: Connection, inner: object = None) -> None:
        self._connections.pop(connection, None)
        self._by_inner.pop(inner, None)

    def _make_room(self) -> None:
        self._log.warning(
            "full", "the admin address has %d connections, its limit: the longest silent one is closed", self.limit
        )
        silent = next((item for item in self._connections if not item.n_requests), None)
        if silent is not None:
            silent.end()

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
            self.touch(connection)

    def sweep(self) -> bool:
        """Close who takes too long. True: some are left for the next turn."""
        now = self._clock()
        late = [item for item in self._connections if not item.n_requests and now - item.since >= item.patience_s]
        for connection in late[:SWEPT]:
            connection.end()
        return len(late) > SWEPT


class GuardedConnection(asyncio.Protocol):
    """One connection that was let pass; `inner` is aiohttp's protocol object, which does the work. make: makes that.

    head: what was read of it already. since: see Connection. reads_head: bytes came, and no request began.
    """

    def __init__(self, guard: AdminGuard, make: Callable[[], asyncio.BaseProtocol], head: bytes = b"") -> None:
        self.inner: asyncio.Protocol | None = None
        self._make = make
        self._guard = guard
        self._transport: asyncio.Transport | None = None
        self._head = head
        self._is_over = False
        self.since = guard.now()
        self.n_requests = 0
        self.reads_head = False
        self.is_new = True

    @property
    def patience_s(self) -> float:
        """For how long it may go on like this."""
        if self._transport is not None and self._transport.get_write_buffer_size():
            return WRITE_S
        return HEAD_S if self.is_new or self.reads_head else IDLE_S

    def end(self) -> None:
        self._is_over = True
        self._guard.closed(self, self.inner)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._is_over:  # others needed the room
            self._transport.abort()
            return
        inner = self.inner = cast(asyncio.Protocol, self._make())
        self._guard.made(self)
        inner.connection_made(transport)
        head, self._head = self._head, b""
        if head:
            self.data_received(head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.closed(self, self.inner)
        self._transport = None
        if self.inner is not None:
            self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.inner is None:
            return
        if not self.n_requests and not self.reads_head:
            self.reads_head = True
            if not self.is_new:
                self.since = self._guard.now()
                self._guard.touch(self)
                self._guard.touch(self)
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self.inner is None else self.inner.eof_received()

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()
