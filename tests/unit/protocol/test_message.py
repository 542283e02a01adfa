"""What fields mean to a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.message import (
    CLIENT_CERT,
    FORBIDDEN_TRAILERS,
    FORWARDING,
    HOP_BY_HOP,
    IDEMPOTENT_METHODS,
    MAX_LENGTH,
    connection_options,
    count_own_via,
    forwardable_trailers,
    host_match,
    is_forwarding,
    join_fields,
    parse_length,
    token_match,
    value_match,
)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (b"0", 0),
        (b"5", 5),
        (b"0005", 5),
        (b"%d" % MAX_LENGTH, MAX_LENGTH),
        (b"%d" % (MAX_LENGTH + 1), None),
        (b"9" * 20, None),
        (b"0" * 25, None),
        (b"", None),
        (b"+5", None),
        (b"-5", None),
        (b"5, 5", None),
        (b" 5", None),
        (b"5 ", None),
        (b"5\n", None),
        (b"1_0", None),
        (b"0x5", None),
        (b"5.0", None),
        ("\u0665".encode(), None),
        (b"\xb2", None),
    ],
)
def test_a_length_is_digits_only(text: bytes, length: int | None) -> None:
    assert parse_length(text) == length


@given(st.binary(max_size=25))
def test_no_text_but_digits_is_a_length(text: bytes) -> None:
    is_digits = bool(text) and all(0x30 <= octet <= 0x39 for octet in text)
    assert (parse_length(text) is not None) == (is_digits and len(text) <= 19 and int(text) <= MAX_LENGTH)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"close", {b"close"}),
        (b"keep-alive", {b"keep-alive"}),
        (b"Keep-Alive", {b"keep-alive"}),
        (b"CLOSE , X-a", {b"close", b"x-a"}),
        (b"a,b,a", {b"a", b"b"}),
        (b" , ,", set()),
        (b"\tTE\t", {b"te"}),
        (b"", set()),
    ],
)
def test_connection_options(value: bytes, options: set[bytes]) -> None:
    assert connection_options(value) == options


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([], 0),
        ([b"1.1 lbproxy"], 1),
        ([b"1.1 lbproxy, 1.0 LBPROXY", b"HTTP/1.1 lbproxy"], 3),
        ([b"1.1 lbproxy2, 1.1 my-lbproxy, 1.1 lbproxy:80"], 0),
        ([b"1.1 other, 1.1 lbproxy"], 1),
    ],
)
def test_own_via_lines_are_counted(values: list[bytes], count: int) -> None:
    assert count_own_via(values) == count


def test_trailers_that_may_not_pass() -> None:
    kept = [(b"X-Sum", b"1"), (b"Server-Timing", b"a")]
    forbidden = [(name.title(), b"x") for name in sorted(FORBIDDEN_TRAILERS)]
    others = [(b"X-Named", b"1"), (b"x_under", b"1"), (b"X-Client-Cert-Subject", b"me"), (b"X-Forwarded-Any", b"1")]
    assert forwardable_trailers(kept + forbidden + others, frozenset((b"x-named",))) == kept
    for name in (b"content-length", b"transfer-encoding", b"host", b"set-cookie", b"authorization"):
        assert name in FORBIDDEN_TRAILERS


@pytest.mark.parametrize(
    "host", [b"a", b"a.b:80", b"127.0.0.1", b"[::1]", b"[::1]:80", b"a:", b"A%41", b"a_b", b"xn--nxasmq6b"]
)
def test_what_is_a_host(host: bytes) -> None:
    assert host_match(host)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b":80",
        b"a,b",
        b"a b",
        b"a/b",
        b"u@a",
        b"a:8o",
        b"[::1",
        b"::1]",
        b"[]",
        b"a\n",
        b"a%4",
        b"a:123456",
        b"\xe9",
    ],
)
def test_what_is_none(host: bytes) -> None:
    assert host_match(host) is None


@given(st.binary(min_size=1, max_size=8))
def test_tokens_and_values_hold_no_octet_that_could_end_a_line(text: bytes) -> None:
    if token_match(text):
        assert not set(text) & set(b'\r\n\0 \t:,;"()[]{}')
    if value_match(text):
        assert not set(text) & set(b"\r\n\0\x7f")


def test_names_are_lower_case_and_the_families_are_apart() -> None:
    for name in HOP_BY_HOP | FORWARDING | FORBIDDEN_TRAILERS | {CLIENT_CERT}:
        assert name == name.lower()
    assert not HOP_BY_HOP & FORWARDING
    assert all(is_forwarding(name) for name in FORWARDING)
    assert is_forwarding(b"x-forwarded-anything") and not is_forwarding(b"x-forward")
    assert {"POST", "PATCH"}.isdisjoint(IDEMPOTENT_METHODS)


def test_fields_are_joined_in_order() -> None:
    assert join_fields([(b"B", b"1"), (b"a", b""), (b"B", b"2")]) == b"B: 1\r\na: \r\nB: 2\r\n"
    assert join_fields([]) == b""
