"""What the gate refuses, with what, and what it leaves to aiohttp."""

from __future__ import annotations

import json
from email.parser import BytesParser
from typing import Any

import pytest

from lbproxy.control import admin_gate
from lbproxy.control.access import Access, Token
from lbproxy.control.admin_gate import KEPT, OPEN, READER, UNIX, Gate, Verdict, judge, peer_of

PATHS = {"/", "/dashboard/page.js", "/metrics", "/healthz", "/readyz"}
ACCESS = Access([Token("admin.token", "s3cret"), Token("reader", "reads", may_write=False)])
WRITE, READ = "Authorization: Bearer s3cret\r\n", "AUTHORIZATION:\tBearer reads \r\n"

JSON = "Content-Type: Application/JSON ; charset=utf-8\r\n"


def answer(
    line: str, fields: str = "Host: localhost\r\n", access: Access = ACCESS, full: str | None = None
) -> bytes | None:
    head = f"{line}\r\n{fields}\r\n".encode("utf-8", "surrogateescape")
    return judge(head, "127.0.0.1", access, PATHS, {"/api/v1/events": lambda: full}).answer


def status(
    line: str, fields: str = "Host: localhost\r\n", access: Access = ACCESS, full: str | None = None
) -> int | None:
    found = answer(line, fields, access, full)
    return None if found is None else int(found.split(b" ")[1])


@pytest.mark.parametrize(
    ("line", "fields", "expected"),
    [
        ("POST /api/v1/reload HTTP/1.1", "Host: localhost\r\n", 401),
        ("POST /api/v1/reload HTTP/1.0", "", 401),
        ("POST /%61pi/v1/reload HTTP/1.1", "", 401),
        ("POST /api/v1/reload?dry_run=1 HTTP/1.1", READ, 403),
        ("POST /api/v1/reload HTTP/1.1", "Authorization: Bearer wrong\r\n" + WRITE, 401),
        ("POST /api/v1/reload HTTP/1.1", "Authorization: Bearer \udcff\r\n", 401),
        ("POST /api/v1/reload HTTP/1.1", "X: y\r\n\r\n" + WRITE, 401),  # what is behind the head is no field
        ("GET /api/v1/status HTTP/1.1", "Host: evil.example\r\n", 403),
        ("GET /api/v1/status HTTP/1.1", "Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("BREW /api/v1/status HTTP/1.1", "Host: localhost\r\n", 401),
        ("DELETE /metrics HTTP/1.1", "Host: localhost\r\n", 405),
        ("POST / HTTP/1.1", "Host: localhost\r\n", 405),
        ("GET /../../etc/passwd HTTP/1.1", "Host: localhost\r\n", 404),
        ("GET /%2e%2e/lb.yaml HTTP/1.1", "Host: localhost\r\n", 404),
        ("GET /static/..%2f..%ff HTTP/1.1", "Host: localhost\r\n", 404),
        ("GET //etc/passwd HTTP/1.1", "Host: localhost\r\n", 404),
        ("GET /api HTTP/1.1", "Host: localhost\r\n", 404),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + "Content-Length: 5\r\n", 415),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + "Content-Type: text/plain\r\nContent-Length: 05\r\n", 415),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + JSON + f"Content-Length: {1 << 40}\r\n", 413),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + JSON + "content-length:65537\r\n", 413),
    ],
)
def test_what_is_refused(line: str, fields: str, expected: int) -> None:
    assert status(line, fields) == expected


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("GET / HTTP/1.1", ""),
        ("GET /dashboard/page.js?1 HTTP/1.1", ""),
        ("HEAD /healthz HTTP/1.1", "Host: evil.example\r\n"),
        ("GET /%6detrics HTTP/1.1", ""),
        ("GET /api/v1/status HTTP/1.1", "Host: localhost\r\n"),
        ("GET /api/v1/status HTTP/1.1", READ),
        ("GET /api/v1/nothing HTTP/1.1", "Host: localhost\r\n"),  # its routes are aiohttp's
        ("POST /api/v1/reload HTTP/1.1", "Host: evil.example\r\n" + WRITE),
        ("POST /api/v1/reload HTTP/1.1", WRITE + "Authorization: Bearer wrong\r\n"),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + JSON + "Content-Length: 65536\r\n"),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + JSON + f"Content-Length: {'9' * 5000}\r\n"),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + "Content-Length: -1\r\n"),
        ("PATCH /api/v1/x HTTP/1.1", WRITE + "Content-Length: \u00b2\r\n"),
        ("POST /api/v1/reload HTTP/1.1", WRITE + "Content-Length: 0\r\n"),
        ("GET http://localhost/api/v1/reload HTTP/1.1", ""),
        ("OPTIONS * HTTP/1.1", ""),
        ("GET /nothing HTTP/2.0", ""),
        ("GET  /nothing HTTP/1.1", ""),
        ("GET /nothing", ""),
        ("\x16\x03\x01", ""),
    ],
)
def test_what_aiohttp_answers(line: str, fields: str) -> None:
    assert answer(line, fields) is None


