"""What the transport of a connection to a server of HTTP/2 knows: whom it tells what came."""

from __future__ import annotations

import asyncio
from typing import cast

from lbproxy.dataplane.net.socket_transport import Receiver
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.server.http2_connection import Http2Connection


class Http2Wire(Receiver):
    """See the module. connection: None when it is over."""

    __slots__ = ("connection",)

    def __init__(self, connection: Http2Connection) -> None:
        self.connection: Http2Connection | None = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.connection is not None:
            self.connection.connected(cast(StreamTransport, transport))

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection.octets_came(data)

    def eof_received(self) -> bool:
        if self.connection is not None:
            self.connection.lost(None, is_fin=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.lost(exc, is_fin=exc is None)

    def pause_writing(self) -> None:
        if self.connection is not None:
            self.connection.blocked()

    def resume_writing(self) -> None:
        if self.connection is not None:
            self.connection.unblocked()
