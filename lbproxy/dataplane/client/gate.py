"""The gate that all listeners share: `limits.connections`, and nobody more while too much is buffered."""

from __future__ import annotations

import logging
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.acceptor import Accepting
from lbproxy.dataplane.room import NOBODY, Room
from lbproxy.dataplane.services import Services

log = logging.getLogger("lbproxy")

FULL_LOG_S: Final = 60.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Gated(Accepting):
    """A listener, as the gate knows it."""

    __slots__ = ("services",)

    services: Services

    @property
    def has_queued(self) -> bool:
        """Does somebody wait in the kernel's queue?"""
        raise NotImplementedError

    def pause(self) -> None:
        """Leave new connections in the kernel's queue."""
        raise NotImplementedError

    def wait_for_room(self) -> None:
        """The same, but hear of each newcomer (`ConnectionGate.make_room`)."""
        raise NotImplementedError

    def resume(self) -> None:
        """Accept again, unless the gate is shut: it calls this when it opens. Watching would spin until then."""
        raise NotImplementedError


class ConnectionGate:
    """Counts the client connections of all listeners; pauses accepting at the limit and resumes below it."""

    __slots__ = ("_listeners", "_n_leaving", "_room", "_said_at", "is_open", "limit", "n_connections")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_connections = 0
        self._listeners: list[Gated] = []
        self._room: Room | None = None
        self._n_leaving = 0  # were asked to make way and are still there
        self._said_at = float("-inf")
        self.is_open = True

    def add(self, listener: Gated) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Gated) -> None:
        """It accepts nobody any more; its connections count as long as they live."""
        self._listeners.remove(listener)

    def limit_to(self, limit: int) -> None:
        """Another limit. Nobody is sent away; over it nobody is accepted until enough have left."""
        self.limit = limit
        if self.n_connections >= limit:
            if self.is_open:
                self._shut()
        else:
            self.reconsider()

    def opened(self) -> None:
        self.n_connections += 1
        if self.n_connections >= self.limit and self.is_open:
            self._shut()

    def _shut(self) -> None:
        self.is_open = False
        for listener in self._listeners:
            listener.wait_for_room()

    def closed(self) -> None:
        self.n_connections -= 1
        if self._n_leaving:
            self._n_leaving -= 1
        self.reconsider()

    def reconsider(self) -> None:
        if not self.is_open and self.n_connections < self.limit and not self._is_overloaded():
            self.is_open = True
            for listener in self._listeners:
                listener.resume()

    def hold(self) -> None:
        """Too much is buffered: accept nobody until `reconsider`."""
        if self.is_open:
            self.is_open = False
            for listener in self._listeners:
                listener.pause()

    def make_room(self) -> None:
        """Somebody waits. At the limit, a client that has nothing to do makes way (room.py)."""
        if self.n_connections < self.limit or self._is_overloaded():
            return
        services = self._listeners[0].services
        now = services.clock()
        if self._room is None:
            self._room = Room(services.swept)
        if self._room.make(now) != NOBODY:
            self._n_leaving += 1
        if now - self._said_at >= FULL_LOG_S:
            self._said_at = now
            log.warning(
                "limits.connections (%d) is reached and others want to connect: idle clients make way", self.limit
            )

    def sweep(self, now: float) -> None:
        """Look after what no event tells: buffers, and those who wait since nobody could make way for them."""
        if self._is_overloaded():
            self.hold()
        else:
            self.reconsider()
        if self.is_open:
            if self._room is not None:
                self._room.forget()
        elif not self._n_leaving and any(listener.has_queued for listener in self._listeners):
            self.make_room()

    def _is_overloaded(self) -> bool:
        return any(listener.services.pressure.is_refusing for listener in self._listeners)
