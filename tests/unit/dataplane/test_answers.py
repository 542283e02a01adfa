"""Answers of lbproxy's own, and the heads of servers' answers as a client gets them."""

from __future__ import annotations

import json
import re

import pytest

from lbproxy import errors
from lbproxy.dataplane.answers import answer_bytes, http_date, local_answer, problem, reason_of, response_head
from lbproxy.dataplane.prepare import Prepared
from lbproxy.dataplane.runtime import Edits, RouteRuntime
from lbproxy.domain.retry import RetryPolicy
from lbproxy.protocol.http1 import parse_request_head, parse_response_head
from lbproxy.telemetry.slots import TRAFFIC, Slots

ID = b"X-Request-ID: 1\r\n"


def prepared_of(line: str = "GET / HTTP/1.1", *, edits: Edits | None = None, **route: object) -> Prepared:
    head = parse_request_head(f"{line}\r\nHost: h\r\n\r\n".encode(), max_fields=10)
    runtime = RouteRuntime(
        None,
        Slots().allocate(TRAFFIC),
        RetryPolicy(),
        None,
        response_edits=edits or Edits(),
        **route,  # type: ignore[arg-type]
    )
    return Prepared(head, runtime)


@pytest.mark.parametrize("fault", errors.FAULTS.values(), ids=lambda fault: fault.word)
def test_every_fault_has_a_problem_document(fault: errors.Fault) -> None:
    fields, body = problem(fault, "what happened", "the-id", None)
    names = dict(fields)
    document = json.loads(body)
    assert document["type"] == f"urn:lbproxy:fault:{fault.word}" and document["request_id"] == "the-id"
    assert document["status"] == fault.status
    assert document["detail"] == f"What happened. {fault.hint}"
    assert names[b"Content-Type"] == b"application/problem+json"
    assert f'details="{fault.word}"'.encode() in names[b"Proxy-Status"]
    assert (names.get(b"Retry-After") == b"1") is (fault.status in (429, 503))
    assert (b"Allow" in names) is (fault.status == 405)


def test_the_detail_is_escaped_and_may_be_missing() -> None:
    _, body = problem(errors.NO_ROUTE, 'no route for "\x7f\n', "", None)
    assert json.loads(body)["detail"].startswith('No route for "\x7f\n. ')
    assert json.loads(problem(errors.NO_ROUTE, "", "", None)[1])["detail"] == errors.NO_ROUTE.hint


def test_retry_after_is_the_pool_s() -> None:
    assert dict(problem(errors.NO_SERVER, "", "", 7)[0])[b"Retry-After"] == b"7"


def test_a_date_as_http_has_it() -> None:
    pattern = rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    assert re.fullmatch(pattern, http_date())


def test_reasons() -> None:
    assert reason_of(502) == b"Bad Gateway" and reason_of(299) == b"Unknown"


def test_redirects_and_fixed_responses() -> None:
    status, fields, body = local_answer(prepared_of(redirect=(308, b"/x")))
    assert (status, fields[-1], body) == (308, (b"Location", b"/x"), b"")
    status, fields, body = local_answer(prepared_of(respond=(503, ((b"A", b"b"),), b"closed")))
    assert (status, fields[-1], body) == (503, (b"A", b"b"), b"closed")
    edited = prepared_of(edits=Edits(remove=frozenset((b"date",))), respond=(200, (), b""))
    assert local_answer(edited)[1] == []


def test_options_that_went_far_enough() -> None:
    prepared = prepared_of("OPTIONS * HTTP/1.1")
    prepared.is_local = True
    status, fields, body = local_answer(prepared)
    assert (status, fields[-1][0], body) == (200, b"Allow", b"")


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
    head = parse_response_head(b"HTTP/1.1 %d Why\r\n%b\r\nKeep-Alive: 5\r\n\r\n" % (status, framing), max_fields=10)
    plain = framing + b"\r\n" if framing.startswith(b"Server") else b""
    expected = b"HTTP/1.1 %d Why\r\n" % status + plain + sent + ID + b"\r\n"
    assert response_head(prepared_of(line), head, ID, closes=closes) == (expected, is_chunking, ends)


def test_edits_of_the_answer() -> None:
    edits = Edits(set=((b"Server", b"lb"),), remove=frozenset((b"x-powered-by",)))
    head = parse_response_head(
        b"HTTP/1.1 200 OK\r\nServer: a\r\nX-Powered-By: b\r\nContent-Length: 1\r\n\r\n", max_fields=9
    )
    data, _, _ = response_head(prepared_of(edits=edits), head, ID, closes=False)
    assert data == b"HTTP/1.1 200 OK\r\nServer: lb\r\nContent-Length: 1\r\n" + ID + b"\r\n"
