"""Request heads: what is accepted, what it means, and every refusal with its fault."""

from __future__ import annotations

import pytest

from lbproxy.protocol.field_lines import HeadError
from lbproxy.protocol.request_head import RequestHead, parse_request_head


def request(text: str, *, underscores: str = "drop", max_fields: int = 100) -> RequestHead:
    raw = text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"
    return parse_request_head(raw, max_fields=max_fields, underscores=underscores)


def refused(raw: bytes | str, **options: object) -> str:
    """The fault word that a request head is refused with."""
    if isinstance(raw, str):
        raw = raw.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"
    with pytest.raises(HeadError) as caught:
        parse_request_head(raw, max_fields=100)
    assert caught.value.detail
    return caught.value.fault.word


def test_a_usual_head_is_understood() -> None:
    head = request("POST /predict?x=1 HTTP/1.1\nHost: example.org:5000\nAccept: */*\nContent-Length: 31")
    assert (head.method, head.path, head.query, head.host, head.minor) == (
        "POST",
        "/predict",
        "x=1",
        "example.org:5000",
        1,
    )
    assert head.content_length == 31 and not head.chunked and head.keep_alive
    assert head.fields == [(b"Accept", b"*/*")]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("GET  / HTTP/1.1\nHost: x", "bad_request"),
        ("GET /a b HTTP/1.1\nHost: x", "bad_request"),
        ("GET / HTTP/1.1 \nHost: x", "bad_request"),
        (" GET / HTTP/1.1\nHost: x", "bad_request"),
        ("GET / http/1.1\nHost: x", "bad_request"),
        ("GET /\nHost: x", "bad_request"),
        ("G@T / HTTP/1.1\nHost: x", "bad_request"),
        ("GET / HTTP/1.1\nHost : x", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\n folded", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\n\tfolded", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\nno colon", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\n: empty name", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\nA: \x01", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\nA: \x7f", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\nA: \x00", "bad_request"),
        ("GET / HTTP/0.9\nHost: x", "bad_request"),
        ("GET / HTTP/2.0\nHost: x", "bad_version"),
        ("GET / HTTP/1.2\nHost: x", "bad_version"),
        ("PRI * HTTP/2.0", "bad_version"),
        ("get / HTTP/1.1\nHost: x", "bad_method"),
        ("head / HTTP/1.1\nHost: x", "bad_method"),
        ("CONNECT x:443 HTTP/1.1\nHost: x", "method_not_allowed"),
        ("TRACE / HTTP/1.1\nHost: x", "method_not_allowed"),
        ("GET / HTTP/1.1", "bad_host"),
        ("GET / HTTP/1.1\nHost: a\nHost: a", "bad_host"),
        ("GET / HTTP/1.1\nHost:", "bad_host"),
        ("GET / HTTP/1.1\nHost: a, b", "bad_host"),
        ("GET / HTTP/1.1\nHost: a b", "bad_host"),
        ("GET / HTTP/1.1\nHost: a/b", "bad_host"),
        ("GET / HTTP/1.1\nHost: u@a", "bad_host"),
        ("GET / HTTP/1.1\nHost: a:x", "bad_host"),
        ("GET / HTTP/1.1\nHost: a:70000", "bad_host"),
        ("GET / HTTP/1.1\nHost: [::1", "bad_host"),
        ("GET / HTTP/1.1\nHost: a#b", "bad_host"),
        ("GET / HTTP/1.1\nHost: a?b", "bad_host"),
        ("GET /a#b HTTP/1.1\nHost: x", "bad_target"),
        ("GET * HTTP/1.1\nHost: x", "bad_target"),
        ("GET predict HTTP/1.1\nHost: x", "bad_request"),
        ("GET http:///p HTTP/1.1\nHost: x", "bad_target"),
        ("GET http://u:p@h/ HTTP/1.1\nHost: x", "bad_target"),
        ("GET ftp://h/ HTTP/1.1\nHost: x", "bad_target"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Length: 5", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 6", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 5, 5", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: +5", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: -5", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 1_0", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length:", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 9223372036854775808", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 99999999999999999999999", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: gzip", "bad_transfer_coding"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: xchunked", "bad_transfer_coding"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: gzip, chunked", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: identity\nTransfer-Encoding: chunked", "bad_framing"),
        ("POST / HTTP/1.0\nHost: x\nTransfer-Encoding: chunked", "bad_framing"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 5\nExpect: 200-maybe", "bad_expect"),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 5\nExpect: y 100-continue", "bad_expect"),
        ("GET / HTTP/1.1\nHost: x\nExpect: 200-maybe", "bad_expect"),
        ("BREW / HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked", "bad_framing"),
        ("BREW / HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 6", "bad_framing"),
        ("BREW / HTTP/1.1\nHost : x", "bad_request"),
        ("BREW / HTTP/1.1\nHost: x\nno colon", "bad_request"),
        ("OPTIONS / HTTP/1.1\nHost: x\nMax-Forwards: x", "bad_request"),
        ("GET / HTTP/1.1\nHost: x\n" + "\n".join(["Via: 1.1 lbproxy"] * 5), "loop_detected"),
        ("GET / HTTP/1.1\nHost: x\n" + "\n".join([f"A{n}: b" for n in range(100)]), "header_too_large"),
        ("GET / HTTP/1.1\nHost: x\n" + "A" * 257 + ": b", "header_too_large"),
        ("GET /" + "a" * 9000 + " HTTP/1.1\nHost: x", "uri_too_long"),
    ],
)
def test_a_bad_head_is_refused(text: str, word: str) -> None:
    assert refused(text) == word


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: x\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
        b"GET /x\r\nHost: x\r\n\r\n",  # HTTP/0.9
        b"GET /x\nX-Inj: 1 HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_line_ends_are_strict(raw: bytes) -> None:
    assert refused(raw) == "bad_request"


