"""Health checks over HTTP/2: what is asked, and which answers pass."""

from __future__ import annotations

import pytest

from lbproxy.address import parse_address
from lbproxy.config.model import HealthCheck
from lbproxy.control import probe_http2
from lbproxy.control.probe import Http2Answer, ProbeSpec, Result, Verdict
from lbproxy.protocol.h2.codes import INTERNAL_ERROR
from tests.support.h2_ends import RecordingEnd

ADDRESS = parse_address("127.0.0.1:5001")
GRPC = b"content-type: application/grpc\r\n"
SERVING, NOT_SERVING = b"\0\0\0\0\2\x08\x01", b"\0\0\0\0\2\x08\x02"


class Server:
    """Who is checked."""

    def __init__(self, **settings: object) -> None:
        check = HealthCheck.model_validate({"type": "grpc", **settings})
        self.answer = Http2Answer(ProbeSpec.from_config(check, protocol="h2"), ADDRESS)
        self.end = RecordingEnd(True)
        self.end.received(self.answer.take_output(), 0.0)

    def says(self, body: bytes, *, status: int = 200, lines: bytes = GRPC, trailers: bytes = b"") -> Result | None:
        self.end.send_answer(1, status, lines, b"", not body and not trailers)
        if body:
            self.end.send_data(1, body, not trailers)
        if trailers:
            self.end.send_trailers(1, trailers)
        return self.answer.feed(self.end.take_output())


def test_a_call_is_what_grpc_calls_a_check() -> None:
    server = Server(service="my.Service")
    (head,) = server.end.heads
    assert (head.method, head.path, head.authority, head.scheme) == (
        b"POST",
        b"/grpc.health.v1.Health/Check",
        b"127.0.0.1:5001",
        b"http",
    )
    assert head.accepts_trailers and head.is_grpc
    assert [entry[2] for entry in server.end.seen if entry[0] == "data"] == [b"\0\0\0\0\x0c\x0a\x0amy.Service"]
    assert server.answer.feed(b"") is None


@pytest.mark.parametrize(
    ("body", "trailers", "reason", "why"),
    [
        (SERVING, b"grpc-status: 0\r\n", "", "says SERVING"),
        (NOT_SERVING, b"grpc-status: 0\r\n", "not_serving", "says NOT_SERVING"),
        (b"\0\0\0\0\0", b"grpc-status: 0\r\n", "not_serving", "says UNKNOWN"),
        (b"", b"grpc-status: 5\r\n", "unknown_service", "knows no service 's'"),
        (b"", b"grpc-status: 12\r\n", "unimplemented", "has no health service (grpc.health.v1)"),
        (b"", b"grpc-status: 14\r\n", "grpc_status", "answered the gRPC health check with status 14"),
        (b"junk", b"grpc-status: 0\r\n", "bad_response", "sent no answer of grpc.health.v1"),
        (b"\0\0\0\0\2\x08\x63", b"grpc-status: 0\r\n", "bad_response", "sent no answer of grpc.health.v1"),
    ],
)
def test_what_a_server_says_of_itself(body: bytes, trailers: bytes, reason: str, why: str) -> None:
    verdict = Verdict.FAIL if reason else Verdict.PASS
    assert Server(service="s").says(body, trailers=trailers) == Result(verdict, reason, why)


def test_a_status_in_the_head_counts_too() -> None:
    result = Server(service="s").says(b"", lines=GRPC + b"grpc-status: 5\r\n")
    assert result is not None and result.reason == "unknown_service"


def test_one_that_is_no_grpc_server() -> None:
    assert Server().says(b"", status=404) == Result(Verdict.FAIL, "status", "answered HTTP 404 to a gRPC health check")
    server = Server()
    assert server.answer.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n") == Result(
        Verdict.FAIL, "bad_response", "speaks HTTP/1 and not HTTP/2"
    )


def test_resets_and_goaway_and_what_is_not_allowed() -> None:
    server = Server()
    server.end.reset(1, INTERNAL_ERROR)
    assert server.answer.feed(server.end.take_output()) == Result(
        Verdict.FAIL, "reset", "reset the request (INTERNAL_ERROR)"
    )
    server = Server()
    server.end.goaway(0)
    result = server.answer.feed(server.end.take_output())
    assert result is not None and result.reason == "closed"
    server = Server()
    server.end.take_output()
    result = server.answer.feed(b"\0\0\0\0\0\0\0\0\0")
    assert result is not None and result.why.startswith("broke HTTP/2: ")


@pytest.mark.parametrize(("status", "verdict"), [(200, Verdict.PASS), (503, Verdict.FAIL)])
def test_a_request_of_http(status: int, verdict: Verdict) -> None:
    server = Server(type="http", path="/health", headers={"X-Probe": "1"}, expect={"body": "ready"})
    (head,) = server.end.heads
    assert (head.method, head.path) == (b"GET", b"/health") and b"x-probe: 1\r\n" in head.lines
    assert b"host" not in head.lines
    result = server.says(b"ready", status=status, lines=b"")
    assert result is not None and result.verdict is verdict


def test_the_end_of_the_connection_and_of_the_time() -> None:
    server = Server(type="http")
    assert server.answer.end() is None and server.answer.in_time() is None
    server.end.send_answer(1, 200, b"", b"", False)
    assert server.answer.feed(server.end.take_output()) is None
    assert server.answer.in_time() == server.answer.end() == Result(Verdict.PASS, why="answered 200 to GET /")
    server = Server()
    assert server.answer.end() is None
    server.end.send_answer(1, 200, GRPC, b"", False)
    assert server.answer.feed(server.end.take_output()) is None
    result = server.answer.end()
    assert result is not None and result.reason == "closed" and server.answer.in_time() is None


def test_pings_are_answered() -> None:
    server = Server()
    server.end.ping(b"12345678")
    assert server.answer.feed(server.end.take_output()) is None
    server.end.received(server.answer.take_output(), 0.0)
    assert ("pong", b"12345678") in server.end.seen


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    server = Server(type="http", expect={"body": "x"})
    server.end.send_answer(1, 200, b"", b"", False)
    result = None
    for _ in range(4):
        server.end.send_data(1, b"x" * 16_384, False)
        result = server.answer.feed(server.end.take_output()) or result
        server.end.received(server.answer.take_output(), 0.0)
    assert result is not None and result.verdict is Verdict.PASS


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300])
def test_names_of_any_length(size: int) -> None:
    framed = probe_http2.message("n" * size)
    assert int.from_bytes(framed[1:5], "big") == len(framed) - 5 and framed.endswith(b"n" * size)
