"""What the server writes and understands; what it does on a socket is in tests/scenarios/testing."""

from __future__ import annotations

import pytest

from lbproxy.testing.faulty_server import Answer, FaultyServer, Request, parse_head


@pytest.mark.parametrize(
    ("answer", "method", "expected"),
    [
        (Answer(), "GET", b"HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\nok\n"),
        (
            Answer(503, "é", {"A": "1"}),
            "GET",
            b"HTTP/1.1 503 X\r\nContent-Length: 2\r\nA: 1\r\n\r\n\xc3\xa9",
        ),
        (Answer(body=b"12"), "HEAD", b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n"),
        (Answer(204), "GET", b"HTTP/1.1 204 X\r\n\r\n"),
        (Answer(body=b"12", headers={"content-length": "9"}), "GET", b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n12"),
    ],
)
def test_an_answer_as_bytes(answer: Answer, method: str, expected: bytes) -> None:
    assert answer.encoded(method) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /a?b HTTP/1.1\r\nHost: x:1\r\nX-A:  b ", ("GET", "/a?b", {"host": "x:1", "x-a": "b"})),
        (b"GET / HTTP/1.1", ("GET", "/", {})),
        (b"\x16\x03\x01", None),
    ],
)
def test_a_head_is_read(head: bytes, expected: object) -> None:
    assert parse_head(head) == expected


def test_requests_are_counted_by_path() -> None:
    server = FaultyServer()
    server.requests += [Request("GET", target, {}, b"") for target in ("/a", "/a?b", "/ab")]
    assert (server.count(), server.count("/a"), server.count("/x")) == (3, 2, 0)
