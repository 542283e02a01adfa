"""The memory benchmark measures what it says: every connection is kept, and every request under way is held."""

from __future__ import annotations

import os

import pytest

from benchmarks.load.runner import place
from benchmarks.memory.crowd import HELD, IDLE, Crowd, Origin
from benchmarks.memory.measure import CASES, Options, Runner
from tests.support.servers import needed

CPUS = os.sched_getaffinity(0)


@pytest.mark.skipif(len(CPUS) < 2, reason="the benchmark wants a core for the proxy")
def test_each_case_has_a_number_for_each_proxy() -> None:
    needed("haproxy")
    said: list[str] = []
    options = Options(("lbproxy", "haproxy"), connections=50, rounds=1, settle_s=0.05)
    results = Runner(options, place(CPUS), said.append).run()
    assert [(summary.case, summary.target) for summary in results.summaries] == [
        (case, target) for case in CASES for target in ("lbproxy", "haproxy")
    ]
    for run in results.runs:
        assert run.connections == 50
        assert min(run.before_kib, run.after_kib) > 1_000
    assert len(said) == len(results.runs)


async def test_a_crowd_knows_what_was_answered_and_what_is_held() -> None:
    origin = Origin()
    (port, _) = await origin.listen(2)
    crowd = Crowd(port)
    await crowd.grow(150, IDLE)
    await crowd.until_answered(150)
    await crowd.grow(20, HELD)
    await crowd.until_held(origin, 20)
    assert (crowd.answered, origin.held) == (150, 20)
    origin.release()
    await crowd.until_answered(170)
    assert (crowd.answered, crowd.lost, origin.held) == (170, 0, 0)
    crowd.check_whole()
    crowd.close()
    origin.close()
