"""Calls of gRPC: what their status says of the server, when they are tried again, and errors of lbproxy's own."""

from __future__ import annotations

import struct

import pytest

from lbproxy.dataplane.exchange.exchange import Exchange
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.protocol.message import Field, Fields
from tests.support.fake_transport import FakeLb
from tests.support.h2_servers import H2Server, config
from tests.support.multiplexed import ClientConnection, Stream

TWO = '["127.0.0.1:9001", "127.0.0.1:9002"]'
MESSAGE = struct.pack(">BI", 0, 2) + b"hi"
GRPC = b"content-type: application/grpc\r\n"


class Call(Stream):
    """A stream on which a client has called something. answers: of lbproxy's own: (status, fields, body)."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection, 1)
        self.answers: list[tuple[int, Fields, bytes]] = []

    def call(self, fields: bytes = b"") -> None:
        """Begin one, whole."""
        raw = b"POST /s.S/M HTTP/1.1\r\nHost: h\r\n%b%bTransfer-Encoding: chunked\r\n\r\n" % (GRPC, fields)
        facts = self.facts
        prepared = prepare(
            facts.listener, raw, is_trusted=False, log_format=facts.listener.log_format, local_host="h", is_http2=True
        )
        now = self.services.clock()
        self.exchange = Exchange(self, prepared, ("1", b"X-Request-ID: 1\r\n"), "192.0.2.7", now)
        self.exchange.start(MESSAGE, is_done=True)

    def answer(self, request: object, status: int, fields: Fields, body: bytes, *, closes: bool) -> None:
        self.answers.append((status, fields, body))


class Calling(FakeLb):
    """One server or two, and a client that calls."""

    def __init__(self, *, servers: str = '["127.0.0.1:9001"]', retry: str = "{attempts: 0}") -> None:
        super().__init__(config(servers=servers, retry=retry))
        self.connection = ClientConnection(self)

    def call(self, fields: bytes = b"") -> Call:
        call = Call(self.connection)
        call.call(fields)
        self.loop.run()
        return call

    def accepted(self) -> H2Server:
        return H2Server(self, self.accept()).greet()

    def end(self) -> None:
        for runtime in self.runtimes:
            runtime.retire()
        self.loop.run()
        self.connection.check()

    def n_ejected(self) -> int:
        return sum(runtime.server.shown == "ejected" for runtime in self.runtimes)

    def calls(self, status: int | str) -> int:
        return self.of_servers("grpc_requests_total", str(status))


def ended(server: H2Server, stream_id: int, status: int, *more: Field, with_message: bool = True) -> None:
    """The server ends a call."""
    fields = [(b"grpc-status", b"%d" % status), *more]
    if with_message:
        server.answer(stream_id, MESSAGE, lines=GRPC, trailers=fields)
    else:
        server.answer(stream_id, b"", lines=GRPC + b"".join([b"%b: %b\r\n" % field for field in fields]))


def test_a_call_and_its_trailers() -> None:
    with Calling() as lb:
        call = lb.call()
        server = lb.accepted()
        ended(server, 1, 0)
        assert call.heard == [(200, MESSAGE, True)] and call.trailers == [[(b"grpc-status", b"0")]]
        assert lb.calls(0) == 1 and lb.n_ejected() == 0
        lb.end()


@pytest.mark.parametrize("with_message", [True, False])
@pytest.mark.parametrize(("status", "ejects"), [(14, True), (4, True), (13, False), (8, False), (5, False), (0, False)])
def test_what_the_breaker_takes_for_a_failure(status: int, ejects: bool, with_message: bool) -> None:
    with Calling(servers=TWO) as lb:
        servers: dict[str, H2Server] = {}
        for _ in range(30):
            call = lb.call()
            name = call.exchange.server
            if name not in servers:
                servers[name] = lb.accepted()
            server = servers[name]
            server.read()
            ended(server, server.end.last_peer_stream, status, with_message=with_message)
            assert call.heard[-1] == (200, MESSAGE if with_message else b"", True)
            if lb.n_ejected():
                break
        assert bool(lb.n_ejected()) is ejects and lb.calls(status) >= 5
        lb.end()


def test_a_streamed_call_is_judged_by_its_end() -> None:
    with Calling() as lb:
        call = lb.call()
        server = lb.accepted()
        server.answer(1, MESSAGE, lines=GRPC, is_end=False)
        assert lb.calls(14) == 0
        server.end.send_trailers(1, b"grpc-status: 14\r\n")
        server.say()
        assert call.heard == [(200, MESSAGE, False), (b"", True)] and lb.calls(14) == 1
        lb.end()


def test_a_call_without_a_status_is_unknown_and_an_odd_one_is_other() -> None:
    with Calling() as lb:
        lb.call()
        server = lb.accepted()
        server.answer(1, MESSAGE, lines=GRPC)
        lb.call()
        server.read()
        ended(server, 3, 99)
        assert lb.calls(2) == 1 and lb.calls("other") == 1
        lb.end()


@pytest.mark.parametrize(
    ("retry", "status", "more", "is_retried"),
    [
        ("{grpc: [unavailable], idempotent: true}", 14, (), True),
        ("{grpc: [unavailable]}", 14, (), False),
        ("{grpc: [aborted], idempotent: true}", 14, (), False),
        ("{grpc: [aborted], idempotent: true}", 10, (), True),
        ("{grpc: [unavailable], idempotent: true}", 14, ((b"grpc-retry-pushback-ms", b"100"),), False),
        ("{idempotent: true}", 14, (), False),
    ],
)
def test_which_calls_are_tried_again(retry: str, status: int, more: tuple[Field, ...], is_retried: bool) -> None:
    with Calling(servers=TWO, retry=retry) as lb:
        call = lb.call()
        ended(lb.accepted(), 1, status, *more, with_message=False)
        if is_retried:
            assert call.heard == []
            lb.advance(0.3)
            ended(lb.accepted(), 1, 0)
            assert call.heard == [(200, MESSAGE, True)] and lb.of_pool("retries_total", "status", "success") == 1
        else:
            assert call.heard == [(200, b"", True)]
        lb.end()


def test_a_call_with_a_message_is_not_tried_again() -> None:
    with Calling(servers=TWO, retry="{grpc: [unavailable], idempotent: true}") as lb:
        call = lb.call()
        ended(lb.accepted(), 1, 14)
        assert call.heard == [(200, MESSAGE, True)]
        lb.end()


def test_the_last_of_them_goes_to_the_client() -> None:
    with Calling(servers=TWO, retry="{grpc: [unavailable], idempotent: true, attempts: 1}") as lb:
        call = lb.call()
        ended(lb.accepted(), 1, 14, with_message=False)
        lb.advance(0.3)
        ended(lb.accepted(), 1, 14, with_message=False)
        assert call.heard == [(200, b"", True)] and lb.calls(14) == 2
        lb.end()


def test_errors_of_lbproxys_own_are_answers_without_a_message() -> None:
    with Calling() as lb:
        call = lb.call()
        lb.refuse()
        ((status, fields, body),) = call.answers
        found = dict(fields)
        assert (status, body, found[b"Content-Type"]) == (200, b"", b"application/grpc")
        assert found[b"grpc-status"] == b"14" and b"Pool app has no usable server" in found[b"grpc-message"]
        assert call.exchange.status == 503 and call.exchange.end == "no_server"
        lb.connection.check()


def test_the_deadline_is_kept_and_passed_on() -> None:
    with Calling() as lb:
        call = lb.call(b"grpc-timeout: 2S\r\n")
        lb.clock.now += 0.5
        server = lb.accepted()
        assert b"grpc-timeout: 1500m\r\n" in server.end.heads[0].lines
        server.read()
        lb.clock.now += 1.5
        call.exchange.sweep(lb.clock.now)
        ((_, fields, _),) = call.answers
        assert dict(fields)[b"grpc-status"] == b"4" and call.exchange.end == "total_timeout"
        assert server.read() == [("reset", 1, 8)]
        lb.end()


def test_a_pool_of_http1_gets_no_calls() -> None:
    with FakeLb(config().replace("protocol: h2", "protocol: h1")) as lb:
        connection = ClientConnection(lb)
        call = Call(connection)
        call.call()
        ((_, fields, _),) = call.answers
        assert dict(fields)[b"grpc-status"] == b"12" and call.exchange.end == "grpc_needs_h2"
        connection.check()
