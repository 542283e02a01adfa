"""gunicorns that close idle connections after two seconds and replace their worker every 50 requests, under POSTs at
awkward intervals: is every request answered, and is none executed twice?

Half of the groups go through pools with `retry: {idempotent: true}`, half through pools with the defaults.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lbproxy.errors import FAULTS
from tests.soak.counting_app import EXECUTED, read_executed
from tests.soak.groups import Outcome, run_groups
from tests.support.daemon import LbProxy
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("idempotent", "default")
KEEP_ALIVE_S = 2
MAX_REQUESTS = 50
_START_S = 60.0


@dataclass(slots=True)
class Tally:
    """What became of the requests of one kind of pool.

    lost: answered 200 but not in any worker's file. twice: ids that were executed more than once. words: the access
    log's `end` of everything that was not 200. unanswered: no answer at all, with the client's reason.
    """

    posts: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    twice: int = 0
    lost: int = 0
    words: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """One run. workers: how many worker processes executed something. metrics: lbproxy's own counters."""

    worker_class: str
    version: str
    seconds: float
    workers: int
    tallies: dict[str, Tally]
    metrics: dict[str, float]

    def lines(self) -> list[str]:
        title = f"gunicorn {self.version}, {self.worker_class}: {self.workers} workers in {self.seconds:.0f} s"
        return [title, *(f"  {kind}: {_describe(tally)}" for kind, tally in self.tallies.items()), f"  {self.metrics}"]

    def complaints(self) -> list[str]:
        """What must not be. A 502 is allowed once in 10,000 requests that may not be repeated, if the log says why."""
        found = []
        for kind, tally in self.tallies.items():
            if tally.unanswered:
                found.append(f"{kind}: {len(tally.unanswered)} without an answer, as {tally.unanswered[0]}")
            if tally.lost:
                found.append(f"{kind}: {tally.lost} answered 200 but never executed")
            if unknown := set(tally.words) - set(FAULTS):
                found.append(f"{kind}: the log does not say why: {', '.join(unknown)}")
        idempotent, default = (self.tallies[kind] for kind in KINDS)
        if set(idempotent.statuses) != {200}:
            found.append(f"idempotent: {idempotent.statuses}")
        if default.twice:
            found.append(f"default: {default.twice} executed twice")
        if set(default.statuses) - {200, 502}:
            found.append(f"default: {default.statuses}")
        if default.statuses[502] > max(1, default.posts // 10_000):
            found.append(f"default: {default.statuses[502]} of {default.posts} answered 502, more than 1 in 10,000")
        return found


def _describe(tally: Tally) -> str:
    statuses = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(tally.statuses.items()))
    words = ", ".join(f"{count} {word}" for word, count in tally.words.items())
    return f"{tally.posts} POSTs: {statuses}; executed twice {tally.twice}, lost {tally.lost}; reasons: {words or '-'}"


def count(outcomes: list[Outcome], executed: Mapping[str, int], words: Mapping[str, str]) -> Tally:
    """words: the log word of each request that did not end in 200, by id."""
    tally = Tally(len(outcomes))
    for outcome in outcomes:
        times = executed.get(outcome.id, 0)
        tally.statuses[outcome.status] += 1
        tally.twice += times > 1
        tally.lost += outcome.status == 200 and times == 0
        if outcome.status != 200:
            tally.words[words.get(outcome.id, "(not in the log)")] += 1
        if not outcome.status:
            tally.unanswered.append(f"{outcome.id}: {outcome.error}")
    return tally


def run(
    directory: Path, worker_class: str, *, posts: int, groups: int, size: int = 8, servers: int = 4, seed: int = 1
) -> Report:
    """`posts` requests through each kind of pool, from `groups` groups of `size` clients each.

    Raises AssertionError on what no run may show: a traceback in lbproxy's log, or anything in flight at the end.
    """
    executed = directory / "executed"
    executed.mkdir(parents=True)
    _raise_fd_limit()
    started = time.monotonic()
    with _gunicorns(directory, executed, worker_class, servers) as ports:
        names = {kind: [f"{kind}-{number}" for number in range(groups)] for kind in KINDS}
        with LbProxy(_config(names, ports), directory / "lbproxy") as lb:
            listeners = [lb.port(name) for kind in KINDS for name in names[kind]]
            by_port = asyncio.run(
                run_groups(listeners, posts=len(KINDS) * posts, size=size, keep_alive_s=float(KEEP_ALIVE_S), seed=seed)
            )
            lb.check_idle()
            seconds = time.monotonic() - started
            times = read_executed(executed)
            words = {
                str(entry["target"]).removeprefix("/work/"): str(entry["end"])
                for entry in lb.access_log()
                if entry["status"] != 200
            }
            tallies = {
                kind: count([o for name in names[kind] for o in by_port[lb.port(name)]], times, words) for kind in KINDS
            }
            counters = ("stale_connections_total", "retries_total", "upstream_connects_total", "upstream_errors_total")
            metrics = {name: lb.metric(name) for name in counters}
    version = importlib.metadata.version("gunicorn")
    return Report(worker_class, version, seconds, len(list(executed.iterdir())), tallies, metrics)


def _config(names: Mapping[str, list[str]], ports: list[int]) -> dict[str, object]:
    """A pool per group. The checks of all pools together are as frequent as those of a few pools with the default."""
    retries = {"idempotent": {"retry": {"idempotent": True}}, "default": {}}
    every = [(kind, name) for kind in KINDS for name in names[kind]]
    return {
        "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for _, name in every],
        "pools": {
            name: {
                "servers": [f"127.0.0.1:{port}" for port in ports],
                "health_check": {"type": "tcp", "interval": f"{max(2, len(every) // 2)}s"},
                **retries[kind],
            }
            for kind, name in every
        },
    }


@contextlib.contextmanager
def _gunicorns(directory: Path, executed: Path, worker_class: str, number: int) -> Iterator[list[int]]:
    """That many gunicorns with one worker each, on ports that the kernel chose."""
    processes: list[subprocess.Popen[bytes]] = []
    ports = []
    log = directory / "gunicorn.log"
    try:
        for _ in range(number):
            with socket.socket() as sock, log.open("ab") as output:
                sock.bind(("127.0.0.1", 0))
                sock.listen(1024)
                ports.append(sock.getsockname()[1])
                processes.append(
                    subprocess.Popen(
                        _command(worker_class, sock.fileno()),
                        env={**os.environ, "PYTHONPATH": str(ROOT), EXECUTED: str(executed)},
                        pass_fds=[sock.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
        for port in ports:
            wait_until(lambda port=port: _answers(port), f"gunicorn on {port} to answer", _START_S)  # type: ignore[misc]
        yield ports
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(worker_class: str, fd: int) -> list[str]:
    threads = ["--threads", "4"] if worker_class == "gthread" else []
    return [
        *(sys.executable, "-m", "gunicorn", "--workers", "1", "--worker-class", worker_class, *threads),
        *("--keep-alive", str(KEEP_ALIVE_S), "--max-requests", str(MAX_REQUESTS), "--no-control-socket"),
        *("--log-level", "warning", "--bind", f"fd://{fd}", "tests.soak.counting_app:app"),
    ]


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(_START_S)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def _raise_fd_limit() -> None:
    """A thousand clients and as many connections behind them; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 16_384:
        wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
