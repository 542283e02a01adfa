"""From the bytes of a head to what is forwarded."""

from __future__ import annotations

import functools
import json
import re

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.prepare import prepare, rejected
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import ListenerRuntime
from lbproxy.protocol.h2.request import request_head
from lbproxy.protocol.http1 import HeadError
from lbproxy.telemetry.accesslog import make_format
from lbproxy.telemetry.slots import METHODS, PROCESS, TRAFFIC
from tests.support.listeners import listener_of

CONFIG = """
listeners:
- bind: "127.0.0.1:1"
  limits: {body_bytes: 10}
  routes:
  - {match: {path_prefix: /api}, pool: app, rewrite: {strip_prefix: /api, path_prefix: /v2}, retry: {idempotent: true}}
  - match: {path: /edited}
    pool: app
    headers: {request: {set: {Host: inner, X-Request-ID: fixed}, add: {X-A: "2"}, remove: [X-B]}}
  - {match: {path: /closing}, pool: closing}
  - {match: {path: /irc}, pool: app, upgrade: [Irc, x/2]}
  - {match: {path: /no-upgrade}, pool: app, upgrade: off}
  - {match: {path: /fixed}, respond: {status: 200}}
  - {match: {host: known}, pool: app}
pools:
  app: {servers: ["127.0.0.1:2"]}
  closing: {servers: ["127.0.0.1:2"], keep_alive: off}
"""
OTHERS_COLUMN = TRAFFIC.column("requests_total", "other", "1xx")


@functools.cache
def listener() -> ListenerRuntime:
    return listener_of(CONFIG)


def prepared_of(line: str, *fields: str, host: str | None = "known", is_trusted: bool = False) -> Prepared:
    lines = [line, *([f"Host: {host}"] if host is not None else []), *fields]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return prepare(listener(), raw, is_trusted=is_trusted, log_format=None, local_host="local:1")


def forwarded(line: str, *fields: str, host: str | None = "known") -> list[str]:
    return prepared_of(line, *fields, host=host).forward.decode("latin-1").removesuffix("\r\n").split("\r\n")


def test_the_head_is_written_anew() -> None:
    assert forwarded(
        "GET /x?y HTTP/1.0", "accept:  a ", "Connection: keep-alive, X-Gone", "X-Gone: 1", "Via: 1.1 a"
    ) == [
        "GET /x?y HTTP/1.1",
        "Host: known",
        "accept: a",
        "Via: 1.1 a",
        "Via: 1.0 lbproxy",
    ]


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        (("Content-Length: 007",), ["Content-Length: 7"]),
        (("Content-Length: 0",), ["Content-Length: 0"]),
        (("Transfer-Encoding: Chunked",), ["Transfer-Encoding: chunked"]),
        (("Connection: TE", "TE: trailers"), ["TE: trailers", "Connection: TE"]),
        (("Connection: Content-Length", "Content-Length: 3"), ["Content-Length: 3"]),
        (("Keep-Alive: 5", "Proxy-Connection: x", "TE: gzip", "Upgrade: h2c", "Proxy-Authorization: x"), []),
        (("Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: x"), []),
    ],
)
def test_framing_and_connection_are_lbproxy_s_own(fields: tuple[str, ...], framing: list[str]) -> None:
    assert forwarded("POST /x HTTP/1.1", *fields)[3:] == framing


def test_upgrade_to_websocket_is_passed_on_for_get() -> None:
    fields = ("Connection: Upgrade", "Upgrade: websocket")
    assert forwarded("GET /x HTTP/1.1", *fields)[3:] == ["Connection: Upgrade", "Upgrade: websocket"]
    assert forwarded("POST /x HTTP/1.1", *fields, "Content-Length: 1")[3:] == ["Content-Length: 1"]
    assert forwarded("POST /x HTTP/1.1", *fields, "Content-Length: 0")[3:] == ["Content-Length: 0"]


