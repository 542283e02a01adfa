"""Lines of heads: what may be in one, and that one that is kept reads as it was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy import errors
from lbproxy.protocol import request_head, response_head
from lbproxy.protocol.field_lines import (
    MAX_LINES,
    MAX_NAME,
    MAX_REMEMBERED,
    HeadError,
    colon_of,
    cut,
    fields_of,
    is_visible,
    lines_of,
    lower_name,
    without,
)
from lbproxy.protocol.message import token_match, value_match
from lbproxy.protocol.request_head import parse_request_head
from lbproxy.protocol.response_head import parse_response_head

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"


@pytest.mark.parametrize(
    ("line", "colon", "is_plain"),
    [
        ("A: b", 1, True), ("A: b c:\td", 1, True), ("A-B: \xe9", 3, True), ("A: \xa0", 1, True), ("A:: b", 1, False),
        ("A:b", 1, False), ("A:  b", 1, False), ("A: b ", 1, False), ("A: b\t", 1, False), ("A:\tb", 1, False),
        ("A:", 1, False), ("A: ", 1, False), (": b", 0, True), ("A", -1, False), ("", -1, False),
        ("A: \x00", -1, False), ("A\r: b", -1, False), ("A: b\n", -1, False), ("A: \x7f", -1, False),
    ],
)  # fmt: skip
def test_where_the_name_ends_and_whether_the_line_may_stay(line: str, colon: int, is_plain: bool) -> None:
    assert colon_of(line) == (colon, is_plain)


def test_a_head_is_cut_at_its_line_ends() -> None:
    assert cut(b"GET / HTTP/1.1\r\nA: b\r\nC:\r\n\r\n") == ["GET / HTTP/1.1", "A: b", "C:"]
    assert cut(b"GET / HTTP/1.1\r\n\r\n") == ["GET / HTTP/1.1"]


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n", b"A\n\n", b"A\r\nB: c", b"A\r\nB: c\r\n", b"A\r\n\r\nB", b"A\r\n\n", b"A\n\r\n"]
)
def test_what_does_not_end_with_a_blank_line_is_no_head(raw: bytes) -> None:
    assert cut(raw) is None


@pytest.mark.parametrize("code", range(256))
@pytest.mark.parametrize("at", ["name", "value", "start"])
def test_only_field_octets_pass(code: int, at: str) -> None:
    odd = bytes([code])
    if at == "start":
        assert is_visible("/" + chr(code)) is (33 <= code <= 126)
    else:
        line = {"name": b"A%bB: c", "value": b"A: b%bc"}[at] % odd
        assert (colon_of(line.decode("latin-1"))[0] >= 0) is (value_match(odd) is not None)


@pytest.mark.parametrize("code", range(256))
def test_a_name_is_a_token(code: int) -> None:
    odd = bytes([code])
    for name in (odd, b"A" + odd, odd + b"A", b"A" + odd + b"B"):
        assert lower_name(name.decode("latin-1")) == (name.lower() if token_match(name) else b"")


@given(st.binary(max_size=6))
def test_a_name_is_a_token_or_nothing(name: bytes) -> None:
    assert lower_name(name.decode("latin-1")) == (name.lower() if token_match(name) else b"")


def test_lines_and_fields() -> None:
    fields = [(b"A", b"b"), (b"C", b""), (b"D", b": e: ")]
    assert lines_of(fields) == ["A: b", "C: ", "D: : e: "]
    assert fields_of(lines_of(fields)) == fields
    assert without(["A: b", "a: c", "A-B: d"], frozenset((b"a",))) == ["A-B: d"]


VALUES = st.text("ab:,; \t\xe9\xa0", max_size=8).map(lambda text: text.encode("latin-1"))


@given(st.lists(st.tuples(st.sampled_from([b"A", b"B-c", b"!"]), VALUES), max_size=5))
def test_lines_that_pass_mean_what_was_sent(fields: list[tuple[bytes, bytes]]) -> None:
    """As they are, or written anew: one space before the value, and none around it that was not meant."""
    sent = b"".join(name + b":" + value + b"\r\n" for name, value in fields) + b"\r\n"
    meant = [(name, value.strip(b" \t")) for name, value in fields]
    request, response = (
        parse_request_head(REQUEST + sent, max_fields=9),
        parse_response_head(RESPONSE + sent, max_fields=9),
    )
    assert request.fields == response.fields == meant
    assert request.lines == response.kept == lines_of(meant)
    assert response.lines == "".join(line + "\r\n" for line in lines_of(meant)).encode("latin-1")


@pytest.mark.parametrize(
    "spelling", ["x-new-%d", "X-NEW-%d", "Content-Length-%d", "Content-Lengt%d", "x_new_%d", "X-Forwarded-%d"]
)
def test_the_tables_of_names_stay_small(spelling: str) -> None:
    """Whatever names strangers make up; and what was pushed out is known again when it comes back."""
    for number in range(0, 20_000, 50):
        new = b"".join(b"%b: v\r\n" % (spelling % more).encode() for more in range(number, number + 50))
        parse_request_head(REQUEST + new + b"\r\n", max_fields=100)
        parse_response_head(RESPONSE + new + b"\r\n", max_fields=100)
        assert len(request_head._names) <= MAX_REMEMBERED and len(response_head._names) <= MAX_REMEMBERED
    head = parse_request_head(REQUEST + b"Connection: close\r\nContent-Length: 3\r\n\r\n", max_fields=9)
    assert (head.content_length, head.keep_alive, head.lines) == (3, False, [])


def test_other_tables_stay_small() -> None:
    for number in range(3 * MAX_REMEMBERED):
        parse_request_head(b"GET / HTTP/1.1\r\nHost: h%d\r\n\r\n" % number, max_fields=9)
        parse_response_head(b"HTTP/1.1 200 R%d\r\n\r\n" % number, max_fields=9)
        assert len(request_head._known_hosts) <= MAX_REMEMBERED and len(response_head._starts) <= MAX_REMEMBERED


def test_lines_that_come_twice_in_a_row_are_remembered_and_others_are_not() -> None:
    request_head._lines.clear()
    for number in range(MAX_LINES + 10):
        for again in (0, 0, 0):
            line = b"X-Twice: %d\r\nX-Never: %d-%d\r\n" % (number, number, again)
            head = parse_request_head(REQUEST + line + b"\r\n", max_fields=9)
            assert head.lines == [f"X-Twice: {number}", f"X-Never: {number}-{again}"]
        assert f"X-Twice: {number}" in request_head._lines and len(request_head._lines) <= MAX_LINES


def test_long_texts_are_not_remembered() -> None:
    long = b"a" * (MAX_NAME + 1)
    for _ in range(3):
        parse_response_head(b"HTTP/1.1 200 %b\r\n%b: v\r\nA: %b\r\n\r\n" % (long, long, long), max_fields=9)
        parse_request_head(REQUEST + b"A: %b\r\n\r\n" % long, max_fields=9)
    parse_request_head(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % long, max_fields=9)
    with pytest.raises(HeadError):
        parse_request_head(REQUEST + long + b": v\r\n\r\n", max_fields=9)
    tables = (request_head._names, response_head._names, response_head._starts, request_head._known_hosts)
    assert not any(len(text) > MAX_NAME for table in tables for text in table)
    assert not any(len(line) > MAX_NAME for line in (*request_head._lines, *response_head._lines))
    assert not any(
        len(name.last) > MAX_NAME for name in (*request_head._names.values(), *response_head._names.values())
    )


@pytest.mark.parametrize(
    "bad", [b"A\x00: b", b"A B: c", b"A : b", b": b", b"A", b" A: b", b"\tA: b", b"A\xe9: b", b"A(: b"]
)
def test_what_is_no_name_is_refused_and_not_remembered(bad: bytes) -> None:
    for _ in range(2):
        with pytest.raises(HeadError):
            parse_request_head(REQUEST + bad + b"\r\n\r\n", max_fields=9)
        with pytest.raises(HeadError):
            parse_response_head(RESPONSE + bad + b"\r\n\r\n", max_fields=9)
    known = set(request_head._names) | set(response_head._names)
    assert not any(token_match(name.encode("latin-1")) is None for name in known)


@pytest.mark.parametrize("line", [b"Accept", b"Connection", b"Content-Length", b"Via"])
def test_a_known_name_without_a_colon_is_no_field(line: bytes) -> None:
    parse_request_head(REQUEST + line + b": 1\r\n\r\n", max_fields=9)
    with pytest.raises(HeadError) as caught:
        parse_request_head(REQUEST + line + b"\r\n\r\n", max_fields=9)
    assert caught.value.fault is errors.BAD_REQUEST
    with pytest.raises(HeadError):
        parse_response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n", max_fields=9)
