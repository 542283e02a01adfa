"""A server's idle time-out is learned from its closings: two of about the same age, at different moments."""

from __future__ import annotations

from math import inf

import pytest

from lbproxy.domain.idle_timeout import EVIDENCE_S, MARGIN_S, MIN_AGE_S, MOST_S, RETIRE_AT, IdleTimeout, is_about


def learned(*closings: tuple[float, float]) -> IdleTimeout:
    """Closings as (moment, age)."""
    timeout = IdleTimeout()
    for at, age_s in closings:
        timeout.closed_by_server(age_s, at)
    return timeout


def test_nothing_is_known_at_first() -> None:
    timeout = IdleTimeout()
    assert timeout.learned_s == 0.0 and timeout.announced_s < 0.0
    assert timeout.retire_after_s(5.0) == inf


def test_two_closings_of_about_the_same_age_teach_the_shorter() -> None:
    timeout = learned((10.0, 2.3), (20.0, 2.0))
    assert timeout.learned_s == 2.0
    assert timeout.retire_after_s(20.0) == pytest.approx(2.0 * RETIRE_AT)
    assert learned((10.0, 2.0), (20.0, 2.3)).learned_s == 2.0


def test_one_closing_teaches_nothing() -> None:
    assert learned((10.0, 2.0)).learned_s == 0.0


def test_closings_of_different_ages_teach_nothing() -> None:
    assert learned((10.0, 2.0), (20.0, 7.0), (30.0, 30.0)).learned_s == 0.0


def test_a_restart_closes_what_became_idle_together_and_teaches_nothing() -> None:
    assert learned(*((10.0 + i / 100, 2.0) for i in range(8))).learned_s == 0.0


def test_a_close_right_after_an_answer_is_not_a_time_out() -> None:
    assert learned(*((10.0 * n, 0.9 * MIN_AGE_S) for n in range(9))).learned_s == 0.0


@pytest.mark.parametrize("age_s", [0.03, 0.1, 0.2, 0.24])
def test_a_short_time_out_takes_three(age_s: float) -> None:
    assert learned((10.0, age_s), (20.0, age_s)).learned_s == 0.0
    assert learned((10.0, age_s), (20.0, age_s), (30.0, 1.02 * age_s)).learned_s == age_s


def test_of_a_short_time_out_there_is_time_left_for_the_request_to_get_there() -> None:
    timeout = learned(*((10.0 * n, 0.2) for n in range(3)))
    assert timeout.retire_after_s(30.0) == pytest.approx(0.2 * RETIRE_AT)
    timeout = learned(*((10.0 * n, 0.05) for n in range(3)))
    assert timeout.retire_after_s(30.0) == pytest.approx(0.05 - MARGIN_S)
    timeout = learned(*((10.0 * n, 0.025) for n in range(3)))
    assert timeout.retire_after_s(30.0) == 0.0


@pytest.mark.parametrize(("age_s", "waves"), [(2.0, 2), (0.2, 3)])
def test_connections_that_fall_idle_in_waves(age_s: float, waves: int) -> None:
    """All of a wave close in one moment, which is one event; the next wave is another, however many each has."""
    closings = [(10.0 * wave + n / 1000, age_s) for wave in range(waves) for n in range(100)]
    assert learned(*closings).learned_s == age_s
    assert learned(*closings[:-100]).learned_s == 0.0


def test_restarts_do_not_push_out_what_is_remembered() -> None:
    restart = [(15.0 + n / 1000, 4.0 + n / 1000) for n in range(100)]
    assert learned((10.0, 2.0), *restart, (20.0, 2.0)).learned_s == 2.0


def test_what_was_open_longer_a_moment_ago_is_evidence_against_a_short_time_out() -> None:
    timeout = IdleTimeout()
    timeout.still_open(30.0, 5.0)
    assert not timeout.closed_by_server(2.0, 10.0) and not timeout.closed_by_server(2.0, 20.0)
    assert timeout.learned_s == 0.0
    # ... but not for ever: the server may have another configuration now.
    assert not timeout.closed_by_server(2.0, 6.0 + EVIDENCE_S)
    assert timeout.closed_by_server(2.0, 10.0 + EVIDENCE_S)
    assert timeout.learned_s == 2.0


