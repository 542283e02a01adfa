"""What comes twice in a row is kept, what never repeats is not, and it is bounded."""

from __future__ import annotations

from lbproxy.protocol.repeats import Repeats


def text(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a" % number


def table() -> Repeats[int]:
    return Repeats(most=50, longest=100)


def test_a_text_is_found_again_at_once_and_kept_from_then_on() -> None:
    repeats = table()
    assert repeats.find(text(1)) is None
    repeats.learn(text(1), 1)
    assert repeats._known == {} and repeats.find(text(2)) is None
    assert repeats.find(text(1)) == 1 and repeats._known == {text(1): 1}
    repeats.learn(text(2), 2)
    assert (repeats.find(text(1)), repeats.find(text(2)), repeats.find(text(3))) == (1, 2, None)


def test_what_never_repeats_is_not_kept() -> None:
    repeats = table()
    for number in range(500):
        assert repeats.find(text(number)) is None
        repeats.learn(text(number), number)
    assert repeats._known == {}


def test_what_is_kept_is_bounded() -> None:
    repeats = table()
    for number in range(3 * 50):
        repeats.learn(text(number), number)
        for _ in range(3):
            assert repeats.find(text(number)) == number
        assert len(repeats._known) <= 50


def test_long_texts_are_not_kept() -> None:
    repeats = table()
    repeats.learn(bytes(101), 1)
    assert repeats.find(bytes(101)) is None
    repeats.learn(bytes(100), 1)
    assert repeats.find(bytes(100)) == 1


def test_nothing_is_known_at_first() -> None:
    assert table().find(b"") is None
