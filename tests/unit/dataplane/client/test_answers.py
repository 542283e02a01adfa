"""Answers as an HTTP/1 client gets them: their framing, and what is left of a server's head."""

from __future__ import annotations

import re

import pytest

from lbproxy.dataplane.client.answers import (
    answer_bytes,
    interim_head,
    response_head,
    sent_trailers,
    switching_head,
)
from lbproxy.dataplane.exchange.own_answers import edited, http_date
from lbproxy.dataplane.runtime import Edits
from lbproxy.protocol.http1 import ResponseHead, parse_response_head
from tests.support.prepared import prepared_of

ID = b"X-Request-ID: 1\r\n"
DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
EDITS = Edits(set=((b"Server", b"lb"),), remove=frozenset((b"x-powered-by",)))


def response(*lines: str, date: bytes = DATE, status: str = "200 OK") -> ResponseHead:
    raw = "\r\n".join([f"HTTP/1.1 {status}", *lines]).encode() + b"\r\n" + date + b"\r\n"
    return parse_response_head(raw, max_fields=10)


@pytest.mark.parametrize(
    ("line", "status", "closes", "expected"),
    [
        ("GET / HTTP/1.1", 200, False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + ID + b"\r\nhi"),
        (
            "GET / HTTP/1.1",
            200,
            True,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n" + ID + b"\r\nhi",
        ),
        (
            "GET / HTTP/1.0",
            200,
            False,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n" + ID + b"\r\nhi",
        ),
        ("HEAD / HTTP/1.1", 200, False, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + ID + b"\r\n"),
        ("GET / HTTP/1.1", 204, False, b"HTTP/1.1 204 No Content\r\n" + ID + b"\r\n"),
        ("GET / HTTP/1.1", 304, False, b"HTTP/1.1 304 Not Modified\r\n" + ID + b"\r\n"),
    ],
)
def test_own_answers_are_framed(line: str, status: int, closes: bool, expected: bytes) -> None:
    assert answer_bytes(prepared_of(line), status, [], b"hi", ID, closes=closes) == expected


# (client's request line, server's framing, does the client ask to close) -> (framing sent, chunking, closes)
@pytest.mark.parametrize(
    ("line", "status", "framing", "closes", "sent", "is_chunking", "ends"),
    [
        ("GET / HTTP/1.1", 200, b"Content-Length: 5", False, b"Content-Length: 5\r\n", False, False),
        ("GET / HTTP/1.1", 200, b"Content-Length: 5", True, b"Content-Length: 5\r\nConnection: close\r\n", False, True),
        ("GET / HTTP/1.1", 200, b"Transfer-Encoding: chunked", False, b"Transfer-Encoding: chunked\r\n", True, False),
        ("GET / HTTP/1.1", 200, b"Connection: close", False, b"Transfer-Encoding: chunked\r\n", True, False),
        ("HEAD / HTTP/1.1", 200, b"Transfer-Encoding: chunked", False, b"Transfer-Encoding: chunked\r\n", False, False),
        ("HEAD / HTTP/1.0", 200, b"Transfer-Encoding: chunked", False, b"Connection: keep-alive\r\n", False, False),
        (
            "GET / HTTP/1.0",
            200,
            b"Content-Length: 5",
            False,
            b"Content-Length: 5\r\nConnection: keep-alive\r\n",
            False,
            False,
        ),
        ("GET / HTTP/1.0", 200, b"Transfer-Encoding: chunked", False, b"Connection: close\r\n", False, True),
        ("GET / HTTP/1.0", 200, b"Server: x", False, b"Connection: close\r\n", False, True),
        ("GET / HTTP/1.1", 204, b"Content-Length: 0", False, b"", False, False),
        ("GET / HTTP/1.1", 204, b"Server: x", False, b"", False, False),
        ("GET / HTTP/1.0", 204, b"Server: x", False, b"Connection: keep-alive\r\n", False, False),
        ("GET / HTTP/1.1", 304, b"Content-Length: 5", False, b"Content-Length: 5\r\n", False, False),
        ("GET / HTTP/1.1", 304, b"Server: x", False, b"", False, False),
    ],
)
def test_a_server_s_head_is_framed_for_the_client(
    line: str, status: int, framing: bytes, closes: bool, sent: bytes, is_chunking: bool, ends: bool
) -> None:
    raw = b"HTTP/1.1 %d Why\r\n%b\r\nKeep-Alive: 5\r\n%b\r\n" % (status, framing, DATE)
    head = parse_response_head(raw, max_fields=10)
    plain = (framing + b"\r\n" if framing.startswith(b"Server") else b"") + DATE
    expected = b"HTTP/1.1 %d Why\r\n" % status + plain + sent + ID + b"\r\n"
    assert response_head(prepared_of(line), head, ID, closes=closes) == (expected, is_chunking, ends)


