"""A request's head as HTTP/2 servers get it."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2.request import request_head, trailer_lines


def test_what_is_in_the_frames_is_in_no_field() -> None:
    head = request_head(
        b"POST /a?b=c HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nConnection: TE, close\r\nTE: trailers\r\n"
        b"Keep-Alive: 1\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\nVia: 1.1 lbproxy\r\n"
    )
    assert (head.method, head.path, head.authority) == (b"POST", b"/a?b=c", b"h:80")
    assert head.lines == b"Accept: */*\r\nte: trailers\r\nVia: 1.1 lbproxy\r\n" and head.length == b""


def test_a_length_is_of_this_request_only() -> None:
    head = request_head(b"PUT * HTTP/1.1\r\nContent-Length: 12\r\nhost: \r\nX: a:b\r\n")
    assert (head.path, head.authority, head.lines, head.length) == (b"*", b"", b"X: a:b\r\n", b"Content-Length: 12\r\n")


def test_a_head_without_fields() -> None:
    assert request_head(b"GET / HTTP/1.1\r\n").lines == b""


@pytest.mark.parametrize(
    ("trailers", "lines"),
    [
        ([], b""),
        ([(b"X-Sum", b"1"), (b"grpc-status", b"0")], b"X-Sum: 1\r\ngrpc-status: 0\r\n"),
        ([(b"Content-Length", b"1"), (b"Host", b"x"), (b"a_b", b"1")], b""),
    ],
)
def test_trailers_that_may_go_on(trailers: list[tuple[bytes, bytes]], lines: bytes) -> None:
    assert trailer_lines(trailers) == lines


def test_all_lines_are_made_once_for_a_scheme() -> None:
    head = request_head(b"GET /a HTTP/1.1\r\nHost: h\r\nA: b\r\n")
    first = head.all_lines(b"http")
    assert first == b":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /a\r\nA: b\r\n"
    assert head.all_lines(b"http") is first
    assert head.all_lines(b"https") == first.replace(b"scheme: http", b"scheme: https")


def test_a_head_with_other_lines() -> None:
    before = request_head(b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nA: b\r\n")
    head = before.with_lines(b"A: b\r\nX: y\r\n")
    assert (head.method, head.path, head.authority, head.length) == (b"GET", b"/a", b"h", b"Content-Length: 3\r\n")
    assert head.lines == b"A: b\r\nX: y\r\n" and before.lines == b"A: b\r\n"
