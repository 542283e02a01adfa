"""The gate that all listeners share: `limits.connections`, and nobody more while too much is buffered."""

from __future__ import annotations

import logging
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.acceptor import Accepting
from lbproxy.dataplane.room import NOBODY, Room
from lbproxy.dataplane.services import Services
from lbproxy.domain.shared.places import MOST_AT_ONCE, Places

log = logging.getLogger("lbproxy")

FULL_LOG_S: Final = 60.0
KEPT_PLACES: Final = 2 * MOST_AT_ONCE  # that a worker does not use, and keeps for those to come


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


@mypyc_attr(allow_interpreted_subclasses=True)
class Neighbours:
    """The other workers, as the gate knows them."""

    __slots__ = ()

    def hand(self, worker: int, listener: str, fd: int, peer: object) -> bool:
        """Give a worker, 0 and up, a copy of a connection that came in at a listener of this name. peer: its address.
        False: not now."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Is no connection on its way to this worker?"""
        raise NotImplementedError


class ConnectionGate:
    """Counts the client connections of all listeners; pauses accepting at the limit and resumes below it.

    limit: how many there may be here now. places: where the limit is that of several workers, so that `limit` is what
    this one holds of it.
    """

    __slots__ = (
        "_is_over",
        "_listeners",
        "_most",
        "_n_coming",
        "_n_leaving",
        "_places",
        "_room",
        "_said_at",
        "_whole",
        "is_open",
        "limit",
        "n_connections",
        "neighbours",
    )

    def __init__(self, limit: int, places: Places | None = None) -> None:
        self.limit = limit
        self.n_connections = 0
        self._whole = limit
        self._most = limit
        self._places = places
        self.neighbours: Neighbours | None = None
        self._n_coming = 0  # when the sweep looked
        self._is_over = False  # more are held than there are, since the limit was lowered
        self._listeners: list[Gated] = []
        self._room: Room | None = None
        self._n_leaving = 0  # were asked to make way and are still there
        self._said_at = float("-inf")
        self.is_open = True

    @property
    def n_sharing(self) -> int:
        """How many processes have the limit in common."""
        return 1 if self._places is None else self._places.n_workers

    def add(self, listener: Gated) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Gated) -> None:
        """It accepts nobody any more; its connections count as long as they live."""
        self._listeners.remove(listener)

    def limit_to(self, whole: int, most: int) -> None:
        """Another limit: of all workers, and what this process can have at most. Nobody is sent away; over it nobody
        is accepted until enough have left."""
        self._whole, self._most = whole, most
        if self._places is None:
            self.limit = min(whole, most)
        else:
            self._give(self.limit - self.n_connections)
            self._take(is_waited_for=False)
            self._is_over = self._places.n_held > whole
        self._shut_or_open()

    def opened(self) -> None:
        self.n_connections += 1
        if self._places is not None:
            self._places.use(self.n_connections)
        if self.n_connections >= self.limit and self.is_open and not self._take(is_waited_for=False):
            self._shut()

    def _shut(self) -> None:
        self.is_open = False
        for listener in self._listeners:
            listener.wait_for_room()

    def closed(self) -> None:
        self.n_connections -= 1
        if self._n_leaving:
            self._n_leaving -= 1
        places = self._places
        if places is not None:
            places.use(self.n_connections)
            n_spare = self.limit - self.n_connections
            if self._is_over or places.is_wanted:
                self._give(n_spare)
                self._is_over = self._is_over and places.n_held > self._whole
            elif n_spare > KEPT_PLACES:
                self._give(n_spare - MOST_AT_ONCE)
        self._shut_or_open()

    def _shut_or_open(self) -> None:
        if self.n_connections < self.limit:
            self.reconsider()
        elif self.is_open:
            self._shut()

    def reconsider(self) -> None:
        if not self.is_open and self.n_connections < self.limit and not self._is_overloaded():
            self.is_open = True
            if self._places is not None:
                self._places.content()
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
        places = self._places
        if places is not None:
            if self._take(is_waited_for=True):
                self.reconsider()
                return
            if places.n_used < self._whole and self.limit < self._most:
                return  # another worker has places to spare, and was told
        if self._make_way():
            self._n_leaving += 1
        elif places is not None:
            places.ask_another()
        now = self._listeners[0].services.clock()
        if now - self._said_at >= FULL_LOG_S:
            self._said_at = now
            log.warning(
                "limits.connections (%d) is reached and others want to connect: idle clients make way",
                min(self._whole, self._most),
            )

    def _make_way(self) -> bool:
        if not self._listeners:
            return False
        services = self._listeners[0].services
        if self._room is None:
            self._room = Room(services.swept)
        return self._room.make(services.clock()) != NOBODY

    def sweep(self, now: float) -> None:
        """Look after what no event tells: buffers, and those who wait since nobody could make way for them."""
        self._give_up()
        self._count_coming()
        if self.is_open and self.n_connections >= self.limit:
            self._shut()
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

    # --- several workers --------------------------------------------------------------------------------------------

    def rung(self) -> None:
        """Another worker has given up places, or wants some."""
        places = self._places
        if places is None:
            return
        for _ in range(places.asked()):
            if self._make_way():
                self._n_leaving += 1
        if self.n_connections >= self.limit:
            if places.is_short:
                self._take(is_waited_for=True)
        else:
            self._give_up()
        self._shut_or_open()

    def _give_up(self) -> None:
        """What is not used here, if it is wanted elsewhere."""
        places = self._places
        if places is not None and places.is_wanted and not any(listener.has_queued for listener in self._listeners):
            self._give(self.limit - self.n_connections)

    def passes_on(self, listener: str, fd: int, peer: object) -> bool:
        """May another worker have this connection, as this one has more than its share? Then it has a copy."""
        places, neighbours = self._places, self.neighbours
        if places is None or neighbours is None:
            return False
        worker = places.lightest()
        if worker < 0:
            return False
        places.send(worker, 1)
        if not neighbours.hand(worker, listener, fd, peer):
            places.send(worker, -1)
            return False
        self.limit -= 1
        if self.n_connections >= self.limit and not self._take(is_waited_for=False) and self.is_open:
            self._shut()
        return True

    def receives(self) -> None:
        """Another worker has handed over a connection, and its place."""
        if self._places is not None:
            self._places.receive()
            self.limit += 1

    def _count_coming(self) -> None:
        """Whoever is killed between sending a place and its connection has sent only the first."""
        places = self._places
        if places is None:
            return
        before, self._n_coming = self._n_coming, places.n_coming
        if before and self._n_coming >= before and self.neighbours is not None and self.neighbours.is_idle():
            places.forget_coming(before)
            self._n_coming = 0

    def _take(self, *, is_waited_for: bool) -> bool:
        places = self._places
        if places is None or self.limit >= self._most:
            return False
        got = places.take(self._whole, self._most - self.limit, is_waited_for=is_waited_for)
        self.limit += got
        return got > 0

    def _give(self, count: int) -> None:
        places = self._places
        if places is not None and count > 0:
            self.limit -= count
            places.give(count)
