"""The ports of an exchange: who fills them in, one who asks without a request, and servers with shared connections."""

from __future__ import annotations

import gc
from typing import Any, Final

import pytest

from lbproxy.dataplane.exchange import ports
from lbproxy.dataplane.server import connection, sending, upstream
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.domain.states import Admin
from lbproxy.protocol.message import Field
from tests.support.asking import LINES, Asked, prepared_by
from tests.support.fake_transport import BACKOFF_S, FakeLb, FakeTransport, Peer, body_of, ok, status_of
from tests.support.multiplexed import REFUSED, WINDOW, ClientConnection, ServerConnection, Stream, share
from tests.unit.dataplane.exchange.interface import Port, uses_of

# --- the interface of the server's end ------------------------------------------------------------------------------

PORT = Port(
    (ports, "ServerStream"),
    (connection, "ServerConnection"),
    (sending, "SendingConnection"),
    (upstream, "UpstreamConnection"),
)


def test_the_interface_is_seen() -> None:
    assert len(PORT.open) > 12 and PORT.open == PORT.methods and issubclass(UpstreamConnection, ports.ServerStream)


def test_a_stream_need_not_be_a_connection() -> None:
    """Nor anything that receives bytes, or is kept."""
    assert ports.ServerStream.__mro__[1:] == (object,)
    assert ports.SharingServerStream.__mro__[1:] == (ports.ServerStream, object)


@pytest.mark.parametrize("name", PORT.open)
def test_http_1_takes_and_gives_the_same_types(name: str) -> None:
    PORT.check_same_types(name)


def test_an_exchange_asks_for_nothing_else() -> None:
    """So that another version of HTTP can stand on the server's side."""
    assert uses_of("stream", "upstream", "bound") == set(PORT.methods), "no less, and no more"


# --- a connection of HTTP/1 -----------------------------------------------------------------------------------------


class Bench:
    def __init__(self, lb: FakeLb) -> None:
        self.connection = UpstreamConnection(lb.services, next(iter(lb.pool.servers.values())))
        self.server = Peer(lb.loop, FakeTransport(lb.loop, self.connection, ("127.0.0.1", 9001), ("127.0.0.1", 5)))
        lb.servers.append(self.server)
        self.connection.connection_made(self.server.transport)
        self.prepared = prepared_by(lb)

    def ask(self) -> Asked:
        asked = Asked()
        asked.stream = self.connection
        asked.begin(self.prepared)
        return asked


def test_answers_in_pieces_and_the_connection_is_kept() -> None:
    with FakeLb() as lb:
        bench = Bench(lb)
        first = bench.ask()
        assert bench.server.got() == bench.prepared.forward + LINES + b"\r\n"
        answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok(b"hello")
        bench.server.send(answer[:-3])
        bench.server.send(answer[-3:])
        assert first.heard == [103, (200, b"he", False), (b"llo", True)]
        assert lb.runtimes[0].idle.take(lb.clock()) is bench.connection
        second = bench.ask()
        bench.server.send(ok(b"again"))
        assert second.heard == [(200, b"again", True)] and lb.n_idle == 1


def test_two_for_one_request_and_the_first_answer_is_taken() -> None:
    """As a hedge would do: neither connection knows of the other."""
    with FakeLb() as lb:
        benches = [Bench(lb), Bench(lb)]
        one, other = (bench.ask() for bench in benches)
        benches[1].server.send(ok(b"first"))
        benches[0].connection.abort()
        lb.loop.run()
        assert other.heard == [(200, b"first", True)] and one.heard == []
        assert benches[0].server.transport.is_lost and not benches[1].server.transport.is_lost


def test_what_fails_is_told_once() -> None:
    with FakeLb() as lb:
        bench = Bench(lb)
        asked = bench.ask()
        bench.server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        bench.server.fin()
        lb.loop.run()
        assert asked.heard == [(200, b"half", False), "truncated_body"]


# --- servers that are reached by shared connections -----------------------------------------------------------------

CONFIG = """
access_log: {path: /dev/null}
trusted_proxies: [192.0.2.0/24]
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools:
  app:
    servers: ["127.0.0.1:9001", "127.0.0.1:9002"]
    strategy: round_robin
    health_check: off
    retry: {attempts: 1, status: [503]}
    timeouts: {connect: 1s, response_head: 2s, read: 3s, write: 4s}
"""
GRPC_OK: Final[tuple[Field, ...]] = ((b"grpc-status", b"0"),)


