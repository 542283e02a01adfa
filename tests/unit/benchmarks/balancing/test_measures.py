"""From notes to figures to verdicts."""

from dataclasses import replace

import pytest

from benchmarks.balancing.cases import Case, Check
from benchmarks.balancing.client import Asked
from benchmarks.balancing.measures import Figures, Run, figures, free_slots, idle_wait_s, judge, latency_s
from benchmarks.balancing.origin import Books, Visit
from benchmarks.balancing.trace import Trace

ZERO = Figures(1, 100.0, 80.0, 200.0, 0.0, 0.9, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0)


def a_case(*checks: Check, patience_s: float = 10.0) -> Case:
    return Case("c", "", (1.0, 1.0), 1, 0.5, 1, ("mine", "theirs"), checks, patience_s)


def answered(due: float, after_s: float, status: int = 200, *, gave_up: bool = False) -> Asked:
    return Asked(due, sent=due, answered=due + after_s, status=status, gave_up=gave_up)


def test_a_failure_is_no_quick_answer() -> None:
    assert latency_s(answered(0.0, 0.001, 503), 10.0) == 10.0
    assert latency_s(answered(0.0, 0.2), 10.0) == 0.2
    assert latency_s(answered(0.0, 1.4), 1.0) == 1.0


def test_figures_of_a_run() -> None:
    trace = Trace((0.0, 1.0, 2.0, 3.0), (0.1, 0.1, 0.1, 0.1))
    asked = [answered(10.0, 9.0), answered(11.0, 0.1), answered(12.0, 0.3), answered(13.0, 0.1, 503)]
    books = [Books(1, 1, [Visit(n, 0.1, 10.0 + n, 10.1 + n) for n in range(4)]), Books(2, 3, [])]
    found = figures(a_case(), [trace], [asked], [books], seconds=4.0, warm_up_s=0.5)
    assert found.requests == 3  # the first came during the warm-up
    assert found.mean_ms == pytest.approx((100 + 300 + 10_000) / 3)
    assert found.p99_ms == pytest.approx(10_000)
    assert found.failed == pytest.approx(1 / 3)
    assert found.failures == "1 x 503"
    assert found.goodput == pytest.approx(2 / (20 * 3.5))  # 2 servers of 10 requests a second
    assert (found.most_at_once, found.attempts) == (3, 1.0)
    assert found.ideal_mean == pytest.approx(found.mean_ms / 100)


def test_clients_that_leave_are_no_failure_but_no_good_either() -> None:
    trace = Trace((0.0, 1.0), (0.1, 0.1))
    asked = [answered(0.0, 1.0, 0, gave_up=True), answered(1.0, 0.5)]
    found = figures(a_case(patience_s=1.0), [trace], [asked], [[Books(1), Books(2)]], seconds=2.0, warm_up_s=0.0)
    assert found.failed == 0.0
    assert found.goodput == pytest.approx(1 / 40)
    assert found.mean_ms == pytest.approx(750)


# --- waiting while a slot is idle -------------------------------------------------------------------------------------


def test_waiting_counts_only_while_a_slot_is_idle() -> None:
    """Request 1 is sent at 0.5 while both servers work; one is idle from 1.0 on, and the request arrives at 1.25."""
    asked = [Asked(0.0), Asked(0.5, sent=0.5), Asked(0.0)]
    asked[0].sent = asked[2].sent = 0.0
    servers = [
        Books(1, 1, [Visit(0, 1.0, 0.0, 1.0), Visit(1, 1.0, 1.25, 2.25)]),
        Books(2, 1, [Visit(2, 3.0, 0.0, 3.0)]),
    ]
    assert idle_wait_s(asked, servers, 1) == pytest.approx(0.25)


def test_nothing_is_lost_when_every_slot_is_busy() -> None:
    asked = [Asked(0.0, sent=0.0), Asked(0.0, sent=0.5)]
    servers = [Books(1, 1, [Visit(0, 1.0, 0.0, 1.0), Visit(1, 1.0, 1.0, 2.0)])]
    assert idle_wait_s(asked, servers, 1) == pytest.approx(0.0)


def test_more_requests_than_slots_make_no_negative_slots() -> None:
    present = [(0.0, 1), (0.1, 1), (0.2, 1), (1.0, -1), (2.0, -1), (3.0, -1)]
    assert [change[2] for change in free_slots(present, 2)] == [-1, -1, 0, 0, 1, 1]


# --- verdicts ---------------------------------------------------------------------------------------------------------


def runs(mine: list[float], theirs: list[float]) -> list[Run]:
    found = [Run("c", "mine", number, replace(ZERO, p99_ms=p99)) for number, p99 in enumerate(mine)]
    return found + [Run("c", "theirs", number, replace(ZERO, p99_ms=p99)) for number, p99 in enumerate(theirs)]


def test_a_ratio_is_taken_within_each_repeat_and_the_median_counts() -> None:
    check = Check("", "p99_ms", "mine", "theirs", at_most=0.8)
    (verdict,) = judge(a_case(check), runs([70.0, 90.0, 150.0], [100.0, 100.0, 200.0]))
    assert (verdict.low, verdict.value, verdict.high) == pytest.approx((0.7, 0.75, 0.9))
    assert verdict.is_met


def test_the_worst_repeat_counts_where_one_would_be_too_many() -> None:
    worst = Check("", "p99_ms", "mine", at_most=100.0, is_worst=True)
    least = Check("", "p99_ms", "mine", at_least=75.0, is_worst=True)
    verdicts = judge(a_case(worst, least), runs([70.0, 80.0, 110.0], []))
    assert [(verdict.value, verdict.is_met) for verdict in verdicts] == [(110.0, False), (70.0, False)]


def test_a_check_whose_policies_were_not_run_has_no_verdict() -> None:
    assert judge(a_case(Check("", "p99_ms", "mine", "theirs")), runs([1.0], [])) == []
