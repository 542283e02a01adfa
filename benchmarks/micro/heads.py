"""Parsing of heads: what a memo of parsed heads saves, and what a unique header costs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.micro.timing import Piece
from lbproxy.protocol.http1 import parse_request_head, parse_response_head

REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nUser-Agent: python-requests/2.32.3\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Length: 31\r\n"
    b"Content-Type: application/json\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Mon, 23 Nov 2026 22:00:00 GMT\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: 22\r\n\r\n"
)


def pieces() -> Iterator[Piece]:
    memo = {REQUEST: parse_request_head(REQUEST, max_fields=100)}
    buffer = bytearray(REQUEST)
    yield Piece("head: request, parsed", lambda: parse_request_head(REQUEST, max_fields=100))
    yield Piece("head: response, parsed", lambda: parse_response_head(RESPONSE, max_fields=200))
    yield Piece("head: found in a memo (copy, hash, look up)", lambda: memo.get(bytes(buffer)))
