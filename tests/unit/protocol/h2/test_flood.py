"""Buckets that leak."""

from __future__ import annotations

from lbproxy.protocol.h2.flood import Bucket, ControlFrames


def test_so_many_at_once_and_evenly_more_later() -> None:
    bucket = Bucket(10, 5.0)
    assert [bucket.is_over(0.0) for _ in range(11)] == [False] * 10 + [True]
    assert [bucket.is_over(1.0) for _ in range(2)] == [False, True]
    assert [bucket.is_over(100.0) for _ in range(11)] == [False] * 10 + [True]


def test_without_a_limit() -> None:
    bucket = Bucket(0, 10.0)
    assert not any(bucket.is_over(0.0) for _ in range(1000))


def test_frames_that_were_sent_excuse_a_few_and_not_more_than_a_thousand() -> None:
    control = ControlFrames(1, 10.0)
    control.sent()
    assert [control.is_over_answering(0.0) for _ in range(6)] == [False] * 5 + [True]
    control = ControlFrames(1, 10.0)
    for _ in range(10_000):
        control.sent()
    assert not any(control.is_over_answering(0.0) for _ in range(1000))
    assert [control.is_over(0.0), control.is_over(0.0)] == [False, True]
