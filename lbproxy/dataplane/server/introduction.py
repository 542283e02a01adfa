"""PROXY headers that lbproxy sends: on every new connection of a pool with `proxy_protocol`, before anything else.

The header leaves on the raw socket, before there is a transport: so it is a segment of its own, and in front of a TLS
handshake too.
"""

from __future__ import annotations

import asyncio
import socket

from lbproxy.address import Address
from lbproxy.dataplane.net.dialer import refuse_itself, target_of
from lbproxy.dataplane.net.unix_socket import connect_unix
from lbproxy.dataplane.runtime import PoolRuntime
from lbproxy.protocol.proxy_protocol import Endpoint, ProxyHeader, build


def introduction(pool: PoolRuntime, transport: asyncio.Transport | None, proxied: ProxyHeader | None) -> bytes:
    """The header that tells the pool's servers of a client, b"" if they get none.

    It names the ends of the client's connection to lbproxy, or what a PROXY header on that said. A client on a unix
    socket has no address: UNKNOWN. X-Forwarded-For does not count, since a connection is not a request.
    """
    if pool.proxy_protocol == "off":
        return b""
    if proxied is not None and (proxied.is_unix or proxied.source is not None):
        return build(pool.proxy_protocol, proxied.source, proxied.destination)
    if transport is None:
        return build(pool.proxy_protocol, None, None)
    peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return build(pool.proxy_protocol, _endpoint(peer), _endpoint(local))


def _endpoint(name: object) -> Endpoint | None:
    return name[:2] if isinstance(name, tuple) else None


async def introduced(loop: asyncio.AbstractEventLoop, address: Address, header: bytes) -> socket.socket:
    """A connected socket whose first bytes are the header, if there is one. `address` is literal. Raises OSError."""
    sock = await (connect_unix(address) if address.is_unix else _connect_tcp(loop, address))
    try:
        if header:
            await loop.sock_sendall(sock, header)
    except BaseException:  # also when the dial is cancelled: nobody else knows of this socket
        sock.close()
        raise
    return sock


async def _connect_tcp(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    family, target, _ = target_of(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, target)
        refuse_itself(sock, address.port)
    except BaseException:  # as above
        sock.close()
        raise
    return sock
