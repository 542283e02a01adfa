"""One line a second per cause."""

from __future__ import annotations

from lbproxy.telemetry.throttle import Throttle


def test_one_line_a_second_per_cause() -> None:
    throttle = Throttle()
    admitted = [throttle.admit(cause, now) for cause, now in [("a", 0), ("a", 0.5), ("b", 0.5), ("a", 0.9), ("a", 1)]]
    assert admitted == [0, None, 0, None, 2]


def test_causes_are_forgotten_before_they_fill_memory() -> None:
    throttle = Throttle()
    for number in range(5000):
        throttle.admit(str(number), 0)
    assert len(throttle._seen) <= 1024
