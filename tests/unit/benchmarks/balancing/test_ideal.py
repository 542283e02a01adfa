"""The ideal queue by hand."""

from statistics import fmean

import pytest

from benchmarks.balancing.ideal import central_queue
from benchmarks.balancing.trace import Trace, make_trace


def test_one_slot_serves_in_order() -> None:
    trace = Trace((0.0, 0.1, 2.0), (1.0, 0.5, 0.2))
    assert central_queue(trace, [1.0], 1) == pytest.approx([1.0, 1.4, 0.2])


def test_two_slots_of_one_server() -> None:
    trace = Trace((0.0, 0.0, 0.0), (1.0, 0.4, 0.1))
    assert central_queue(trace, [1.0], 2) == pytest.approx([1.0, 0.4, 0.5])


def test_the_fastest_free_slot_is_taken_and_a_slow_one_rather_than_none() -> None:
    trace = Trace((0.0, 0.0, 0.5), (0.1, 0.1, 0.1))
    assert central_queue(trace, [0.25, 1.0], 1) == pytest.approx([0.1, 0.4, 0.1])


def test_a_slot_that_becomes_free_at_the_moment_of_an_arrival_is_free() -> None:
    assert central_queue(Trace((0.0, 1.0), (1.0, 1.0)), [1.0], 1) == pytest.approx([1.0, 1.0])


def test_one_server_with_poisson_arrivals_waits_as_theory_says() -> None:
    """Pollaczek-Khinchine: W = load x mean x (1 + cv^2) / 2 / (1 - load); cv^2 = e - 1 for sigma 1."""
    trace = make_trace(5.0, 20_000.0, seed=7)
    waited = fmean(latency - work for latency, work in zip(central_queue(trace, [1.0], 1), trace.works, strict=True))
    assert waited == pytest.approx(0.5 * 0.1 * 2.718 / 2 / 0.5, rel=0.1)
