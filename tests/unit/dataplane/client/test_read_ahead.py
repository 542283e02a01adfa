"""How much a client may send ahead: the same two numbers stop reading and let it go on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.dataplane.client.read_ahead import MOST_BYTES, MOST_REQUESTS, ReadAhead, heads_in

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("n_requests", [1, MOST_REQUESTS, MOST_REQUESTS + 1, 500])
def test_requests_are_counted(n_requests: int) -> None:
    ahead = ReadAhead(GET * n_requests)
    assert ahead.is_full is (n_requests > MOST_REQUESTS)
    assert ahead.has_room is (n_requests <= MOST_REQUESTS // 2)


@pytest.mark.parametrize("size", [1, MOST_BYTES // 2, MOST_BYTES // 2 + 1, MOST_BYTES, MOST_BYTES + 1])
def test_bytes_are_counted(size: int) -> None:
    ahead = ReadAhead(b"x" * size)
    assert (ahead.is_full, ahead.has_room) == (size > MOST_BYTES, size <= MOST_BYTES // 2)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"x", GET, GET * 3, b"\n\r\n"]), min_size=1))
def test_pieces_are_what_they_are_together(pieces: list[bytes]) -> None:
    ahead = ReadAhead(pieces[0])
    for piece in pieces[1:]:
        ahead.add(piece)
    whole = b"".join(pieces)
    assert ahead.take() == whole and ahead.size == len(whole)
    # Ends that overlap may be counted twice where the cut is between them; no request ends like that.
    if b"\n\r\n\r\n" not in whole:
        assert ahead.is_full is (whole.count(b"\r\n\r\n") > MOST_REQUESTS)


def test_an_end_in_two_pieces_counts_once() -> None:
    for at in range(1, len(GET)):
        ahead = ReadAhead(GET[:at])
        for _ in range(MOST_REQUESTS):
            ahead.add(GET[at:] + GET[:at])
        assert not ahead.is_full
        ahead.add(GET[at:])
        assert ahead.is_full


def test_counting_stops_behind_the_bound() -> None:
    assert heads_in(GET * 10_000) == MOST_REQUESTS + 1