def test_a_server_that_looks_once_a_second_is_no_evidence_against_itself() -> None:
    timeout = IdleTimeout()
    timeout.still_open(2.9, 5.0)
    timeout.closed_by_server(2.1, 10.0)
    assert timeout.closed_by_server(2.5, 20.0)
    assert timeout.learned_s == 2.1


def test_the_evidence_is_of_the_longest_silence() -> None:
    timeout = IdleTimeout()
    timeout.still_open(30.0, 5.0)
    timeout.still_open(3.0, 6.0)
    assert learned_after(timeout, 2.0) == 0.0
    timeout = IdleTimeout()
    timeout.still_open(30.0, 5.0)
    timeout.still_open(3.0, 6.0 + EVIDENCE_S)
    assert not timeout.closed_by_server(1.0, 7.0 + EVIDENCE_S) and not timeout.closed_by_server(1.0, 8.0 + EVIDENCE_S)
    assert timeout.learned_s == 0.0


def learned_after(timeout: IdleTimeout, age_s: float) -> float:
    timeout.closed_by_server(age_s, 10.0)
    timeout.closed_by_server(age_s, 20.0)
    return timeout.learned_s


def test_a_late_close_does_not_raise_the_estimate() -> None:
    timeout = learned((10.0, 2.0), (20.0, 2.0))
    assert not timeout.closed_by_server(2.5, 30.0)
    assert timeout.learned_s == 2.0


def test_an_earlier_close_lowers_it_at_once() -> None:
    timeout = learned((10.0, 2.3), (20.0, 2.3))
    assert timeout.closed_by_server(2.1, 30.0)
    assert timeout.learned_s == 2.1


def test_the_estimate_grows_until_the_server_says_no() -> None:
    timeout = learned((10.0, 2.0), (20.0, 2.0))
    now = 20.0
    while timeout.retire_after_s(now) < 2.0:
        now += 30.0
    assert 15 * 60 < now < 30 * 60
    assert timeout.closed_by_server(2.0, now)
    assert timeout.learned_s == 2.0


def test_a_longer_time_out_is_found_again() -> None:
    timeout = learned((10.0, 2.0), (20.0, 2.0))
    now = 20.0
    while timeout.retire_after_s(now) < 10.0:
        now += 60.0
    timeout.closed_by_server(10.0, now)
    assert timeout.learned_s > 10.0
    timeout.closed_by_server(10.0, now + 60.0)
    assert timeout.learned_s == 10.0
    assert now < 4 * 3600


def test_half_a_minute_of_growth_is_not_lost() -> None:
    often, seldom = learned((0.0, 2.0), (1.0, 2.0)), learned((0.0, 2.0), (1.0, 2.0))
    for tick in range(1, 6000):
        often.retire_after_s(1.0 + tick / 10)
    assert often.retire_after_s(601.0) == pytest.approx(seldom.retire_after_s(601.0), rel=0.002)


@pytest.mark.parametrize(
    ("age_s", "other_s", "same"),
    [(2.0, 2.9, True), (2.0, 3.5, False), (60.0, 66.0, True), (60.0, 80.0, False), (0.3, 0.9, False)],
)
def test_about_the_same(age_s: float, other_s: float, same: bool) -> None:
    assert is_about(age_s, other_s) is same
    assert is_about(other_s, age_s) is same


def test_what_is_learned_grows_to_a_day_at_most() -> None:
    known = IdleTimeout()
    known.told(5.0)
    assert known.retire_after_s(1.0) == pytest.approx(4.0)
    for day in range(1, 400):
        known.retire_after_s(1.0 + 86_400.0 * day)
    assert known.learned_s == MOST_S
    known.told(5.0)
    assert known.retire_after_s(1e9) == pytest.approx(4.0)


def test_what_another_process_says_does_not_grow_for_the_time_before_that() -> None:
    known = IdleTimeout()
    known.told(5.0)
    known.retire_after_s(1_000_000.0)  # of a clock that began long ago
    assert known.learned_s == 5.0
    known.told(5.0)
    known.retire_after_s(1_000_060.0)
    assert known.learned_s == pytest.approx(5.05)