class Shared(FakeLb):
    """Clients and servers whose connections have many streams."""

    def __init__(self, n_servers: int = 1) -> None:
        super().__init__(CONFIG)
        for runtime in self.runtimes[n_servers:]:
            runtime.server.admin = Admin.MAINT
        self.endpoints = share(self)
        self.connection = ClientConnection(self)

    def ask(self, name: str, body: bytes = b"", *, is_done: bool = True, method: str = "POST") -> Stream:
        """A request, on a stream of its own."""
        stream = self.connection.stream()
        stream.begin("198.51.100.1", name, body, is_done=is_done, method=method)
        return stream

    def asked(self, *names: str, **how: Any) -> tuple[list[Stream], ServerConnection]:
        """Some requests, and the connection on which they are at the first server."""
        streams = [self.ask(name, **how) for name in names]
        return streams, self.endpoints[0].connect()

    def check(self) -> None:
        super().check()
        self.connection.check()
        for endpoint in self.endpoints:
            assert (
                endpoint.waiting == []
                and [connection.streams for connection in endpoint.connections if connection.streams] == []
            )


def test_a_head_is_enough_for_frames() -> None:
    with Shared() as lb:
        [_], server = lb.asked("a", body=b"hello")
        [stream] = server.streams
        assert stream.fields[:2] == [(b":method", b"POST"), (b":path", b"/a")]
        fields = dict(stream.fields)
        assert fields[b":authority"] == b"h" and fields[b"content-length"] == b"5"
        assert fields[b"x-forwarded-for"] == b"198.51.100.1, 192.0.2.7" and fields[b"x-request-id"] == b"a"
        assert all(name == name.lower() for name in fields) and b"connection" not in fields
        assert (stream.got, stream.is_whole) == (b"hello", True)
        stream.answer()


def test_two_wait_for_one_connection_and_are_answered_in_the_other_order() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b")
        first, second = server.streams
        second.answer(b"", is_done=False)
        first.answer(b"whole")
        second.more(b"pie")
        second.more(b"ces", is_done=True)
        assert one.heard == [(200, b"whole", True)]
        assert other.heard == [(200, b"", False), (b"pie", False), (b"ces", True)]
        assert lb.ends == ["ok", "ok"] and lb.inflight == 0 and len(lb.endpoints[0].connections) == 1


def test_a_third_needs_another_connection() -> None:
    with Shared() as lb:
        _, server = lb.asked("a", "b", "c")
        assert len(server.streams) == 2 and len(lb.endpoints[0].waiting) == 1
        more = lb.endpoints[0].connect()
        for stream in [*server.streams, *more.streams]:
            stream.answer()
        assert lb.ends == ["ok"] * 3


def test_one_is_reset_and_the_other_goes_on() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b")
        first, second = server.streams
        first.fail()
        second.answer()
        assert one.heard == [(502, b"application/problem+json")] and other.heard == [(200, b"hi", True)]
        assert lb.ends == ["reset", "ok"] and lb.endpoints[0].connections == [server]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_connection_dies_under_both(method: str) -> None:
    """One answer has begun and is cut; what may be tried again is, at once, and at the same endpoint: on another."""
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b", method=method)
        server.streams[0].answer(b"half", is_done=False)
        server.die()
        assert one.heard == [(200, b"half", False), "cut"]
        lb.advance(BACKOFF_S)
        if method == "POST":
            assert other.heard == [(502, b"application/problem+json")] and lb.endpoints[0].waiting == []
            return
        again = lb.endpoints[0].connect()
        assert again is not server and again.streams[0].path == b"/b"
        again.streams[0].answer(b"again")
        assert other.heard == [(200, b"again", True)] and lb.log[-1]["attempts"] == 2


def test_one_that_is_refused_goes_elsewhere_with_its_whole_body_and_nobody_is_to_blame() -> None:
    """As after REFUSED_STREAM, whatever the method. The trailers go with it."""
    with Shared(2) as lb:
        stream = lb.ask("a", b"some", is_done=False)
        refusing = lb.endpoints[0].connect()
        stream.data(b"thing", is_done=True, trailers=((b"checksum", b"1"),))
        [first] = refusing.streams
        assert (first.got, first.is_whole, first.trailers) == (b"something", True, ((b"checksum", b"1"),))
        first.fail(REFUSED)
        lb.advance(BACKOFF_S)
        [second] = lb.endpoints[1].connect().streams
        assert (second.got, second.is_whole, second.trailers) == (b"something", True, ((b"checksum", b"1"),))
        second.answer()
        assert stream.heard[-1] == (200, b"hi", True) and lb.ends == ["ok"]
        assert lb.log[0]["attempts"] == 2 and lb.log[0]["tries"][0]["reason"] == "refused_stream"
        assert [runtime.server.errors for runtime in lb.runtimes] == [0, 0] and refusing.takes_more


