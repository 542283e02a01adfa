"""Results are written as words: p = pass, f = fail, b = busy, r = refused by a check, R = refused under traffic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.domain.health import CheckResult, HealthMachine, next_check_delay
from lbproxy.domain.states import REFUSED, Health

RESULTS = {"p": CheckResult.PASS, "f": CheckResult.FAIL, "b": CheckResult.BUSY}
EVENTS = st.text(st.sampled_from("pfbrR"), max_size=30)
NUMBERS = st.integers(1, 5)


class Middle:
    """Chance that falls in the middle: no jitter."""

    def random(self) -> float:
        return 0.5


def feed(machine: HealthMachine, events: str) -> str:
    """The machine's health after each event: u = up, d = down, b = busy, ? = unknown."""
    letters = {Health.UP: "u", Health.DOWN: "d", Health.BUSY: "b", Health.UNKNOWN: "?"}
    word = ""
    for event in events:
        before = machine.health, machine.reason == REFUSED
        if event == "R":
            told = machine.refused(1.0)
        elif event == "r":
            told = machine.observe(CheckResult.FAIL, REFUSED, 1.0)
        else:
            told = machine.observe(RESULTS[event], "why" if event == "f" else "", 1.0)
        changed = (machine.health, machine.reason == REFUSED) != before
        assert told is (machine.health if changed else None)
        word += letters[machine.health]
    return word


@pytest.mark.parametrize(
    ("events", "healths"),
    [
        ("p", "u"),
        ("f", "d"),  # at start the first result decides
        ("b", "b"),
        ("pff", "uuu"),
        ("pfff", "uuud"),
        ("pffpff", "uuuuuu"),
        ("pffbff", "uuubbb"),  # progress is no failure, and ends the run of failures
        ("pfffpp", "uuuddu"),
        ("fpfp", "dddd"),
        ("fpbp", "dddd"),  # nor a pass
        ("fpp", "ddu"),
        ("pbp", "ubu"),
        ("pbfff", "ubbbd"),
        ("fb", "dd"),  # down is left through passes only
        ("pr", "ud"),
        ("pR", "ud"),
        ("R", "d"),
        ("pRpp", "uddu"),
        ("pRpRpp", "uddddu"),
        ("pffR", "uuud"),
        ("pRppff", "udduuu"),  # failures of an earlier life do not count
    ],
)
def test_rise_2_fall_3(events: str, healths: str) -> None:
    assert feed(HealthMachine(2, 3), events) == healths


def test_server_that_joined_is_down_until_its_first_pass() -> None:
    machine = HealthMachine(3, 1, has_joined=True)
    assert machine.health is Health.DOWN
    assert feed(machine, "fpfppp") == "duddd" + "u"  # later it needs all three


def test_one_pass_is_enough_when_nobody_else_is_usable() -> None:
    machine = HealthMachine(5, 1)
    feed(machine, "R")
    assert machine.observe(CheckResult.PASS, "", 2.0, is_only_hope=True) is Health.UP


def test_only_hope_changes_nothing_else() -> None:
    machine = HealthMachine(1, 3)
    feed(machine, "p")
    assert machine.observe(CheckResult.FAIL, "", 1.0, is_only_hope=True) is None


def test_reason_says_why_it_is_down() -> None:
    machine = HealthMachine(1, 1)
    feed(machine, "f")
    assert machine.reason == "why"
    assert machine.refused(5.0) is Health.DOWN  # still down, but now a fact: fail-open must know
    assert machine.reason == REFUSED
    assert machine.refused(6.0) is None
    assert machine.observe(CheckResult.FAIL, "status 500", 7.0) is Health.DOWN  # it listens again
    assert machine.reason == "status 500"
    feed(machine, "p")
    assert machine.reason == ""


