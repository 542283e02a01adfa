"""What a benchmark yields: runs, and the sums that turn them into a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.load.procfs import CoreTime
from benchmarks.load.wrk import Load


@dataclass(frozen=True, slots=True)
class Run:
    """One target under one case in one round.

    cpu_us: CPU microseconds per request of all the target's processes. busy: their share of one core during the run
    (near 1: the target set the pace; well below: the load generator or the backend did). others: share of the target's
    core that was used by someone else or taken by the hypervisor. rss_kib: after the run.
    """

    case: str
    target: str
    round: int
    requests: int
    requests_per_s: float
    p50_us: int
    p99_us: int
    cpu_us: float
    busy: float
    others: float
    rss_kib: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds of one target under one case; `others` is the worst round."""

    case: str
    target: str
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    busy: float
    others: float
    idle_rss_kib: int
    rss_kib: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Subject divided by peer, taken within each round: median and range over the rounds."""

    case: str
    subject: str
    peer: str
    metric: str
    median: float
    low: float
    high: float


def make_run(
    case: str,
    target: str,
    number: int,
    load: Load,
    *,
    cpu_s: float,
    wall_s: float,
    core: tuple[CoreTime, CoreTime],
    rss_kib: int,
) -> Run:
    """Put one run together. cpu_s and wall_s cover the whole life of wrk; core is before and after it."""
    return Run(
        case=case,
        target=target,
        round=number,
        requests=load.requests,
        requests_per_s=load.requests / (load.duration_us / 1e6),
        p50_us=load.p50_us,
        p99_us=load.p99_us,
        cpu_us=cpu_s * 1e6 / load.requests,
        busy=cpu_s / wall_s,
        others=others_share(core[0], core[1], cpu_s / wall_s),
        rss_kib=rss_kib,
    )


def others_share(before: CoreTime, after: CoreTime, busy: float) -> float:
    """Share of a core's time that went neither to the target (its share is `busy`) nor to idling; at least 0."""
    total = sum(late - early for early, late in zip(_parts(before), _parts(after), strict=True))
    if total <= 0:
        return 0.0
    used = total - (after.idle - before.idle)
    return max(0.0, used / total - busy)


def rotated(targets: Sequence[str], number: int) -> list[str]:
    """The order of round `number`: each target comes first, second, ... equally often over len(targets) rounds."""
    if not targets:
        return []
    start = number % len(targets)
    return [*targets[start:], *targets[:start]]


def summarise(runs: Sequence[Run], idle_rss_kib: int) -> Summary:
    """Medians over the runs of one target under one case."""
    return Summary(
        case=runs[0].case,
        target=runs[0].target,
        requests_per_s=median(run.requests_per_s for run in runs),
        p50_us=median(run.p50_us for run in runs),
        p99_us=median(run.p99_us for run in runs),
        cpu_us=median(run.cpu_us for run in runs),
        busy=median(run.busy for run in runs),
        others=max(run.others for run in runs),
        idle_rss_kib=idle_rss_kib,
        rss_kib=max(run.rss_kib for run in runs),
    )


def ratios(runs: Sequence[Run], subject: str) -> list[Ratio]:
    """Subject over each peer for CPU per request and requests/s, of the runs of one case."""
    by_target: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_target.setdefault(run.target, {})[run.round] = run
    mine = by_target.pop(subject, {})
    found = []
    for peer, theirs in by_target.items():
        pairs = [(mine[number], theirs[number]) for number in sorted(mine.keys() & theirs.keys())]
        if not pairs:
            continue
        for metric, values in (
            ("cpu_us", [ours.cpu_us / other.cpu_us for ours, other in pairs]),
            ("requests_per_s", [ours.requests_per_s / other.requests_per_s for ours, other in pairs]),
        ):
            case = pairs[0][0].case
            found.append(Ratio(case, subject, peer, metric, median(values), min(values), max(values)))
    return found


def differences(runs: Sequence[Run], one: str, other: str) -> list[float]:
    """CPU microseconds per request of `one` less those of `other`, within each round of one case."""
    by = {(run.target, run.round): run.cpu_us for run in runs}
    return [
        cpu_us - by[other, number] for (target, number), cpu_us in by.items() if target == one and (other, number) in by
    ]


def _parts(core: CoreTime) -> tuple[int, int, int]:
    return core.busy, core.idle, core.stolen
