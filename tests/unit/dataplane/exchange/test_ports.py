"""A connection to a server serves whoever wants the answer: it needs no request, and no client."""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.dataplane.exchange.ports import AnswerSink
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from tests.support.fake_transport import FakeLb, FakeTransport, Peer, ok

HEAD = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Asked(AnswerSink):
    """Notes what it hears."""

    def __init__(self) -> None:
        super().__init__(0.0, is_head=False)
        self.heard: list[object] = []

    @property
    def is_done(self) -> bool:
        return False

    def interim_received(self, head: ResponseHead) -> None:
        self.heard.append(head.status)

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        self.heard.append((head.status, body, is_done))

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        self.heard.append((data, is_done))

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        self.heard.append(fault.word)

    def splice_response(self, reader: object) -> bool:
        return False

    def client_transport(self) -> None:
        return None


class Bench:
    def __init__(self, lb: FakeLb) -> None:
        self.connection = UpstreamConnection(lb.services, next(iter(lb.pool.servers.values())))
        self.server = Peer(lb.loop, FakeTransport(lb.loop, self.connection, ("127.0.0.1", 9001), ("127.0.0.1", 5)))
        lb.servers.append(self.server)
        self.connection.connection_made(self.server.transport)

    def ask(self) -> Asked:
        asked = Asked()
        self.connection.begin(asked, HEAD, is_done=True)
        return asked


def test_answers_in_pieces_and_the_connection_is_kept() -> None:
    with FakeLb() as lb:
        bench = Bench(lb)
        first = bench.ask()
        assert bench.server.got() == HEAD
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
