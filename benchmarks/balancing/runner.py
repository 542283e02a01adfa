"""Run the cases: for each repeat and policy start servers and proxy, replay the traces, collect, stop everything."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.balancing.cases import CASES, Case
from benchmarks.balancing.client import Lane, run_load
from benchmarks.balancing.configs import POLICIES, render
from benchmarks.balancing.measures import Figures, Run, Verdict, figures, judge
from benchmarks.balancing.origin import Books, Spec, parse_books
from benchmarks.balancing.trace import Trace, make_trace
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process, pinned
from benchmarks.load.results import rotated
from benchmarks.load.targets import Placement, find_program, free_ports

_SETTLE_S = 0.5
_LATE_MS = 50.0
_TRIES = 2
_REPORT_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """policies: of those of a case, these. seconds: length of a trace. warm_up_s: who comes before does not count."""

    cases: tuple[str, ...]
    policies: tuple[str, ...]
    repeats: int
    seconds: float
    warm_up_s: float


@dataclass(slots=True)
class Results:
    runs: list[Run] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Runner:
    """`say` gets one line of progress per run."""

    def __init__(self, options: Options, placement: Placement, say: Callable[[str], None]) -> None:
        self._options = options
        self._placement = placement
        self._say = say

    def run(self) -> Results:
        """Policies are interleaved and take turns at being first. Raises BenchmarkError if a number means nothing."""
        results = Results()
        for name in self._options.cases:
            case = CASES[name]
            for repeat in range(self._options.repeats):
                traces = [
                    make_trace(case.rate, self._options.seconds, seed=1000 * repeat + lane)
                    for lane in range(case.lanes)
                ]
                for policy in rotated([name for name in case.policies if name in self._options.policies], repeat):
                    results.runs.append(self._measure_calmly(case, policy, repeat, traces, results.notes))
            results.verdicts += judge(case, results.runs)
        return results

    def _measure_calmly(self, case: Case, policy: str, repeat: int, traces: Sequence[Trace], notes: list[str]) -> Run:
        """Again if the load was not sent in time, which is nobody's doing but the machine's; not for ever."""
        for _ in range(_TRIES):
            run = self._measure(case, policy, repeat, traces)
            self._say(describe(run))
            if run.figures.late_ms <= _LATE_MS:
                return run
        notes.append(
            f"{case.name} #{repeat}, {policy}: disturbed; the load came up to {run.figures.late_ms:.0f} ms late"
        )
        return run

    def _measure(self, case: Case, policy: str, repeat: int, traces: Sequence[Trace]) -> Run:
        n = len(case.speeds)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lbproxy-balancing-")))
            ports = free_ports(2 + len(traces) * (n + 1))
            control, admin, *rest = ports
            fronts, backs = rest[: len(traces)], rest[len(traces) :]
            servers = [backs[i * n : (i + 1) * n] for i in range(len(traces))]
            origin = self._start_origin(case, servers, control, folder)
            stack.callback(origin.stop)
            text = render(POLICIES[policy], list(zip(fronts, servers, strict=True)), case.slots, admin)
            proxy = Process(policy, _command(policy, folder, text), {self._placement.proxy}, folder / "proxy.stderr")
            stack.callback(proxy.stop)
            for port in fronts:
                proxy.wait_listening(port)
            time.sleep(_SETTLE_S)
            lanes = [Lane(port, trace) for port, trace in zip(fronts, traces, strict=True)]
            with pinned(set(self._placement.load)):
                run_load(lanes, case.patience_s, case.is_impatient)
            for process, owned in ((proxy, fronts), (origin, backs)):
                for port in owned:
                    process.check_owner(port)
            books = {book.port: book for book in parse_books(_fetch(control))}
        return Run(case.name, policy, repeat, self._figures(case, traces, lanes, servers, books))

    def _figures(
        self,
        case: Case,
        traces: Sequence[Trace],
        lanes: Sequence[Lane],
        servers: Sequence[Sequence[int]],
        books: dict[int, Books],
    ) -> Figures:
        by_lane = [[books[port] for port in ports] for ports in servers]
        return figures(
            case,
            traces,
            [lane.asked for lane in lanes],
            by_lane,
            seconds=self._options.seconds,
            warm_up_s=self._options.warm_up_s,
        )

    def _start_origin(self, case: Case, servers: Sequence[Sequence[int]], control: int, folder: Path) -> Process:
        specs = [
            Spec(port, case.slots, speed, case.fail_status if number < case.failing else 0)
            for ports in servers
            for number, (port, speed) in enumerate(zip(ports, case.speeds, strict=True))
        ]
        given = json.dumps({"servers": [dataclasses.asdict(spec) for spec in specs], "control": control})
        argv = [sys.executable, "-m", "benchmarks.balancing.origin", given]
        origin = Process("the model servers", argv, set(self._placement.load), folder / "origin.stderr")
        try:
            origin.wait_listening(control)
        except BenchmarkError:
            origin.stop()
            raise
        return origin


def describe(run: Run) -> str:
    """One line for whoever watches."""
    f = run.figures
    return (
        f"{run.case} #{run.repeat} {run.policy}: mean {f.mean_ms:.0f} ms, p99 {f.p99_ms:.0f} ms, "
        f"failed {f.failed:.2%} ({f.failures or '-'}), goodput {f.goodput:.3f}, "
        f"at once {f.most_at_once:.0f}, attempts {f.attempts:.2f}, "
        f"idle wait {f.idle_wait_ms:.2f} ms, x ideal {f.ideal_mean:.3f} {f.ideal_p99:.3f}, late {f.late_ms:.0f} ms"
    )


def _command(policy: str, folder: Path, text: str) -> list[str]:
    if POLICIES[policy].program == "haproxy":
        config = folder / "haproxy.cfg"
        config.write_text(text)
        return [find_program("haproxy"), "-db", "-f", str(config)]
    config = folder / "lbproxy.yaml"
    config.write_text(text)
    return [sys.executable, "-P", "-m", "lbproxy", "--config", str(config)]


def _fetch(port: int) -> bytes:
    """Everything that the control port of the model servers has to say."""
    with socket.create_connection(("127.0.0.1", port), timeout=_REPORT_LIMIT_S) as sock:
        sock.sendall(b"report\n")
        parts = []
        while data := sock.recv(1 << 20):
            parts.append(data)
    return b"".join(parts)
