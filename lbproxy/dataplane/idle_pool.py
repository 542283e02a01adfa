"""Idle connections to one server: last in, first out, so that surplus ones grow old at the bottom and expire."""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.domain.reuse import TRIAL_S
from lbproxy.domain.server import Server
from lbproxy.telemetry.slots import SERVER, Row

_STALE: Final = SERVER.column("stale_connections_total")


class Kept(Receiver):
    """A connection to a server, as far as keeping it goes. Times are monotonic seconds.

    n_requests: that it has carried.
    """

    __slots__ = ("created_at", "expires_at", "has_ended", "idle_since", "n_requests")

    def __init__(self) -> None:
        self.has_ended = False
        self.created_at = 0.0
        self.idle_since = 0.0
        self.expires_at = float("inf")
        self.n_requests = 0

    def is_disturbed(self) -> bool:
        """Has the server closed it, or sent bytes, while it was idle?"""
        raise NotImplementedError

    def close_idle(self) -> None:
        """End it; it has no request."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeper:
    """Whose connections are kept: one server, and what is learned of it. row: its counters."""

    __slots__ = ("row", "server")

    def __init__(self, server: Server, row: Row) -> None:
        self.server = server
        self.row = row

    def closed_by_server(self, age_s: float, answers: int, opened_at: float, now: float) -> None:
        """The server ended a kept connection after so much silence and so many answers."""
        raise NotImplementedError

    def limit_lifted(self) -> None:
        """The server left a connection open that had carried as many requests as was thought that it would."""
        raise NotImplementedError


class IdlePool:
    """Connections that are ready for another request. Each knows when it expires.

    on_trial: one that has carried as many requests as its server is thought to answer on one, and gets no more; whether
    the server closes it is what one wants to know (domain/reuse.py).
    """

    __slots__ = ("_keeper", "connections", "on_trial")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.connections: list[Kept] = []
        self.on_trial: Kept | None = None

    def __len__(self) -> int:
        return len(self.connections) + (self.on_trial is not None)

    def take(self, now: float) -> Kept | None:
        """The youngest connection that is still alive, or None. Dead and expired ones on the way are closed.

        Each is looked at once, with one poll of its descriptor (0.4 us): a FIN, RST or stray byte that the loop has not
        seen yet shows there, and a request written to such a connection would be lost.
        """
        # Asked anew each time: what is learned of a dead one may put a shorter list in its place.
        while self.connections:
            connection = self.connections.pop()
            if connection.expires_at > now and not connection.is_disturbed():
                return connection
            if connection.expires_at > now:
                self._keeper.row[_STALE] += 1
                self._closed_by_server(connection, now)
            connection.close_idle()
        return None

    def put(self, connection: Kept, limit: int) -> None:
        """Keep a connection, or close it when `limit` are kept already."""
        if len(self.connections) >= limit:
            connection.close_idle()
        else:
            self.connections.append(connection)

    def put_used_up(self, connection: Kept, now: float) -> None:
        """One that its server will not answer on again: it is closed, or now and then watched."""
        if self.on_trial is None and self._keeper.server.reuse.is_trial_due(now):
            self.on_trial = connection
        else:
            connection.close_idle()

    def close_used_up(self, limit: int) -> None:
        """Close those that have carried so many requests."""
        used_up = [connection for connection in self.connections if connection.n_requests >= limit]
        self.connections = [connection for connection in self.connections if connection.n_requests < limit]
        for connection in used_up:
            connection.close_idle()

    def _closed_by_server(self, connection: Kept, now: float) -> None:
        age_s = now - connection.idle_since
        self._keeper.closed_by_server(age_s, connection.n_requests, connection.created_at, now)

    def ended(self, connection: Kept, now: float, *, is_fin: bool) -> None:
        """The server, or the network, ended a connection that may have been idle: what that teaches is learned."""
        if connection is self.on_trial:
            self.on_trial = None
            self._keeper.server.reuse.confirmed(now)
        elif self.discard(connection) and is_fin:
            self._closed_by_server(connection, now)

    def discard(self, connection: Kept) -> bool:
        """Forget a connection that has ended. False if it was not idle."""
        if connection is self.on_trial:
            self.on_trial = None
            return True
        try:
            self.connections.remove(connection)
        except ValueError:
            return False
        return True

    def sweep(self, now: float) -> None:
        """Close what has expired, and learn from what is still open."""
        if self.on_trial is not None:
            self._judge(self.on_trial, now)
        if self.connections:
            server = self._keeper.server
            server.idle_timeout.still_open(now - self.connections[0].idle_since, now)
            server.reuse.seen(max([connection.n_requests for connection in self.connections]), now)
        expired = [connection for connection in self.connections if connection.expires_at <= now]
        if expired:
            self.connections = [connection for connection in self.connections if connection.expires_at > now]
            for connection in expired:
                connection.close_idle()

    def _judge(self, connection: Kept, now: float) -> None:
        if now - connection.idle_since >= TRIAL_S:
            self.on_trial = None
            self._keeper.server.reuse.lifted(now)
            self._keeper.limit_lifted()
            connection.close_idle()

    def retire_after(self, silence_s: float) -> None:
        """Close each connection after so much silence at the latest."""
        for connection in self.connections:
            connection.expires_at = min(connection.expires_at, connection.idle_since + silence_s)

    def close_all(self) -> None:
        """Close every one of them."""
        connections, self.connections = self.connections, []
        if self.on_trial is not None:
            connections.append(self.on_trial)
            self.on_trial = None
        for connection in connections:
            connection.close_idle()


class NoIdlePool(IdlePool):
    """Of a server to which nothing new is sent: what comes back is closed."""

    __slots__ = ()

    def put(self, connection: Kept, limit: int) -> None:
        connection.close_idle()

    def put_used_up(self, connection: Kept, now: float) -> None:
        connection.close_idle()
