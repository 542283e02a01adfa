"""What comes twice in a row is kept, what never repeats is not, and it is bounded."""

from __future__ import annotations

from lbproxy.protocol.repeats import Repeats


def text(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


def learn(repeats: Repeats[int], head: bytes, made: int, rest: bytes = b"") -> None:
    repeats.learn(head + rest, len(head), made)


def kept(repeats: Repeats[int]) -> dict[bytes, int]:
    return {kept.head: kept.made for alike in repeats._known.values() for kept in alike}


def table() -> Repeats[int]:
    return Repeats(most=50, longest=100)


def test_a_text_is_found_again_at_once_and_kept_from_then_on() -> None:
    repeats = table()
    assert repeats.find(text(1)) is None
    learn(repeats, text(1), 1, b"body")
    assert kept(repeats) == {} and repeats.find(text(2)) is None
    assert repeats.find(text(1) + b"another body") == 1 and kept(repeats) == {text(1): 1}
    learn(repeats, text(2), 2)
    assert (repeats.find(text(1)), repeats.find(text(2)), repeats.find(text(3))) == (1, 2, None)


def test_what_never_repeats_is_not_kept() -> None:
    repeats = table()
    for number in range(500):
        assert repeats.find(text(number)) is None
        learn(repeats, text(number), number)
    assert kept(repeats) == {}


def test_what_is_kept_is_bounded() -> None:
    repeats = table()
    for number in range(3 * 50):
        learn(repeats, text(number), number)
        for _ in range(3):
            assert repeats.find(text(number)) == number
        assert len(kept(repeats)) <= 50


def test_long_texts_are_not_kept() -> None:
    repeats = table()
    learn(repeats, bytes(101), 1)
    assert repeats.find(bytes(101)) is None
    learn(repeats, bytes(100), 1)
    assert repeats.find(bytes(100)) == 1


def test_a_text_is_no_other_one_that_ends_or_begins_like_it() -> None:
    """Also where what was read is not copied before it has come again: what stands behind the head is no part of it."""
    head = b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    for others in ((), (head,)):
        for changed in range(len(head)):
            repeats = table()
            learn(repeats, head, 1, b"body")
            for other in others:
                assert repeats.find(other + b"x") == 1
            assert repeats.find(head[:changed] + b"?" + head[changed + 1 :] + b"body") is None
            assert repeats.find(head[:-1]) is None and repeats.find(head[1:]) is None
            assert repeats.find(head + b"other") == 1 and repeats.find(head) == 1


def test_nothing_is_known_at_first() -> None:
    assert table().find(b"") is None


def test_heads_that_begin_alike_are_told_apart_and_few_of_them_are_kept() -> None:
    repeats = table()
    heads = [
        b"GET / HTTP/1.1\r\nHost: a.very.long.name.of.a.host.example\r\nX: %d\r\n\r\n" % number for number in range(20)
    ]
    for number, head in enumerate(heads):
        learn(repeats, head, number)
        assert repeats.find(head) == repeats.find(head + b"x") == number
    found = [repeats.find(head) for head in heads]
    assert found[-8:] == list(range(12, 20)) and found[:12] == [None] * 12
    assert repeats._n_known == len(kept(repeats)) == 8


def test_a_head_that_was_learned_again_replaces_itself() -> None:
    repeats = table()
    for made in (1, 2):
        learn(repeats, text(1), made)
        assert repeats.find(text(1)) == made
        learn(repeats, text(2), 0)
        assert repeats.find(text(1)) == made
    assert kept(repeats) == {text(1): 2} and repeats._n_known == 1
