"""Both ends of requests that share connections, as HTTP/2's will: streams, without a protocol.

They are what the ports of an exchange are made for beside HTTP/1. A test moves them by hand:

    lb = FakeLb(...)
    stream = ClientConnection(lb).stream()         # the client's end
    stream.begin("POST", "/a")
    endpoint = share(lb)[0]                        # the servers' end, in the place of HTTP/1
    endpoint.connect().streams[0].answer(b"hi")

As in HTTP/2 a stream has a window: what it may be sent before it has asked for more. It asks for more when what it was
sent has gone on, so who holds back one stream holds back no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.client_stream import SharingClientStream
from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.forwarding import kept_request_id
from lbproxy.dataplane.exchange.ports import AnswerSink, Endpoint, Pending, SharingServerStream, Underway
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.services import Services
from lbproxy.errors import CONNECT_REFUSED, RESET, Fault, Retry, Side
from lbproxy.protocol.http1 import ResponseHead, parse_response_head
from lbproxy.protocol.message import Field, Fields
from tests.support.fake_transport import FakeLb, FakeTransport

PROXY = ("192.0.2.7", 40000)
WINDOW = 16  # bytes

# What HTTP/2 will have rows for: the server says that it has done nothing for this request.
REFUSED = Fault(
    word="refused_stream",
    status=502,
    side=Side.UPSTREAM,
    retry=Retry.ALWAYS,
    blames=False,
    metric="",
    reason="refused_stream",
    close=False,
    error="connection_terminated",
    hint="The server took no more streams.",
)


# --- towards clients ------------------------------------------------------------------------------------------------


class ClientConnection:
    """A connection of a trusted proxy. frames: what its streams were told to send, in that order: (number, what)."""

    def __init__(self, lb: FakeLb) -> None:
        self.lb = lb
        self.transport = FakeTransport(lb.loop, asyncio.Protocol(), PROXY, ("127.0.0.1", 5000))
        self.facts = ClientFacts(lb.listener.runtime)
        self.facts.connected(self.transport.get_extra_info("peername"), self.transport.get_extra_info("sockname"))
        self.frames: list[tuple[int, object]] = []
        self.n_streams = 0

    def stream(self) -> Stream:
        """One more, with the next number."""
        self.n_streams += 1
        return Stream(self, self.n_streams)

    def check(self) -> None:
        """Exchanges know streams only."""
        assert self.transport.written == [] and self.transport.calls == []
        self.transport.sock.close()


class Stream(SharingClientStream):
    """One of several streams of a client's connection. `heard` is what it was told to send, in that order.

    unread: what the client sent and lbproxy has not looked at. window: how much more the client may send.
    """

    def __init__(self, connection: ClientConnection, number: int = 0) -> None:
        self.connection = connection
        self.number = number
        self.services = connection.lb.services
        self.facts = connection.facts
        self.transport = connection.transport
        self.bound = None
        self.heard: list[object] = []
        self.trailers: list[Sequence[Field]] = []
        self.is_paused = False
        self.unread: list[tuple[bytes, bool, Sequence[Field]]] = []
        self.window = WINDOW
        self.exchange: Exchange

    def begin(
        self,
        user: str,
        request_id: str,
        body: bytes = b"",
        *,
        is_done: bool = True,
        method: str = "POST",
        fields: str = "",
    ) -> None:
        """A request with this stream as its client, from a user behind the trusted peer."""
        framing = f"Content-Length: {len(body)}" if is_done else "Transfer-Encoding: chunked"
        raw = (
            f"{method} /{request_id} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {user}\r\nX-Request-ID: {request_id}\r\n"
            f"{fields}{framing}\r\n\r\n"
        )
        facts = self.facts
        prepared = prepare(
            facts.listener,
            raw.encode(),
            is_trusted=facts.is_trusted,
            log_format=facts.listener.log_format,
            local_host=facts.local_host,
        )
        known = prepared.head.forwarding
        identity = kept_request_id(known), b"X-Request-ID: %b\r\n" % request_id.encode()
        self.exchange = Exchange(self, prepared, identity, facts.address_behind(known), self.services.clock())
        self.exchange.start(body, is_done=is_done)

    def data(self, data: bytes, *, is_done: bool = False, trailers: Sequence[Field] = ()) -> None:
        """The client sends more of the request, as far as it may."""
        assert len(data) <= self.window, "a client that keeps to the window"
        self.window -= len(data)
        self.unread.append((data, is_done, trailers))
        self._read()

    def _read(self) -> None:
        while self.unread and not self.is_paused:
            data, is_done, trailers = self.unread.pop(0)
            self.exchange.request_body(data, is_done=is_done, trailers=trailers)
            self.window += len(data)

    def reset(self) -> None:
        """The client wants no answer any more."""
        self.exchange.client_left()

    def _send(self, what: object) -> None:
        self.heard.append(what)
        self.connection.frames.append((self.number, what))

    # --- the port ---------------------------------------------------------------------------------------------------

    def respond(
        self, request: Underway, head: ResponseHead, body: bytes, *, is_done: bool, trailers: Sequence[Field]
    ) -> None:
        assert request is self.exchange
        self._send((head.status, body, is_done))
        self.trailers.append(trailers)

    def send_body(self, request: Underway, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        assert request is self.exchange
        self._send((data, is_done))
        self.trailers.append(trailers)

    def send_interim(self, head: ResponseHead | None) -> None:
        self._send(head.status if head is not None else 100)

    def answer(self, request: Underway, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        assert request is self.exchange
        self._send((status, dict(fields)[b"Content-Type"]))

    def cut(self, fault: Fault) -> None:
        self._send("cut")

    def pause_body(self) -> None:
        self.is_paused = True
        self._send("pause")

    def resume_body(self) -> None:
        self.is_paused = False
        self._send("resume")
        self.services.loop.call_soon(self._read)


# --- towards servers ------------------------------------------------------------------------------------------------


class ServerStream(SharingServerStream):
    """One of several streams of a server's connection, which a test plays.

    fields: of the request's head, with the names of HTTP/2. got: its body. is_whole: all of it was sent. trailers: what
    came behind it. calls: what else it was told, and what it told the server of itself. window: how much more of the
    body it may send.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.sink: AnswerSink | None = None
        self.fields: Fields = []
        self.got = b""
        self.is_whole = False
        self.trailers: Sequence[Field] = ()
        self.calls: list[str] = []
        self.window = 1 << 20
        self.unsent: list[tuple[bytes, bool, Sequence[Field]]] = []

    # --- the port ---------------------------------------------------------------------------------------------------

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
        self.sink = sink
        self.fields = request_fields(prepared, lines + own)
        if expects:
            self.fields.append((b"expect", b"100-continue"))
        self._send(body, is_done, trailers)

    def write(self, data: bytes, *, is_done: bool, trailers: Sequence[Field]) -> None:
        self._send(data, is_done, trailers)

    def abort(self) -> None:
        self.calls.append("CANCEL")
        self._over()

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def unsent_bytes(self) -> int:
        return sum(len(data) for data, _, _ in self.unsent)

    def taken_bytes(self) -> int:
        return len(self.got)

    def whose(self) -> ServerRuntime:
        return self.connection.endpoint.runtime

    # --- inside -----------------------------------------------------------------------------------------------------

    def _send(self, data: bytes, is_done: bool, trailers: Sequence[Field]) -> None:
        assert not self.is_whole and self in self.connection.streams
        self.unsent.append((data, is_done, trailers))
        self._flush()
        if self.unsent and self.sink is not None:
            self.sink.upstream_blocked()

    def _flush(self) -> None:
        while self.unsent and self.window >= len(self.unsent[0][0]):
            data, self.is_whole, self.trailers = self.unsent.pop(0)
            self.got += data
            self.window -= len(data)

    def _over(self) -> AnswerSink:
        sink, self.sink = self.sink, None
        assert sink is not None
        self.connection.streams.remove(self)
        return sink

    def _ended(self) -> AnswerSink:
        """The server has said all: it gets no more of the request, either."""
        if not self.is_whole:
            self.calls.append("NO_ERROR")
        return self._over()

    # --- what the server does ---------------------------------------------------------------------------------------

    @property
    def path(self) -> bytes:
        return dict(self.fields)[b":path"]

    def takes(self, size: int) -> None:
        """So much more of the body may come."""
        self.window += size
        self._flush()
        if not self.unsent and self.sink is not None:
            self.sink.upstream_unblocked()

    def answer(
        self,
        body: bytes = b"hi",
        *fields: bytes,
        status: int = 200,
        is_done: bool = True,
        trailers: Sequence[Field] = (),
    ) -> None:
        """HEADERS, and DATA that came with them."""
        raw = b"HTTP/1.1 %d OK\r\n" % status + b"".join(field + b"\r\n" for field in fields)
        head = parse_response_head(raw + b"\r\n", max_fields=100)
        sink = self._ended() if is_done else self.sink
        assert sink is not None
        sink.response_received(head, body, self.connection.endpoint.lb.clock(), is_done=is_done, trailers=trailers)

    def more(self, data: bytes, *, is_done: bool = False, trailers: Sequence[Field] = ()) -> None:
        """DATA."""
        sink = self._ended() if is_done else self.sink
        assert sink is not None
        sink.response_body(data, is_done=is_done, trailers=trailers)

    def fail(self, fault: Fault = RESET) -> None:
        """RST_STREAM, with whatever code means this."""
        self._over().attempt_failed(fault, "the stream was reset")


