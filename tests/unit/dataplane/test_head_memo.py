"""The memo of heads: what comes twice is kept, what never repeats costs a number, and both are bounded."""

from __future__ import annotations

from lbproxy.dataplane.head_memo import MAX_HEAD_BYTES, MAX_HEADS, MAX_SEEN, HeadMemo


def head(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a" % number


def test_a_head_is_kept_the_second_time() -> None:
    memo: HeadMemo[int] = HeadMemo()
    memo.learn(head(1), 1)
    assert memo.heads == {}
    memo.learn(head(2), 2)
    memo.learn(head(1), 3)
    assert memo.heads == {head(1): 3}


def test_what_never_repeats_is_not_kept() -> None:
    memo: HeadMemo[int] = HeadMemo()
    for number in range(3 * MAX_SEEN):
        memo.learn(head(number), number)
        assert len(memo._seen) <= MAX_SEEN
    assert memo.heads == {}


def test_what_is_kept_is_bounded() -> None:
    memo: HeadMemo[int] = HeadMemo()
    for number in range(3 * MAX_HEADS):
        memo.learn(head(number), number)
        memo.learn(head(number), number)
        assert head(number) in memo.heads and len(memo.heads) <= MAX_HEADS


def test_long_heads_are_not_kept() -> None:
    memo: HeadMemo[int] = HeadMemo()
    for _ in range(3):
        memo.learn(bytes(MAX_HEAD_BYTES + 1), 1)
    assert memo.heads == {}
