"""The request line: methods, versions and how long it may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lbproxy.protocol.field_lines import HeadError
from lbproxy.protocol.message import KNOWN_METHODS
from lbproxy.protocol.request_line import MAX_METHOD, check_request_line, line_too_long, read_request_line


def refused(line: str, line_bytes: int = 8192) -> str:
    with pytest.raises(HeadError) as caught:
        check_request_line(line.encode() + b"\r\n", line_bytes)
    assert caught.value.detail
    return caught.value.fault.word


@pytest.mark.parametrize(
    "method",
    [
        "GET",
        "LIST",
        "PURGE",
        "REPORT",
        "PROPFIND",
        "M-SEARCH",
        "BREW",
        "GETX",
        "GE",
        "brew",
        "Purge",
        "!#$%&'*+-.^_`|~09",
        "SETUP",
        "SOURCE",
        "Z" * MAX_METHOD,
    ],
)
def test_any_token_is_a_method(method: str) -> None:
    """RFC 9110 section 9.1; also those that llhttp takes for RTSP or ICE."""
    assert check_request_line(f"{method} /x?y HTTP/1.0\r\n".encode(), 8192) == (method, b"/x?y", 0)


@pytest.mark.parametrize("method", sorted(KNOWN_METHODS - {b"CONNECT", b"TRACE"}))
def test_a_known_method_has_one_spelling(method: bytes) -> None:
    assert check_request_line(method + b" / HTTP/1.1\r\n", 8192)[0] == method.decode()
    assert refused(f"{method.decode().lower()} / HTTP/1.1") == "bad_method"
    assert refused(f"{method.decode().title()} / HTTP/1.1") == "bad_method"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("CONNECT a:1 HTTP/1.1", "method_not_allowed"),
        ("TRACE / HTTP/1.1", "method_not_allowed"),
        ("connect / HTTP/1.1", "bad_method"),
        ("Trace / HTTP/1.1", "bad_method"),
        ("PRI * HTTP/1.1", "bad_method"),
        ("pri / HTTP/1.1", "bad_method"),
        ("PRI * HTTP/2.0", "bad_version"),
        ("Z" * (MAX_METHOD + 1) + " / HTTP/1.1", "bad_method"),
        ("G@T / HTTP/1.1", "bad_request"),
        ("GET\t/ HTTP/1.1", "bad_request"),
        ("GET / HTTP/1.1\x0b", "bad_request"),
        ("GET /\u00e9 HTTP/1.1", "bad_request"),
        ("GET / HTTP/0.9", "bad_request"),
        ("GET / HTTP/1.2", "bad_version"),
    ],
)
def test_what_is_refused(line: str, word: str) -> None:
    assert refused(line) == word


def test_how_long_it_may_be() -> None:
    line = "GET /" + "a" * 100 + " HTTP/1.1"
    assert check_request_line(line.encode() + b"\r\n", len(line))[2] == 1
    assert refused(line, len(line) - 1) == "uri_too_long"
    assert refused("x" * 200, 100) == "uri_too_long"
    assert "100 bytes" in line_too_long(100).detail


@pytest.mark.parametrize("place", [1, 2, 14, 15, 16, 17, 31, 32, 40])
def test_only_visible_octets_are_a_target_wherever_they_stand(place: int) -> None:
    for code in range(256):
        target = b"/" * place + bytes([code]) + b"/" * (41 - place)
        raw = b"GET %b HTTP/1.1\r\n\r\n" % target
        if 0x20 < code < 0x7F:
            assert read_request_line(raw, 80) == ("GET", target.decode(), 1, len(raw) - 2)
        else:
            with pytest.raises(HeadError):
                read_request_line(raw, 80)


def test_a_line_that_ends_within_its_target_is_not_all_there() -> None:
    for size in (4, 15, 16, 40):  # fewer than eight octets are no word: such a line is refused, as one in pieces
        with pytest.raises(IndexError):
            read_request_line(b"GET " + b"/" * size, 80)


LINES = (
    "GET / HTTP/1.1", "POST /x?y HTTP/1.0", "GET /caf\xe9 HTTP/1.1", "GET /a\tb HTTP/1.1", "GET  HTTP/1.1", "",
    "GET / HTTP/1.1 ", "BREW / HTTP/1.1", "get / HTTP/1.1", "TRACE / HTTP/1.1", "GET /", "GET\t/\tHTTP/1.1", " ", "  ",
    "GET / HTTP/1.2",
    "GET /x HTTP/0.9", "GET /" + "a" * 90 + " HTTP/1.1", "B /" + "a" * 90 + " HTTP/1.1",
)  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_the_quick_way_is_the_strict_one(line: str) -> None:
    raw = line.encode("latin-1") + b"\r\n"

    def outcome(read: Callable[[], tuple[str, bytes | str, int]]) -> object:
        try:
            method, target, minor = read()
        except HeadError as error:
            return error.fault.word
        return method, target if isinstance(target, str) else target.decode("latin-1"), minor

    def quick() -> tuple[str, str, int]:
        method, target, minor, size = read_request_line(raw + b"A: b\r\n\r\n", 80)
        assert size == len(raw)
        return method, target, minor

    assert outcome(quick) == outcome(lambda: check_request_line(raw, 80))
