"""Requests of clients that speak HTTP/2 and their answers, to and from servers of HTTP/1.1."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.client.http2_connection import LEAST_SHARE, MOST_HELD
from lbproxy.dataplane.client.http2_stream import _LastTrailers
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.net.socket_transport import FIRST_READ
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import CANCEL, DATA, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from lbproxy.protocol.h2.settings import OwnSettings
from lbproxy.protocol.message import NO_NAMES, SecretFields
from tests.support import h2_servers
from tests.support.fake_transport import FakeLb, Peer, ok
from tests.support.h2_ends import frame, headers
from tests.support.http2_client import Http2Client
from tests.support.listeners import listener_of
from tests.unit.dataplane.client.helpers import CHUNKED, CONFIG, UNTIL_CLOSE, connection_of, limited

LARGE = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, retry: {body_bytes: 1KiB}}}
"""
EDITING = """
listeners:
- bind: "127.0.0.1:1"
  routes: [{pool: app, headers: {response: {remove: [a]}}}]
pools: {app: {servers: ["127.0.0.1:9001"]}}
"""
REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
STREAM_WINDOW = 256 * 1024


def head_of(server: Peer) -> list[bytes]:
    """The head that a server got, without what differs each time; the request line first."""
    lines = server.got().partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line for line in lines if not line.startswith((b"X-Request-ID", b"X-Forwarded"))]


@pytest.mark.parametrize(
    ("method", "lines", "body", "expected"),
    [
        ("GET", [], None, [b"GET /a HTTP/1.1", b"Host: h", b"Via: 2 lbproxy"]),
        (
            "POST",
            ["content-length: 2"],
            b"hi",
            [b"POST /a HTTP/1.1", b"Host: h", b"Via: 2 lbproxy", b"Content-Length: 2"],
        ),
        ("POST", [], b"hi", [b"POST /a HTTP/1.1", b"Host: h", b"Via: 2 lbproxy", b"Transfer-Encoding: chunked"]),
        (
            "GET",
            ["te: trailers", "accept: a", "cookie: a=1", "cookie: b=2"],
            None,
            [
                b"GET /a HTTP/1.1",
                b"Host: h",
                b"accept: a",
                b"cookie: a=1; b=2",
                b"Via: 2 lbproxy",
                b"TE: trailers",
                b"Connection: TE",
            ],
        ),
        (
            "GET",
            ["x_y: dropped", "x-forwarded-for: 1.2.3.4", "x-request-id: mine"],
            None,
            [b"GET /a HTTP/1.1", b"Host: h", b"Via: 2 lbproxy"],
        ),
    ],
)
def test_a_server_gets_a_head_of_http_1(
    method: str, lines: list[str], body: bytes | None, expected: list[bytes]
) -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        client.begin(method, "/a", *lines, body=body)
        server = client.server()
        assert head_of(server) == expected


@pytest.mark.parametrize(
    ("method", "sent", "status", "fields", "body", "trailers"),
    [
        ("GET", ok(b"hi", "X: y"), 200, {"x": "y", "content-length": "2"}, b"hi", {}),
        ("GET", ok(b""), 200, {"content-length": "0"}, b"", {}),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 200, {"content-length": "9"}, b"", {}),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, {}, b"", {}),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, {"content-length": "7"}, b"", {}),
        ("GET", CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n\r\n", 200, {}, b"hi", {"a": "b"}),
        ("GET", CHUNKED + b"0\r\nA: b\r\n\r\n", 200, {}, b"", {"a": "b"}),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\n"
            b"Content-Length: 2\r\n\r\nhi",
            200,
            {"content-length": "2"},
            b"hi",
            {},
        ),
    ],
)
def test_a_client_gets_the_answer(
    method: str, sent: bytes, status: int, fields: dict[str, str], body: bytes, trailers: dict[str, str]
) -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin(method)
        client.answered_by(client.server(), sent)
        answer = client.answer(number)
        assert (answer.status, answer.fields, answer.body) == (status, fields, body)
        assert answer.trailers == trailers
        assert answer.is_whole and answer.reset is None
        assert lb.ends == ["ok"]
        assert lb.log[0]["protocol"] == "HTTP/2"
        assert client.peer.is_open


