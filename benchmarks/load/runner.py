"""Run the cases: start what is needed, check that it does what we think, measure, stop everything."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import ab, procfs, wrk
from benchmarks.load.cases import CASES, REQUEST_BODY, Case, Mode
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process, pinned
from benchmarks.load.results import Run, Summary, make_run, rotated, summarise
from benchmarks.load.targets import (
    Nginx,
    Placement,
    Setup,
    Unsupported,
    find_program,
    free_ports,
    inspect_nginx,
    make_pem,
    start_backend,
    start_target,
    takes,
)

SERVERS = 3
_WARM_UP_S = 1
_SETTLE_S = 0.3
_PROBE_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `subject` is the target that the ratios are about; `seconds` is the length of one measured run."""

    cases: tuple[str, ...]
    subject: str
    peers: tuple[str, ...]
    rounds: int
    seconds: int
    connections: int

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.subject, *self.peers)


@dataclass(slots=True)
class Results:
    """Everything measured, and notes on what could not be."""

    runs: list[Run] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Proxy:
    process: Process
    port: int
    idle_rss_kib: int


class Runner:
    """Holds what all cases share. `say` gets one line of progress per step."""

    def __init__(self, options: Options, placement: Placement, say: Callable[[str], None]) -> None:
        self._options = options
        self._placement = placement
        self._say = say
        self._wrk = find_program("wrk")
        self._nginx: Nginx = inspect_nginx()
        self._runs_started = 0

    def run(self) -> Results:
        """Measure all cases. Raises BenchmarkError at the first number that must not be believed."""
        results = Results()
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-bench-")))
            directory.chmod(0o755)  # nginx started by root lets an unprivileged worker open the files
            ports = free_ports(SERVERS)
            backend = start_backend(self._nginx, ports, directory / "backend", self._placement)
            stack.callback(backend.stop)
            for port in ports:
                backend.wait_listening(port)
            for name in self._options.cases:
                self._run_case(CASES[name], ports, directory, results)
                for port in ports:
                    backend.check_owner(port)
        return results

    def _run_case(self, case: Case, servers: Sequence[int], directory: Path, results: Results) -> None:
        """All targets of a case live at the same time, so that each round compares them within seconds."""
        folder = directory / case.name
        folder.mkdir(mode=0o755)
        with contextlib.ExitStack() as stack:
            proxies: dict[str, _Proxy] = {}
            for name in (name for name in self._options.targets if takes(name, case)):
                try:
                    proxies[name] = self._start(name, case, servers, folder / name, stack)
                except Unsupported as error:
                    results.notes.append(f"{case.name}: {name} left out: {error}")
            runs = []
            for number in range(self._options.rounds):
                for name in rotated(list(proxies), number):
                    run = self._measure(case, name, proxies[name], number, folder)
                    self._say(
                        f"{case.name} round {number + 1} {name}: {run.requests_per_s:,.0f} requests/s, "
                        f"{run.cpu_us:.1f} us CPU per request"
                    )
                    runs.append(run)
        results.runs += runs
        for name, proxy in proxies.items():
            mine = [run for run in runs if run.target == name]
            results.summaries.append(summarise(mine, proxy.idle_rss_kib))

    def _start(
        self, name: str, case: Case, servers: Sequence[int], folder: Path, stack: contextlib.ExitStack
    ) -> _Proxy:
        (port,) = free_ports(1)
        pem = make_pem(folder.parent / f"{name}.pem") if case.tls else None
        setup = Setup(case.mode, port, tuple(servers), folder, self._nginx, pem)
        process = start_target(name, setup, self._placement)
        stack.callback(process.stop)
        process.wait_listening(port)
        time.sleep(_SETTLE_S)
        idle_rss_kib = procfs.read_rss_kib(process.tree)
        probe(case, name, port)
        return _Proxy(process, port, idle_rss_kib)

    def _measure(self, case: Case, name: str, proxy: _Proxy, number: int, folder: Path) -> Run:
        self._load(case, proxy, folder, _WARM_UP_S)
        proxy.process.check_owner(proxy.port)
        tree = proxy.process.tree
        core_before = procfs.read_core(self._placement.proxy)
        cpu_before = procfs.read_cpu_s(tree)
        started = time.monotonic()
        load = self._load(case, proxy, folder, self._options.seconds)
        wall_s = time.monotonic() - started
        try:
            cpu_s = procfs.read_cpu_s(tree) - cpu_before
        except OSError:
            raise BenchmarkError(f"{name} lost a process during {case.name}:\n{proxy.process.complaints()}") from None
        core = (core_before, procfs.read_core(self._placement.proxy))
        proxy.process.check_owner(proxy.port)
        wrk.check_load(load, case, name)
        if proxy.process.tree != tree:
            raise BenchmarkError(f"{name} started another process during {case.name}; its CPU time was not counted")
        rss_kib = procfs.read_rss_kib(tree)
        return make_run(case.name, name, number, load, cpu_s=cpu_s, wall_s=wall_s, core=core, rss_kib=rss_kib)

    def _load(self, case: Case, proxy: _Proxy, folder: Path, seconds: int) -> wrk.Load:
        self._runs_started += 1
        if case.is_handshake:
            with pinned(set(self._placement.load)):
                return ab.run_ab(
                    find_program("ab"), case, proxy.port, folder, connections=self._options.connections, seconds=seconds
                )
        script = folder / "load.lua"
        script.write_text(wrk.render_script(case, f"{os.getpid():06x}-{self._runs_started:04x}"))
        with pinned(set(self._placement.load)):
            return wrk.run_wrk(
                self._wrk,
                case,
                proxy.port,
                script,
                connections=case.connections or self._options.connections,
                seconds=seconds,
            )


def probe(case: Case, name: str, port: int) -> None:
    """Send the case's request once and look at all of the answer; look at what the backend was sent too.

    The proxy may still be connecting to its servers: 502 and 503 are asked again for a while.
    """
    limit = time.monotonic() + _PROBE_LIMIT_S
    while True:
        status, body = _ask(case, name, port, case.path)
        if status not in {502, 503} or time.monotonic() > limit:
            break
        time.sleep(0.1)
    if (status, body) != (200, case.response_body):
        raise BenchmarkError(f"{name} answered {case.path} with status {status} and {len(body)} bytes: {body[:200]!r}")
    expected = forwarded_for(case.mode)
    status, body = _ask(case, name, port, "/probe")
    if (status, body) != (200, expected):
        raise BenchmarkError(f"behind {name} X-Forwarded-For should be {expected!r}; status {status}, {body[:200]!r}")


def forwarded_for(mode: Mode) -> bytes:
    """What X-Forwarded-For must be at the backend: the client in HTTP mode, absent in TCP mode."""
    return b"127.0.0.1" if mode == "http" else b""


def _ask(case: Case, name: str, port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if case.tls:
        # The certificate is our own and new, and nobody else listens there: check_owner looks.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        body = REQUEST_BODY if case.method == "POST" else None
        connection.request(case.method, path, body=body, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"{name} did not answer {case.method} {path} ({case.mode} mode): {error!r}") from error
    finally:
        connection.close()


def place(usable: set[int], proxy_core: int | None = None) -> Placement:
    """The proxy gets one core (the highest: interrupts tend to land on the lowest), everything else the others."""
    core = max(usable) if proxy_core is None else proxy_core
    if core not in usable:
        raise BenchmarkError(f"core {core} is not among those that this process may use: {sorted(usable)}")
    others = frozenset(usable - {core})
    if not others:
        raise BenchmarkError("this benchmark needs two cores: one for the proxy, one for load and backend")
    return Placement(core, others)