def test_a_server_that_goes_away_answers_what_it_has_begun_and_the_rest_goes_elsewhere() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b")
        server.go_away(n_processed=1)
        lb.advance(BACKOFF_S)
        third = lb.ask("c")
        new = lb.endpoints[0].connect()
        assert sorted(stream.path for stream in new.streams) == [b"/b", b"/c"]
        for stream in [*server.streams, *new.streams]:
            stream.answer(stream.path)
        assert (one.heard, other.heard, third.heard) == (
            [(200, b"/a", True)],
            [(200, b"/b", True)],
            [(200, b"/c", True)],
        )


def test_a_pool_with_other_settings_opens_no_more_on_the_connections_that_it_has() -> None:
    with Shared() as lb:
        _, server = lb.asked("a")
        lb.runtimes[0].retire()
        lb.ask("b")
        new = lb.endpoints[0].connect()
        for stream in [*server.streams, *new.streams]:
            stream.answer()
        assert lb.ends == ["ok", "ok"] and new is not server


def test_trailers_come_back() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b")
        first, second = server.streams
        first.answer(b"message", trailers=GRPC_OK)
        second.answer(b"", is_done=False)
        second.more(b"message", is_done=True, trailers=GRPC_OK)
        assert one.trailers == [GRPC_OK] and other.trailers == [(), GRPC_OK]


def test_trailers_of_an_answer_that_is_kept_back_come_with_it() -> None:
    with Shared(2) as lb:
        stream = lb.ask("a", method="GET")
        first = lb.endpoints[0].connect().streams[0]
        first.answer(b"", status=503, is_done=False)
        first.more(b"busy", is_done=True, trailers=GRPC_OK)
        lb.advance(BACKOFF_S)
        second = lb.endpoints[1].connect().streams[0]
        second.fail()
        assert stream.heard == [(503, b"busy", True)] and stream.trailers == [GRPC_OK]


def test_an_answer_may_end_before_its_request_does() -> None:
    """Both directions at once; then the server has said all, and gets no more."""
    with Shared() as lb:
        (stream,), server = lb.asked("a", body=b"one", is_done=False)
        [there] = server.streams
        there.answer(b"1", is_done=False)
        stream.data(b"two")
        there.more(b"2")
        stream.data(b"three")
        assert there.got == b"onetwothree" and stream.heard == [(200, b"1", False), (b"2", False)]
        there.more(b"3", is_done=True)
        assert stream.heard[-1] == (b"3", True) and there.calls == ["NO_ERROR"]
        stream.data(b"four", is_done=True)
        assert there.got == b"onetwothree" and lb.ends == ["ok"] and server.takes_more and not stream.is_paused


@pytest.mark.parametrize("is_whole", [False, True])
def test_an_answer_at_once_needs_no_body(is_whole: bool) -> None:
    with Shared() as lb:
        (stream,), server = lb.asked("a", body=b"some" if is_whole else b"", is_done=is_whole)
        there = server.streams[0]
        there.answer(b"no", status=413)
        assert stream.heard == [(413, b"no", True)] and there.calls == ([] if is_whole else ["NO_ERROR"])


def test_a_client_that_goes_on_sending_behind_its_answer_fills_nothing() -> None:
    with Shared() as lb:
        (stream,), server = lb.asked("a", is_done=False)
        server.streams[0].answer(b"no", status=413)
        for _ in range(100):
            stream.data(bytes(WINDOW))
        assert stream.exchange.body.kept == 0 and lb.log[0]["bytes_in"] == 0


def test_what_a_server_does_not_take_holds_back_one_stream() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b", is_done=False)
        first, second = server.streams
        first.window = 4
        for stream in (one, other):
            stream.data(b"12345")
        assert (one.is_paused, other.is_paused) == (True, False) and (first.got, second.got) == (b"", b"12345")
        other.data(b"6", is_done=True)
        second.answer()
        first.takes(16)
        lb.loop.run()
        one.data(b"6", is_done=True)
        assert not one.is_paused and first.got == b"123456"
        first.answer()
        assert lb.ends == ["ok", "ok"]