def test_interim_answers_pass() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin()
        client.answered_by(client.server(), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ok())
        assert client.answer(number).interim == [103]
        assert client.answer(number).status == 200


def test_a_body_waits_for_100_continue() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/a", "content-length: 2", "expect: 100-continue")
        server = client.server()
        server.got()
        client.answered_by(server, b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.answer(number).interim == [100]
        client.data(number, b"hi", is_end=True)
        assert server.got() == b"hi"
        client.answered_by(server, ok())
        assert client.answer(number).is_whole


def test_many_at_once_each_gets_its_own() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        numbers = [client.begin("GET", f"/{count}") for count in range(3)]
        servers = [client.server() for _ in numbers]
        for server in reversed(servers):
            path = server.got().split(b" ")[1]
            client.answered_by(server, ok(path))
        assert [client.answer(number).body for number in numbers] == [b"/0", b"/1", b"/2"]


def test_trailers_of_a_request_end_it() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        server = client.server()
        client.data(number, b"hi")
        client.trailers(number, b"a: b\r\n")
        assert server.got().endswith(b"2\r\nhi\r\n0\r\n\r\n")
        client.answered_by(server, ok())
        assert client.answer(number).is_whole


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [("/here", [], 200), ("/gone", [], 301), ("/a", ["expect: more"], 417), ("/" + "a" * 9000, [], 414)],
)
def test_answers_of_lbproxys_own(path: str, lines: list[str], status: int) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("GET", path, *lines)
        answer = client.answer(number)
        assert (answer.status, answer.is_whole, answer.reset) == (431 if len(path) > 1000 else status, True, None)
        again = client.begin("GET", "/here")
        assert client.answer(again).body == b"here"


def test_connect_is_refused_and_others_go_on() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.end.open_stream()
        client.raw(
            client.end.take_output() + headers(number, [(b":method", b"CONNECT"), (b":authority", b"h:1")], is_end=True)
        )
        assert client.answer(number).status == 405
        assert client.answer(client.begin("GET", "/here")).status == 200


def test_a_body_that_is_too_large_is_refused_and_no_more_of_it_wanted() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        client.server()
        client.data(number, b"x" * 1000)
        client.data(number, b"x" * 1000)
        answer = client.answer(number)
        assert (answer.status, answer.is_whole, answer.reset) == (413, True, NO_ERROR)
        assert lb.ends == ["body_too_large"]


def test_an_early_answer_is_whole_and_the_request_no_longer_wanted() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        server = client.server()
        client.data(number, b"some")
        client.answered_by(server, ok(b"enough"))
        answer = client.answer(number)
        assert (answer.body, answer.is_whole, answer.reset) == (b"enough", True, NO_ERROR)
        assert lb.ends == ["ok"]


def answered_without_end(lb: FakeLb, client: Http2Client, *pieces: bytes) -> int:
    """A request that is answered when all of its declared length is there, and not the frame that ends it."""
    is_kept = lb.n_idle
    number = client.begin("POST", "/a", f"content-length: {sum(map(len, pieces))}")
    server = lb.servers[0] if is_kept else client.server()
    for piece in pieces:
        client.data(number, piece)
    client.answered_by(server, ok(b"enough"))
    answer = client.answer(number)
    assert (answer.body, answer.is_whole, lb.ends[-1]) == (b"enough", True, "ok")
    assert lb.n_idle == 1, "the server has all of it, too"
    return number


@pytest.mark.parametrize("pieces", [(b"all",), (b"a", b"ll"), ()])
@pytest.mark.parametrize("has_trailers", [False, True])
def test_an_end_that_is_under_way_is_waited_for(pieces: tuple[bytes, ...], has_trailers: bool) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = answered_without_end(lb, client, *pieces)
        assert (client.answer(number).reset, lb.listener.n_streams) == (None, 1)
        if has_trailers:
            client.trailers(number, b"a: b\r\n")
        else:
            client.data(number, b"", is_end=True)
        assert (client.answer(number).reset, lb.listener.n_streams, client.end.n_streams) == (None, 0, 0)
        assert client.answer(client.begin("GET", "/here")).is_whole


