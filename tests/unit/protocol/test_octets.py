"""Where runs of octets end, whichever octet stands in whichever place of a word."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from lbproxy.compiling import value_end, visible_end, word_at
from lbproxy.protocol.octets import mask_of

ENDS: dict[Callable[[bytes, int], int], re.Pattern[bytes]] = {
    value_end: re.compile(rb"[^\t\x20-\x7e\x80-\xff]"),
    visible_end: re.compile(rb"[^\x21-\x7e]"),
}


@pytest.mark.parametrize("find", ENDS)
@pytest.mark.parametrize("length", range(19))
def test_each_octet_in_each_place(find: Callable[[bytes, int], int], length: int) -> None:
    """Among others that are the least and the greatest that may stand there."""
    pattern = ENDS[find]
    for filling in (b"!", b"~"):
        for place in range(length):
            for octet in range(256):
                raw = filling * place + bytes((octet,)) + filling * (length - place) + b"\r" + filling * 9
                found = pattern.search(raw)
                assert found is not None
                assert find(raw, 0) == found.start()


def test_what_stands_before_is_not_looked_at() -> None:
    raw = b"\r\0 \x7f" + b"a" * 20 + b"\r\n"
    for at in range(4, 25):
        assert value_end(raw, at) == visible_end(raw, at) == 24


def test_any_octets_together() -> None:
    draw = random.Random(4)
    for _ in range(20_000):
        octets = draw.choice((b"\x00\x01\x20\x21\x7e\x7f\x80\x81\xff", bytes(range(256)), b"ab \t\xff"))
        raw = bytes(draw.choices(octets, k=draw.randint(1, 24))) + b"\r\n"
        for find, pattern in ENDS.items():
            found = pattern.search(raw)
            assert found is not None
            assert find(raw, 0) == found.start()


@pytest.mark.parametrize("raw", [b"", b"a", b"a" * 8, b"a" * 31])
def test_a_run_that_does_not_end(raw: bytes) -> None:
    for find in ENDS:
        assert find(raw, 0) == len(raw)


def test_a_mask_leaves_the_first_octets() -> None:
    word = word_at(b"abcdefgh", 0)
    for size in range(9):
        assert word & mask_of(size) == word_at(b"abcdefgh"[:size].ljust(8, b"\0"), 0)


def test_a_word_is_eight_octets_or_minus_one() -> None:
    raw = bytes(range(120, 136))
    for at in range(9):
        assert word_at(raw, at) == int.from_bytes(raw[at : at + 8], "little", signed=True)
    for at in (9, 15, 16, 100):
        assert word_at(raw, at) == -1
    assert word_at(b"1234567", 0) == -1 and word_at(b"", 0) == -1
