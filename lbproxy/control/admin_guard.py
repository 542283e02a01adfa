"""Bounds of the admin address: how many connections, and how long each may say nothing.

Its descriptors come out of the same limit as those of the traffic, and whoever can reach it needs no token to connect.
So there are few, the longest silent one makes room for a new one, and a head has to come in time. aiohttp has a bound
for none of these; this stands between its protocol object and the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

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


class AdminGuard:
    """Every connection of the admin address. limit: connections at once. clock: monotonic seconds."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._connections: dict[asyncio.BaseProtocol, GuardedConnection] = {}
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
        self._handle = loop.call_later(CHECK_S, self._tick, loop)
        self.sweep()

    def guarded(self, inner: asyncio.BaseProtocol) -> GuardedConnection:
        """What the loop talks to in place of aiohttp's protocol object."""
        return GuardedConnection(self, cast(asyncio.Protocol, inner))

    def now(self) -> float:
        return self._clock()

    def opened(self, connection: GuardedConnection) -> None:
        if len(self._connections) >= self.limit:
            self._make_room()
        self._connections[connection.inner] = connection
        if len(self._connections) > self.limit:  # all the others are being answered
            connection.end()

    def closed(self, connection: GuardedConnection) -> None:
        self._connections.pop(connection.inner, None)

    def _make_room(self) -> None:
        self._log.warning(
            "full", "the admin address has %d connections, its limit: the longest silent one is closed", self.limit
        )
        silent = [item for item in self._connections.values() if not item.n_requests]
        if silent:
            min(silent, key=lambda item: item.since).end()

    def began(self, inner: object) -> None:
        """A request's head is complete, and it is being answered."""
        connection = self._connections.get(cast(asyncio.BaseProtocol, inner))
        if connection is not None:
            connection.n_requests += 1
            connection.reads_head = False

    def ended(self, inner: object) -> None:
        """It is answered."""
        connection = self._connections.get(cast(asyncio.BaseProtocol, inner))
        if connection is not None:
            connection.n_requests -= 1
            connection.since = self._clock()
            connection.is_new = False

    def sweep(self) -> None:
        """Close who takes too long."""
        now = self._clock()
        for connection in list(self._connections.values()):
            if not connection.n_requests and now - connection.since >= connection.patience_s:
                connection.end()


class GuardedConnection(asyncio.Protocol):
    """One connection; `inner` is aiohttp's protocol object, which does the work.

    since: when it was opened, was answered or began a head. reads_head: bytes came, and no request began yet.
    """

    def __init__(self, guard: AdminGuard, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self._guard = guard
        self._transport: asyncio.Transport | None = None
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
        if self._transport is not None:
            self._guard.closed(self)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.inner.connection_made(transport)
        self._guard.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.closed(self)
        self._transport = None
        self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.n_requests and not self.reads_head:
            self.reads_head = True
            if not self.is_new:
                self.since = self._guard.now()
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()
