"""What is kept costs about its size, however it came."""

from __future__ import annotations

import random
import sys

import pytest

from lbproxy.dataplane.net.pieces import SMALL, add_piece
from lbproxy.dataplane.net.unsent import Unsent


@pytest.mark.parametrize("size", [1, 2, 3, 100, SMALL - 1, SMALL, 5000])
def test_a_body_in_small_pieces_costs_what_one_in_large_ones_does(size: int) -> None:
    pieces: list[bytes] = []
    total = 200_000 // size * size
    for start in range(0, total, size):
        add_piece(pieces, bytes([start % 251]) * size)
    assert sum(map(len, pieces)) == total
    assert sys.getsizeof(pieces) + sum(map(sys.getsizeof, pieces)) < 1.1 * total + 1000
    assert b"".join(pieces) == b"".join(bytes([start % 251]) * size for start in range(0, total, size))


def test_the_order_stays_whatever_the_sizes() -> None:
    rng = random.Random(4)
    pieces: list[bytes] = []
    whole = b""
    for _ in range(500):
        data = rng.randbytes(rng.choice((1, 2, 10, 1000, SMALL, 10_000)))
        add_piece(pieces, data)
        whole += data
    assert b"".join(pieces) == whole


def test_what_a_peer_does_not_take_of_a_stream_of_words() -> None:
    unsent = Unsent()
    for number in range(20_000):
        unsent.add(b"%d " % (number % 10))
    assert unsent.size == 40_000 and len(unsent._pieces) < 2 * 40_000 / SMALL + 2
    got = b""
    while unsent.size:
        piece = bytes(unsent.first()[0])[:777]
        got += piece
        unsent.take(len(piece))
        if len(got) == 777:
            unsent.add(b"late ")
    assert got == b"".join(b"%d " % (number % 10) for number in range(20_000)) + b"late "


def test_the_rest_of_a_small_piece_stays_in_order() -> None:
    unsent = Unsent()
    unsent.add(b"abc")
    unsent.add(b"xdef", 1)
    unsent.take(2)
    unsent.add(b"ghi")
    unsent.add(bytes(SMALL))
    unsent.add(b"j")
    assert b"".join(unsent._pieces) == b"cdefghi" + bytes(SMALL) + b"j"
