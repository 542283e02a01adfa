"""Response heads: what is accepted of a server, what it means, and what of it goes on."""

from __future__ import annotations

import pytest

from lbproxy.protocol.field_lines import HeadError
from lbproxy.protocol.response_head import parse_response_head


def response(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


@pytest.mark.parametrize("length", [0, 9, 10, 99, 2048, 65_536, 2**31, 2**62, 2**63 - 1])
def test_a_length_is_written_as_it_was_read(length: int) -> None:
    head = parse_response_head(response(f"HTTP/1.1 200 OK\nContent-Length: {length}"), max_fields=9)
    assert head.wire == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % length
    assert head.content_length == length


def test_a_usual_response_is_understood() -> None:
    head = parse_response_head(
        response("HTTP/1.1 200 OK\nServer: g\nContent-Length: 3\nConnection: keep-alive\nKeep-Alive: timeout=5, max=3"),
        max_fields=200,
    )
    assert (head.status, head.reason, head.content_length, head.keep_alive) == (200, b"OK", 3, True)
    assert head.fields == [(b"Server", b"g")] and head.keep_alive_timeout_s == 5.0
    assert head.lines == b"Server: g\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.1 99 Low",
        "HTTP/1.1 2000 Long",
        "HTTP/1.1 abc Word",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "ICY 200 OK",
        "hello",
        "HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2",
        "HTTP/1.1 200 OK\nContent-Length: 1, 2",
        "HTTP/1.1 200 OK\nContent-Length: x",
        "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\nTransfer-Encoding: gzip",
        "HTTP/1.1 200 OK\nA : b",
        "HTTP/1.1 200 OK\nA: b\n folded",
        "HTTP/1.1 200 OK\nA: \x00",
        "HTTP/1.1 200 OK\nA: \x01",
        "HTTP/1.1 200 OK\nno colon",
    ],
)
def test_a_bad_response_is_refused(text: str) -> None:
    with pytest.raises(HeadError) as caught:
        parse_response_head(response(text), max_fields=200)
    assert caught.value.fault.word == "bad_response"


def test_too_many_response_fields() -> None:
    text = "HTTP/1.1 200 OK\n" + "\n".join(f"A{n}: b" for n in range(201))
    with pytest.raises(HeadError) as caught:
        parse_response_head(response(text), max_fields=200)
    assert caught.value.fault.word == "response_header_too_large"


def test_switching_protocols_with_and_without_upgrade() -> None:
    head = parse_response_head(
        response("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket"), max_fields=9
    )
    assert head.upgrade == b"websocket"
    bare = parse_response_head(response("HTTP/1.1 101 Switching Protocols\nA: b"), max_fields=9)
    assert bare.status == 101 and bare.upgrade == b""


def test_bodiless_statuses() -> None:
    for status in (100, 103, 204, 304):
        assert parse_response_head(response(f"HTTP/1.1 {status} X\nContent-Length: 5"), max_fields=9).is_bodiless


def test_nominated_response_fields_go() -> None:
    head = parse_response_head(response("HTTP/1.1 200 OK\nConnection: x-a\nX-A: 1\nX-B: 2"), max_fields=9)
    assert head.fields == [(b"X-B", b"2")]


def test_http_1_0_response_closes() -> None:
    assert not parse_response_head(response("HTTP/1.0 200 OK"), max_fields=9).keep_alive
    assert parse_response_head(response("HTTP/1.0 200 OK\nConnection: keep-alive"), max_fields=9).keep_alive