def test_edits_of_the_answer() -> None:
    head = response("Server: a", "X-Powered-By: b", "Content-Length: 1")
    data, _, _ = response_head(prepared_of(edits=EDITS), head, ID, closes=False)
    assert data == b"HTTP/1.1 200 OK\r\n" + DATE + b"Server: lb\r\nContent-Length: 1\r\n" + ID + b"\r\n"


def test_an_answer_without_a_date_gets_one() -> None:
    """RFC 9110 section 6.6.1: who has a clock must add it to what is forwarded."""
    head = response("Content-Length: 1", date=b"")
    assert not head.is_plain
    for edits in (None, EDITS):
        data, _, _ = response_head(prepared_of(edits=edits), head, ID, closes=False)
        assert b"\r\nDate: " + http_date() + b"\r\n" in data
    without = Edits(remove=frozenset((b"date",)))
    assert b"Date:" not in response_head(prepared_of(edits=without), head, ID, closes=False)[0]
    assert response("Content-Length: 1").is_plain
    assert not response("Content-Length: 1", "Connection: Date").is_plain  # named away, so it is gone


@pytest.mark.parametrize(
    ("line", "closes", "connection"),
    [
        ("GET / HTTP/1.1", False, b"Connection: Upgrade\r\n"),
        ("GET / HTTP/1.1", True, b"Connection: Upgrade, close\r\n"),
        ("GET / HTTP/1.0", False, b"Connection: Upgrade, keep-alive\r\n"),
    ],
)
def test_a_426_says_what_it_asks_for(line: str, closes: bool, connection: bytes) -> None:
    """RFC 9110 section 15.5.22: it must have Upgrade, which belongs to a connection and so is made anew."""
    head = response("Upgrade: websocket", "Connection: upgrade", "Content-Length: 1", status="426 Upgrade Required")
    assert not head.is_plain
    data, _, _ = response_head(prepared_of(line), head, ID, closes=closes)
    assert b"Upgrade: websocket\r\n" + connection in data
    other = response("Upgrade: h2c", "Connection: upgrade", "Content-Length: 1")
    assert b"Upgrade" not in response_head(prepared_of(line), other, ID, closes=closes)[0]


def test_edits_hold_for_what_comes_before_and_behind_the_answer() -> None:
    prepared = prepared_of(edits=EDITS)
    early = response("Server: a", "Link: </x>", "X-Powered-By: b", date=b"", status="103 Early Hints")
    assert interim_head(prepared, early) == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    trailers = [(b"X-Sum", b"1"), (b"X-POWERED-BY", b"b"), (b"Server", b"a"), (b"X-Gone", b"1")]
    assert sent_trailers(prepared, trailers, frozenset((b"x-gone",))) == b"X-Sum: 1\r\n"
    switching = response("Server: a", "X-Powered-By: b", "Upgrade: x", "Connection: upgrade", date=b"", status="101 S")
    assert switching_head(prepared, switching, ID) == (
        b"HTTP/1.1 101 S\r\nServer: lb\r\nConnection: Upgrade\r\nUpgrade: x\r\n" + ID + b"\r\n"
    )


def test_without_edits_they_are_passed_on_as_they_are() -> None:
    prepared = prepared_of()
    early = response("Server: a", date=b"", status="103 Early Hints")
    assert interim_head(prepared, early) == b"HTTP/1.1 103 Early Hints\r\nServer: a\r\n\r\n"
    assert sent_trailers(prepared, [(b"Server", b"a")], frozenset()) == b"Server: a\r\n"


@pytest.mark.parametrize("edits", [Edits(remove=frozenset((b"x-request-id",))), Edits(set=((b"X-Request-ID", b"2"),))])
def test_edits_hold_for_the_request_id(edits: Edits) -> None:
    prepared = prepared_of(edits=edits)
    wanted = [value for _, value in edits.set]
    head = response("Content-Length: 1", "X-Request-ID: 3")
    answers = [
        response_head(prepared, head, ID, closes=False)[0],
        answer_bytes(prepared, 502, edited(prepared, []), b"", ID, closes=False),
        switching_head(prepared, response("Upgrade: x", "Connection: upgrade", date=b"", status="101 S"), ID),
    ]
    for answer in answers:
        assert re.findall(rb"X-Request-ID: (\d)", answer) == wanted
