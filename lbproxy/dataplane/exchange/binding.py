"""Connections to servers that belong to one client, because a user is, or is being, authenticated on them.

With NTLM and Negotiate whoever sends the next request on such a connection is that user (protocol/connection_auth.py).
So it is never put where the next client would find it: it stays with its client's connection, on which the handshake
goes on, and ends with it. A client has one at most, so that it has no more descriptors than others: a request that has
to go anywhere else ends it.
"""

from __future__ import annotations

from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.upstream import UpstreamConnection


def bind(side: ClientStream, connection: UpstreamConnection) -> None:
    """A request that authenticates its connection is about to be sent on this one."""
    connection.is_bound = True
    if connection is not side.bound:
        unbind(side)
        side.bound = connection


def unbind(side: ClientStream) -> None:
    """Close the connection that is this client's only, unless it is in use: then its exchange sees to it."""
    connection, side.bound = side.bound, None
    if connection is not None and not connection.has_ended and connection.sink is None:
        connection.close_idle()


def take_bound(side: ClientStream, runtime: ServerRuntime, now: float) -> UpstreamConnection | None:
    """The client's own connection, if it goes to this server and can be used; else it is closed."""
    connection = side.bound
    if (
        connection is None
        or connection.has_ended
        or connection.runtime is not runtime
        or connection.expires_at <= now
        or connection.poll(0)
    ):
        unbind(side)
        return None
    return connection
