"""When requests are due, which rates are offered, and from when latency counts."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.latency.schedule import Figures, Offer, due_times, figures, offers

WAITED = [False] * 1000


def test_the_number_of_requests_is_exact_and_their_times_are_fixed() -> None:
    due = due_times(1000.0, 2.5, 7)
    assert len(due) == 2500
    assert due == sorted(due) and due[0] >= 0.0 and due[-1] <= 2.5
    assert due == due_times(1000.0, 2.5, 7) != due_times(1000.0, 2.5, 8)
    assert len(due_times(0.1, 1.0, 7)) == 1


def test_requests_are_due_at_random_and_not_in_step() -> None:
    due = due_times(10_000.0, 1.0, 7)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    # Of a Poisson process 1 / e of the gaps are longer than the mean.
    assert 0.34 < sum(gap > 1e-4 for gap in gaps) / len(gaps) < 0.40


def test_shares_of_the_capacity_are_offered() -> None:
    assert offers(10_000.0, 50_000.0, (0.8, 0.5)) == [Offer(0.5, 0.5, 5_000.0), Offer(0.8, 0.8, 8_000.0)]
    assert not any(offer.is_capped for offer in offers(10_000.0, 50_000.0, (0.5, 0.8)))


def test_no_more_is_offered_than_the_generator_can() -> None:
    half, most = offers(10_000.0, 10_000.0, (0.5, 0.8))
    assert not half.is_capped and most.is_capped
    assert (most.rate, most.share) == (7_000.0, 0.7)
    (only,) = offers(10_000.0, 5_000.0, (0.5, 0.8))
    assert only.is_capped and only.wanted_share == 0.5
    assert only.rate == pytest.approx(3_500.0)


def test_latency_counts_from_the_time_at_which_a_request_was_due() -> None:
    # One stall of a second: in a closed loop one request would be slow, here all are that were due meanwhile.
    due = [number / 10 for number in range(20)]
    sent = [max(at, 1.0) for at in due]
    answered = [at + 0.001 for at in sent]
    found = figures(due, sent, answered, WAITED, 0.0)
    assert found.requests == 20
    assert found.worst_us == pytest.approx(1_001_000)
    assert found.p50_us == pytest.approx(1_000)
    assert found.late_p99_us == pytest.approx(1_000_000)
    assert figures(due, sent, answered, WAITED, 0.05).worst_us == pytest.approx(901_000)


def test_the_generator_is_not_late_where_a_request_waited_for_a_connection() -> None:
    due = [float(number) for number in range(10)]
    sent = [at + (0.5 if number % 2 else 0.002) for number, at in enumerate(due)]
    waited = [bool(number % 2) for number in range(10)]
    assert round(figures(due, sent, sent, waited, 0.0).late_p99_us) == 2_000
    assert round(figures(due, sent, sent, [False] * 10, 0.0).late_p99_us) == 500_000
    assert figures(due, sent, sent, [True] * 10, 0.0).late_p99_us == 0.0


def test_the_warm_up_does_not_count() -> None:
    due = [100.0 + number / 100 for number in range(200)]
    answered = [at + (0.5 if at < 101.0 else 0.002) for at in due]
    found = figures(due, due, answered, WAITED, 1.0)
    assert (found.requests, round(found.worst_us)) == (100, 2_000)
    assert round(figures(due, due, answered, WAITED, 0.0).worst_us) == 500_000
    with pytest.raises(ValueError, match="5 s of the warm-up"):
        figures(due, due, answered, WAITED, 5.0)


def test_percentiles_of_many() -> None:
    due = [float(number) for number in range(1000)]
    answered = [at + at / 1e6 for at in due]
    found = figures(due, due, answered, WAITED, 0.0)
    assert [round(value) for value in (found.p50_us, found.p99_us, found.p999_us, found.worst_us)] == [
        499,
        989,
        998,
        999,
    ]
    assert found == Figures(1000, found.p50_us, found.p99_us, found.p999_us, found.worst_us, 0.0)
