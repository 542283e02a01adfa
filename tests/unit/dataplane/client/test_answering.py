"""What a client is sent: framing of answers, the routes' own, close or keep-alive."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, body_of, ok, post, status_of
from tests.unit.dataplane.client.helpers import CHUNKED, CONFIG, HEAD, OLD, OLD_KEPT, PLAIN, UNTIL_CLOSE, fields_of


@pytest.mark.parametrize(
    ("request_", "answer", "fields", "body", "kept"),
    [
        (GET, ok(b"hi"), [b"Content-Length: 2"], b"hi", True),
        (GET, ok(b""), [b"Content-Length: 0"], b"", True),
        (GET, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Transfer-Encoding: chunked"], b"2\r\nhi\r\n0\r\n\r\n", True),
        (GET, CHUNKED + b"2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\n", [b"Transfer-Encoding: chunked"], None, True),
        (GET, CHUNKED + b"0\r\n\r\n", [b"Transfer-Encoding: chunked"], b"0\r\n\r\n", True),
        (GET, ok(b"hi", "Connection: close"), [b"Content-Length: 2"], b"hi", True),
        (OLD, ok(b"hi"), [b"Content-Length: 2", b"Connection: close"], b"hi", False),
        (OLD, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Connection: close"], b"hi", False),
        (OLD_KEPT, ok(b"hi"), [b"Content-Length: 2", b"Connection: keep-alive"], b"hi", True),
        (OLD_KEPT, CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", [b"Connection: close"], b"hi", False),
        (HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", [b"Content-Length: 9"], b"", True),
        (HEAD, CHUNKED, [b"Transfer-Encoding: chunked"], b"", True),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n", [], b"", True),
        (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", [], b"", True),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", [b"Content-Length: 7"], b"", True),
        (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n", [], b"", True),
        (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            ok(b"hi"),
            [b"Content-Length: 2", b"Connection: close"],
            b"hi",
            False,
        ),
    ],
)
def test_the_answer_is_framed_for_this_client(
    request_: bytes, answer: bytes, fields: list[bytes], body: bytes | None, kept: bool
) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        lb.exchange(client, request_).send(answer)
        got = client.got()
        assert got.startswith(answer.partition(b"\r\n")[0] + b"\r\n")
        assert fields_of(got) == fields
        assert body_of(got) == (body if body is not None else b"2\r\nhi\r\n0\r\n\r\n")
        assert client.saw_fin is not kept
        assert lb.ends == ["ok"]


@pytest.mark.parametrize(
    ("request_", "fields", "body", "kept"),
    [
        (GET, [b"Transfer-Encoding: chunked"], b"2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n", True),
        (OLD, [b"Connection: close"], b"hiyou", False),
        (OLD_KEPT, [b"Connection: close"], b"hiyou", False),
        (HEAD, [b"Transfer-Encoding: chunked"], b"", True),
    ],
)
def test_an_answer_that_ends_with_its_connection(request_: bytes, fields: list[bytes], body: bytes, kept: bool) -> None:
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, request_)
        server.send(UNTIL_CLOSE + b"hi" if request_ != HEAD else UNTIL_CLOSE)
        if request_ != HEAD:
            server.send(b"you")
            assert not lb.ends
            server.fin()
        got = client.got()
        assert (fields_of(got), body_of(got)) == (fields, body)
        assert client.saw_fin is not kept
        assert not server.is_open
        assert lb.ends == ["ok"]


def test_a_body_without_length_that_is_reset_is_a_reset_for_the_client() -> None:
    with FakeLb() as lb:
        client = lb.connect()
        server = lb.exchange(client, OLD)
        server.send(UNTIL_CLOSE + b"hi")
        server.reset()
        assert client.saw_reset
        assert lb.ends == ["truncated_body"]


def test_trailers_reach_a_client_that_accepts_them() -> None:
    with FakeLb(PLAIN) as lb:
        client = lb.connect()
        accepting = GET.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        answer = CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"
        server = lb.exchange(client, accepting)
        assert b"TE: trailers\r\n" in server.got()
        server.send(answer)
        assert body_of(client.got()) == b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
        client.send(GET)
        server.send(answer)
        assert body_of(client.got()) == b"2\r\nhi\r\n0\r\n\r\n"


def test_the_routes_own_answers() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n")
        assert body_of(client.got()) == b"here"
        client.send(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.got()
        assert status_of(answer) == 301 and b"Location: /there\r\n" in answer
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        assert status_of(client.got()) == 404  # "*" is no path: no route, so nobody to ask about
        client.send(post(b"a body that nobody reads", target="/here"))
        assert body_of(client.got()) == b"here"
        assert [entry["status"] for entry in lb.log][:2] == [200, 301]


def test_a_local_answer_to_an_unfinished_request_closes() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(post(b"hello", target="/here")[:-1])
        assert b"Connection: close\r\n" in client.got()
        assert client.saw_fin