def test_upgrade_with_a_body_keeps_the_body_framing() -> None:
    head = request("POST / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: h2c\nContent-Length: 30")
    assert head.upgrade == () and head.content_length == 30
    assert not any(name.lower() == b"upgrade" for name, _ in head.fields)


def test_upgrade_offers_count_in_http_1_1_without_a_body_if_connection_says_so() -> None:
    head = request(
        "GET /ws HTTP/1.1\nHost: x\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket\nSec-WebSocket-Key: k"
    )
    assert head.upgrade == (b"WebSocket",) and head.fields == [(b"Sec-WebSocket-Key", b"k")]
    several = request("POST / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: h2c , , a b\nUpgrade: irc/6.9,x/")
    assert several.upgrade == (b"h2c", b"irc/6.9")
    assert request("GET / HTTP/1.1\nHost: x\nUpgrade: websocket").upgrade == ()
    assert request("GET / HTTP/1.0\nHost: x\nConnection: upgrade\nUpgrade: websocket").upgrade == ()
    with_body = "POST / HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 2"
    assert request(with_body).upgrade == ()


def test_absolute_form_replaces_host() -> None:
    head = request("GET http://real.example:81/a?b HTTP/1.1\nHost: other")
    assert (head.host, head.target, head.query) == ("real.example:81", b"/a?b", "b")
    assert request("GET http://h HTTP/1.1\nHost: o").target == b"/"
    assert request("GET http://h?q=1 HTTP/1.1\nHost: o").target == b"/?q=1"
    assert request("OPTIONS http://h HTTP/1.1\nHost: o").target == b"*"
    assert request("OPTIONS * HTTP/1.1\nHost: o").target == b"*"


def test_http_1_0() -> None:
    assert not request("GET / HTTP/1.0").keep_alive
    assert request("GET / HTTP/1.0\nConnection: Keep-Alive").keep_alive
    assert not request("GET / HTTP/1.1\nHost: x\nConnection: foo, Close").keep_alive
    assert not request("POST / HTTP/1.0\nContent-Length: 2\nExpect: 100-continue").expects_continue


