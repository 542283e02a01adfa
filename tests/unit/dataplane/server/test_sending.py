"""What leaves on a connection to a server: heads, bodies in their framing, and what is known of how far that went."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy.dataplane.net.bulk import BulkReader
from lbproxy.dataplane.net.pieces import SMALL_BODY
from lbproxy.dataplane.server.upstream import UpstreamConnection
from tests.support.asking import LINES, Asked, prepared_by
from tests.support.fake_transport import GET, FakeLb, FakeTransport, Peer, body_of, ok, post

CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTS = post(b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 5")


class Bench:
    """A connection, and the server at its other end."""

    def __init__(self, lb: FakeLb) -> None:
        self.lb = lb
        self.connection = UpstreamConnection(lb.services, lb.runtimes[0])
        self.server = Peer(lb.loop, FakeTransport(lb.loop, self.connection, ("127.0.0.1", 9001), ("127.0.0.1", 5)))
        lb.servers.append(self.server)
        self.connection.connection_made(self.server.transport)

    def ask(self, raw: bytes, body: bytes = b"", *, is_done: bool = True, expects: bool = False) -> Asked:
        asked = Asked()
        asked.stream = self.connection
        head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        asked.begin(prepared_by(self.lb, head), body, is_done=is_done, expects=expects)
        return asked


@pytest.fixture
def bench() -> Iterator[Bench]:
    with FakeLb() as lb:
        made = Bench(lb)
        yield made
        made.connection.abort()
        lb.runtimes[0].idle.discard(made.connection)
        lb.loop.run()


def test_a_head_ends_with_what_is_added(bench: Bench) -> None:
    bench.ask(GET)
    got = bench.server.got()
    assert got.startswith(b"GET /a HTTP/1.1\r\n") and got.endswith(b"\r\n" + LINES + b"\r\n")


@pytest.mark.parametrize("size", [5, SMALL_BODY + 1])
def test_a_body_with_a_length_goes_as_it_is(bench: Bench, size: int) -> None:
    body = bytes(size)
    bench.ask(post(body), body)
    assert len(bench.server.transport.written) == 1 + (size > SMALL_BODY), "a small one is in one piece with its head"
    assert body_of(bench.server.got()) == body
    assert bench.connection.taken_bytes() == bench.connection.written and bench.connection.unsent_bytes() == 0


def test_a_body_without_one_goes_in_chunks_and_the_next_request_does_not(bench: Bench) -> None:
    asked = bench.ask(CHUNKED, b"ab", is_done=False)
    bench.connection.write(b"", is_done=False, trailers=())
    bench.connection.write(b"cde", is_done=False, trailers=())
    assert not bench.connection.request_done
    bench.connection.write(b"f", is_done=True, trailers=((b"sum", b"1"),))
    assert body_of(bench.server.got()) == b"2\r\nab\r\n3\r\ncde\r\n1\r\nf\r\n0\r\n\r\n", "trailers are dropped"
    bench.server.send(ok())
    assert asked.heard == [(200, b"hi", True)] and bench.lb.n_idle == 1
    bench.lb.runtimes[0].idle.discard(bench.connection)
    bench.ask(post(b"ab"), b"a", is_done=False)
    bench.connection.write(b"b", is_done=True, trailers=())
    assert body_of(bench.server.got()) == b"ab"


def test_a_whole_one_that_is_there_at_once_goes_in_chunks_too(bench: Bench) -> None:
    bench.ask(CHUNKED, b"ab")
    assert body_of(bench.server.got()) == b"2\r\nab\r\n0\r\n\r\n" and bench.connection.request_done


def test_an_expectation_stands_in_the_head_where_it_is_meant(bench: Bench) -> None:
    bench.ask(EXPECTS, is_done=False, expects=True)
    assert bench.server.got().endswith(LINES + b"Expect: 100-continue\r\n\r\n")
    bench.connection.write(b"hello", is_done=True, trailers=())
    assert bench.server.got() == b"hello"


def test_nor_where_the_body_is_there(bench: Bench) -> None:
    bench.ask(EXPECTS, b"hello")
    got = bench.server.got()
    assert b"Expect" not in got and body_of(got) == b"hello"


def test_what_the_kernel_has_moved_counts_as_sent(bench: Bench) -> None:
    bench.ask(post(bytes(100)), b"", is_done=False)
    before = bench.connection.taken_bytes()
    bench.connection.request_moved(100)
    assert bench.connection.taken_bytes() == before + 100


def test_a_connection_that_has_a_request_takes_no_other(bench: Bench) -> None:
    """Whoever would give it one has a defect; one of the two would get the other's answer."""
    bench.ask(GET)
    with pytest.raises(RuntimeError, match="has a request already"):
        bench.ask(GET)


