"""Fields are checked once: what each octet of a name and of a value does."""

from __future__ import annotations

import pytest

from lbproxy.protocol.field_lines import fields_of
from lbproxy.protocol.h2.fields import (
    BAD,
    CONTENT_LENGTH,
    PATH,
    PLAIN,
    STATUS,
    H2Field,
    has_clean_value,
    kind_of,
    make_field,
)
from lbproxy.protocol.message import token_match, value_match


def test_names_are_tokens_without_upper_case() -> None:
    for code in range(256):
        name = b"x" + bytes([code])
        is_good = token_match(name) is not None and name == name.lower()
        assert (kind_of(name) == PLAIN) == is_good, name
    assert kind_of(b"") == BAD
    assert kind_of(b":") == BAD


def test_values_have_no_control_characters_and_no_white_space_around_them() -> None:
    for code in range(256):
        octet = bytes([code])
        is_good = value_match(octet) is not None
        assert has_clean_value(b"a" + octet + b"b") == is_good, octet
        for value in (octet, octet + b"a", b"a" + octet):
            assert has_clean_value(value) == (is_good and octet not in b" \t"), value
    assert has_clean_value(b"")


def test_the_line_is_one_line() -> None:
    field = make_field(b"a-b", b"c: d")
    assert field.line == b"a-b: c: d\r\n"
    assert fields_of(field.line) == [(b"a-b", b"c: d")]
    for bad in (make_field(b"a", b"x\r\nb: y"), make_field(b"a\r\nb", b"x"), make_field(b"connection", b"close")):
        assert bad.kind == BAD
        assert bad.line == b""
        assert bad.why


def test_numbers() -> None:
    assert make_field(b"content-length", b"17").number == 17
    assert make_field(b":status", b"404").number == 404
    assert make_field(b"a", b"17").number == -1
    assert make_field(b"content-length", b"9223372036854775808").kind == BAD


@pytest.mark.parametrize(
    ("name", "value", "is_good"),
    [
        (b"te", b"trailers", True),
        (b"te", b"Trailers", True),
        (b"te", b"gzip", False),
        (b"content-length", b"1,1", False),
        (b"content-length", b"0x1", False),
        (b":status", b"100", True),
        (b":status", b"99", False),
        (b":status", b"0200", False),
        (b":path", b"/%00?q=#f", True),
        (b":path", b"*", True),
        (b":path", b"**", False),
        (b":path", b"/\xff", False),
        (b":path", b"/\x7f", False),
        (b":method", b"M-SEARCH", True),
        (b":method", b"GE T", False),
        (b":scheme", b"https", True),
        (b":scheme", b"ht+tp.1-x", True),
        (b":scheme", b"https:", False),
        (b":authority", b"[::1]:80", True),
        (b":authority", b"a,b", False),
        (b":authority", b"a/b", False),
        (b"host", b"a@b", False),
        (b":protocol", b"websocket", True),
        (b":protocol", b"web socket", False),
    ],
)
def test_values_that_have_a_grammar(name: bytes, value: bytes, is_good: bool) -> None:
    field = make_field(name, value)
    assert (field.kind != BAD) == is_good
    assert field.name_kind == kind_of(name) != BAD


def test_what_is_wrong_is_said_shortly() -> None:
    field = make_field(b"A" * 1000, b"x")
    assert field.why == f"'{'A' * 40}' is no name of a field"
    assert make_field(b":x", b"y").why == "there is no pseudo-field ':x'"
    assert make_field(b"upgrade", b"y").why == "the field 'upgrade' is about a connection of HTTP/1"
    assert make_field(b"a", b"\n").why == "the value of 'a' has octets that HTTP does not allow"
    assert make_field(b":path", b"x y").why == "':path' is 'x y'"


def test_a_kind_that_is_known_is_not_looked_up() -> None:
    assert make_field(b":path", b"/", PATH).kind == PATH
    assert make_field(b"content-length", b"x", CONTENT_LENGTH).kind == BAD
    assert make_field(b"a", b"b", PLAIN, True).is_secret
    assert H2Field(b":status", b"200", STATUS).size == 10
