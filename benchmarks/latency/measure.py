"""Find the rates, then run the generator against each proxy in turn, and against the backend alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.latency.generator import Outcome, Plan, parse_outcome
from benchmarks.latency.schedule import Figures, Offer, offers
from benchmarks.load import procfs, wrk
from benchmarks.load.cases import CASES
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process, pinned
from benchmarks.load.results import Ratio, rotated
from benchmarks.load.runner import SERVERS, probe
from benchmarks.load.targets import (
    Placement,
    Setup,
    find_program,
    free_ports,
    inspect_nginx,
    start_backend,
    start_target,
)

REFERENCE: Final = "haproxy"  # whose capacity the rates are shares of
DIRECT: Final = "direct"  # no proxy: what generator and backend take
TARGETS: Final = ("lbproxy", "haproxy", "nginx")
_ROOT: Final = Path(__file__).resolve().parents[2]
_CASE: Final = CASES["http_real"]
_WRK_CONNECTIONS: Final = 32
_SETTLE_S: Final = 0.5
_SPARE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """shares: of the reference's capacity. seconds: length of one run; its first `warm_up_s` do not count."""

    targets: tuple[str, ...]
    shares: tuple[float, ...]
    rounds: int
    seconds: float
    warm_up_s: float
    connections: int


@dataclass(frozen=True, slots=True)
class Run:
    """One target at one rate in one round.

    unanswered, waited: shares of the requests (see the generator's Outcome). proxy_busy: share of its core; 0 without a
    proxy. load_busy: of the cores of generator and backend.
    """

    target: str
    wanted_share: float
    rate: float
    round: int
    figures: Figures
    requests_per_s: float
    unanswered: float
    waited: float
    proxy_busy: float
    generator_busy: float
    load_busy: float


@dataclass(slots=True)
class Results:
    """capacity: requests a second for which the reference would need all of its core, by its CPU time per request as
    fast as wrk can ask; wrk kept `capacity_busy` of that core busy. ceiling: what the generator can offer.
    """

    capacity: float = 0.0
    capacity_busy: float = 0.0
    ceiling: float = 0.0
    offers: list[Offer] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def runs_of(self, offer: Offer, target: str) -> list[Run]:
        return [run for run in self.runs if (run.wanted_share, run.target) == (offer.wanted_share, target)]

    def middle(self, offer: Offer, target: str, value: Callable[[Run], float]) -> float:
        """Median over the rounds."""
        return median(value(run) for run in self.runs_of(offer, target))


def ratios(results: Results, subject: str, peer: str) -> list[Ratio]:
    """Percentiles of one over those of the other, within each round: median and range, for each rate."""
    found = []
    for offer in results.offers:
        pairs = list(zip(results.runs_of(offer, subject), results.runs_of(offer, peer), strict=True))
        for metric in ("p50_us", "p99_us", "p999_us"):
            values = [getattr(mine.figures, metric) / getattr(theirs.figures, metric) for mine, theirs in pairs]
            if values:
                case = f"{offer.wanted_share:.0%}"
                found.append(Ratio(case, subject, peer, metric, median(values), min(values), max(values)))
    return found


@dataclass(frozen=True, slots=True)
class _Server:
    """Something that listens. process: None if it is the backend."""

    port: int
    process: Process | None


