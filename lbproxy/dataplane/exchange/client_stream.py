"""What an exchange needs of its client, whatever version of HTTP that speaks: one stream for each request.

In HTTP/1 the connection itself is the stream. Where several share a connection, what is true of that is in its
`ClientFacts`, one object for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.own_answers import edited, grpc_problem, local_answer, problem
from lbproxy.dataplane.exchange.ports import ServerStream, Underway
from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.net.tls_transport import StreamTransport
from lbproxy.dataplane.services import Services
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field, Fields


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class ClientStream:
    """See the module. A class, not a Protocol: compiled code calls methods of a class that it knows directly. A trait,
    since the connection of HTTP/1 is also something that receives bytes, and a `Guest`. What need not be compiled
    derives from `SharingClientStream`.

    transport: the connection's; for who must know how fast the client takes what it gets.
    """

    __slots__ = ("bound", "facts", "services", "transport")

    services: Services
    facts: ClientFacts
    transport: StreamTransport
    bound: ServerStream | None
    """The server's connection that nobody but this client may use (binding.py); perhaps it has ended meanwhile."""

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        """Send the final head and what there is of the body; with `is_done` that is all."""
        raise NotImplementedError

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """Send more of the body, now."""
        raise NotImplementedError

    def send_interim(self, head: ResponseHead | None) -> None:
        """Send a 1xx; None is lbproxy's own 100."""
        raise NotImplementedError

    def answer(self, request: Underway, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        """Send a whole answer of lbproxy's own; nothing was sent yet. closes: nothing more is wanted of this client."""
        raise NotImplementedError

    def answer_fault(self, request: Underway, fault: Fault, detail: str, retry_after_s: int | None) -> None:
        """Answer with an error of lbproxy's own, as problem+json, or as gRPC has it; nothing was sent yet."""
        if request.prepared.is_grpc:
            fields = edited(request.prepared, grpc_problem(fault, detail, request.tries))
            self.answer(request, 200, fields, b"", closes=fault.close)
            return
        allow = self.facts.listener.allow
        own, body = problem(fault, detail, request.request_id, retry_after_s, allow, request.tries)
        if request.refusal is not None:
            own += request.refusal.fields()
        elif fault.status == 401:
            own.append(self._challenge())
        request.bytes_out = 0 if request.is_head else len(body)
        self.answer(request, fault.status, edited(request.prepared, own), body, closes=fault.close)

    def _challenge(self) -> Field:
        guard = self.facts.listener.guard
        keys = guard.keys if guard is not None else None
        return b"WWW-Authenticate", keys.challenge if keys is not None else b"ApiKey"

    def answer_locally(self, request: Underway) -> None:
        """Give a route's redirect or fixed response, or the answer to OPTIONS with Max-Forwards: 0."""
        status, fields, body = local_answer(request.prepared, self.facts.listener.allow)
        self.answer(request, status, fields, body, closes=False)
        request.answered_locally(status, len(body))

    def cut(self, fault: Fault) -> None:
        """End the stream so that a truncated answer shows. fault: what ended it, for whom there is a way to say it."""
        raise NotImplementedError

    def pause_body(self) -> None:
        """Stop reading the request."""
        raise NotImplementedError

    def resume_body(self) -> None:
        """Go on reading the request."""
        raise NotImplementedError

    def raw_sink(self) -> asyncio.Transport | None:
        """Where the bytes of the response's body go just as they are; None if this client gets them in a framing."""
        raise NotImplementedError

    def raw_source(self) -> asyncio.Transport | None:
        """Where those of a request's body with a length come from, just as they are; None if they have a framing."""
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

    def give_stream(self, request: Underway, head: ResponseHead) -> tuple[TunnelTransport, bytes, bool]:
        """Send the head that says so, and give away what carries this stream: to a tunnel.

        Also returned: what was read behind the request, and whether the client's FIN was.
        """
        raise NotImplementedError

    def stream_over(self) -> None:
        """The tunnel that had it is done."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class SharingClientStream(ClientStream):
    """One of several on a connection: it has frames, and no bytes for the kernel."""

    __slots__ = ()

    def raw_sink(self) -> asyncio.Transport | None:
        return None

    def raw_source(self) -> asyncio.Transport | None:
        return None
