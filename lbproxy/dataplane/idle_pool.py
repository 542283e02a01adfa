"""Idle connections to one server: last in, first out, so that surplus ones grow old at the bottom and expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbproxy.telemetry.slots import SERVER

if TYPE_CHECKING:
    from lbproxy.dataplane.runtime import ServerRuntime
    from lbproxy.dataplane.upstream import UpstreamConnection

_STALE: Final = SERVER.column("stale_connections_total")


class IdlePool:
    """Connections that are ready for another request. Each knows when it expires."""

    __slots__ = ("_runtime", "connections")

    def __init__(self, runtime: ServerRuntime) -> None:
        self._runtime = runtime
        self.connections: list[UpstreamConnection] = []

    def __len__(self) -> int:
        return len(self.connections)

    def take(self, now: float) -> UpstreamConnection | None:
        """The youngest connection that is still alive, or None. Dead and expired ones on the way are closed.

        Each is looked at once, with one poll of its descriptor (0.4 us): a FIN, RST or stray byte that the loop has not
        seen yet shows there, and a request written to such a connection would be lost (semantics section 1, R3).
        """
        connections = self.connections
        while connections:
            connection = connections.pop()
            if connection.expires_at > now and not connection.poll(0):
                return connection
            if connection.expires_at > now:
                self._runtime.row[_STALE] += 1
                self._runtime.closed_by_server(now - connection.idle_since, now)
            connection.close_idle()
        return None

    def put(self, connection: UpstreamConnection, limit: int) -> None:
        """Keep a connection, or close it when `limit` are kept already."""
        if len(self.connections) >= limit:
            connection.close_idle()
        else:
            self.connections.append(connection)

    def discard(self, connection: UpstreamConnection) -> bool:
        """Forget a connection that its server closed. False if it was not idle."""
        try:
            self.connections.remove(connection)
        except ValueError:
            return False
        return True

    def close_oldest(self) -> bool:
        """Give back one descriptor. False if there is none."""
        if not self.connections:
            return False
        self.connections.pop(0).close_idle()
        return True

    def sweep(self, now: float) -> None:
        """Close what has expired, and learn from what is still open."""
        if self.connections:
            self._runtime.server.idle_timeout.still_open(now - self.connections[0].idle_since, now)
        expired = [connection for connection in self.connections if connection.expires_at <= now]
        if expired:
            self.connections = [connection for connection in self.connections if connection.expires_at > now]
            for connection in expired:
                connection.close_idle()

    def retire_after(self, silence_s: float) -> None:
        """Close each connection after so much silence at the latest."""
        for connection in self.connections:
            connection.expires_at = min(connection.expires_at, connection.idle_since + silence_s)

    def close_all(self) -> None:
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.close_idle()