@pytest.mark.parametrize(
    ("path", "offered", "passed"),
    [
        ("/x", "WebSocket", "websocket"),
        ("/x", "irc/6.9, websocket, h2c", "websocket"),
        ("/x", "irc/6.9", None),
        ("/irc", "websocket, IRC/6.9, irc/7, x/1", "IRC/6.9, irc/7"),
        ("/irc", "x/2", "x/2"),
        ("/irc", "x, x/1", None),
        ("/no-upgrade", "websocket", None),
    ],
)
def test_of_the_offered_protocols_the_allowed_ones_are_passed_on(path: str, offered: str, passed: str | None) -> None:
    lines = forwarded(f"GET {path} HTTP/1.1", "Connection: Upgrade", f"Upgrade: {offered}")[3:]
    assert lines == ([] if passed is None else ["Connection: Upgrade", f"Upgrade: {passed}"])


def test_a_pool_without_keep_alive_is_told() -> None:
    assert forwarded("GET /closing HTTP/1.1", host="h")[-1] == "Connection: close"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/api", "/v2"),
        ("/api/", "/v2/"),
        ("/api/x?q=1", "/v2/x?q=1"),
        ("/api/x?", "/v2/x?"),
        ("/api//evil", "/v2/evil"),
        ("/%61pi/x", "/v2/x"),
        ("/apis", "/apis"),
    ],
)
def test_rewriting(target: str, sent: str) -> None:
    assert forwarded(f"GET {target} HTTP/1.1")[0] == f"GET {sent} HTTP/1.1"


def test_the_host_of_an_absolute_target_counts() -> None:
    lines = forwarded("GET http://known:80/x HTTP/1.1", host="other")
    assert lines[:2] == ["GET /x HTTP/1.1", "Host: known:80"]


def test_a_client_without_host_gets_the_local_one() -> None:
    assert forwarded("GET /api HTTP/1.0", host=None)[1] == "Host: local:1"


def test_edits_do_not_touch_framing() -> None:
    lines = forwarded("POST /edited HTTP/1.1", "X-A: 1", "X-B: 1", "Content-Length: 3", host="h")
    assert lines == [
        "POST /edited HTTP/1.1",
        "X-A: 1",
        "Via: 1.1 lbproxy",
        "Host: inner",
        "X-Request-ID: fixed",
        "X-A: 2",
        "Content-Length: 3",
    ]


@pytest.mark.parametrize(
    ("line", "fields", "fault"),
    [
        ("GET /nowhere HTTP/1.1", (), errors.NO_ROUTE),
        ("GET /a/../b HTTP/1.1", (), errors.BAD_PATH),
        ("GET /a%2fb HTTP/1.1", (), errors.BAD_PATH),
        ("POST /api HTTP/1.1", ("Content-Length: 11",), errors.BODY_TOO_LARGE),
    ],
)
def test_requests_that_are_answered_with_a_fault(line: str, fields: tuple[str, ...], fault: errors.Fault) -> None:
    prepared = prepared_of(line, *fields, host="unknown")
    assert prepared.fault is fault and prepared.pool is None and prepared.forward == b""


def test_requests_that_lbproxy_answers_itself() -> None:
    assert prepared_of("GET /fixed HTTP/1.1").pool is None
    options = prepared_of("OPTIONS * HTTP/1.1", "Max-Forwards: 0")
    assert options.is_local and options.pool is None
    assert forwarded("OPTIONS * HTTP/1.1", "Max-Forwards: 3")[-1] == "Max-Forwards: 2"


@pytest.mark.parametrize(
    ("line", "is_idempotent"),
    [
        ("GET /x HTTP/1.1", True),
        ("PUT /x HTTP/1.1", True),
        ("POST /x HTTP/1.1", False),
        ("PATCH /x HTTP/1.1", False),
        ("POST /api HTTP/1.1", True),
    ],
)
def test_who_may_be_repeated(line: str, is_idempotent: bool) -> None:
    assert prepared_of(line).is_idempotent is is_idempotent


