"""A loop that is late, and a log that loses lines, are counted and told."""

from __future__ import annotations

import logging

import pytest

from lbproxy.process.pulse import TICK_S, Pulse
from lbproxy.telemetry.log import ThrottledLog
from lbproxy.telemetry.slots import PROCESS, Slots


def test_a_tick_in_time_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    row = Slots().allocate(PROCESS)
    pulse = Pulse(row, lambda: 0, ThrottledLog(logging.getLogger("lbproxy.control"), clock=lambda: 0.0))
    pulse.start(100.0)
    for number in range(1, 5):
        pulse.tick(100.0 + number * TICK_S)
    first = PROCESS.offset["loop_lag_seconds"]
    assert row[first] == 4, "all of them in the first bucket"
    assert caplog.messages == []


def test_lost_lines_are_told_when_they_get_more(caplog: pytest.LogCaptureFixture) -> None:
    row, lost, now = Slots().allocate(PROCESS), 0, 0.0
    pulse = Pulse(row, lambda: lost, ThrottledLog(logging.getLogger("lbproxy.control"), clock=lambda: now))
    for so_far, at in ((0, 1.0), (7, 2.0), (7, 300.0), (9, 600.0)):
        lost, now = so_far, at
        pulse.start(now - TICK_S)
        pulse.tick(now)
    assert [text.split("(")[1].split(" ")[0] for text in caplog.messages] == ["7", "9"]
    assert row[PROCESS.column("log_dropped_total")] == 9
