"""Heads that are not complete yet, and the bounds that they have."""

from __future__ import annotations

import pytest

from lbproxy.protocol.http1 import HeadError, check_partial, parse_request_head


def test_a_request_line_may_be_allowed_to_be_long() -> None:
    raw = b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    assert len(parse_request_head(raw, max_fields=9, line_bytes=20_100).path) == 20_001
    check_partial(bytearray(raw[:-3]), 0, head_bytes=32768, line_bytes=20_100)
    with pytest.raises(HeadError) as caught:
        check_partial(bytearray(raw[:20_000]), 0, head_bytes=32768, line_bytes=19_000)
    assert caught.value.fault.word == "uri_too_long"


@pytest.mark.parametrize(
    ("partial", "word"),
    [
        (b"GET / HTTP/1.1\nHost", "bad_request"),
        (b"GET /x\r\n", "bad_request"),
        (b"\x16\x03\x01\x02\x00", "bad_request"),
        (b"GET / HTTP/3.0\r\nA", "bad_version"),
        (b"GET /" + b"a" * 9000, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 40000, "header_too_large"),
    ],
)
def test_an_unfinished_head_is_refused_as_soon_as_it_cannot_be_good(partial: bytes, word: str) -> None:
    with pytest.raises(HeadError) as caught:
        check_partial(bytearray(partial), 0, head_bytes=32768)
    assert caught.value.fault.word == word


def test_an_unfinished_head_may_be_cut_anywhere() -> None:
    raw = b"GET /predict HTTP/1.1\r\nHost: x\r\nA: b"
    for end in range(1, len(raw)):
        for start in (0, end - 1):
            check_partial(bytearray(raw[:end]), start, head_bytes=32768)
