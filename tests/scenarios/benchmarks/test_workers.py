"""The program runs, and what does not depend on the machine is as it must be."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.architecture.rules import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_number_is_one_line() -> None:
    options = ["--workers", "2", "--requests", "200", "--turns", "40"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.workers", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    trace, grant, memory, recovery = run.stdout.splitlines()
    assert trace.endswith("200 requests, 0 failed, most at once at a server 1")
    assert re.fullmatch(r"grant: within one worker p50 .* ms; to another worker p50 .* ms; 40 turns", grant)
    assert re.match(r"memory: [\d.]+ MiB of its own", memory)
    assert re.match(r"recovery: median [\d.]+ ms", recovery)
