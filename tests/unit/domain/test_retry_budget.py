"""Retries by status, how long they wait, and what keeps them from becoming a storm."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy import errors
from lbproxy.domain.retry import RetryBudget, RetryPolicy, backoff_s, may_retry_status

STATUS_POLICY = RetryPolicy(status=frozenset({502, 503}))
TRUSTING = RetryPolicy(status=frozenset({502, 503}), trust_retry_after=True)


@pytest.mark.parametrize(
    ("policy", "status", "has_retry_after", "is_idempotent", "expected"),
    [
        (STATUS_POLICY, 503, False, True, True),
        (STATUS_POLICY, 500, False, True, False),  # not listed
        (STATUS_POLICY, 503, True, False, False),
        (TRUSTING, 503, True, False, True),
        (TRUSTING, 503, False, False, False),  # without Retry-After it may have been executed
        (TRUSTING, 502, True, False, False),
        (RetryPolicy(), 503, True, True, False),  # none is listed by default
    ],
)
def test_rule_r8(policy: RetryPolicy, status: int, has_retry_after: bool, is_idempotent: bool, expected: bool) -> None:
    def decide(retries_done: int, is_replayable: bool) -> bool:
        return may_retry_status(
            policy,
            status,
            has_retry_after=has_retry_after,
            is_idempotent=is_idempotent,
            retries_done=retries_done,
            is_replayable=is_replayable,
        )

    assert decide(0, True) is expected
    assert not decide(policy.attempts, True)
    assert not decide(0, False)


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_backoff_is_full_jitter_below_a_growing_ceiling(number: int, seed: int) -> None:
    wait = backoff_s(number, RetryPolicy(), random.Random(seed), errors.RESET)
    assert 0.0 <= wait < min(0.25, 0.025 * (2.0 ** min(number, 20) - 1))


def test_backoff_uses_the_whole_range() -> None:
    rng = random.Random(1)
    waits = sorted(backoff_s(2, RetryPolicy(), rng) for _ in range(1000))
    assert waits[0] < 0.001
    assert waits[-1] > 0.074


def test_a_failed_dial_goes_to_another_server_at_once() -> None:
    rng = random.Random(1)
    assert backoff_s(1, RetryPolicy(), rng, errors.CONNECT_REFUSED) == 0.0
    assert backoff_s(1, RetryPolicy(), rng, errors.CLOSED_EARLY) > 0.0


@pytest.mark.parametrize(("active", "granted"), [(0, 3), (15, 3), (16, 4), (100, 20)])
def test_budget_by_concurrency(active: int, granted: int) -> None:
    budget = RetryBudget(0.2, 3)
    assert sum(budget.may_start(active) for _ in range(200)) == granted
    budget.finished()
    assert budget.may_start(active)
    assert not budget.may_start(active)


def test_finishing_what_never_started() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        RetryBudget().finished()


@pytest.mark.parametrize("rps", [100, 1000])
def test_no_storm_when_every_answer_fails_at_once(rps: int) -> None:
    """Concurrency never shows such retries; the rate holds them to 1.3 attempts per request all the same."""
    budget = RetryBudget(0.2, 3)
    retries = 0
    for i in range(30 * rps):
        for _ in range(2):
            if budget.may_start(1, requests_total=i, now=i / rps):
                retries += 1
                budget.finished()
    assert 0.15 < retries / (30 * rps) <= 0.3


def test_a_server_that_leaves_takes_nothing_of_the_budget_along() -> None:
    """Its requests are no longer in the sum: 900 of the 1,000 of the last ten seconds were its."""
    budget = RetryBudget(0.2, 1)
    for second in range(11):
        budget.note(100 * second, float(second))
    budget.note(100, 10.1)
    assert sum(budget.may_start(10_000, requests_total=100, now=10.1) for _ in range(300)) == 200
    for second in range(11, 21):
        budget.note(100 + 10 * (second - 10), float(second))
    # What is in the window now: 10 requests a second, and no retry.
    assert sum(budget.may_start(10_000, requests_total=210, now=21.0) for _ in range(300)) == 20


def test_a_retry_that_is_begun_is_no_server_that_leaves() -> None:
    """The callers count attempts, and take off those that were retries."""
    budget = RetryBudget(0.2, 1)
    attempts = granted = 0
    for number in range(3000):
        attempts += 1
        if budget.may_start(10_000, requests_total=attempts - budget.n_started, now=number / 100):
            attempts, granted = attempts + 1, granted + 1
    assert 0.19 < granted / 3000 < 0.205


def test_the_sum_of_first_attempts_may_be_below_nothing() -> None:
    """More retries were started than the servers that are left ever had requests."""
    budget = RetryBudget(0.2, 1)
    for second in range(11):
        budget.note(100 * second - 5_000, float(second))
    assert sum(budget.may_start(10_000, requests_total=-4_000, now=10.0) for _ in range(300)) == 200


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    budget = RetryBudget(0.2, 1)
    for second in range(100):
        budget.note(100 * second, float(second))
    # 1,000 requests in the last ten seconds: 200 retries, whatever was before.
    assert sum(budget.may_start(10_000, requests_total=9_900, now=99.0) for _ in range(300)) == 200
    # A minute later nobody has asked for anything: one a second over ten seconds is what is left.
    assert sum(budget.may_start(10_000, requests_total=9_900, now=160.0) for _ in range(300)) == 10
