"""A held-back answer: its pieces in order, and how long it is without adding them up each time."""

from __future__ import annotations

from lbproxy.dataplane.exchange.kept_answer import KEEP_BYTES, KeptAnswer
from lbproxy.protocol.http1 import ResponseHead


def test_it_grows_in_order_and_knows_its_size() -> None:
    answer = KeptAnswer(ResponseHead(503, b""), b"ab", ())
    answer.add(b"c", ())
    answer.add(b"", [(b"Digest", b"x")])
    assert (answer.body(), answer.size, answer.trailers) == (b"abc", 3, [(b"Digest", b"x")])


def test_it_is_too_long_beyond_its_bound() -> None:
    answer = KeptAnswer(ResponseHead(503, b""), bytes(KEEP_BYTES), ())
    assert not answer.is_too_long
    answer.add(b"x", ())
    assert answer.is_too_long
