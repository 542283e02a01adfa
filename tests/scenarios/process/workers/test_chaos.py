"""Kills, stalls, resets and aborts at random, and a worker, or the controller, is killed every two seconds.

The long form is `python -m tests.soak chaos --workers 4`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import chaos


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_of_a_dead_worker_is_left(tmp_path: Path) -> None:
    report = chaos.run(tmp_path, seconds=15.0, seed=20261130, warm_up_s=4.0, workers=2, kill_every_s=2.0)
    text = "\n".join(report.lines())
    assert report.fds_after <= report.fds_before, "\n".join([text, *report.complaints()])
    assert report.counts["200"] > 50, text
    assert report.counts["worker killed"] >= 3, text
