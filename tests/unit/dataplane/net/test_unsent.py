"""A queue of bytes that copies none of them."""

from __future__ import annotations

import random

import pytest

from lbproxy.dataplane.net.unsent import MOST_AT_ONCE, Unsent


def content(unsent: Unsent) -> bytes:
    return b"".join(unsent.first())


def test_pieces_stay_in_order_and_are_not_copied() -> None:
    unsent, large = Unsent(), bytes(100_000)
    unsent.add(b"skipped, kept", 9)
    unsent.add(large)
    assert (unsent.size, content(unsent)) == (4 + 100_000, b"kept" + large)
    assert unsent.first()[1] is large


def test_what_may_change_is_copied() -> None:
    unsent, data = Unsent(), bytearray(b"before")
    unsent.add(data)
    unsent.add(memoryview(data), 3)
    data[:] = b"after!"
    assert content(unsent) == b"beforeore"


def test_nothing_is_no_piece() -> None:
    unsent = Unsent()
    unsent.add(b"")
    unsent.add(b"sent", 4)
    assert (unsent.size, unsent.first()) == (0, [])


@pytest.mark.parametrize("sent", range(10))
def test_the_rest_of_several(sent: int) -> None:
    unsent = Unsent()
    unsent.add_rest([b"abc", b"", bytearray(b"defg"), b"hi"], sent)
    assert (unsent.size, content(unsent)) == (9 - sent, b"abcdefghi"[sent:])


@pytest.mark.parametrize("seed", range(5))
def test_any_way_of_taking_gives_the_same_bytes(seed: int) -> None:
    rng, unsent, given, taken = random.Random(seed), Unsent(), b"", b""
    while len(taken) < 20_000:
        for _ in range(rng.randrange(100)):
            piece = rng.randbytes(rng.randrange(50))
            unsent.add(piece)
            given += piece
        next_bytes = content(unsent)
        assert len(unsent.first()) <= MOST_AT_ONCE
        count = rng.randint(0, len(next_bytes))
        taken += next_bytes[:count]
        unsent.take(count)
        assert unsent.size == len(given) - len(taken)
    assert given.startswith(taken)
