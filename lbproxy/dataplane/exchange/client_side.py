"""What an exchange needs of the protocol object towards the client, whatever version of HTTP that speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.room import Guest
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.dataplane.services import Services
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.proxy_protocol import ProxyHeader


class ClientSide(Guest):
    """See the module. A base class, not a Protocol: compiled code calls methods of a class that it knows directly."""

    __slots__ = ("bound", "client_ip", "context", "listener", "proxied", "services", "transport")

    services: Services
    listener: ListenerRuntime
    client_ip: str
    context: PickContext
    transport: StreamTransport
    proxied: ProxyHeader | None
    bound: UpstreamConnection | None
    """The server's connection that nobody but this client may use (binding.py); perhaps it has ended meanwhile."""

    def forwarding_lines(self, exchange: Underway) -> bytes:
        """The fields that lbproxy adds to the head that goes up, request id included."""
        raise NotImplementedError

    def respond(
        self, exchange: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        """Send the final head and what there is of the body; with `is_done` that is all."""
        raise NotImplementedError

    def send_body(self, exchange: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """Send more of the body, now."""
        raise NotImplementedError

    def send_interim(self, head: ResponseHead | None) -> None:
        """Send a 1xx; None is lbproxy's own 100."""
        raise NotImplementedError

    def answer_fault(self, exchange: Underway, fault: Fault, detail: str, retry_after_s: int | None) -> None:
        """Answer with an error of lbproxy's own; nothing was sent yet."""
        raise NotImplementedError

    def answer_locally(self, exchange: Underway) -> None:
        """Give the route's own answer."""
        raise NotImplementedError

    def cut(self) -> None:
        """End the connection so that a truncated answer shows."""
        raise NotImplementedError

    def pause_body(self) -> None:
        """Stop reading the request."""
        raise NotImplementedError

    def resume_body(self) -> None:
        """Go on reading the request."""
        raise NotImplementedError

    def raw_transport(self) -> asyncio.Transport | None:
        """Where the bytes of the response's body go just as they are; None if this client gets them in a framing."""
        raise NotImplementedError

    def response_moved(self, size: int) -> None:
        """So many bytes were sent past the transport."""
        raise NotImplementedError

    def request_moved(self, *, is_blocked: bool) -> None:
        """Some of the request's body was read past the transport. is_blocked: it is the server that is waited for."""
        raise NotImplementedError

    def request_spliced(self) -> None:
        """The last byte of the request's body was read, and sent."""
        raise NotImplementedError

    def switch_to_tunnel(self, head: ResponseHead, exchange: Underway) -> tuple[StreamTransport, bytes, bool]:
        """Send the 101 and give away the transport, what was read behind the request, and whether its FIN was."""
        raise NotImplementedError

    def tunnel_closed(self) -> None:
        """The tunnel that had the transport is over."""
        raise NotImplementedError