def test_nominated_fields_go_but_never_host_or_framing() -> None:
    head = request(
        "POST / HTTP/1.1\nHost: x\nConnection: close, x-secret, host, content-length, X-Forwarded-For\n"
        "X-Secret: 1\nX-Forwarded-For: 9.9.9.9\nKeep: 2\nContent-Length: 3"
    )
    assert head.fields == [(b"Keep", b"2")]
    assert head.forwarding == {} and head.host == "x" and head.content_length == 3
    assert head.nominated_dropped == 2


@pytest.mark.parametrize("method", ["PURGE", "REPORT", "SETUP", "SOURCE", "brew", "M-SEARCH"])
@pytest.mark.parametrize(
    "fields",
    [
        "",
        "\nContent-Length: 3",
        "\nTransfer-Encoding: chunked",
        "\nUpgrade: x\nConnection: upgrade",
        "\nTransfer-Encoding: \tchunked \t",
        "\nContent-Length:\t 3\t",
    ],
)
def test_a_method_changes_nothing_of_what_is_read(method: str, fields: str) -> None:
    text = f"{method} /p?q HTTP/1.1\nHost: x\nA: b\nX-Forwarded-For: c{fields}"
    got, expected = request(text), request(text.replace(method, "POST", 1))
    assert got.method == method
    for name in ("fields", "forwarding", "content_length", "chunked", "upgrade", "path", "query", "host", "keep_alive"):
        assert getattr(got, name) == getattr(expected, name), name


def test_an_expectation_without_a_body_is_ignored() -> None:
    """RFC 9110 section 10.1.1: only with content it means something; some clients send it always."""
    for text in ("GET / HTTP/1.1\nHost: x", "POST / HTTP/1.1\nHost: x\nContent-Length: 0"):
        head = request(text + "\nExpect: 100-continue")
        assert not head.expects_continue and head.fields == []
    assert request("POST / HTTP/1.1\nHost: x\nContent-Length: 1\nExpect: 100-continue").expects_continue


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X-Forwarded-Prefix",
        "x-forwarded-user",
        "X-Forwarded-Client-Cert",
        "X-Original-URL",
        "X-Rewrite-URL",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Forwarded",
        "X-Real-IP",
        "Front-End-Https",
    ],
)
def test_what_only_a_trusted_peer_may_say_is_set_aside(name: str) -> None:
    head = request(f"GET / HTTP/1.1\nHost: x\n{name}: 1\nX-Original-Filename: f\nX-HTTP-Method-Override: PUT")
    assert head.forwarding == {name.lower().encode(): [b"1"]}
    assert head.fields == [(b"X-Original-Filename", b"f"), (b"X-HTTP-Method-Override", b"PUT")]
    disguised = name.replace("-", "_")
    if disguised != name:
        assert request(f"GET / HTTP/1.1\nHost: x\n{disguised}: 1", underscores="pass").fields == []


def test_every_connection_line_counts() -> None:
    head = request("GET / HTTP/1.1\nHost: x\nConnection:\nConnection: , a ,\nConnection: b\nA: 1\nB: 2\nC: 3")
    assert head.fields == [(b"C", b"3")]


def test_hop_by_hop_fields_are_removed() -> None:
    head = request(
        "GET / HTTP/1.1\nHost: x\nKeep-Alive: 5\nProxy-Connection: a\nTE: gzip\nTrailer: x\n"
        "Proxy-Authorization: secret\nHTTP2-Settings: x\nX-Client-Cert-Subject: forged\nOk: 1"
    )
    assert head.fields == [(b"Ok", b"1")]


def test_underscores() -> None:
    text = "GET / HTTP/1.1\nHost: x\nX_Forwarded_For: 1\nContent_Length: 5\nA-B: 2"
    head = request(text)
    assert head.fields == [(b"A-B", b"2")] and head.underscore_dropped == 2
    passed = request(text, underscores="pass")
    assert passed.fields == [(b"Content_Length", b"5"), (b"A-B", b"2")]
    with pytest.raises(HeadError) as caught:
        request("GET / HTTP/1.1\nHost: x\nA_B: 2", underscores="reject")
    assert caught.value.fault.word == "underscore_header"


