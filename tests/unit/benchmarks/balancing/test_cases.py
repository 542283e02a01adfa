"""The cases name policies and figures that exist."""

from dataclasses import fields

import pytest

from benchmarks.balancing.cases import CASES, Case
from benchmarks.balancing.configs import POLICIES
from benchmarks.balancing.measures import Figures


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_checks_can_be_judged(case: Case) -> None:
    names = {field.name for field in fields(Figures)}
    assert set(case.policies) <= set(POLICIES)
    for check in case.checks:
        assert check.metric in names
        assert {check.policy, check.peer or check.policy} <= set(case.policies)
        assert (check.at_least, check.at_most) != (-float("inf"), float("inf"))


def test_load_is_relative_to_what_the_servers_can_do() -> None:
    speeds = CASES["speeds"]
    assert speeds.capacity == pytest.approx((12 + 4 * 0.25) * 4 / 0.1)
    assert speeds.rate == pytest.approx(364)
    assert not speeds.is_impatient and CASES["overload_1.3"].is_impatient
