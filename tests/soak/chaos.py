"""Kills, stalls, resets and aborts at random, by seed, with every protection on. Afterwards nothing may be left: no
request in flight, none queued, no permit, no descriptor, no memory, no error in the log. With several workers one of
them is killed now and then, and what it held must not be left either: no slot, no place of a client, no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.soak.rude_clients import HTTP_MANNERS, TCP_MANNERS, Caller
from tests.soak.rude_http2 import HTTP2_MANNERS, Http2Caller
from tests.support.client import Client
from tests.support.crew import CrewProxy
from tests.support.daemon import LbProxy
from tests.support.descriptors import kinds
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SERVERS: Final = 4
HTTP_POOLS: Final = ("idempotent", "default", "http2")  # the servers of the last speak HTTP/2
POOLS: Final = (*HTTP_POOLS, "tcp")
BUDGET_MIN: Final = 3
COUNTERS: Final = (
    *("retries_total", "retry_budget_exhausted_total", "server_ejections_total", "client_aborts_total"),
    *("rejected_total", "upstream_errors_total", "internal_errors_total"),
)
_HTTP_CLIENTS: Final = 24  # for each of the three pools; every third speaks HTTP/2
_TCP_CLIENTS: Final = 16
_RECOVERY_S: Final = 30.0
_PLACES: Final = 2 * (2 * _HTTP_CLIENTS + _TCP_CLIENTS)  # of client connections, where there are several workers
_KILLED: Final = "was killed by signal 9"


@dataclass(slots=True)
class Report:
    """What happened and what was left. Sizes in bytes; fds and rss at rest, after the warm-up and at the end."""

    seconds: float
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, float] = field(default_factory=dict)
    rss_before: int = 0
    rss_after: int = 0
    fds_before: int = 0
    fds_after: int = 0
    kinds_before: Counter[str] = field(default_factory=Counter)
    kinds_after: Counter[str] = field(default_factory=Counter)

    @property
    def drift(self) -> float:
        """Growth of the memory as a share of what it was."""
        return self.rss_after / self.rss_before - 1.0

    def lines(self) -> list[str]:
        happened = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return [
            f"chaos for {self.seconds:.0f} s, seed {self.seed}: {happened}",
            f"  lbproxy counted {', '.join(f'{value:.0f} {name}' for name, value in self.metrics.items())}",
            f"  memory {self.rss_before / 2**20:.1f} -> {self.rss_after / 2**20:.1f} MiB ({self.drift:+.1%}), "
            f"descriptors {self.fds_before} -> {self.fds_after}; nothing in flight, queued or permitted at the end",
        ]

    def complaints(self) -> list[str]:
        """What must not be, and would not have stopped the run."""
        found = []
        if self.drift > 0.05:
            found.append(f"memory grew by {self.drift:.1%}")
        if self.fds_after > self.fds_before:
            more = ", ".join(f"{kind}: {count}" for kind, count in (self.kinds_after - self.kinds_before).items())
            found.append(f"{self.fds_after - self.fds_before} descriptors more than before ({more})")
        return found


class MoodyProcess:
    """One server process. Its listening sockets are ours, so a kill frees no port; `refuse` does."""

    def __init__(self, number: int, directory: Path) -> None:
        self._number = number
        self._directory = directory
        self._starts = 0
        self._sockets = [_bound(0) for _ in range(3)]
        self.ports = [sock.getsockname()[1] for sock in self._sockets]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._starts += 1
        if not self._sockets:
            self._sockets = [_bound(port) for port in self.ports]
        fds = [sock.fileno() for sock in self._sockets]
        seed = f"{self._number} {self._starts}"
        with (self._directory / "servers.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.moody_server", seed, *map(str, fds)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def refuse(self) -> None:
        """Kill it, and let the ports refuse connections."""
        self.kill()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def close(self) -> None:
        self.refuse()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    return sock


@contextlib.contextmanager
def _servers(directory: Path) -> Iterator[list[MoodyProcess]]:
    servers = [MoodyProcess(number, directory) for number in range(SERVERS)]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.close()


def run(
    directory: Path, *, seconds: float, seed: int, warm_up_s: float, workers: int = 1, kill_every_s: float = 0.0
) -> Report:
    """Raises AssertionError if anything is left, or if a client got an answer that it must not get.

    kill_every_s: with several workers, one of them is killed so often; 0: never."""
    directory.mkdir(parents=True, exist_ok=True)
    report = Report(seconds, seed)
    with _servers(directory) as servers, _proxy(_config(servers), directory / "lbproxy", workers) as lb:
        rounds = ((warm_up_s, Counter[str]()), (seconds, report.counts))
        for number, (length_s, counts) in enumerate(rounds):
            asyncio.run(_rage(lb, servers, length_s, seed + number, counts, kill_every_s))
            if isinstance(lb, CrewProxy):
                wait_until(lambda: len(lb.members()) == workers + 1, "all workers to be there", _RECOVERY_S)
                lb.wait_all_up()
            check_recovery(lb)
            memory, descriptors = _at_rest(lb)
            found = _kinds(lb, {port for server in servers for port in server.ports})
            if number == 0:
                report.rss_before, report.fds_before, report.kinds_before = memory, descriptors, found
        report.rss_after, report.fds_after, report.kinds_after = memory, descriptors, found
        report.metrics = {name: lb.metric(name) for name in COUNTERS}
        errors = [line for line in lb.error_lines() if _KILLED not in line]
        assert not errors, lb.stderr[-4000:]
        assert "limits.connections" not in lb.stderr, "places of dead workers are not free again"
        assert not report.metrics["internal_errors_total"]
    return report


@contextlib.contextmanager
def _proxy(config: dict[str, object], directory: Path, workers: int) -> Iterator[LbProxy]:
    if workers == 1:
        with LbProxy(config, directory) as alone:
            yield alone
        return
    lb = CrewProxy({**config, "workers": workers, "limits": {"connections": _PLACES}}, directory)
    try:
        yield lb.start()
        lb.stop(allow_errors=True)  # each kill is one
    finally:
        lb.kill()


def _config(servers: Sequence[MoodyProcess]) -> dict[str, object]:
    common: dict[str, object] = {
        "max_inflight": 2,
        "queue": {"size": 12, "timeout": "300ms"},
        "circuit_breaker": {"failures": 3, "open": "500ms", "max_open": "2s"},
        "slow_start": "1s",
    }
    http = {
        **common,
        "servers": [f"127.0.0.1:{server.ports[0]}" for server in servers],
        "timeouts": {"connect": "1s", "response_head": "1s", "read": "1s", "write": "1s", "total": "4s"},
        "health_check": {
            "type": "http",
            "path": "/health",
            "interval": "500ms",
            "timeout": "300ms",
            "busy_window": "1s",
        },
    }
    budget = {"ratio": 1.0, "min": BUDGET_MIN}
    return {
        "listeners": [
            {"name": name, "bind": "127.0.0.1:0", "pool": name, "mode": "tcp" if name == "tcp" else "http"}
            for name in POOLS
        ],
        "pools": {
            "idempotent": {
                **http,
                "retry": {
                    "idempotent": True,
                    "on": ["connect", "reset", "timeout"],
                    "status": [500, 503],
                    "budget": budget,
                },
            },
            "default": http,
            "http2": {
                **http,
                "servers": [f"127.0.0.1:{server.ports[2]}" for server in servers],
                "protocol": "h2",
            },
            "tcp": {
                **common,
                "servers": [f"127.0.0.1:{server.ports[1]}" for server in servers],
                "timeouts": {"connect": "1s", "tunnel": "2s", "half_closed": "1s"},
                "health_check": {"type": "tcp", "interval": "500ms", "timeout": "300ms"},
            },
        },
    }


async def _rage(
    lb: LbProxy,
    servers: Sequence[MoodyProcess],
    seconds: float,
    seed: int,
    counts: Counter[str],
    kill_every_s: float = 0.0,
) -> None:
    """Clients, and somebody who kills and stops servers; at the end all servers run again."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for pool in POOLS:
            for number in range(_TCP_CLIENTS if pool == "tcp" else _HTTP_CLIENTS):
                if pool != "tcp" and number % 3 == 0:
                    caller: Caller = Http2Caller(number, seed, lb.port(pool), counts)
                    tasks.create_task(caller.call(HTTP2_MANNERS, over))
                else:
                    caller = Caller(number, seed, lb.port(pool), counts)
                    tasks.create_task(caller.call(TCP_MANNERS if pool == "tcp" else HTTP_MANNERS, over))
        tasks.create_task(_harm(servers, random.Random(f"{seed} harm"), time.monotonic() + seconds, counts))
        if isinstance(lb, CrewProxy) and kill_every_s:
            until = time.monotonic() + seconds
            tasks.create_task(_kill_workers(lb, random.Random(f"{seed} kill"), until, kill_every_s, counts))
        await asyncio.sleep(seconds)
        over.set()