def test_trailers_are_accepted_only_with_te_named_in_connection() -> None:
    assert request("GET / HTTP/1.1\nHost: x\nTE: trailers\nConnection: TE").accepts_trailers
    assert not request("GET / HTTP/1.1\nHost: x\nTE: gzip\nConnection: TE").accepts_trailers


def test_headers_view_joins_repeated_fields() -> None:
    head = request("GET / HTTP/1.1\nHost: x\nX-A: 1\nx-a: 2")
    assert head.headers["x-a"] == "1, 2" and head.headers["host"] == "x"


PADDED = ("{}", " {}", "\t{}", "{} ", "{}\t", " \t {} \t ", "  {} \t")


@pytest.mark.parametrize("padded", PADDED)
def test_white_space_around_a_value_is_not_part_of_it(padded: str) -> None:
    """RFC 9110 section 5.5. haproxy 2.6 takes all of these; nginx 1.22 refuses those with a tab."""

    def head(*fields: str) -> RequestHead:
        lines = [f"{name}:{padded.format(value)}" for name, _, value in (field.partition(": ") for field in fields)]
        raw = "\r\n".join(["POST / HTTP/1.1", *lines]) + "\r\n\r\n"
        return parse_request_head(raw.encode(), max_fields=9)

    assert head("Host: a", "Transfer-Encoding: chunked").chunked
    assert head("Host: a", "Content-Length: 5").content_length == 5
    assert head("Host: a", "Content-Length: 5", "Expect: 100-continue").expects_continue
    assert not head("Host: a", "Connection: close").keep_alive
    assert head("Host: a", "Connection: upgrade", "Upgrade: websocket").upgrade == (b"websocket",)
    assert head("Host: a", "Connection: x-a", "X-A: 1", "X-B: 2").fields == [(b"X-B", b"2")]
    assert head("Host: a").host == "a"


@pytest.mark.parametrize("octet", ["\x0b", "\x0c", "\x00", "\x85", "\xa0", "\x1f", "\r", "\n", "\r\n "])
@pytest.mark.parametrize(
    "framing",
    ["Transfer-Encoding:{}chunked \t", "Transfer-Encoding: chunked{}", "Content-Length:{}5", "Content-Length: 5{}"],
)
def test_only_space_and_tab_are_white_space(framing: str, octet: str) -> None:
    with pytest.raises(HeadError):
        parse_request_head(
            f"POST / HTTP/1.1\r\nHost: a\r\n{framing.format(octet)}\r\n\r\n".encode("latin-1"), max_fields=9
        )


@pytest.mark.parametrize(
    "lines",
    [
        "Transfer-Encoding:  chunked \t\r\nContent-Length: 5",
        "Transfer-Encoding:  chunked \t\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:  chun ked \t",
        "Transfer-Encoding:  chunked, \t",
        "Transfer-Encoding: \t, chunked",
        "Transfer-Encoding:  chunked \t\r\n , gzip",
        "Transfer-Encoding :  chunked \t",
        "Content-Length:  5 \t\r\nContent-Length: 5",
        "Content-Length:  5 5 \t",
        "X: y\r\n Transfer-Encoding:  chunked \t",
    ],
)
def test_white_space_hides_no_second_meaning(lines: str) -> None:
    """An empty list element beside `chunked` would be legal, and stays refused: haproxy passes `chunked,` on as it is,
    nginx says 501, and servers have read it as no coding at all."""
    with pytest.raises(HeadError):
        parse_request_head(f"POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n".encode(), max_fields=9)


def test_an_underscore_behind_the_prefix_makes_no_other_name() -> None:
    head = request("GET / HTTP/1.1\nHost: x\nX-Forwarded-A_b: 1\nX-Client-Cert-A_b: 2", underscores="pass")
    assert head.forwarding == {b"x-forwarded-a_b": [b"1"]} and head.fields == [] and head.underscore_dropped == 1
