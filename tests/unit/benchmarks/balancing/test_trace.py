"""Traces have exactly the load that they were asked for."""

from statistics import fmean

import pytest

from benchmarks.balancing.trace import make_trace


def test_number_and_mean_are_exact() -> None:
    trace = make_trace(36.0, 50.0, seed=3)
    assert len(trace) == len(trace.works) == 1800
    assert fmean(trace.works) == pytest.approx(0.1)
    assert min(trace.works) > 0


def test_arrivals_are_in_order_and_irregular() -> None:
    trace = make_trace(100.0, 20.0, seed=1)
    assert list(trace.arrivals) == sorted(trace.arrivals)
    assert trace.arrivals[0] >= 0.0 and trace.arrivals[-1] <= 20.0
    gaps = [late - early for early, late in zip(trace.arrivals, trace.arrivals[1:], strict=False)]
    mean = fmean(gaps)
    # The standard deviation of exponential gaps is their mean.
    assert fmean((gap - mean) ** 2 for gap in gaps) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_the_seed_decides_everything() -> None:
    assert make_trace(10.0, 5.0, seed=1) == make_trace(10.0, 5.0, seed=1)
    assert make_trace(10.0, 5.0, seed=1) != make_trace(10.0, 5.0, seed=2)


def test_there_is_always_a_request() -> None:
    assert len(make_trace(0.01, 1.0, seed=1)) == 1
