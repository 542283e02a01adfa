"""What a client's connection knows of the listener through which it came."""

from __future__ import annotations

import socket

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.client.gate import Gated
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.protocol.proxy_protocol import ProxyHeader
from lbproxy.protocol.repeats import Repeats


@mypyc_attr(allow_interpreted_subclasses=True)
class Door(Gated):
    """See the module. runtime: the listener's settings, counters and counts.

    memo, memo_trusted: request heads that came twice, by whether the peer's forwarding fields are believed; http2_memo
    and http2_memo_trusted: those that came in HTTP/2. n_streams: requests under way in HTTP/2.
    """

    __slots__ = ("http2_memo", "http2_memo_trusted", "memo", "memo_trusted", "n_streams", "runtime")

    memo: Repeats[Prepared]
    memo_trusted: Repeats[Prepared]
    http2_memo: Repeats[Prepared]
    http2_memo_trusted: Repeats[Prepared]
    n_streams: int
    runtime: ListenerRuntime

    def adopt(
        self, connection: socket.socket, peer: object, local: object = None, proxied: ProxyHeader | None = None
    ) -> None:
        """Serve a connection that was accepted and counted; proxied: what its PROXY header said."""
        raise NotImplementedError

    def connection_closed(self, ip: str) -> None:
        """ip: what it was admitted by; "" if it was not yet, or has no address."""
        raise NotImplementedError