@pytest.mark.parametrize("declared", [5, None])
def test_an_end_that_may_be_far_is_not_waited_for(declared: int | None) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/a", *([f"content-length: {declared}"] if declared else []))
        server = client.server()
        client.data(number, b"some")
        client.answered_by(server, ok(b"enough"))
        answer = client.answer(number)
        assert (answer.body, answer.is_whole, answer.reset) == (b"enough", True, NO_ERROR)


def test_an_end_that_comes_while_the_answer_waits_needs_no_more() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb, OwnSettings(stream_window=65_535, connection_window=1 << 20), gives_back=False)
        number = client.begin("POST", "/a", "content-length: 3")
        server = client.server()
        client.data(number, b"all")
        client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000)
        client.data(number, b"", is_end=True)
        client.take(number, 65_535)
        answer = client.answer(number)
        assert (len(answer.body), answer.is_whole, answer.reset) == (70_000, True, None)
        assert lb.listener.n_streams == 0


def test_an_end_that_is_waited_for_may_be_another_one() -> None:
    """The client gives the stream up, or sends more than it has declared, or trailers that are too long."""
    with FakeLb(CONFIG.replace("head_bytes: 1KiB", "head_bytes: 1KiB, trailer_bytes: 64")) as lb:
        client = Http2Client(lb)
        number = answered_without_end(lb, client, b"all")
        client.cancel(number)
        assert lb.listener.n_streams == 0
        number = answered_without_end(lb, client, b"all")
        client.data(number, b"and more")
        assert (client.answer(number).reset, lb.listener.n_streams) == (PROTOCOL_ERROR, 0)
        number = answered_without_end(lb, client, b"all")
        client.trailers(number, b"a: %b\r\n" % (b"b" * 99))
        assert (client.answer(number).reset, lb.listener.n_streams) == (None, 0)
        assert lb.ends == ["ok"] * 3


def test_what_waits_for_its_end_gives_back_what_others_need() -> None:
    """The credit of octets that the server has not taken, in the window that all streams share."""
    with FakeLb(LARGE) as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/a", "content-length: 200000")
        server = client.server()
        client.data(number, b"x" * 2000)
        server.stop_reading()
        for _ in range(11):
            client.data(number, b"x" * 18_000)
        connection = connection_of(lb)
        stream = connection._streams.get(number)
        assert stream is not None and stream.buffered_bytes() > 0
        client.answered_by(server, ok())
        assert client.answer(number).is_whole and client.answer(number).reset is None
        assert (stream.buffered_bytes(), stream._n_owed, connection.buffered_bytes()) == (0, 0, 0)
        client.data(number, b"", is_end=True)
        assert lb.listener.n_streams == 0


@pytest.mark.parametrize("is_padded", [False, True])
def test_who_never_sends_the_end_is_few_and_not_for_long(is_padded: bool) -> None:
    """As many as may be under way, for `timeouts.request_body`, whatever they send meanwhile that is no end."""
    with FakeLb(limited("streams: 3")) as lb:
        client = Http2Client(lb)
        numbers = [answered_without_end(lb, client, b"all") for _ in range(3)]
        assert client.answer(client.begin("GET", "/here")).reset == REFUSED_STREAM
        padding = frame(DATA, 8, numbers[0], b"\xff" + bytes(255))
        for octet in range(28):
            if is_padded:
                client.raw(padding[octet : octet + 1])
            assert lb.listener.n_streams == 3
            lb.advance(0.1)
        lb.advance(0.5)
        client.carry()
        assert lb.listener.n_streams == 0
        assert [client.answer(number).reset for number in numbers] == [NO_ERROR] * 3
        if is_padded:
            client.raw(padding[28:])
        assert client.answer(client.begin("GET", "/here")).is_whole
        assert lb.ends == ["ok"] * 4


