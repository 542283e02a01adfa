"""What ab prints, and what becomes of it."""

import pytest

from benchmarks.load.ab import parse_output
from benchmarks.load.errors import BenchmarkError

REPORT = """\
Concurrency Level:      32
Time taken for tests:   2.001 seconds
Complete requests:      1793
Failed requests:        0
Total transferred:      250000 bytes
Percentage of the requests served within a certain time (ms)
  50%     25
  99%    124
"""


def test_a_report() -> None:
    load = parse_output(REPORT)
    assert (load.requests, load.duration_us, load.bytes, load.p50_us, load.p99_us) == (
        1793,
        2_001_000,
        250_000,
        25_000,
        124_000,
    )
    assert not any(load.errors.values())


def test_errors_are_seen() -> None:
    load = parse_output(REPORT.replace("requests:        0", "requests:        3") + "Non-2xx responses:      7\n")
    assert load.errors == {"failed": 3, "status": 7}


def test_no_report() -> None:
    with pytest.raises(BenchmarkError, match="no result"):
        parse_output("SSL handshake failed")
