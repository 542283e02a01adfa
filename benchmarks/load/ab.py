"""ApacheBench, for the one thing that wrk can't do: a full TLS handshake for every request."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from benchmarks.load.cases import REQUEST_BODY, Case
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.wrk import Load

_MOST = 10_000_000  # requests: the time ends the run


def run_ab(program: str, case: Case, port: int, folder: Path, *, connections: int, seconds: int) -> Load:
    """Run ab, one thread, on the cores of the caller; blocks for `seconds`."""
    body = folder / "body"
    body.write_bytes(REQUEST_BODY)
    url = f"https://127.0.0.1:{port}{case.path}"
    argv = [program, "-q", "-c", str(connections), "-t", str(seconds), "-n", str(_MOST), "-s", "5"]
    argv += ["-p", str(body), "-T", "application/json", url]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"ab did not end within {seconds + 30} s") from None
    if done.returncode:
        raise BenchmarkError(f"ab ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse_output(done.stdout)


def parse_output(text: str) -> Load:
    """Read ab's report. Raises BenchmarkError if a number is missing. Latency comes in whole milliseconds."""

    def number(pattern: str) -> float:
        found = re.search(pattern, text, re.MULTILINE)
        if found is None:
            raise BenchmarkError(f"ab printed no result; it said:\n{text.strip()}")
        return float(found[1])

    failed = int(number(r"^Failed requests:\s+(\d+)"))
    bad_status = re.search(r"^Non-2xx responses:\s+(\d+)", text, re.MULTILINE)
    return Load(
        requests=int(number(r"^Complete requests:\s+(\d+)")),
        duration_us=int(number(r"^Time taken for tests:\s+([\d.]+)") * 1e6),
        bytes=int(number(r"^Total transferred:\s+(\d+)")),
        p50_us=int(number(r"^\s+50%\s+(\d+)") * 1000),
        p99_us=int(number(r"^\s+99%\s+(\d+)") * 1000),
        errors={"failed": failed, "status": int(bad_status[1]) if bad_status is not None else 0},
    )