def test_what_a_client_does_not_take_holds_back_one_stream() -> None:
    with Shared() as lb:
        (one, _), server = lb.asked("a", "b")
        first, second = server.streams
        for stream in (first, second):
            stream.answer(b"", is_done=False)
        one.exchange.client_blocked()
        assert (first.calls, second.calls) == (["pause"], [])
        first.more(b"was on its way")
        one.exchange.client_unblocked()
        assert (first.calls, second.calls) == (["pause", "resume"], [])
        for stream in (first, second):
            stream.more(b"", is_done=True)


def test_a_client_that_leaves_ends_one_stream() -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b")
        first, second = server.streams
        one.reset()
        assert first.calls == ["CANCEL"] and server.streams == [second]
        second.answer()
        assert other.heard == [(200, b"hi", True)] and lb.ends == ["client_abort", "ok"]


def test_a_client_that_leaves_while_the_connection_is_made_leaves_it_to_the_other() -> None:
    with Shared() as lb:
        one, other = lb.ask("a"), lb.ask("b")
        one.reset()
        [stream] = lb.endpoints[0].connect().streams
        stream.answer()
        assert other.heard == [(200, b"hi", True)] and lb.ends == ["client_abort", "ok"]


def test_a_connection_that_is_not_made_fails_all_who_wait_for_it() -> None:
    with Shared() as lb:
        streams = [lb.ask("a"), lb.ask("b")]
        lb.endpoints[0].refuse()
        lb.advance(BACKOFF_S)
        assert [stream.heard for stream in streams] == [[(503, b"application/problem+json")]] * 2


def test_a_connection_that_takes_too_long() -> None:
    with Shared() as lb:
        stream = lb.ask("a")
        stream.exchange.sweep(lb.clock() + 0.9)
        assert lb.endpoints[0].n_expired == 0
        stream.exchange.sweep(lb.clock() + 1.0)
        assert lb.endpoints[0].n_expired == 1 and len(lb.endpoints[0].waiting) == 1, "no byte was sent: it tries again"
        stream.reset()
        assert lb.endpoints[0].waiting == [] and lb.of_servers("upstream_errors_total", "connect_timeout") == 1


@pytest.mark.parametrize(("fault", "seconds"), [("response_timeout", 2.0), ("upstream_write_timeout", 4.0)])
def test_time_ends_one_stream(fault: str, seconds: float) -> None:
    with Shared() as lb:
        (one, other), server = lb.asked("a", "b", is_done=False)
        first, second = server.streams
        first.window = 0 if fault == "upstream_write_timeout" else 16
        one.data(b"x", is_done=fault == "response_timeout")
        start = lb.clock()
        for share_ in (0.0, 0.9, 1.0):
            one.exchange.sweep(start + share_ * seconds)
        assert one.heard[-1] == (504, b"application/problem+json") and first.calls == ["CANCEL"]
        assert server.streams == [second] and other.heard == []
        other.data(b"", is_done=True)
        second.answer()
        assert lb.ends == [fault, "ok"]


def test_an_answer_without_a_length_is_framed_for_a_client_of_http_1() -> None:
    """Either end may be of another version than the other."""
    with Shared() as lb:
        client = lb.connect()
        client.send(b"GET /a HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        [stream] = lb.endpoints[0].connect().streams
        stream.answer(b"", is_done=False)
        stream.more(b"hello")
        stream.more(b"", is_done=True, trailers=((b"x-sum", b"1"),))
        answer = client.got()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in answer
        assert body_of(answer) == b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"


def test_a_body_of_a_client_of_http_1_goes_up_without_its_chunks() -> None:
    with Shared() as lb:
        client = lb.connect()
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        [stream] = lb.endpoints[0].connect().streams
        client.send(b"3\r\nyou\r\n0\r\n\r\n")
        assert (stream.got, stream.is_whole) == (b"helloyou", True)
        assert b"transfer-encoding" not in dict(stream.fields)
        stream.answer()
        assert status_of(client.got()) == 200


def test_no_request_leaves_anything_for_the_collector() -> None:
    with Shared() as lb:
        _, server = lb.asked("warm")
        server.streams[0].answer()
        gc.collect()
        gc.disable()
        try:
            for number in range(100):
                stream = lb.ask(f"r{number}", b"x", is_done=False)
                there = server.streams[0]
                there.answer(b"", is_done=False)
                stream.data(b"y", is_done=True)
                there.more(b"z", is_done=True)
                del stream.exchange
            del stream, there
            assert gc.collect() == 0
        finally:
            gc.enable()
