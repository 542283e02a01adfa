"""The key of a request, out of its head."""

from __future__ import annotations

import pytest

from lbproxy.domain.keys import cookie_of, cookies_of, key_of
from lbproxy.protocol.http1 import parse_request_head
from lbproxy.request_key import read_key


def key(text: str, *fields: str, target: str = "/") -> bytes:
    lines = [f"GET {target} HTTP/1.1", *(fields if any(f.startswith("Host") for f in fields) else ("Host: h", *fields))]
    return key_of(read_key(text), parse_request_head(("\r\n".join(lines) + "\r\n\r\n").encode(), max_fields=100))


@pytest.mark.parametrize(
    ("text", "fields", "found"),
    [
        ("header:X-User", ("x-user: a",), b"a"),
        ("header:x-user", ("X-User: a", "X-User: b"), b"a, b"),
        ("header:X-User", ("X-Use: a",), b""),
        ("header:X-User", ("X-User:",), b""),
        ("cookie:sid", ("Cookie: a=1; sid=x; sid=y",), b"x"),
        ("cookie:sid", ("Cookie: a=1", "Cookie: sid=x"), b"x"),
        ("cookie:sid", ("Cookie: xsid=1; SID=2",), b""),
        ("cookie:sid", (), b""),
        ("host", ("Host: A.Example:8080",), b"a.example"),
        ("host", ("Host: [2001:DB8::1]:80",), b"[2001:db8::1]"),
        ("host", ("Host: [2001:db8::1]",), b"[2001:db8::1]"),
        ("client_ip", (), b""),
        ("json:/model", (), b""),
    ],
)
def test_fields(text: str, fields: tuple[str, ...], found: bytes) -> None:
    assert key(text, *fields) == found


@pytest.mark.parametrize(
    ("text", "target", "found"),
    [
        ("path", "/a/b?x=1", b"/a/b"),
        ("query:u", "/?a=1&u=x%20y&u=z", b"x y"),
        ("query:u", "/?u=a+b", b"a b"),
        ("query:u", "/?u=", b""),
        ("query:u", "/?uu=1", b""),
        ("query:u", "/", b""),
        ("query:u", "/?u=%ff", b"\xff"),
    ],
)
def test_targets(text: str, target: str, found: bytes) -> None:
    assert key(text, target=target) == found


def test_cookies_of_one_name() -> None:
    field = 'a=1; lb="q"; b=lb; lb=2;lb; lb =3'
    assert cookies_of(field, "lb") == ["q", "2", "3"]
    assert cookie_of(field, "lb") == "q"
    assert cookie_of("", "lb") == ""