@pytest.mark.parametrize(("rise", "fall"), [(0, 1), (1, 0), (-1, 1)])
def test_thresholds_below_1_are_refused(rise: int, fall: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HealthMachine(rise, fall)


# --- properties -----------------------------------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(2, 5), st.sampled_from(["pf", "fp", "pb", "bp"]), st.integers(1, 20))
def test_alternating_results_never_take_a_server_down_or_bring_it_back(
    rise: int, fall: int, pair: str, times: int
) -> None:
    up, down = HealthMachine(rise, fall), HealthMachine(rise, fall)
    feed(up, "p")
    feed(down, "f" * fall)
    assert "d" not in feed(up, pair * times)
    assert set(feed(down, pair * times)) == {"d"}


@given(NUMBERS, NUMBERS, EVENTS)
def test_a_run_decides_whatever_came_before(rise: int, fall: int, history: str) -> None:
    machine = HealthMachine(rise, fall)
    feed(machine, history)
    assert feed(machine, "f" * fall)[-1] == "d"
    assert feed(machine, "p" * rise)[-1] == "u"
    assert feed(machine, "R") == "d"


@given(NUMBERS, NUMBERS, EVENTS)
def test_flips_need_their_run(rise: int, fall: int, events: str) -> None:
    """From the second result on: down only after fall failures in a row or a refusal, back only after rise passes."""
    healths = feed(HealthMachine(rise, fall), events)
    for i in range(1, len(events)):
        if healths[i] == "d" != healths[i - 1] and events[i] not in "rR":
            assert events[: i + 1].endswith("f" * fall)
        if healths[i - 1] == "d" != healths[i]:
            assert healths[i] == "u"
            assert events[: i + 1].endswith("p" * rise)


@given(NUMBERS, NUMBERS, EVENTS)
def test_reason_and_health_agree(rise: int, fall: int, events: str) -> None:
    machine = HealthMachine(rise, fall)
    for event in events:
        feed(machine, event)
        if machine.health is not Health.DOWN:
            assert machine.reason == ""
        if event in "rR":
            assert (machine.health, machine.reason) == (Health.DOWN, REFUSED)


# --- schedule -------------------------------------------------------------------------------------------------------


def delays(machine: HealthMachine, events: str, interval_s: float = 2.0) -> list[float]:
    """The wait before the next check after each event."""
    waits = []
    for event in events:
        feed(machine, event)
        waits.append(machine.next_check_delay(interval_s, Middle()))
    return waits


def test_checks_come_every_interval() -> None:
    assert delays(HealthMachine(2, 3), "pffbp") == [2.0] * 5


@pytest.mark.parametrize("refused", ["R", "r"])
def test_refused_server_is_checked_quickly_with_back_off(refused: str) -> None:
    assert delays(HealthMachine(2, 3), "p" + refused + "rrrrr") == [2.0, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_traffic_does_not_restart_the_back_off() -> None:
    assert delays(HealthMachine(2, 3), "RrRrR") == [0.25, 0.5, 0.5, 1.0, 1.0]


def test_pass_makes_the_next_check_quick_and_up_ends_the_back_off() -> None:
    assert delays(HealthMachine(3, 3), "Rrrppp") == [0.25, 0.5, 1.0, 0.25, 0.25, 2.0]


def test_interval_below_the_quick_time_is_kept() -> None:
    assert delays(HealthMachine(2, 3), "Rrr", interval_s=0.1) == [0.1, 0.1, 0.1]


@given(st.floats(0.01, 3600), st.none() | st.integers(0, 10**9), st.integers(0, 99))
def test_jitter_stays_within_a_tenth(interval_s: float, quick_checks: int | None, seed: int) -> None:
    exact = next_check_delay(interval_s, quick_checks, Middle())
    assert exact <= interval_s
    delay = next_check_delay(interval_s, quick_checks, random.Random(seed))
    assert 0.9 * exact <= delay <= 1.1 * exact * (1 + 1e-9)


def test_jitter_uses_the_whole_tenth() -> None:
    rng = random.Random(3)
    waits = [next_check_delay(1.0, None, rng) for _ in range(500)]
    assert min(waits) < 0.91
    assert max(waits) > 1.09
