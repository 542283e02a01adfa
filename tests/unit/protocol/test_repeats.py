"""What comes twice is kept, what never repeats costs a number, and both are bounded."""

from __future__ import annotations

from lbproxy.protocol.repeats import MAX_SEEN, Repeats


def text(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a" % number


def table() -> Repeats[bytes, int]:
    return Repeats(most=50, longest=100)


def test_a_text_is_kept_the_second_time() -> None:
    repeats = table()
    repeats.learn(text(1), 1)
    assert repeats.known == {}
    repeats.learn(text(2), 2)
    repeats.learn(text(1), 3)
    assert repeats.known == {text(1): 3}


def test_what_never_repeats_is_not_kept() -> None:
    repeats = table()
    for number in range(3 * MAX_SEEN):
        repeats.learn(text(number), number)
        assert len(repeats._seen) <= MAX_SEEN
    assert repeats.known == {}


def test_what_is_kept_is_bounded() -> None:
    repeats = table()
    for number in range(3 * 50):
        repeats.learn(text(number), number)
        repeats.learn(text(number), number)
        assert text(number) in repeats.known and len(repeats.known) <= 50


def test_long_texts_are_not_kept() -> None:
    repeats = table()
    for _ in range(3):
        repeats.learn(bytes(101), 1)
        repeats.learn(bytes(100), 1)
    assert list(repeats.known) == [bytes(100)]
