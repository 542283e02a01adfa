"""Huffman's code of RFC 7541: its table against the library `hpack`, its examples, and what it refuses."""

from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from lbproxy.protocol.h2.huffman import HuffmanError, decode

_ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def decoded(data: bytes) -> bytes:
    return decode(data, 0, len(data))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("6402", b"302"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("", b""),
    ],
)
def test_examples_of_appendix_c(code: str, text: bytes) -> None:
    assert decoded(bytes.fromhex(code)) == text


def test_each_symbol_alone_and_in_a_row() -> None:
    for symbol in range(256):
        for count in (1, 2, 3, 9):
            text = bytes([symbol]) * count
            assert decoded(_ENCODER.encode(text)) == text
    whole = bytes(range(256)) * 2
    assert decoded(_ENCODER.encode(whole)) == whole


def test_a_part_of_the_octets() -> None:
    assert decode(b"\xffxx\x64\x02yy", 3, 5) == b"302"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("ff", "padding"),  # of 8 bits
        ("6402ff", "padding"),
        ("640200", "padding"),  # of zeros
        ("60", "padding"),
        ("ffffffff", "EOS"),
        ("ffffffffffff", "EOS"),
        ("1fffffffff", "EOS"),
    ],
)
def test_what_is_no_code(code: str, why: str) -> None:
    """Section 5.2: padding is shorter than 8 bits, all ones, and EOS does not occur."""
    with pytest.raises(HuffmanError, match=why):
        decoded(bytes.fromhex(code))