def test_what_was_dropped_is_counted_once_per_field() -> None:
    prepared = prepared_of("GET /x HTTP/1.1", "a_b: 1", "X-Forwarded-For: 1", "X-Real-IP: 2", "Connection: x", "X: 1")
    counts = dict(prepared.dropped)
    assert counts == {
        PROCESS.column("headers_dropped_total", "underscore"): 1,
        PROCESS.column("headers_dropped_total", "nominated"): 1,
        PROCESS.column("headers_dropped_total", "spoofed"): 2,
    }
    assert prepared_of("GET /x HTTP/1.1", "X-Real-IP: 2", is_trusted=True).dropped == ()


def test_x_forwarded_host_is_what_the_client_sent() -> None:
    assert prepared_of("GET /x HTTP/1.1").host_line == b"X-Forwarded-Host: known\r\n"
    assert prepared_of("GET /x HTTP/1.1").takes_port
    untrusted = prepared_of("GET /x HTTP/1.1", "X-Forwarded-Port: 1", "X-Forwarded-Host: outer:2", host="known:81")
    assert untrusted.host_line == b"X-Forwarded-Host: known:81\r\nX-Forwarded-Port: 81\r\n"
    trusted = prepared_of("GET /x HTTP/1.1", "X-Forwarded-Host: outer:82", is_trusted=True)
    assert trusted.host_line == b"X-Forwarded-Port: 82\r\n" and not trusted.takes_port
    old = prepared_of("GET /x HTTP/1.0", host=None)
    assert old.host_line == b"X-Forwarded-Port: 1\r\n"


def test_the_counter_is_the_method_s() -> None:
    for method in METHODS[:-1]:
        column = prepared_of(f"{method} /x HTTP/1.1").requests_column
        assert column == TRAFFIC.column("requests_total", method, "1xx")
    assert prepared_of("PROPFIND /x HTTP/1.1").requests_column == OTHERS_COLUMN


def test_a_refused_head_keeps_what_can_be_logged() -> None:
    raw = b"GET /x?\xff HTTP/9.9\r\nHost: \x00\r\n\r\n"
    for text, method, target in ((raw, "", b""), (b"GET /x HTTP/9.9\r\n", "GET", b"/x"), (b"\x16\x03\x01", "", b"")):
        prepared = rejected(listener(), text, HeadError(errors.BAD_REQUEST, "why"), make_format("json"))
        assert (prepared.fault, prepared.fault_detail) == (errors.BAD_REQUEST, "why")
        assert not prepared.keep_alive and prepared.pool is None
        if method:
            assert (prepared.head.method, prepared.head.target) == (method, target)


@pytest.mark.parametrize(
    ("text", "target", "protocol"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "*", "HTTP/2.0"),
        (b"GET /x HTTP/1.0\r\nBad Field: 1\r\n\r\n", "/x", "HTTP/1.0"),
        (b"GET /x\r\n", "/x", ""),
        (b"GET /caf\xe9 HTTP/1.1\r\n\r\n", "/caf\xe9", "HTTP/1.1"),
        (b"GET /a b HTTP/1.1\r\n\r\n", "/a", ""),
        (b"\x16\x03\x01", "", ""),
    ],
)
def test_the_log_of_a_refused_request_says_what_the_client_said(text: bytes, target: str, protocol: str) -> None:
    prepared = rejected(listener(), text, HeadError(errors.BAD_REQUEST, "why"), make_format("json"))
    head = json.loads("{" + prepared.log_head[0] + "}")
    assert (head["target"], head["protocol"]) == (target, protocol)


def test_equal_bytes_prepare_to_the_same() -> None:
    first, second = (prepared_of("POST /x HTTP/1.1", "Content-Length: 3", "A: b") for _ in range(2))
    names = [name for name in dir(first) if not name.startswith("_") and not callable(getattr(first, name))]
    assert len(names) > 10
    for name in names:
        if name not in ("head", "meaning"):
            assert getattr(first, name) == getattr(second, name), name


