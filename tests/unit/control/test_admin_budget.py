"""How much strangers may take of the loop's time: a share, a little of it at once."""

from __future__ import annotations

import pytest

from lbproxy.control.admin_budget import Budget


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def budget(time: Time) -> Budget:
    return Budget(0.01, 0.005, 0.001, time)


def test_a_burst_may_be_spent_at_once_and_no_more(budget: Budget, time: Time) -> None:
    time.now += 1000.0
    assert budget.spend(0.004) == 0.0
    assert budget.wait_s == 0.0
    assert budget.spend(0.001) == pytest.approx(0.1)
    assert budget.wait_s == pytest.approx(0.1)


def test_what_was_too_much_is_waited_for(budget: Budget, time: Time) -> None:
    budget.spend(0.025)
    assert budget.wait_s == pytest.approx((0.001 + 0.02) / 0.01)
    time.now += budget.wait_s
    assert budget.wait_s == 0.0 and budget.left_s == pytest.approx(0.001)


def test_over_a_long_time_it_is_the_share(budget: Budget, time: Time) -> None:
    began, spent_s = time.now, 0.0
    while time.now - began < 100.0:
        time.now += budget.wait_s + 1e-6
        if budget.left_s > 0.0:
            budget.spend(0.0003)
            spent_s += 0.0003
    assert spent_s == pytest.approx(0.01 * 100.0 + 0.005, rel=0.01)


def test_what_is_given_back_fills_no_more_than_the_burst(budget: Budget, time: Time) -> None:
    budget.spend(0.004)
    budget.spend(-0.1)
    assert budget.left_s == 0.005


def test_a_clock_that_steps_back_fills_nothing(budget: Budget, time: Time) -> None:
    budget.spend(0.005)
    time.now -= 50.0
    assert budget.left_s == pytest.approx(0.0)