class Runner:
    """`say` gets one line of progress per run."""

    def __init__(self, options: Options, placement: Placement, say: Callable[[str], None]) -> None:
        self._options = options
        self._placement = placement
        self._say = say
        self._wrk = find_program("wrk")
        self._nginx = inspect_nginx()

    def run(self) -> Results:
        """Raises BenchmarkError if a request has no whole 200, or a process is not what it should be."""
        results = Results()
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-latency-")))
            folder.chmod(0o755)  # nginx started by root lets an unprivileged worker open the files
            ports = free_ports(SERVERS)
            backend = start_backend(self._nginx, ports, folder / "backend", self._placement)
            stack.callback(backend.stop)
            for port in ports:
                backend.wait_listening(port)
            servers = {DIRECT: _Server(ports[0], None)}
            for name in dict.fromkeys([*self._options.targets, REFERENCE]):
                servers[name] = self._start(name, ports, folder, stack)
            self._find_rates(servers, backend, folder, results)
            order = [DIRECT, *self._options.targets]
            for number in range(self._options.rounds):
                for offer in results.offers:
                    for name in rotated(order, number):
                        run = self._measure(name, servers[name], backend, offer, number)
                        self._say(describe(run))
                        results.runs.append(run)
        return results

    def _start(self, name: str, ports: Sequence[int], folder: Path, stack: contextlib.ExitStack) -> _Server:
        (port,) = free_ports(1)
        process = start_target(name, Setup("http", port, tuple(ports), folder / name, self._nginx), self._placement)
        stack.callback(process.stop)
        process.wait_listening(port)
        time.sleep(_SETTLE_S)
        probe(_CASE, name, port)
        return _Server(port, process)

    def _find_rates(self, servers: dict[str, _Server], backend: Process, folder: Path, results: Results) -> None:
        reference = servers[REFERENCE]
        script = folder / "load.lua"
        script.write_text(wrk.render_script(_CASE, "00000000-0001"))
        seconds = max(1, round(min(4.0, self._options.seconds)))
        before = _cpu_s(reference.process)
        began = time.monotonic()
        with pinned(set(self._placement.load)):
            load = wrk.run_wrk(self._wrk, _CASE, reference.port, script, connections=_WRK_CONNECTIONS, seconds=seconds)
        cpu_s = _cpu_s(reference.process) - before
        results.capacity_busy = cpu_s / (time.monotonic() - began)
        wrk.check_load(load, _CASE, REFERENCE)
        results.capacity = load.requests / cpu_s
        plan = Plan(servers[DIRECT].port, 0.0, min(2.0, self._options.seconds), 0.0, self._options.connections, 1)
        results.ceiling = self._generate(plan).requests_per_s
        results.offers = offers(results.capacity, results.ceiling, self._options.shares)
        self._say(
            f"{REFERENCE} takes {results.capacity:,.0f} requests/s; the generator, without a proxy, "
            f"{results.ceiling:,.0f}; offered: {', '.join(f'{offer.rate:,.0f}' for offer in results.offers)}"
        )

    def _measure(self, name: str, server: _Server, backend: Process, offer: Offer, number: int) -> Run:
        options = self._options
        if server.process is not None:
            server.process.check_owner(server.port)
        # All targets of a round get the same arrivals.
        plan = Plan(server.port, offer.rate, options.seconds, options.warm_up_s, options.connections, 1000 + number)
        proxy_before, backend_before = _cpu_s(server.process), _cpu_s(backend)
        began = time.monotonic()
        outcome = self._generate(plan)
        wall_s = max(plan.seconds, outcome.wall_s)
        proxy_busy = (_cpu_s(server.process) - proxy_before) / wall_s
        backend_busy = (_cpu_s(backend) - backend_before) / wall_s
        if server.process is not None:
            server.process.check_owner(server.port)
        if time.monotonic() - began < plan.seconds:
            raise BenchmarkError(f"the load generator ended before the {plan.seconds:g} s were over")
        return Run(
            target=name,
            wanted_share=offer.wanted_share,
            rate=offer.rate,
            round=number,
            figures=outcome.figures,
            requests_per_s=outcome.requests_per_s,
            unanswered=outcome.unanswered,
            waited=outcome.waited,
            proxy_busy=proxy_busy,
            generator_busy=outcome.busy,
            load_busy=(outcome.busy + backend_busy) / len(self._placement.load),
        )

    def _generate(self, plan: Plan) -> Outcome:
        argv = [sys.executable, "-m", "benchmarks.latency.generator", json.dumps(dataclasses.asdict(plan))]
        with pinned(set(self._placement.load)):
            try:
                done = subprocess.run(
                    argv, cwd=_ROOT, capture_output=True, text=True, timeout=plan.seconds + _SPARE_S, check=False
                )
            except subprocess.TimeoutExpired:
                raise BenchmarkError(f"the load generator did not end within {plan.seconds + _SPARE_S:g} s") from None
        if done.returncode:
            raise BenchmarkError(done.stderr.strip() or f"the load generator ended with status {done.returncode}")
        return parse_outcome(done.stdout)


def _cpu_s(process: Process | None) -> float:
    return procfs.read_cpu_s(process.tree) if process is not None else 0.0


def describe(run: Run) -> str:
    """A line for who watches."""
    figures = run.figures
    return (
        f"{run.rate:,.0f}/s round {run.round + 1} {run.target}: p50 {figures.p50_us / 1000:.2f} ms, "
        f"p99 {figures.p99_us / 1000:.2f}, p99.9 {figures.p999_us / 1000:.2f}; sent late by up to "
        f"{figures.late_p99_us / 1000:.2f} (p99)"
    )