async def _kill_workers(lb: CrewProxy, rng: random.Random, until: float, every_s: float, counts: Counter[str]) -> None:
    """Now and then the controller is the one."""
    while time.monotonic() < until:
        await asyncio.sleep(every_s)
        members = lb.members()
        workers = sorted(set(members) - {"c"})
        name = "c" if rng.random() < 0.1 and "c" in members else rng.choice(workers or ["c"])
        if name in members:
            os.kill(members[name], signal.SIGKILL)
            counts["worker killed" if name != "c" else "controller killed"] += 1


async def _harm(servers: Sequence[MoodyProcess], rng: random.Random, until: float, counts: Counter[str]) -> None:
    """One harm at a time, mostly. Runs until `until`, and leaves every server running."""
    while time.monotonic() < until:
        server = rng.choice(servers)
        harm = rng.choice(("killed", "killed and refused", "stopped"))
        counts[harm] += 1
        if harm == "stopped":
            server.signal(signal.SIGSTOP)
        elif harm == "killed":
            server.kill()
        else:
            server.refuse()
        await asyncio.sleep(rng.uniform(0.1, 2.0))
        if harm == "stopped":
            server.signal(signal.SIGCONT)
        else:
            server.start()
        await asyncio.sleep(rng.uniform(0.5, 3.0))


