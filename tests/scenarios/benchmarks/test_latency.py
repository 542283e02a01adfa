"""The latency benchmark runs end to end, and a server that stalls is seen by every request that was due meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.latency.generator import Outcome, Plan, parse_outcome
from benchmarks.latency.measure import DIRECT, Options, Runner
from benchmarks.load.runner import place
from tests.support.build import ROOT
from tests.support.servers import needed

CPUS = os.sched_getaffinity(0)
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"x": "y"}'


@pytest.mark.skipif(len(CPUS) < 2, reason="the benchmark wants a core for the proxy")
def test_every_target_has_its_numbers() -> None:
    for program in ("haproxy", "nginx", "wrk"):
        needed(program)
    said: list[str] = []
    options = Options(("lbproxy", "haproxy"), (0.01,), rounds=1, seconds=0.3, warm_up_s=0.05, connections=8)
    results = Runner(options, place(CPUS), said.append).run()
    (offer,) = results.offers
    assert results.capacity > 0 and results.ceiling > offer.rate
    assert [run.target for run in results.runs] == [DIRECT, "lbproxy", "haproxy"]
    for run in results.runs:
        figures = run.figures
        assert 0 < figures.p50_us <= figures.p99_us <= figures.p999_us <= figures.worst_us
        assert 0 < figures.requests < round(offer.rate * options.seconds)
        assert (run.proxy_busy == 0) == (run.target == DIRECT)
    assert len(said) == 1 + len(results.runs)


class Stalling:
    """A server with one connection that answers at once, and once, in the middle, only after `stall_s`."""

    def __init__(self, at: int, stall_s: float) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._at = at
        self._stall_s = stall_s
        self.seen = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listening.accept()
        with connection, contextlib.suppress(OSError):  # the generator may have left
            while connection.recv(65536):
                self.seen += 1
                if self.seen == self._at:
                    time.sleep(self._stall_s)
                connection.sendall(ANSWER)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def drive(plan: Plan) -> Outcome:
    argv = [sys.executable, "-m", "benchmarks.latency.generator", json.dumps(dataclasses.asdict(plan))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return parse_outcome(done.stdout)


def test_a_stall_is_seen_by_all_who_would_have_asked_meanwhile() -> None:
    server = Stalling(at=20, stall_s=0.7)
    outcome = drive(Plan(server.port, rate=200.0, seconds=1.0, warm_up_s=0.0, connections=1, seed=1))
    server.close()
    assert server.seen == outcome.figures.requests == 200
    # A closed loop would have had one slow request in sixty, and a median without it.
    assert outcome.figures.p50_us > 100_000
    assert outcome.figures.p99_us > 600_000
    assert outcome.waited > 0.5


def test_a_server_that_does_not_keep_up_is_measured_all_the_same() -> None:
    server = Stalling(at=20, stall_s=3.0)
    outcome = drive(Plan(server.port, rate=100.0, seconds=0.5, warm_up_s=0.0, connections=1, seed=1))
    server.close()
    assert outcome.figures.requests == 50
    assert outcome.unanswered == 31 / 50
    assert outcome.waited >= 30 / 50  # all but the one that stalled
    assert outcome.figures.p99_us > 2_000_000


def test_a_request_without_a_200_ends_it_with_a_word() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    plan = Plan(server.getsockname()[1], rate=50.0, seconds=0.2, warm_up_s=0.0, connections=1, seed=1)
    argv = [sys.executable, "-m", "benchmarks.latency.generator", json.dumps(dataclasses.asdict(plan))]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        connection, _ = server.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        _, complaint = process.communicate(timeout=30)
        connection.close()
    server.close()
    assert process.returncode == 1
    assert complaint.startswith("load generator: an answer was b'HTTP/1.1 503 Service Unavailable")
