"""What of gRPC a proxy reads and writes."""

from __future__ import annotations

import pytest

from lbproxy.protocol import grpc


@pytest.mark.parametrize(
    ("lines", "is_one"),
    [
        (b"content-type: application/grpc\r\n", True),
        (b"te: trailers\r\ncontent-type: application/grpc+proto\r\n", True),
        (b"content-type: application/grpc;x=1\r\n", True),
        (b"content-type: application/grpc-web\r\n", False),
        (b"content-type: application/grpc-web+proto\r\n", False),
        (b"x-content-type: application/grpc\r\n", False),
        (b"content-type: application/json\r\n", False),
        (b"", False),
    ],
)
def test_calls_are_known_by_their_type(lines: bytes, is_one: bool) -> None:
    assert grpc.is_grpc(lines) is is_one


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"grpc-status", b"0")], 0),
        ([(b"x", b"y"), (b"grpc-status", b"14"), (b"grpc-message", b"m")], 14),
        ([(b"grpc-status", b"99")], 99),
        ([(b"grpc-status", b"12345")], grpc.UNKNOWN),
        ([(b"grpc-status", b"-1")], grpc.UNKNOWN),
        ([(b"grpc-status", b"")], grpc.UNKNOWN),
        ([], grpc.NO_STATUS),
    ],
)
def test_the_status_of_a_call(fields: list[tuple[bytes, bytes]], status: int) -> None:
    assert grpc.status_of(fields) == status


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1500", 1.5), (b"0", 0.0), (b"-1", 0.0), (b"soon", 0.0), (b"99999999", 300.0)]
)
def test_push_back(value: bytes, seconds: float) -> None:
    assert grpc.push_back_s([(b"grpc-retry-pushback-ms", value)]) == seconds
    assert grpc.push_back_s([]) == -1.0


@pytest.mark.parametrize(
    ("status", "pushes_back", "as_http"),
    [
        (14, False, 503),
        (14, True, 429),
        (8, False, 429),
        (4, False, 504),
        (13, False, 500),
        (2, False, 500),
        (0, False, 200),
        (5, False, 200),
        (16, True, 200),
        (99, False, 200),
    ],
)
def test_what_http_would_have_said(status: int, pushes_back: bool, as_http: int) -> None:
    assert grpc.as_http(status, pushes_back=pushes_back) == as_http


@pytest.mark.parametrize(("status", "found"), [(503, 14), (504, 4), (404, 12), (400, 13), (413, 8), (418, 2)])
def test_what_grpc_says_instead_of_http(status: int, found: int) -> None:
    assert grpc.of_http(status) == found


def test_messages_are_percent_encoded() -> None:
    assert grpc.message("a b%c\n\u00e9\U0001f600~") == b"a b%25c%0A%C3%A9%F0%9F%98%80~"
