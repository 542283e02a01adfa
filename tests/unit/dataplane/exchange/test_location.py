"""Redirects that keep host, path and query."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.exchange.location import fill_location
from lbproxy.domain.paths import BadPath

WHOLE = b"https://{host}{path}{query}"


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        ("a.example", b"/x/y", b"https://a.example/x/y"),
        ("a.example:5000", b"/x?q=1&r=//b", b"https://a.example/x?q=1&r=//b"),
        ("[2001:db8::1]:80", b"/", b"https://[2001:db8::1]/"),
        ("[2001:db8::1]", b"/", b"https://[2001:db8::1]/"),
        ("a:", b"/x?", b"https://a/x?"),
        ("a", b"*", b"https://a/"),
        ("a", b"//evil.example/%2e", None),
        ("a", b"//evil.example/%61", b"https://a/evil.example/a"),
        ("a", b"/{host}?{path}{query}", b"https://a/%7Bhost%7D?{path}{query}"),
        ("a", b'/"<x>[', b"https://a/%22%3Cx%3E%5B"),
        ("a", b"/x%0d%0aSet-Cookie:y", b"https://a/x%0D%0ASet-Cookie:y"),
        ("a", b"/x%2fy", b"https://a/x%2Fy"),
        ("a", b"/x/../y", None),
        ("a", b"/\\evil.example", None),
        ("a", b"/x%00", None),
    ],
)
def test_what_is_filled_in(host: str, target: bytes, location: bytes | None) -> None:
    if location is None:
        with pytest.raises(BadPath):
            fill_location(WHOLE, host, target)
    else:
        assert fill_location(WHOLE, host, target) == location


@pytest.mark.parametrize("target", [b"//evil.example", b"///evil.example/x", b"/%2fevil.example", b"/;/evil.example"])
def test_no_path_leads_to_another_host(target: bytes) -> None:
    location = fill_location(b"{path}", "a", target)
    assert location.startswith(b"/") and not location.startswith((b"//", b"/\\"))


def test_a_path_that_is_not_asked_for_is_not_looked_at() -> None:
    assert fill_location(b"https://{host}/moved", "a", b"/x/../y") == b"https://a/moved"
