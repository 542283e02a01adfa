"""gunicorns that close idle connections and restart workers all the time: nothing lost, nothing executed twice.

The long form, `python -m tests.soak gunicorn`, is the same with a hundred times the requests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import gunicorn


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_posts_at_awkward_intervals(worker_class: str, tmp_path: Path) -> None:
    report = gunicorn.run(tmp_path, worker_class, posts=500, groups=6, size=32, servers=6)
    text = "\n".join(report.lines())
    idempotent, default = (report.tallies[kind] for kind in gunicorn.KINDS)
    for tally in (idempotent, default):
        assert tally.posts >= 500
        assert not tally.unanswered, text
        assert not tally.lost, text
        assert set(tally.words) <= {"upstream_closed_reused_conn", "reset", "closed_early"}, text
    assert set(idempotent.statuses) == {200}, text
    assert set(default.statuses) <= {200, 502}, text
    assert default.twice == 0, text
    # How many depends on how busy the machine is; the long form holds the bound of 1 in 10,000.
    assert default.statuses[502] <= 0.25 * default.posts, text
    assert report.workers >= sum(tally.posts for tally in (idempotent, default)) / gunicorn.MAX_REQUESTS / 2, text
