"""Run the cases: start servers and proxies, look at an answer, measure in interleaved rounds, stop everything."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.h2 import configs
from benchmarks.h2.cases import CASES, FILE_BYTES, FILE_PATH, PREDICT_PATH, Case
from benchmarks.load import procfs
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process, pinned
from benchmarks.load.results import Run, Summary, make_run, rotated, summarise
from benchmarks.load.targets import Placement, find_program, free_ports, inspect_nginx, make_pem, start_backend
from benchmarks.load.wrk import Load

SERVERS = 3
TARGETS = ("lbproxy", "haproxy")
HALF = 0.5
_WARM_UP_S = 1.0
_SETTLE_S = 0.5
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: the length of one measured run."""

    cases: tuple[str, ...]
    rounds: int
    seconds: int


@dataclass(slots=True)
class Results:
    """Runs, their medians, and how a case's requests were shared by the servers, as parts of all. paced: runs of the
    gRPC cases with calls at random times, at HALF of HAProxy's own capacity."""

    runs: list[Run] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    shares: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    paced: list[Run] = field(default_factory=list)


@dataclass(slots=True)
class _Proxy:
    process: Process
    port: int
    idle_rss_kib: int


class _Servers:
    """Three ports of one kind. stats: where they say how much they got, None if they do not."""

    def __init__(self, processes: Sequence[Process], ports: Sequence[int], stats: Path | None) -> None:
        self._processes = processes
        self.ports = ports
        self._stats = stats

    def check(self) -> None:
        """They still are who listens there."""
        for at, port in enumerate(self.ports):
            self._processes[at % len(self._processes)].check_owner(port)

    def counts(self) -> list[int]:
        """Requests so far of each; [] if nobody says it."""
        if self._stats is None:
            return []
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._stats))
            sock.sendall(b"show stat\n")
            text = b""
            while data := sock.recv(65536):
                text += data
        found = configs.parse_counts(text.decode())
        return [found[f"o{number}"] for number in range(len(self.ports))]


