"""From what clients and servers noted to the figures of a run, and from runs to verdicts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.balancing.cases import Case, Check
from benchmarks.balancing.client import Asked
from benchmarks.balancing.ideal import central_queue
from benchmarks.balancing.origin import Books
from benchmarks.balancing.trace import Trace
from benchmarks.percentiles import percentile


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy under one case in one repeat. Requests of the warm-up count in most_at_once and attempts only.

    mean_ms, p50_ms, p99_ms: latency from the scheduled time; failures and clients that left count as `patience_s`.
    failed: share of requests with another answer than 200 or none, those aside whose client was impatient. goodput:
    200s within the patience as a share of what the servers could have done. most_at_once: requests at one server.
    attempts: requests that reached servers, per request sent. idle_wait_ms: time in which somebody waited while a slot
    was idle, per request; 0 where servers fail or clients leave. late_ms: how late the load generator was at the worst.
    ideal_mean, ideal_p99: this run divided by the ideal queue. failures: what the failed ones got, for people.
    """

    requests: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    failed: float
    goodput: float
    most_at_once: float
    attempts: float
    idle_wait_ms: float
    late_ms: float
    ideal_mean: float
    ideal_p99: float
    failures: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    case: str
    policy: str
    repeat: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check with what was measured: median, or the worst repeat, and the range."""

    case: str
    check: Check
    value: float
    low: float
    high: float

    @property
    def is_met(self) -> bool:
        return self.check.at_least <= self.value <= self.check.at_most


def figures(
    case: Case,
    traces: Sequence[Trace],
    asked: Sequence[Sequence[Asked]],
    books: Sequence[Sequence[Books]],
    *,
    seconds: float,
    warm_up_s: float,
) -> Figures:
    """traces, asked and books: one of each for every lane."""
    counted = [
        request
        for trace, lane in zip(traces, asked, strict=True)
        for arrival, request in zip(trace.arrivals, lane, strict=True)
        if arrival >= warm_up_s
    ]
    latencies = [latency_s(request, case.patience_s) for request in counted]
    ideal = [
        min(latency, case.patience_s)
        for trace in traces
        for arrival, latency in zip(trace.arrivals, central_queue(trace, case.speeds, case.slots), strict=True)
        if arrival >= warm_up_s
    ]
    good = sum(request.status == 200 and request.latency_s <= case.patience_s for request in counted)
    codes = Counter(request.status for request in counted if request.status != 200 and not request.gave_up)
    sent = sum(len(lane) for lane in asked)
    is_plain = not case.failing and not case.is_impatient
    waits = [idle_wait_s(lane, servers, case.slots) for lane, servers in zip(asked, books, strict=True) if is_plain]
    return Figures(
        requests=len(counted),
        mean_ms=1e3 * fmean(latencies),
        p50_ms=1e3 * percentile(latencies, 0.5),
        p99_ms=1e3 * percentile(latencies, 0.99),
        failed=codes.total() / len(counted),
        goodput=good / (len(traces) * case.capacity * (seconds - warm_up_s)),
        most_at_once=max(server.most_at_once for servers in books for server in servers),
        attempts=sum(len(server.visits) for servers in books for server in servers) / sent,
        idle_wait_ms=1e3 * sum(waits) / sent,
        late_ms=1e3 * max(request.sent - request.due for lane in asked for request in lane),
        ideal_mean=fmean(latencies) / fmean(ideal),
        ideal_p99=percentile(latencies, 0.99) / percentile(ideal, 0.99),
        failures=", ".join(f"{count} x {code or 'no answer'}" for code, count in sorted(codes.items())),
    )


def latency_s(request: Asked, patience_s: float) -> float:
    """A failure is no quick answer: it counts as the client's whole patience."""
    return min(request.latency_s, patience_s) if request.status == 200 else patience_s


def idle_wait_s(asked: Sequence[Asked], servers: Sequence[Books], slots: int) -> float:
    """Seconds in which a request was on its way to a server, or held back, while some server had a free slot.

    Each request contributes its way through the proxy even if nothing holds it back.
    """
    changes: list[tuple[float, int, int]] = []  # when, requests without a server, free slots
    for server in servers:
        present: list[tuple[float, int]] = []
        for visit in server.visits:
            changes += [(asked[visit.number].sent, 1, 0), (visit.arrived, -1, 0)]
            present += [(visit.arrived, 1), (visit.finished, -1)]
        changes += free_slots(sorted(present), slots)
    changes.sort()
    total = 0.0
    waiting, free, since = 0, slots * len(servers), 0.0
    for when, more_waiting, more_free in changes:
        if waiting > 0 and free > 0:
            total += when - since
        waiting, free, since = waiting + more_waiting, free + more_free, when
    return total


def free_slots(present: Sequence[tuple[float, int]], slots: int) -> list[tuple[float, int, int]]:
    """Changes of the free slots of one server from those of the number of its requests, which may exceed the slots."""
    changes = []
    here = 0
    for when, step in present:
        before, here = max(0, slots - here), here + step
        changes.append((when, 0, max(0, slots - here) - before))
    return changes


def judge(case: Case, runs: Sequence[Run]) -> list[Verdict]:
    """The checks of a case whose policies were run."""
    by = {(run.policy, run.repeat): run.figures for run in runs if run.case == case.name}
    verdicts = []
    for check in case.checks:
        values = [
            getattr(mine, check.metric) / (getattr(by[check.peer, repeat], check.metric) if check.peer else 1.0)
            for (policy, repeat), mine in by.items()
            if policy == check.policy and (not check.peer or (check.peer, repeat) in by)
        ]
        if values:
            worst = max(values) if check.at_most < float("inf") else min(values)
            value = worst if check.is_worst else median(values)
            verdicts.append(Verdict(case.name, check, value, min(values), max(values)))
    return verdicts
