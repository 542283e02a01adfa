"""The sums behind the tables."""

import pytest

from benchmarks.load.procfs import CoreTime
from benchmarks.load.results import Run, differences, make_run, others_share, ratios, rotated, summarise
from benchmarks.load.wrk import Load

ZERO = CoreTime(busy=0, idle=0, stolen=0)


def a_run(target: str, number: int, *, cpu_us: float = 10.0, rate: float = 100.0, others: float = 0.0) -> Run:
    return Run(
        case="http_small",
        target=target,
        round=number,
        requests=1000,
        requests_per_s=rate,
        p50_us=400,
        p99_us=900,
        cpu_us=cpu_us,
        busy=0.9,
        others=others,
        rss_kib=20_000 + number,
    )


def test_cpu_per_request_counts_the_whole_run_and_requests_per_s_only_what_wrk_measured() -> None:
    load = Load(requests=50_000, duration_us=2_000_000, bytes=1, p50_us=300, p99_us=800, errors={})
    after = CoreTime(busy=160, idle=40, stolen=0)
    run = make_run("c", "t", 1, load, cpu_s=0.75, wall_s=2.5, core=(ZERO, after), rss_kib=7)
    assert run.cpu_us == pytest.approx(15.0)
    assert run.requests_per_s == pytest.approx(25_000)
    assert run.busy == pytest.approx(0.3)
    assert run.others == pytest.approx(0.5)


def test_time_stolen_by_the_hypervisor_is_use_by_others() -> None:
    assert others_share(ZERO, CoreTime(busy=50, idle=30, stolen=20), busy=0.5) == pytest.approx(0.2)


def test_rounding_of_ticks_never_makes_the_use_by_others_negative() -> None:
    assert others_share(ZERO, CoreTime(busy=98, idle=2, stolen=0), busy=0.99) == 0.0


def test_no_tick_passed() -> None:
    assert others_share(ZERO, ZERO, busy=0.5) == 0.0


def test_each_target_comes_first_once_in_as_many_rounds_as_there_are_targets() -> None:
    orders = [rotated(["a", "b", "c"], number) for number in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_rotating_nothing() -> None:
    assert rotated([], 2) == []


def test_a_summary_takes_medians_but_the_worst_disturbance_and_the_largest_memory() -> None:
    runs = [
        a_run("t", n, cpu_us=cpu, others=others) for n, (cpu, others) in enumerate([(9, 0.1), (30, 0.0), (10, 0.3)])
    ]
    summary = summarise(runs, idle_rss_kib=11)
    assert (summary.cpu_us, summary.others, summary.rss_kib, summary.idle_rss_kib) == (10, 0.3, 20_002, 11)


def test_ratios_are_taken_within_rounds_so_that_a_slow_round_of_the_machine_cancels_out() -> None:
    runs = [
        a_run("lbproxy", 0, cpu_us=20, rate=50),
        a_run("haproxy", 0, cpu_us=10, rate=100),
        a_run("haproxy", 1, cpu_us=20, rate=50),
        a_run("lbproxy", 1, cpu_us=44, rate=20),
        a_run("lbproxy", 2, cpu_us=21, rate=45),
        a_run("haproxy", 2, cpu_us=10, rate=100),
    ]
    cpu, rate = ratios(runs, "lbproxy")
    assert (cpu.metric, cpu.peer) == ("cpu_us", "haproxy")
    assert (cpu.low, cpu.median, cpu.high) == pytest.approx((2.0, 2.1, 2.2))
    assert (rate.low, rate.median, rate.high) == pytest.approx((0.4, 0.45, 0.5))


def test_without_the_subject_there_are_no_ratios() -> None:
    assert ratios([a_run("haproxy", 0)], "lbproxy") == []


def test_differences_are_taken_within_rounds_that_both_had() -> None:
    runs = [a_run("full", 0, cpu_us=20), a_run("bare", 0, cpu_us=19.5), a_run("bare", 1, cpu_us=30)]
    runs += [a_run("full", 1, cpu_us=31), a_run("full", 2, cpu_us=99), a_run("other", 2, cpu_us=1)]
    assert sorted(differences(runs, "full", "bare")) == pytest.approx([0.5, 1.0])
