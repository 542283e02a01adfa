"""Twenty seconds of kills, stalls, resets and aborts: afterwards nothing is in flight, queued, permitted or in the log.

The long form, `python -m tests.soak chaos`, runs for ten minutes and bounds the growth of memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import chaos


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_left(tmp_path: Path) -> None:
    report = chaos.run(tmp_path, seconds=20.0, seed=20261125, warm_up_s=5.0)
    text = "\n".join(report.lines())
    assert report.fds_after <= report.fds_before, text
    # It was chaos indeed, and every protection had something to do.
    assert report.counts["200"] > 100 and report.counts["200 over HTTP/2"] > 30, text
    assert sum(report.counts[harm] for harm in ("killed", "killed and refused", "stopped")) >= 4, text
    for name in ("retries_total", "server_ejections_total", "client_aborts_total", "rejected_total"):
        assert report.metrics[name] > 0, (name, text)
