"""Where a run of octets ends, looked for eight octets at a time.

An octet of ASCII is a control character below 0x20 if its bits 5 and 6 are both 0, and DEL if adding one sets its bit
7, which no ASCII has. Adding one carries over to the next octet from 0xFF alone, which is not ASCII either. So a few
additions and shifts say of all eight octets of a word at once whether each of them is printable ASCII. The last few,
and a word with any other octet, are looked at octet by octet.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64, word_at

_HTAB: Final = 9
_SPACE: Final = 32
_DELETE: Final = 127
_ONES: Final = 0x0101010101010101


def mask_of(n_octets: int) -> i64:
    """The word in which so many octets, at most eight, have all bits, and the others none."""
    return word_at((b"\xff" * n_octets).ljust(8, b"\0"), 0)


def value_end(raw: bytes, at: i64) -> i64:
    """The first octet from `at` on that may not be in a value (RFC 9110 section 5.5). IndexError: there is none."""
    word = word_at(raw, at)
    while ((word | (word + _ONES)) >> 7 | ~(word >> 5 | word >> 6)) & _ONES == 0:
        at += 8
        word = word_at(raw, at)
    octet: i64 = raw[at]
    while (octet >= _SPACE and octet != _DELETE) or octet == _HTAB:
        at += 1
        octet = raw[at]
    return at


def visible_end(raw: bytes, at: i64) -> i64:
    """The first octet from `at` on that is not visible ASCII, as a target is. IndexError: there is none."""
    word = word_at(raw, at)
    less = word - _ONES  # a space becomes less than a space, and NUL not ASCII
    while ((word | (word + _ONES) | less) >> 7 | ~(less >> 5 | less >> 6)) & _ONES == 0:
        at += 8
        word = word_at(raw, at)
        less = word - _ONES
    octet: i64 = raw[at]
    while _SPACE < octet < _DELETE:
        at += 1
        octet = raw[at]
    return at