def test_reading_is_held_back_while_there_is_a_connection(bench: Bench) -> None:
    bench.ask(GET)
    bench.connection.pause()
    assert bench.server.transport.is_paused
    bench.connection.resume()
    assert not bench.server.transport.is_paused
    bench.connection.abort()
    bench.connection.pause()
    bench.connection.resume()
    assert bench.server.transport.calls[-1] == "abort"


def test_one_client_s_connection_ends_with_that_unless_it_has_a_request(bench: Bench) -> None:
    bench.connection.bind()
    assert bench.connection.is_bound and bench.connection.whose() is bench.lb.runtimes[0]
    bench.ask(GET)
    bench.connection.unbind()
    assert bench.server.is_open
    bench.connection.sink = None
    assert bench.connection.is_ready(bench.lb.clock())
    bench.connection.unbind()
    assert not bench.server.is_open and not bench.connection.is_ready(bench.lb.clock())


def test_less_is_read_of_an_answer_that_has_begun_to_be_read_in_large_pieces(bench: Bench) -> None:
    connection, transport = bench.connection, bench.server.transport
    asked = bench.ask(GET)
    bench.server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(100_000))
    assert isinstance(transport.protocol, BulkReader)
    connection.read_at_most(7000)
    bench.server.send(bytes(100_000))
    assert not isinstance(transport.protocol, BulkReader) and asked.heard[-1] == (bytes(100_000 % 7000), False)
    connection.read_at_most(0)
    bench.server.send(bytes(100_000))
    assert isinstance(transport.protocol, BulkReader)
    connection.read_at_most(7000)
    bench.server.send(bytes(100_000))
    assert asked.heard[-1][1] is True
    assert bench.lb.n_idle == 1 and not transport.reads_at_most
    connection.read_at_most(7000)  # nobody's answer
    assert not transport.reads_at_most


def test_an_answer_is_read_behind_others_and_the_next_one_is_not(bench: Bench) -> None:
    connection, transport = bench.connection, bench.server.transport
    bench.ask(GET)
    connection.stand_behind()
    assert transport.is_behind
    bench.server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert bench.lb.n_idle == 1 and not transport.is_behind
    connection.stand_behind()  # nobody's answer
    assert not transport.is_behind


def test_a_tunnel_is_not_behind_others_for_good(bench: Bench) -> None:
    bench.ask(GET)
    bench.connection.stand_behind()
    bench.connection.detach()
    assert not bench.server.transport.is_behind


@pytest.mark.parametrize(
    ("raw", "pieces", "is_kept"),
    [
        (post(b"12345"), (b"", b"12", b"345"), True),
        (post(b"12345"), (b"12345",), True),
        (post(b""), (b"",), True),
        (EXPECTS, (b"", b"12345"), True),
        (post(b"12345"), (b"12", b"34"), False),
        (CHUNKED, (b"12345",), False),
    ],
)
def test_a_request_is_complete_by_its_length_though_its_end_was_not_said(
    bench: Bench, raw: bytes, pieces: tuple[bytes, ...], is_kept: bool
) -> None:
    """As of HTTP/2, where the frame that ends it comes behind all octets: the connection can be used again."""
    bench.ask(GET)
    bench.server.send(ok())
    bench.lb.runtimes[0].idle.discard(bench.connection)
    asked = bench.ask(raw, pieces[0], is_done=False, expects=raw == EXPECTS)
    for piece in pieces[1:]:
        bench.connection.write(piece, is_done=False, trailers=())
    bench.server.send(ok(b"hi"))
    assert asked.heard[-1] == (200, b"hi", True)
    assert (bench.lb.n_idle == 1, bench.server.is_open, bench.server.saw_reset) == (is_kept, is_kept, not is_kept)
