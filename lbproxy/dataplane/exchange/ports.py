"""The two ends of a request, and the request as they know it: what each may ask of the other, and what it tells.

    client's end    ClientStream (client_stream.py)    <->    Underway      one for each request
    server's end    Endpoint, ServerStream             <->    AnswerSink    one for each try at a server

Neither end knows the other, nor what stands between them; and what stands between them knows no protocol. Framing
belongs to the streams: bodies pass here as they are, with their trailer fields. `client/` and `server/` implement what
is left open here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy import errors
from lbproxy.compiling import mypyc_attr, trait
from lbproxy.dataplane.exchange.admission import TooMany
from lbproxy.dataplane.exchange.body_tape import Follower
from lbproxy.dataplane.exchange.placing import Claimant
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.net.framed_transport import TunnelTransport
from lbproxy.dataplane.runtime import Connections, ServerRuntime, UpstreamTimeouts
from lbproxy.dataplane.services import Services
from lbproxy.errors import Fault
from lbproxy.protocol.body import BodyReader
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.proxy_protocol import ProxyHeader


@mypyc_attr(allow_interpreted_subclasses=True)
class Underway(Claimant):
    """What the client's end asks and tells. Times are monotonic seconds.

    id_line: the field line with the request id, last in the head that goes up and in the one that comes back.
    cookie_line: one that only the head that comes back has, besides those of the server; mostly b"". is_head:
    its method is HEAD. refusal: of a rate limit, None if none has refused it. request_done: it was read to its exact
    end. ended_at: 0.0 until it is over.
    """

    __slots__ = ("cookie_line", "ended_at", "id_line", "is_head", "prepared", "refusal", "request_done")

    def __init__(self, prepared: Prepared, id_line: bytes) -> None:
        super().__init__()
        self.prepared = prepared
        self.id_line = id_line
        self.cookie_line = b""
        self.is_head = prepared.is_head
        self.refusal: TooMany | None = None
        self.request_done = False
        self.ended_at = 0.0

    @property
    def is_done(self) -> bool:
        """Is it over, with an answer or without?"""
        raise NotImplementedError

    def fail(self, fault: Fault, detail: str, *, is_counted: bool = False) -> None:
        """End it with a fault: its answer if nothing was sent yet, else a cut that shows. is_counted: among the errors
        of its server."""
        raise NotImplementedError

    def client_left(self, fault: Fault = errors.CLIENT_ABORT, phase: str = "") -> None:
        """The client is gone: stop everything at once; the server is not to blame. phase: for the counter of aborts,
        where it is not that of the request itself."""
        raise NotImplementedError

    def time_left_s(self) -> float:
        """Seconds until the whole time for this request is over, inf if there is no such time."""
        raise NotImplementedError

    def answered_locally(self, status: int, bytes_out: int) -> None:
        """The client side has sent a redirect, a fixed response or an answer to OPTIONS."""
        raise NotImplementedError


@trait
@mypyc_attr(allow_interpreted_subclasses=True)
class ServerStream:
    """One request and its answer at a server. In HTTP/1 a connection is this, for one request after the other; where
    many share a connection, there is one for each.

    From `begin` on its sink hears what comes, until `is_done`, a fault, or one of `abort` and `detach`, and nothing
    after that: the stream has let go of it before it says so. An answer may be done before the request is. Then the
    stream sees to it that the server gets no more of that.

    A trait, since the connection of HTTP/1 is also something that receives bytes and something that is kept. What need
    not be compiled derives from `SharingServerStream`.
    """

    __slots__ = ()

    def begin(
        self,
        sink: AnswerSink,
        prepared: Prepared,
        lines: bytes,
        own: bytes,
        body: bytes,
        *,
        is_done: bool,
        expects: bool,
        trailers: Sequence[Field],
    ) -> None:
        """Send the head, and what there is of the body; with `is_done` that is all.

        lines, own: what lbproxy adds to the head, as field lines that each end with CR LF: those that are the same for
        the next request like this one, and those of this request only. expects: the server is asked for
        a 100 (RFC 9110 section 10.1.1), and gets no body before it. trailers: what came behind a body that is done.
        """
        raise NotImplementedError

    def write(self, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        """Send more of the body, or only its end."""
        raise NotImplementedError

    def abort(self) -> None:
        """Nobody wants the answer any more: the server hears of it at once. Nothing else on its connection does."""
        raise NotImplementedError

    def pause(self) -> None:
        """The client takes no more: what the server is sent of room to answer in is not renewed. What is on its way
        already may still come."""
        raise NotImplementedError

    def resume(self) -> None:
        """It takes more again."""
        raise NotImplementedError

    def read_at_most(self, size: int) -> None:
        """Of the answer so many bytes at once, until the request is over: much is kept for the client already, who does
        not take it. 0: as usual again."""
        raise NotImplementedError

    def stand_behind(self) -> None:
        """Until the request is over its answer is read behind those of others that are there at the same time."""
        raise NotImplementedError

    # --- how fast the server takes the request ------------------------------------------------------------------------

    def unsent_bytes(self) -> int:
        """What of the request waits in this process for the server to take it."""
        raise NotImplementedError

    def taken_bytes(self) -> int:
        """How much was taken from this process for the server, ever: a number that grows while it reads."""
        raise NotImplementedError

    # --- connections of one client (binding.py) -----------------------------------------------------------------------

    def whose(self) -> ServerRuntime:
        """The server's."""
        raise NotImplementedError

    def bind(self) -> None:
        """The connection belongs to one client from now on, and takes requests of nobody else."""
        raise NotImplementedError

    def unbind(self) -> None:
        """That client needs it no more: it ends, unless it has a request, which sees to it."""
        raise NotImplementedError

    def is_ready(self, now: float) -> bool:
        """May that client's next request begin on it?"""
        raise NotImplementedError

    # --- past the transports (kernel_path.py, tunnel.py) --------------------------------------------------------------

    def raw_source(self) -> asyncio.Transport | None:
        """Where the bytes of the answer's body come from just as they are; None if they come in frames."""
        raise NotImplementedError

    def raw_sink(self) -> asyncio.Transport | None:
        """Where those of the request's body go just as they are; None if they go in frames."""
        raise NotImplementedError

    def request_moved(self, size: int) -> None:
        """So many bytes of the request's body were sent past this object."""
        raise NotImplementedError

    def response_spliced(self) -> None:
        """The last byte of the answer's body was read past this object."""
        raise NotImplementedError

    def reset_inside(self) -> None:
        """An error of the connection was met outside the transport, which would take it for a clean end."""
        raise NotImplementedError

    def detach(self) -> TunnelTransport:
        """Give away what carries this stream: to a tunnel."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class SharingServerStream(ServerStream):
    """One of several on a connection: it has frames, and no bytes for the kernel; and no client has it for itself."""

    __slots__ = ()

    def bind(self) -> None:
        """Whoever is authenticated by connection is so in HTTP/1 only (RFC 9113 section 8.2.2 takes the field away)."""

    def unbind(self) -> None:
        """See `bind`."""

    def is_ready(self, now: float) -> bool:
        return False

    def read_at_most(self, size: int) -> None:
        """What may come is what the windows say, which the server has been told."""

    def stand_behind(self) -> None:
        """Answers come in the order in which the server gives them; much of them is read in turns."""

    def raw_source(self) -> asyncio.Transport | None:
        return None

    def raw_sink(self) -> asyncio.Transport | None:
        return None


@mypyc_attr(allow_interpreted_subclasses=True)
class Pending:
    """What will open a stream for somebody who waits. Ended by one of its methods it is silent."""

    __slots__ = ()

    def cancel(self) -> None:
        """Nobody waits any more."""
        raise NotImplementedError

    def expire(self) -> None:
        """It has taken longer than it may, which counts as a failed dial."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint(Connections):
    """Where a request can be sent: one server, with the connections to it. Only this knows which of them are idle, are
    being dialled, or have room for one more stream."""

    __slots__ = ()

    def open(self, sink: AnswerSink, services: Services, now: float, *, wants_fresh: bool) -> None:
        """Find or make a stream. The sink hears `opened`, before this returns or later; or `attempt_failed`, but only
        later, since who asks may be in the middle of a pool's books. Until then its `pending` is what it waits for.

        wants_fresh: on no connection that was used before.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class AnswerSink(Follower):
    """What the server's end asks and tells: who sent the request, and wants the answer.

    is_head: the method is HEAD. sent_at: when the head was sent, in monotonic seconds. pending: what opens a stream for
    it, while it waits for one; an endpoint sets it.
    """

    __slots__ = ("is_head", "pending", "sent_at")

    def __init__(self, now: float, *, is_head: bool) -> None:
        super().__init__()
        self.is_head = is_head
        self.sent_at = now
        self.pending: Pending | None = None

    @property
    def is_done(self) -> bool:
        """Is the request over, with an answer or without?"""
        raise NotImplementedError

    # --- before there is a stream -------------------------------------------------------------------------------------

    def dialled(self, connect_s: float) -> None:
        """A connection was made for it, which took so many seconds."""
        raise NotImplementedError

    def opened(self, stream: ServerStream, now: float) -> None:
        """Here is its stream: it begins."""
        raise NotImplementedError

    def broke(self) -> None:
        """A defect, which is reported: the request ends."""
        raise NotImplementedError

    def timeouts(self) -> UpstreamTimeouts:
        """How long its server may take for what."""
        raise NotImplementedError

    def wants_websocket(self) -> bool:
        """Is it to be a tunnel? Then only a stream on which the server opens one will do."""
        raise NotImplementedError

    def is_grpc(self) -> bool:
        """Is it a call of gRPC? Then a connection of HTTP/1 is of no use: calls end in trailers and may stream."""
        raise NotImplementedError

    def websocket_key(self) -> bytes:
        """The Sec-WebSocket-Key for a server of HTTP/1.1, where the client has sent none."""
        raise NotImplementedError

    def proxied(self) -> ProxyHeader | None:
        """What a PROXY header said of the client's connection."""
        raise NotImplementedError

    # --- the answer ---------------------------------------------------------------------------------------------------

    def interim_received(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""
        raise NotImplementedError

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        """The final head, with what came of the body; the stream has let go of this request if `is_done`."""
        raise NotImplementedError

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """More of the response's body."""
        raise NotImplementedError

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        """There will be no answer, or no more of it; the stream, if there was one, is over already.

        It may try again from inside of this, at the same endpoint too.
        """
        raise NotImplementedError

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        """101, and the bytes behind it that were read already."""
        raise NotImplementedError

    def upstream_blocked(self) -> None:
        """The server takes no more for now."""
        raise NotImplementedError

    def upstream_unblocked(self) -> None:
        """It takes more again."""
        raise NotImplementedError

    def splice_response(self, reader: BodyReader) -> bool:
        """Leave the rest of the response to the kernel if that is possible and pays."""
        raise NotImplementedError

    def response_spliced(self, size: int, *, is_blocked: bool) -> None:
        """So much of the response is on its way to the client, who takes it or does not."""
        raise NotImplementedError

    def bind_upstream(self) -> None:
        """The connection belongs to this client alone from now on (binding.py)."""
        raise NotImplementedError

    def trusts_unacked(self, runtime: ServerRuntime) -> bool:
        """Does a FIN with nothing acknowledged prove, for this server, that nothing was delivered?"""
        raise NotImplementedError

    def client_transport(self) -> asyncio.Transport | None:
        """Where the answer goes, for who must know how fast it does."""
        raise NotImplementedError