def test_an_answer_is_whole() -> None:
    found = answer("POST /api/v1/reload HTTP/1.1")
    assert found is not None
    head, _, body = found.partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    assert line == b"HTTP/1.1 401 Unauthorized"
    told = BytesParser().parsebytes(fields)
    assert told["Content-Type"] == "application/problem+json; charset=utf-8"
    assert told["WWW-Authenticate"] == 'Bearer realm="lbproxy"' and told["Connection"] == "close" and told["Date"]
    assert int(told["Content-Length"]) == len(body)
    assert json.loads(body)["status"] == 401 and "bearer token" in json.loads(body)["detail"]


def test_an_answer_to_head_has_no_body() -> None:
    found = answer("HEAD /nothing HTTP/1.1")
    assert found is not None and found.endswith(b"\r\n\r\n") and b"Content-Length: 0" not in found
    found = answer("HEAD /api/v1/status HTTP/1.1", "Host: evil.example\r\n")
    assert found is not None and found.endswith(b"\r\n\r\n")


def test_a_reader_too_many_and_a_method_that_a_path_does_not_take() -> None:
    found = answer("GET /api/v1/events HTTP/1.1", full="32 readers are connected.")
    assert found is not None and b" 503 " in found and b"Retry-After: 5" in found and b"32 readers" in found
    assert status("HEAD /api/v1/events HTTP/1.1", full="32 readers are connected.") is None
    assert status("GET /api/v1/events HTTP/1.1", "Host: evil.example\r\n", full="x") == 403
    found = answer("DELETE /metrics HTTP/1.1")
    assert found is not None and b"Allow: GET,HEAD" in found


def test_somebody_who_has_left_has_no_name() -> None:
    assert peer_of(None) == ""


class Asked:
    """Why nobody is taken, and how often that was asked."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self.n_asked = 0

    def __call__(self) -> str | None:
        self.n_asked += 1
        return self.why_not


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.n_judged = 0
        self.reader, self.open = Asked(), Asked()
        monkeypatch.setattr(admin_gate, "judge", self.judge)
        self.gate = Gate(ACCESS, PATHS, "/api/v1/events", {READER: self.reader, OPEN: self.open}, self.unix_clock)

    def unix_clock(self) -> float:
        return self.now

    def judge(self, *args: Any) -> Verdict:
        self.n_judged += 1
        return judge(*args)

    def status(self, line: str, fields: str = "Host: localhost\r\n", peer: str = "127.0.0.1") -> int | None:
        found = self.gate(f"{line} HTTP/1.1\r\n{fields}\r\n".encode(), peer).answer
        return None if found is None else int(found.split(b" ")[1])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_what_was_judged_is_kept_for_the_rest_of_the_second(bench: Bench) -> None:
    for _ in range(10):
        assert bench.status("POST /api/v1/reload") == 401
    assert bench.n_judged == 1
    bench.now += 1.0
    assert bench.status("POST /api/v1/reload") == 401
    assert bench.n_judged == 2


def test_of_another_peer_another_thing_may_be_judged(bench: Bench) -> None:
    assert bench.status("GET /api/v1/status") is None
    assert bench.status("GET /api/v1/status", peer="192.0.2.1") == 401


def test_other_rights_hold_from_the_next_call_on(bench: Bench) -> None:
    assert bench.status("POST /api/v1/reload", "Authorization: Bearer new\r\n") == 401
    bench.gate.allow(Access([Token("new", "new")]))
    assert bench.status("POST /api/v1/reload", "Authorization: Bearer new\r\n") is None
    assert bench.status("POST /api/v1/reload", WRITE) == 401


def test_little_is_kept(bench: Bench) -> None:
    for number in range(3 * KEPT):
        assert bench.status(f"GET /nothing/{number}") == 404
    assert len(bench.gate._kept) <= KEPT
    for _ in range(2):
        assert bench.status("GET /nothing", f"X: {'x' * 2000}\r\n") == 404
    assert bench.n_judged == 3 * KEPT + 2


def test_whether_there_is_room_is_asked_each_time(bench: Bench) -> None:
    for why_not, expected in ((None, None), ("full", 503), (None, None)):
        bench.reader.why_not = why_not
        assert bench.status("GET /api/v1/events") == expected
        assert bench.status("HEAD /api/v1/events") is None
        assert bench.status("GET /api/v1/status") is None
    assert bench.reader.n_asked == 3 and bench.open.n_asked == 0


def test_where_too_many_call_what_anybody_may_probes_tokens_and_the_unix_socket_pass(bench: Bench) -> None:
    bench.open.why_not = "too many"
    for path in ("/metrics", "/", "/dashboard/page.js", "/metrics?name=x"):
        assert bench.status(f"GET {path}") == 503
        assert bench.status(f"GET {path}", "Authorization: Bearer wrong\r\n") == 503
        assert bench.status(f"GET {path}", READ) is None
        assert bench.status(f"GET {path}", peer=UNIX) is None
    assert bench.status("GET /healthz") is None and bench.status("GET /readyz") is None
    assert bench.status("DELETE /metrics") == 405 and bench.status("GET /nothing") == 404


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Content-Length: 0\r\n", False),
        ("X: y\r\n", False),
        ("Content-Length:\t007\r\n", True),
        ("transfer-encoding: chunked\r\n", True),
    ],
)
def test_who_announces_a_body(fields: str, expected: bool) -> None:
    head = f"POST /api/v1/reload HTTP/1.1\r\n{fields}\r\n".encode()
    verdict = judge(head, "127.0.0.1", ACCESS, PATHS, {})
    assert verdict.answer is not None and verdict.has_body == expected