def check_recovery(lb: LbProxy) -> None:
    """Nothing is in flight; every server is up again, which a permit of a probe that was not given back would prevent;
    and as many retries at once are granted as the budget has, which a permit of a retry would prevent.
    """
    lb.check_idle(20.0)
    wait_until(lambda: _is_recovered(lb), "every server to be up again", _RECOVERY_S)
    lb.check_idle(20.0)  # of what the line above has sent
    assert lb.metric("h2_streams") == 0
    status = lb.status()
    pools = status["pools"]
    assert isinstance(pools, list)
    for pool in pools:
        assert pool["inflight"] == 0 and pool["queue"]["depth"] == 0, pool
        assert all(server["inflight"] == 0 for server in pool["servers"]), pool
    refused, retried = lb.metric("retry_budget_exhausted_total"), lb.metric("retries_total")
    with ThreadPoolExecutor(BUDGET_MIN) as threads:
        list(threads.map(lambda _: _ask(lb, "idempotent", "/retry-me"), range(BUDGET_MIN)))
    assert lb.metric("retry_budget_exhausted_total") == refused, "a retry did not give its permit back"
    assert lb.metric("retries_total") >= retried + BUDGET_MIN


def _is_recovered(lb: LbProxy) -> bool:
    """Send what probes need, and look."""
    for pool in HTTP_POOLS:
        _ask(lb, pool, "/health")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", lb.port("tcp")), timeout=5.0) as sock:
        sock.sendall(b"probe")
        sock.recv(5)
    pools = lb.status()["pools"]
    assert isinstance(pools, list)
    return all(server["state"] == "up" for pool in pools for server in pool["servers"])


def _ask(lb: LbProxy, pool: str, target: str) -> int:
    with Client(lb.port(pool)) as client:
        return client.ask(f"GET {target} HTTP/1.1\r\nHost: soak\r\n\r\n".encode()).status


def _descriptors(lb: LbProxy) -> int:
    """In a moment from now: a quarter of a second, by which each of several processes has told how many idle
    connections it has."""
    time.sleep(0.25 if isinstance(lb, CrewProxy) else 0.05)
    pids = (lb.pid, *(lb.members().values() if isinstance(lb, CrewProxy) else ()))
    found = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return found - int(lb.metric("upstream_connections", state="idle"))


def _kinds(lb: LbProxy, ports: set[int]) -> Counter[str]:
    """What the descriptors of all its processes are."""
    pids = (lb.pid, *(lb.members().values() if isinstance(lb, CrewProxy) else ()))
    return sum((kinds(pid, ports) for pid in pids), Counter[str]())


def _at_rest(lb: LbProxy) -> tuple[int, int]:
    """(memory, descriptors that are not kept connections to servers) when nothing happens."""
    lb.check_idle(20.0)
    memory = sum(map(lb.pss_bytes, lb.members())) if isinstance(lb, CrewProxy) else lb.rss_bytes()
    return memory, min(_descriptors(lb) for _ in range(12))  # checks have some for a moment; what leaks stays
