"""Connections to servers that belong to one client, because a user is, or is being, authenticated on them.

With NTLM and Negotiate whoever sends the next request on such a connection is that user (protocol/connection_auth.py).
So it is never put where the next client would find it: it stays with its client's connection, on which the handshake
goes on, and ends with it. A client has one at most, so that it has no more descriptors than others: a request that has
to go anywhere else ends it.
"""

from __future__ import annotations

from lbproxy.dataplane.exchange.client_stream import ClientStream
from lbproxy.dataplane.exchange.ports import ServerStream
from lbproxy.dataplane.runtime import ServerRuntime


def bind(side: ClientStream, stream: ServerStream) -> None:
    """A request that authenticates its connection is about to be sent on this one."""
    stream.bind()
    if stream is not side.bound:
        unbind(side)
        side.bound = stream


def unbind(side: ClientStream) -> None:
    """Close the connection that is this client's only, unless it is in use: then its exchange sees to it."""
    stream, side.bound = side.bound, None
    if stream is not None:
        stream.unbind()


def take_bound(side: ClientStream, runtime: ServerRuntime, now: float) -> ServerStream | None:
    """The client's own connection, if it goes to this server and can be used; else it is closed."""
    stream = side.bound
    if stream is None or stream.whose() is not runtime or not stream.is_ready(now):
        unbind(side)
        return None
    return stream
