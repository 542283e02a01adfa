"""Several workers against one, on this machine: one line for each number.

    trace      servers with one slot each at a load of 0.9, the same requests for several workers and for one
    grant      two clients take turns at one slot: how long it stays empty, with both at one worker and at two
    memory     what each worker has for itself
    recovery   from the kill of a worker until its successor serves

Nothing is pinned. Times hold for a quiet machine only, with the compiled lbproxy.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

from benchmarks import command_line
from benchmarks.balancing import wire
from benchmarks.balancing.client import Lane, run_load
from benchmarks.balancing.origin import Books, Spec, parse_books
from benchmarks.balancing.trace import make_trace
from benchmarks.load.errors import BenchmarkError
from benchmarks.percentiles import percentile

SERVERS: Final = 4
MEAN_S: Final = 0.01
LOAD: Final = 0.9
PATIENCE_S: Final = 60.0
START_S: Final = 60.0
KILLS: Final = 5
_POLL_S: Final = 0.002
Json = dict[str, Any]


def free_ports(count: int) -> list[int]:
    """That nobody has at this moment."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


@contextlib.contextmanager
def started(argv: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens on the port; ended when it is no longer wanted."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while not is_listening(port):
            if process.poll() is not None or time.monotonic() > until:
                raise BenchmarkError(f"{argv[-1]} does not listen on {port}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


class Site:
    """Model servers with one slot each, and lbproxy with so many workers before them."""

    def __init__(self, n_workers: int, n_servers: int) -> None:
        self._stack = contextlib.ExitStack()
        self.n_workers = n_workers
        self.front, self.admin, self._control, *self._backs = free_ports(3 + n_servers)

    def __enter__(self) -> Site:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            specs = [dataclasses.asdict(Spec(port, 1)) for port in self._backs]
            given = json.dumps({"servers": specs, "control": self._control})
            stack.enter_context(started([sys.executable, "-m", "benchmarks.balancing.origin", given], self._control))
            config = folder / "lbproxy.yaml"
            config.write_text(json.dumps(self._config()))
            proxy = stack.enter_context(
                started([sys.executable, "-P", "-m", "lbproxy", "--config", str(config)], self.front)
            )
            self.pid = proxy.pid
            self._stack = stack.pop_all()
        wait_until(lambda: self.status()["state"] == "running")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _config(self) -> Json:
        pool = {
            "servers": [f"127.0.0.1:{port}" for port in self._backs],
            "max_inflight": 1,
            "health_check": "off",
            "queue": {"size": 10_000, "timeout": PATIENCE_S, "order": "fifo"},
        }
        return {
            "workers": self.n_workers,
            "admin": {"bind": f"127.0.0.1:{self.admin}"},
            "access_log": "off",
            "listeners": [{"name": "in", "bind": f"127.0.0.1:{self.front}", "pool": "p"}],
            "pools": {"p": pool},
        }

    def status(self) -> Json:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/api/v1/status", timeout=10) as answer:
            return cast(Json, json.load(answer))

    def workers(self) -> list[Json]:
        return cast("list[Json]", self.status()["workers"])

    def books(self) -> list[Books]:
        """What the servers saw."""
        with socket.create_connection(("127.0.0.1", self._control), timeout=60.0) as sock:
            sock.sendall(b"report\n")
            return parse_books(b"".join(iter(lambda: sock.recv(1 << 20), b"")))


def wait_until(is_so: Callable[[], bool]) -> float:
    """How long it took, seconds. Raises BenchmarkError after START_S."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            if is_so():
                return time.monotonic() - began
        if time.monotonic() - began > START_S:
            raise BenchmarkError("lbproxy did not come to what was waited for")
        time.sleep(_POLL_S)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


# --- the numbers ------------------------------------------------------------------------------------------------------


def trace(n_workers: int, requests: int, mean_s: float) -> str:
    """Never two at once at a server, and nobody waits longer than with one worker. mean_s: of the work of a request."""
    rate = LOAD * SERVERS / mean_s
    made = make_trace(rate, requests / rate, 1, mean_s=mean_s)
    found: dict[int, list[float]] = {}
    most, failed = 0, 0
    for number in (n_workers, 1):
        with Site(number, SERVERS) as site:
            lane = Lane(site.front, made)
            run_load([lane], PATIENCE_S, False)
            failed += sum(asked.status != 200 for asked in lane.asked)
            found[number] = [asked.latency_s for asked in lane.asked if asked.status == 200]
            most = max(most, *(book.most_at_once for book in site.books()))
    several, alone = (percentile(found[number], 0.99) for number in (n_workers, 1))
    return (
        f"trace: work of {ms(mean_s)} on average, {n_workers} workers p99 {ms(several)}, 1 worker p99 {ms(alone)}, "
        f"ratio {several / alone:.3f}; {requests} requests, {failed} failed, most at once at a server {most}"
    )


def grant(turns: int) -> str:
    """From the moment at which a server is done with one request to the arrival of the next one."""
    gaps = {is_across: _gaps(turns, is_across=is_across) for is_across in (False, True)}
    words = [f"p50 {ms(percentile(found, 0.5))}, p99 {ms(percentile(found, 0.99))}" for found in gaps.values()]
    return f"grant: within one worker {words[0]}; to another worker {words[1]}; {turns} turns"


def _gaps(turns: int, *, is_across: bool) -> list[float]:
    with Site(2, 1) as site:
        clients = [_client_of(site, 1), _client_of(site, 2 if is_across else 1)]
        threads = [threading.Thread(target=_ask_often, args=(client, turns // 2)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        visits = sorted(site.books()[0].visits, key=lambda visit: visit.arrived)[2:-2]
    return [later.arrived - earlier.finished for earlier, later in pairwise(visits)]


def _client_of(site: Site, number: int) -> socket.socket:
    """A connection that this worker has."""
    for _ in range(200):
        before = [row["connections"] for row in site.workers()]
        sock = socket.create_connection(("127.0.0.1", site.front), timeout=PATIENCE_S)
        _ask(sock, 0.0)
        after = [row["connections"] for row in site.workers()]
        if after[number - 1] > before[number - 1]:
            return sock
        sock.close()
    raise BenchmarkError("the kernel gives this worker no connection")


def _ask(sock: socket.socket, work_s: float) -> None:
    sock.sendall(wire.request(0, work_s))
    data = bytearray()
    while wire.cut(data) is None:
        data += sock.recv(65536)


def _ask_often(sock: socket.socket, turns: int) -> None:
    for _ in range(turns):
        _ask(sock, 0.002)


def memory(n_workers: int) -> str:
    """Memory that a worker shares with nobody, and its share of what it does."""
    with Site(n_workers, 1) as site:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", site.front), timeout=PATIENCE_S) as sock:
                _ask(sock, 0.0)
        rows = [Path(f"/proc/{row['pid']}/smaps_rollup").read_text().splitlines() for row in site.workers()]
    kib = {
        name: [sum(int(line.split()[1]) for line in lines if line.startswith(name)) for lines in rows]
        for name in ("Private_", "Pss:")
    }
    return (
        f"memory: {max(kib['Private_']) / 1024:.1f} MiB of its own, PSS {max(kib['Pss:']) / 1024:.1f} MiB, "
        f"the largest of {n_workers} workers"
    )


def recovery(n_workers: int) -> str:
    """As the status tells, which is asked every few milliseconds."""
    took: list[float] = []
    with Site(n_workers, 1) as site:
        for _ in range(KILLS):
            pid = site.workers()[0]["pid"]
            os.kill(pid, signal.SIGKILL)

            def is_back(dead: int = pid) -> bool:
                first = site.workers()[0]
                return first["state"] == "serving" and first["pid"] not in (None, dead)

            took.append(wait_until(is_back))
    return f"recovery: median {ms(median(took))}, longest {ms(max(took))}; {KILLS} kills"


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    measures: dict[str, Callable[[], str]] = {
        "trace": lambda: trace(args.workers, args.requests, args.mean_ms / 1000),
        "grant": lambda: grant(args.turns),
        "memory": lambda: memory(args.workers),
        "recovery": lambda: recovery(args.workers),
    }
    try:
        for name in args.only:
            print(measures[name](), flush=True)
    except BenchmarkError as error:
        command_line.say(f"benchmarks.workers: {error}")
        return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--workers", type=command_line.at_least(2), default=4, help="(default %(default)s)")
    parser.add_argument(
        "--requests", type=command_line.at_least(100), default=100_000, help="of `trace` (default %(default)s)"
    )
    parser.add_argument(
        "--mean-ms",
        type=command_line.at_least(1),
        default=round(MEAN_S * 1000),
        help="work of a request of `trace` on average (default %(default)s)",
    )
    parser.add_argument(
        "--turns", type=command_line.at_least(20), default=4000, help="of `grant` (default %(default)s)"
    )
    known = ("trace", "grant", "memory", "recovery")
    parser.add_argument(
        "--only", type=command_line.names(known), default=known, metavar="NAME[,...]", help=f"of {', '.join(known)}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
