"""Answers of servers, read whole and in pieces, good and bad."""

from __future__ import annotations

import pytest

from lbproxy.doctor.answer import LIMIT_BYTES, BadAnswer, Reader, Reply


def read(data: bytes, method: str = "GET", *, is_ended: bool = False) -> Reply | None:
    """Whole, and byte by byte: both must be the same."""
    whole, bit_by_bit = Reader(method), Reader(method)
    whole.feed(data)
    for number in range(len(data)):
        bit_by_bit.feed(data[number : number + 1])
    for reader in (whole, bit_by_bit) if is_ended else ():
        reader.end()
    assert whole.reply == bit_by_bit.reply
    return whole.reply


@pytest.mark.parametrize(
    ("data", "status", "body", "is_kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 200, b"ok", True),
        (b"HTTP/1.1 404 No\nContent-Length: 0\nConnection: Close\n\n", 404, b"", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\na", 200, b"a", True),
        (b"HTTP/1.1 204\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n", 200, b"ok!", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n", 200, b"a", True),
    ],
)
def test_what_is_an_answer(data: bytes, status: int, body: bytes, is_kept: bool) -> None:
    reply = read(data)
    assert reply is not None
    assert (reply.status, reply.body, reply.is_kept) == (status, body, is_kept)


def test_an_answer_to_head_has_no_body() -> None:
    reply = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD")
    assert reply is not None
    assert (reply.status, reply.body) == (200, b"")


def test_a_body_that_ends_with_the_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\nall of it"
    assert read(data) is None
    reply = read(data, is_ended=True)
    assert reply is not None
    assert (reply.body, reply.is_kept, reply.fields) == (b"all of it", False, {"server": "s"})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "closed the connection unanswered"),
        (b"HTTP/1.1 200 OK\r\nA: b", "closed it within an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed the connection in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "in the middle of an answer"),
    ],
)
def test_what_ends_too_soon(data: bytes, told: str) -> None:
    with pytest.raises(BadAnswer, match=told):
        read(data, is_ended=True)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "sent no HTTP/1 answer but 'SSH-2.0-OpenSSH"),
        (b"HTTP/2 200\r\n\r\n", "sent no HTTP/1 answer"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * LIMIT_BYTES, f"a head of more than {LIMIT_BYTES} bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk without a size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000, "a chunk without a size"),
    ],
    ids=["ssh", "http2", "head", "chunk", "long size"],
)
def test_what_is_none(data: bytes, told: str) -> None:
    with pytest.raises(BadAnswer, match=told):
        Reader().feed(data)


def test_only_the_beginning_of_a_body_is_kept() -> None:
    size = 3 * LIMIT_BYTES
    reply = read(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
    assert reply is not None
    assert reply.body == b"b" * LIMIT_BYTES


@pytest.mark.parametrize(
    ("body", "found"), [(b'{"a": 1}', {"a": 1}), (b"[1]", {}), (b"\xff", {}), (b"", {}), (b"[" * 60_000, {})]
)
def test_json_that_is_no_object_is_nothing(body: bytes, found: object) -> None:
    assert Reply(200, {}, body, is_kept=True).object() == found
