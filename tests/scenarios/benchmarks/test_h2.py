"""The benchmark of HTTP/2 runs end to end: with and without TLS, servers of both kinds, calls and large answers."""

from __future__ import annotations

import os

import pytest

from benchmarks.h2.runner import TARGETS, Options, Runner
from benchmarks.load.runner import place
from tests.support.servers import needed

CPUS = os.sched_getaffinity(0)
CASES = ("grpc_1x32_unique", "tls_h1_32x1", "file_h2c")


@pytest.mark.slow
@pytest.mark.skipif(len(CPUS) < 2, reason="the benchmark wants a core for the proxy")
def test_every_target_has_its_numbers() -> None:
    for program in ("haproxy", "nginx", "nghttpd", "openssl"):
        needed(program)
    said: list[str] = []
    results = Runner(Options(CASES, rounds=1, seconds=1), place(CPUS), said.append).run()
    assert len(results.runs) == len(CASES) * len(TARGETS)
    assert [run.case for run in results.paced] == ["grpc_1x32_unique"] * len(TARGETS)
    assert len(said) == len(results.runs) + len(results.paced)
    for run in results.runs:
        assert run.requests > 0 and run.cpu_us > 0 and 0 < run.p50_us <= run.p99_us
    for target in TARGETS:
        parts = results.shares["grpc_1x32_unique", target]
        assert len(parts) == 3 and abs(sum(parts) - 1.0) < 1e-6 and min(parts) > 0.2
