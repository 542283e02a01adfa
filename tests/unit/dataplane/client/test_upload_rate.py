"""When an upload is too slow, with the clock as an argument."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.client.upload_rate import GRACE_S, UploadRate


def test_nothing_is_judged_within_the_grace() -> None:
    rate = UploadRate(100, 5.0)
    assert not rate.is_too_slow(0, 5.0 + GRACE_S)
    assert rate.is_too_slow(0, 5.0 + GRACE_S + 0.1)


@pytest.mark.parametrize(("n_bytes", "is_slow"), [(1999, True), (2000, False), (2001, False)])
def test_the_average_is_over_the_whole_time(n_bytes: int, is_slow: bool) -> None:
    assert UploadRate(100, 0.0).is_too_slow(n_bytes, 20.0) is is_slow


def test_a_fast_beginning_buys_time_and_no_more() -> None:
    rate = UploadRate(100, 0.0)
    assert not rate.is_too_slow(5000, 49.0)
    assert rate.is_too_slow(5001, 51.0)


def test_time_in_which_nobody_reads_does_not_count() -> None:
    rate = UploadRate(100, 0.0)
    rate.stop(4.0)
    rate.stop(9.0)  # twice is once
    assert not rate.is_too_slow(0, 1000.0)
    rate.go(1000.0)
    rate.go(1003.0)
    assert not rate.is_too_slow(0, 1006.0)
    assert rate.is_too_slow(0, 1006.1)


def test_waiting_for_100_does_not_count_unless_the_client_does_not_wait() -> None:
    waiting = UploadRate(100, 0.0, waits=True)
    assert not waiting.is_too_slow(0, 60.0)
    waiting.go(60.0)
    assert not waiting.is_too_slow(0, 70.0)
    assert waiting.is_too_slow(0, 70.1)
    impatient = UploadRate(100, 0.0, waits=True)
    assert not impatient.is_too_slow(1, 2.0)
    assert impatient.is_too_slow(1, 12.1)


def test_the_grace_is_an_argument() -> None:
    assert UploadRate(100, 0.0, grace_s=0.5).is_too_slow(10, 0.6)