@pytest.mark.parametrize("keys", ["", "rewrite: {strip_prefix: /a}, "])
@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Content-Length: 3", "X-Forwarded-For: 1.2.3.4", "Accept: */*"),
        ("Transfer-Encoding: chunked", "Connection: TE, x-gone", "TE: trailers", "X-Gone: 1", "Via: 1.0 other"),
        ("Connection: close", "Upgrade: h2c", "Keep-Alive: 1", "Max-Forwards: 3", "a-b:  c "),
    ],
)
@pytest.mark.parametrize("line", ["POST /a/b?c=d HTTP/1.1", "OPTIONS * HTTP/1.1", "GET http://other/a/c HTTP/1.1"])
def test_a_head_for_http2_is_what_could_be_read_from_the_one_for_http1(
    keys: str, fields: tuple[str, ...], line: str
) -> None:
    found = listener_of(
        f"listeners: [{{bind: ':1', routes: [{{match: {{path_prefix: /a}}, {keys}pool: app}}, {{pool: app}}]}}]\n"
        "pools: {app: {servers: ['127.0.0.1:2'], protocol: h2}}\n"
    )
    raw = ("\r\n".join([line, "Host: h:1", *fields]) + "\r\n\r\n").encode()
    made = prepare(found, raw, is_trusted=False, log_format=None, local_host="l")
    same, read = made.in_h2, request_head(made.forward)
    assert same is not None
    assert (same.method, same.path, same.authority) == (read.method, read.path, read.authority)
    assert (same.length, sorted(same.lines.split(b"\r\n"))) == (read.length, sorted(read.lines.split(b"\r\n")))


# --- paths and methods ----------------------------------------------------------------------------------------------


def listener_with(text: str) -> ListenerRuntime:
    return listener_of(f"listeners: [{{bind: ':1', {text}}}]\npools: {{app: {{servers: ['127.0.0.1:2']}}}}\n")


def outcome(listener: ListenerRuntime, line: str, *fields: str, is_trusted: bool = False) -> str:
    """The request line that goes up, else the Location or the fault's word."""
    raw = "\r\n".join([f"{line} HTTP/1.1", "Host: h:5000", *fields, "", ""]).encode()
    prepared = prepare(listener, raw, is_trusted=is_trusted, log_format=None, local_host="local:1")
    if prepared.fault is not None:
        return prepared.fault.word
    if prepared.location:
        return prepared.location.decode()
    return prepared.forward.decode().partition(" HTTP/1.1")[0] if prepared.pool is not None else "own"


ADMIN = "routes: [{match: {path_prefix: /admin}, respond: {status: 403}}, {pool: app}]"


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        (ADMIN, "/a//b?x=//y", "GET /a/b?x=//y"),
        (ADMIN, "/%61%2D?", "GET /a-?"),
        (ADMIN, "//admin", "own"),
        (ADMIN, "http://h//admin", "own"),
        (ADMIN, "/x/../admin", "bad_path"),
        (ADMIN, "/a%2fb", "bad_path"),
        (ADMIN, "/a;b", "GET /a;b"),
        (ADMIN, "/admin;b", "bad_path"),
        (ADMIN + ", encoded_slashes: pass", "/a%2fb?x", "GET /a%2Fb?x"),
        (ADMIN + ", encoded_slashes: pass", "/%2fadmin", "bad_path"),
        (ADMIN + ", path_rules: strict", "/a//b", "bad_path"),
        (ADMIN + ", path_rules: raw", "//admin/../%61", "GET //admin/../%61"),
        ("pool: app", "//a/../%61?x", "GET //a/../%61?x"),
        ("pool: app, path_rules: strict", "//a", "bad_path"),
        ("pool: app, path_rules: strict", "/a", "GET /a"),
        ("routes: [{match: {host: h}, pool: app}, {match: {path: /x}, respond: {}}]", "/a%2fb/..", "GET /a%2fb/.."),
        ("routes: [{pool: app, rewrite: {path_prefix: /t}}]", "/../b", "bad_path"),
        ("routes: [{pool: app, rewrite: {path_prefix: /t}}]", "/%2e%2e/b", "bad_path"),
        ("routes: [{pool: app, rewrite: {path_prefix: /t}}]", "/..%2fb", "bad_path"),
        ("routes: [{pool: app, rewrite: {path_prefix: /t}}]", "/..;/b", "bad_path"),
        ("routes: [{pool: app, rewrite: {path_prefix: /t}}]", "//b", "GET /t/b"),
        ("routes: [{pool: app, rewrite: {strip_prefix: /t}}]", "/%74/b?c", "GET /b?c"),
        ("routes: [{match: {host: h}, pool: app, rewrite: {path_prefix: /t}}]", "/..", "bad_path"),
        ("routes: [{redirect: {location: 'https://{host}{path}{query}'}}]", "//e.x/a?b", "https://h/e.x/a?b"),
        ("routes: [{redirect: {location: 'https://{host}{path}'}}]", "/../a", "bad_path"),
        ("routes: [{redirect: {location: '{path}'}}], path_rules: raw", "//e.x", "/e.x"),
        ("routes: [{redirect: {location: '{path}'}}], path_rules: raw", "/x/..", "bad_path"),
        ("routes: [{redirect: {location: 'https://{host}/'}}]", "/../a", "https://h/"),
        ("routes: [{redirect: {location: /a}}]", "/../a", "own"),
    ],
)  # fmt: skip
def test_what_a_rule_sees_is_what_is_sent(text: str, target: str, expected: str) -> None:
    assert outcome(listener_with(text), f"GET {target}") == expected


def test_a_star_is_no_path() -> None:
    for text in (ADMIN, ADMIN + ", path_rules: strict", "routes: [{pool: app, rewrite: {path_prefix: /t}}]"):
        assert outcome(listener_with(text), "OPTIONS *") == "OPTIONS *"
    assert outcome(listener_with("routes: [{redirect: {location: '{path}'}}]"), "OPTIONS *") == "/"


def test_a_listener_s_methods() -> None:
    limited = listener_with("pool: app, methods: [GET, PURGE]")
    assert limited.allow == b"GET, PURGE, HEAD"
    for method, expected in (
        ("GET", "GET /"), ("HEAD", "HEAD /"), ("PURGE", "PURGE /"), ("POST", "method_not_allowed"),
        ("PROPFIND", "method_not_allowed"), ("BREW", "bad_method"), ("purge", "bad_method"),
    ):  # fmt: skip
        assert outcome(limited, f"{method} /") == expected, method
    assert outcome(listener_with("pool: app"), "BREW /") == "BREW /"


def test_rules_see_forwarding_fields_of_trusted_peers_only() -> None:
    redirect = "redirect: {location: 'https://{host}{path}'}"
    text = f"routes: [{{match: {{headers: {{X-Forwarded-Proto: http}}}}, {redirect}}}, {{pool: app}}]"
    claim = "X-Forwarded-Proto: http"
    assert outcome(listener_with(text), "GET /a", claim) == "GET /a"
    assert outcome(listener_with(text), "GET /a", claim, is_trusted=True) == "https://h/a"


def test_te_has_its_option_on_a_connection_that_closes_too() -> None:
    lines = forwarded("GET /closing HTTP/1.1", "Connection: TE", "TE: trailers", host="h")
    assert lines[-2:] == ["TE: trailers", "Connection: TE, close"]


def test_the_whole_family_of_forwarding_fields_is_dropped_and_counted() -> None:
    prepared = prepared_of(
        "GET /x HTTP/1.1", "X-Original-URL: /admin", "True-Client-IP: 1.1.1.1", "X-Forwarded-User: root"
    )
    assert prepared.dropped == ((PROCESS.column("headers_dropped_total", "spoofed"), 3),)
    assert not re.search(b"(?i)original|true-client|forwarded-user", prepared.forward)