def request_fields(prepared: Prepared, lines: bytes) -> Fields:
    """A request's head in the terms of HTTP/2 (RFC 9113 section 8.3.1): what the port is given is enough for that."""
    first, *rest = (prepared.forward + lines).split(b"\r\n")
    method, path, _ = first.split(b" ")
    found: Fields = [(b":method", method), (b":path", path)]
    for line in rest:
        name, _, value = line.partition(b": ")
        lower = name.lower()
        if lower == b"host":
            found.append((b":authority", value))
        elif lower and lower not in (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"):
            found.append((lower, value))
    return found


class ServerConnection:
    """Several streams at one server. takes_more: new streams may begin here."""

    def __init__(self, endpoint: SharedEndpoint) -> None:
        self.endpoint = endpoint
        self.streams: list[ServerStream] = []
        self.takes_more = True

    def begin(self, sink: AnswerSink) -> None:
        stream = ServerStream(self)
        self.streams.append(stream)
        sink.opened(stream, self.endpoint.lb.clock())

    def go_away(self, n_processed: int) -> None:
        """GOAWAY: only the first few of its streams will be answered."""
        self.takes_more = False
        for stream in self.streams[n_processed:]:
            stream.fail(REFUSED)

    def die(self) -> None:
        """The connection is lost, under all of them."""
        self.takes_more = False
        for stream in list(self.streams):
            stream.fail(RESET)


class Wait(Pending):
    """A place at a connection that is being made."""

    def __init__(self, endpoint: SharedEndpoint, sink: AnswerSink) -> None:
        self.endpoint = endpoint
        self.sink = sink

    def cancel(self) -> None:
        self.endpoint.waiting.remove(self)

    def expire(self) -> None:
        self.endpoint.n_expired += 1
        self.cancel()


class SharedEndpoint(Endpoint):
    """A server with few connections and many streams. most: streams on each connection.

    waiting: who waits for the connection that is being made; `connect` and `refuse` say what comes of it.
    """

    def __init__(self, lb: FakeLb, runtime: ServerRuntime, most: int) -> None:
        self.lb = lb
        self.runtime = runtime
        self.most = most
        self.connections: list[ServerConnection] = []
        self.waiting: list[Wait] = []
        self.n_expired = 0

    def open(self, sink: AnswerSink, services: Services, now: float, *, wants_fresh: bool) -> None:
        for connection in self.connections:
            if connection.takes_more and len(connection.streams) < self.most:
                connection.begin(sink)
                return
        wait = Wait(self, sink)
        sink.pending = wait
        self.waiting.append(wait)

    def retire(self) -> None:
        for connection in self.connections:
            connection.takes_more = False

    # --- what the network does --------------------------------------------------------------------------------------

    def connect(self) -> ServerConnection:
        """The connection that is being made is there: as many as have room on it begin."""
        assert self.waiting, "nobody waits for a connection"
        connection = ServerConnection(self)
        self.connections.append(connection)
        first, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
        for wait in first:
            wait.sink.pending = None
            wait.sink.dialled(0.0)
            connection.begin(wait.sink)
        return connection

    def refuse(self) -> None:
        """It is not made: nobody who waited gets a stream."""
        waiting, self.waiting = self.waiting, []
        for wait in waiting:
            wait.sink.pending = None
            wait.sink.attempt_failed(CONNECT_REFUSED, "refused")


def share(lb: FakeLb, most: int = 2) -> list[SharedEndpoint]:
    """Have the servers reached by shared connections, with so many streams each, instead of by HTTP/1."""
    endpoints = [SharedEndpoint(lb, runtime, most) for runtime in lb.runtimes]
    for endpoint in endpoints:
        endpoint.runtime.endpoint = endpoint
    return endpoints