@pytest.mark.parametrize("ends", [True, False])
def test_a_stop_waits_for_an_end_only_until_its_grace_is_over(ends: bool) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = answered_without_end(lb, client, b"all")
        connection = connection_of(lb)
        connection.begin_drain(lb.clock())
        client.carry()
        assert client.goaways[-1] == (number, NO_ERROR) and not client.peer.saw_fin
        if ends:
            client.data(number, b"", is_end=True)
        else:
            connection.shut_down()
            client.carry()
        assert client.peer.saw_fin
        assert (lb.listener.n_streams, lb.services.n_cut, lb.ends) == (0, 0, ["ok"])


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", CHUNKED])
def test_a_truncated_answer_never_looks_whole(head: bytes) -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        client.answered_by(server, head + b"5\r\nhello\r\n"[:6])
        server.fin()
        client.carry()
        answer = client.answer(number)
        assert (answer.status, answer.is_whole, answer.reset) == (200, False, INTERNAL_ERROR)
        other = client.begin()
        client.answered_by(client.server(), ok())
        assert client.answer(other).is_whole


def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = client.server()
        client.answered_by(server, UNTIL_CLOSE + b"hi")
        server.fin()
        client.carry()
        assert (client.answer(number).body, client.answer(number).is_whole) == (b"hi", True)


def test_a_client_that_resets_a_stream_has_left_and_its_server_hears_of_it() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number, other = client.begin(), client.begin()
        first, second = client.server(), client.server()
        client.cancel(number)
        assert not first.is_open
        assert lb.ends == ["client_abort"]
        client.answered_by(second, ok())
        assert client.answer(other).is_whole


def test_a_client_that_leaves_cancels_all_its_requests() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        client.begin()
        client.begin()
        servers = [client.server(), client.server()]
        client.peer.fin()
        assert [server.is_open for server in servers] == [False, False]
        assert lb.ends == ["client_abort", "client_abort"]


def test_a_malformed_request_reaches_no_server() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        client.raw(
            headers(
                1,
                [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b"a", b"b\r\n\r\nGET / HTTP/1.1")],
                is_end=True,
            )
        )
        assert lb.loop.dials == []
        assert lb.of_listener("rejected_total", "malformed_stream") == 1
        assert client.peer.is_open
        assert frames.rst_stream(1, PROTOCOL_ERROR) in client.peer.everything


def test_a_body_longer_than_it_says_ends_its_request() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb)
        number = client.begin("POST", "/a", "content-length: 2")
        server = client.server()
        client.data(number, b"hi and more", is_end=True)
        assert client.answer(number).reset == PROTOCOL_ERROR
        assert not server.is_open
        assert lb.ends == ["malformed_stream"]


# --- flow control ---------------------------------------------------------------------------------------------------


def test_a_server_that_takes_no_more_slows_its_stream_only() -> None:
    with FakeLb(LARGE) as lb:
        client = Http2Client(lb)
        slow, other = client.begin("POST"), client.begin("POST")
        first, second = client.server(), client.server()
        client.data(slow, b"x" * 2000)
        first.stop_reading()
        sent = 0
        while taken := client.data(slow, b"y" * 16384):
            sent += taken
        assert sent <= STREAM_WINDOW, "more than may wait for one stream"
        assert lb.listener.services.swept
        client.data(other, b"z" * 100_000, is_end=True)
        client.answered_by(second, ok())
        assert client.answer(other).is_whole
        before = len(first.everything)
        first.read_again()
        client.carry()
        assert len(first.everything) > before
        assert client.data(slow, b"y" * 16384) == 16384, "the window was given back"
        client.data(slow, b"", is_end=True)
        client.answered_by(first, ok())
        assert client.answer(slow).is_whole


def test_many_small_pieces_that_wait_are_few_objects() -> None:
    with FakeLb(LARGE) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        server = client.server()
        client.data(number, b"x" * 2000)
        server.stop_reading()
        client.data(number, b"y" * 2000)
        for _ in range(3000):
            client.end.send_data(number, b"z", False)
        client.carry()
        stream = connection_of(lb)._streams.get(number)
        assert stream is not None and len(stream._unread) <= 4
        assert stream.buffered_bytes() >= 3000
        server.read_again()
        client.carry()
        assert server.everything.count(b"z") == 3000


