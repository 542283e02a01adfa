from __future__ import annotations

import pytest

from lbproxy.process.workers.child import LIVED_S, MOST_DELAY_S, Child


def ends(child: Child, *, after_s: float, has_served: bool = True) -> float:
    """It is started, and ends so much later; how long its successor waits."""
    child.started_at, child.said = 100.0, "serving" if has_served else "prepared"
    return child.delay_s(100.0 + after_s)


def test_the_first_death_costs_no_time() -> None:
    assert ends(Child(1), after_s=0.1) == 0.0


def test_whoever_dies_of_its_start_waits_longer_and_longer_up_to_a_bound() -> None:
    child = Child(1)
    delays = [ends(child, after_s=0.1, has_served=False) for _ in range(12)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == MOST_DELAY_S


def test_a_life_makes_up_for_it() -> None:
    child = Child(1)
    for _ in range(5):
        ends(child, after_s=0.1)
    assert ends(child, after_s=LIVED_S) == 0.0
    assert ends(child, after_s=0.1) == 0.0
    assert ends(child, after_s=0.1) == pytest.approx(0.1)
    assert ends(child, after_s=LIVED_S, has_served=False) > 0.1


def test_it_has_the_name_of_its_number() -> None:
    assert (Child(0).name, Child(3).name) == ("controller", "worker 3")