class Runner:
    """`say` gets one line of progress per step."""

    def __init__(self, options: Options, placement: Placement, say: Callable[[str], None]) -> None:
        self._options = options
        self._placement = placement
        self._say = say

    def run(self) -> Results:
        """Measure all cases. Raises BenchmarkError at the first number that must not be believed."""
        results = Results()
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-h2-")))
            directory.chmod(0o755)  # as the servers' workers are somebody else where root starts them
            for name in self._options.cases:
                self._run_case(CASES[name], directory / name, results)
        return results

    def _run_case(self, case: Case, folder: Path, results: Results) -> None:
        folder.mkdir(mode=0o755)
        with contextlib.ExitStack() as stack:
            servers = self._start_servers(case, folder, stack)
            pem = make_pem(folder / "bench.pem") if case.tls else None
            proxies = {name: self._start(name, case, servers.ports, pem, folder, stack) for name in TARGETS}
            runs = []
            for number in range(self._options.rounds):
                for name in rotated(TARGETS, number):
                    run, share = self._measure(case, name, proxies[name], number, servers)
                    self._say(f"{case.name} round {number + 1} {name}: {run.cpu_us:.1f} us CPU per request")
                    runs.append(run)
                    if share:
                        results.shares.setdefault((case.name, name), []).extend(share)
            if case.kind == "grpc":
                results.paced += self._paced(case, proxies, runs, servers)
            servers.check()
        results.runs += runs
        for name, proxy in proxies.items():
            results.summaries.append(summarise([run for run in runs if run.target == name], proxy.idle_rss_kib))

    def _paced(self, case: Case, proxies: dict[str, _Proxy], runs: Sequence[Run], servers: _Servers) -> list[Run]:
        """The same calls to each proxy, at half of what HAProxy served in the closed loop."""
        rate = HALF * median(run.requests_per_s for run in runs if run.target == TARGETS[1])
        found = []
        for number in range(self._options.rounds):
            for name in rotated(TARGETS, number):
                run, _ = self._measure(case, name, proxies[name], number, servers, rate)
                self._say(
                    f"{case.name} at {rate:,.0f} calls/s, round {number + 1} {name}: p99 {run.p99_us / 1000:.2f} ms"
                )
                found.append(run)
        return found

    def _start_servers(self, case: Case, folder: Path, stack: contextlib.ExitStack) -> _Servers:
        ports = free_ports(SERVERS)
        cores = set(self._placement.load)
        stats: Path | None = None
        if case.kind != "file":
            stats = folder / "stats"
            text = configs.render_servers(ports, case.server, stats)
            (folder / "servers.cfg").write_text(text)
            argv = [find_program("haproxy"), "-db", "-f", str(folder / "servers.cfg")]
            processes = [Process("the servers", argv, cores, folder / "servers.stderr")]
        elif case.server == "h1":
            processes = [start_backend(inspect_nginx(), ports, folder / "servers", self._placement)]
        else:
            www = folder / "www"
            www.mkdir()
            (www / FILE_PATH.removeprefix("/")).write_bytes(bytes(FILE_BYTES))
            program = find_program("nghttpd")
            processes = [
                Process(
                    f"server {port}",
                    [program, "--no-tls", "-d", str(www), "-a", "127.0.0.1", str(port)],
                    cores,
                    folder / f"server-{port}.stderr",
                )
                for port in ports
            ]
        for process in processes:
            stack.callback(process.stop)
        for at, port in enumerate(ports):
            processes[at % len(processes)].wait_listening(port)
        return _Servers(processes, ports, stats)

    def _start(
        self, name: str, case: Case, servers: Sequence[int], pem: Path | None, folder: Path, stack: contextlib.ExitStack
    ) -> _Proxy:
        port, admin_port = free_ports(2)
        path = folder / name
        if name == "haproxy":
            path.write_text(configs.render_haproxy(port, servers, case.server, pem))
            argv = [find_program("haproxy"), "-db", "-f", str(path)]
        else:
            path.write_text(configs.render_lbproxy(port, admin_port, servers, case.server, pem))
            argv = [sys.executable, "-P", "-m", "lbproxy", "--config", str(path)]
        process = Process(name, argv, {self._placement.proxy}, folder / f"{name}.stderr")
        stack.callback(process.stop)
        process.wait_listening(port)
        time.sleep(_SETTLE_S)  # both begin with a check of each server
        return _Proxy(process, port, procfs.read_rss_kib(process.tree))

    def _measure(
        self, case: Case, name: str, proxy: _Proxy, number: int, servers: _Servers, rate: float = 0.0
    ) -> tuple[Run, list[float]]:
        """rate: calls a second in an open loop; 0: a closed one."""
        self._load(case, proxy, _WARM_UP_S)
        proxy.process.check_owner(proxy.port)
        tree = proxy.process.tree
        core_before, counts = procfs.read_core(self._placement.proxy), servers.counts()
        cpu_before, started = procfs.read_cpu_s(tree), time.monotonic()
        load = self._load(case, proxy, float(self._options.seconds), rate)
        wall_s = time.monotonic() - started
        try:
            cpu_s = procfs.read_cpu_s(tree) - cpu_before
        except OSError:
            raise BenchmarkError(f"{name} lost a process during {case.name}:\n{proxy.process.complaints()}") from None
        core = (core_before, procfs.read_core(self._placement.proxy))
        check_load(load, case, name)
        if proxy.process.tree != tree:
            raise BenchmarkError(f"{name} started another process during {case.name}; its CPU time was not counted")
        gained = [after - before for after, before in zip(servers.counts(), counts, strict=True)]
        if gained and sum(gained) < load.requests:  # checks count as requests of theirs, too
            raise BenchmarkError(f"{case.name} through {name}: {load.requests} answers, servers had {sum(gained)}")
        rss_kib = procfs.read_rss_kib(tree)
        run = make_run(case.name, name, number, load, cpu_s=cpu_s, wall_s=wall_s, core=core, rss_kib=rss_kib)
        return run, [count / sum(gained) for count in gained]

    def _load(self, case: Case, proxy: _Proxy, seconds: float, rate: float = 0.0) -> Load:
        shape = [str(proxy.port), str(case.connections), str(case.streams), str(seconds), case.name]
        shape += [str(rate)] if rate else []
        argv = [sys.executable, "-P", str(_ROOT / "benchmarks" / "installed.py"), "benchmarks.h2.generator", *shape]
        with pinned(set(self._placement.load)):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=False)
        if done.returncode:
            raise BenchmarkError(f"the load of {case.name} ended with status {done.returncode}: {done.stderr[-1000:]}")
        return Load(**json.loads(done.stdout))


def check_load(load: Load, case: Case, target: str) -> None:
    """Raise BenchmarkError unless every request was answered, with 200 and a whole body."""
    what = f"{case.name} through {target}"
    if load.errors:
        seen = ", ".join(f"{count} {kind}" for kind, count in load.errors.items())
        raise BenchmarkError(f"{what}: {seen} in {load.requests} requests")
    if not load.requests:
        raise BenchmarkError(f"{what}: no request was answered")
    size = {PREDICT_PATH: len(configs.PREDICTION), FILE_PATH: FILE_BYTES}.get(case.path, 0)
    if load.bytes < load.requests * size:
        raise BenchmarkError(f"{what}: {load.bytes} bytes came, the bodies alone are {load.requests * size}")