def test_a_client_that_opens_no_window_holds_back_its_server_only() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb, OwnSettings(stream_window=65_535, connection_window=1 << 20), gives_back=False)
        number, other = client.begin(), client.begin()
        server, second = client.server(), client.server()
        client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000, b"y" * 50_000)
        assert len(client.answer(number).body) == 65_535
        client.answered_by(second, ok(b"hi"))
        assert client.answer(other).body == b"hi"
        client.take(number, 65_535)
        answer = client.answer(number)
        assert len(answer.body) == 100_000 and answer.is_whole
        assert lb.ends == ["ok", "ok"]


def test_a_server_is_paused_while_its_client_takes_nothing() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb, OwnSettings(stream_window=65_535, connection_window=1 << 20), gives_back=False)
        number = client.begin()
        server = client.server()
        client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        assert server.transport.is_paused
        client.take(number, 65_535)
        client.answered_by(server, b"x" * 100_000)
        client.take(number, 65_535)
        client.take(number, 65_535)
        client.take(number, 65_535)
        assert client.answer(number).is_whole


def large_answer(client: Http2Client, server: Peer) -> None:
    """What one read brings of an answer of a MiB."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 20)
    client.answered_by(server, head + bytes(FIRST_READ - len(head)))


def untaken(lb: FakeLb, count: int) -> tuple[Http2Client, list[int], list[Peer]]:
    """A client that takes nothing, its requests, and their servers, none of which has answered."""
    client = Http2Client(lb, OwnSettings(streams=100, stream_window=0, connection_window=1 << 20), gives_back=False)
    numbers = [client.begin() for _ in range(count)]
    return client, numbers, [client.server() for _ in numbers]


def test_of_many_answers_that_nobody_takes_each_is_little() -> None:
    """A MiB, what was read before it was clear that it is too much, and of each of the others its share."""
    with FakeLb() as lb:
        client, _, servers = untaken(lb, 80)
        for server in servers[:40]:
            large_answer(client, server)
        late = client.begin()
        large_answer(client, client.server())
        for server in servers[40:]:
            large_answer(client, server)
        held = connection_of(lb).buffered_bytes()
        assert MOST_HELD < held <= 2 * MOST_HELD + FIRST_READ
        assert client.answer(late).status == 200


def test_few_answers_that_are_not_taken_are_read_as_usual() -> None:
    with FakeLb() as lb:
        client, _, servers = untaken(lb, 10)
        for server in servers:
            client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 250000\r\n\r\n" + bytes(200_000))
        assert connection_of(lb).buffered_bytes() == 2_000_000
        assert [server.transport.reads_at_most for server in servers] == [0] * 10


def test_what_is_taken_is_read_as_usual_again() -> None:
    with FakeLb() as lb:
        client, numbers, servers = untaken(lb, 99)
        for server in servers:
            large_answer(client, server)
        assert {server.transport.reads_at_most for server in servers} == {MOST_HELD // 99}
        other = client.begin()
        last = client.server()
        assert last.transport.reads_at_most == MOST_HELD // 100, "of those that come then, too"
        for number in numbers:
            client.cancel(number)
        assert not last.transport.reads_at_most
        client.end.renew_stream(other, 2)
        client.answered_by(last, ok(b"hi"))
        assert client.answer(other).is_whole
        assert connection_of(lb).buffered_bytes() == 0


def test_a_share_is_not_too_little_to_be_worth_a_read() -> None:
    with FakeLb(limited("streams: 200")) as lb:
        client, _, servers = untaken(lb, 150)
        for server in servers:
            large_answer(client, server)
        assert {server.transport.reads_at_most for server in servers} == {LEAST_SHARE}


def test_a_server_whose_answer_was_read_little_by_little_is_read_as_usual_next_time() -> None:
    with FakeLb() as lb:
        client, numbers, servers = untaken(lb, 99)
        for server in servers[:-1]:
            large_answer(client, server)
        client.answered_by(servers[-1], ok(bytes(30_000)))
        assert servers[-1].transport.reads_at_most
        for _ in range(4):
            client.end.renew_stream(numbers[-1], 10_000)
            client.carry()
        assert client.answer(numbers[-1]).is_whole
        assert lb.n_idle == 1 and not servers[-1].transport.reads_at_most


def test_streams_take_turns() -> None:
    with FakeLb() as lb:
        client = Http2Client(lb, OwnSettings(stream_window=1 << 20, connection_window=65_535), gives_back=False)
        numbers = [client.begin(), client.begin()]
        for server in [client.server(), client.server()]:
            client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        client.end.seen.clear()
        client.end.renew_connection(65_535)
        client.carry()
        order = [entry[1] for entry in client.end.seen if entry[0] == "data"]
        assert order[:4] == [*numbers, *numbers], "a frame each"
        for _ in range(3):
            client.end.renew_connection(65_535)
            client.carry()
        assert client.end.n_streams == 0
        assert lb.ends == ["ok", "ok"]


@pytest.mark.parametrize("by_reset", [False, True])
def test_a_stalled_stream_is_reset_after_a_while(by_reset: bool) -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb, OwnSettings(stream_window=65_535, connection_window=1 << 20), gives_back=False)
        number = client.begin()
        server = client.server()
        client.answered_by(server, b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        lb.advance(2.0)
        if by_reset:
            client.cancel(number)
            assert lb.ends == ["client_abort"]
            return
        lb.advance(4.0)
        client.carry()
        assert client.answer(number).reset == CANCEL
        assert lb.ends == ["client_write_timeout"]
        assert not server.is_open


def test_a_body_that_stalls_is_refused() -> None:
    with FakeLb(CONFIG) as lb:
        client = Http2Client(lb)
        number = client.begin("POST")
        client.server()
        client.data(number, b"some")
        lb.advance(2.0)
        client.data(number, b"more")
        lb.advance(2.0)
        assert lb.ends == []
        lb.advance(1.5)
        client.carry()
        assert (client.answer(number).status, lb.ends) == (408, ["body_timeout"])


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        (CANCEL, CANCEL, "stream_cancelled"),
        (NO_ERROR, CANCEL, "stream_cancelled"),
        (INTERNAL_ERROR, INTERNAL_ERROR, "stream_reset"),
        (PROTOCOL_ERROR, INTERNAL_ERROR, "stream_reset"),
    ],
)
def test_who_gave_an_answer_up_is_passed_on(said: int, code: int, word: str) -> None:
    with FakeLb(h2_servers.config()) as lb:
        client = Http2Client(lb)
        number = client.begin()
        server = h2_servers.H2Server(lb, lb.accept()).greet()
        server.answer(1, b"half", is_end=False)
        server.reset(1, said)
        client.carry()
        answer = client.answer(number)
        assert (answer.body, answer.is_whole, answer.reset) == (b"half", False, code)
        assert lb.ends == [word] and lb.log[0]["status"] == 200
        lb.runtimes[0].retire()
        lb.loop.run()


def test_equal_trailers_are_written_once_and_only_where_nothing_is_taken_out() -> None:
    last = _LastTrailers()
    trailers, others = [(b"grpc-status", b"0"), (b"a", b"b")], [(b"grpc-status", b"2")]
    plain, edited = [
        prepare(listener_of(config), REQUEST, is_trusted=False, log_format=None, local_host="l", is_http2=True)
        for config in (CONFIG, EDITING)
    ]
    first = last.lines_of(plain, trailers, NO_NAMES)
    assert first == b"grpc-status: 0\r\na: b\r\n"
    assert last.lines_of(plain, trailers, NO_NAMES) is first
    assert last.lines_of(plain, trailers, frozenset((b"a",))) == b"grpc-status: 0\r\n"
    assert last.lines_of(edited, trailers, NO_NAMES) == b"grpc-status: 0\r\n"
    assert last.lines_of(plain, others, NO_NAMES) == b"grpc-status: 2\r\n"
    secret = SecretFields([(b"a", b"b")], frozenset((b"a",)))
    assert last.lines_of(plain, secret, NO_NAMES) == b"a: b\r\n"
    assert last._trailers is others, "what may enter no table is not kept"
