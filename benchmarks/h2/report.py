"""Results as Markdown and JSON. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.h2.cases import CASES
from benchmarks.h2.runner import TARGETS, Options, Results
from benchmarks.load.environment import Environment
from benchmarks.load.report import DISTURBED, render_where, table
from benchmarks.load.results import Ratio, Run, ratios


def all_ratios(options: Options, results: Results) -> list[Ratio]:
    """lbproxy over HAProxy, in the order of the cases."""
    return [
        ratio
        for case in options.cases
        for ratio in ratios([run for run in results.runs if run.case == case], TARGETS[0])
    ]


def render_markdown(options: Options, environment: Environment, results: Results) -> str:
    rows = [
        (
            summary.case,
            summary.target,
            f"{summary.requests_per_s:,.0f}",
            f"{summary.p50_us / 1000:.2f}",
            f"{summary.p99_us / 1000:.2f}",
            f"{summary.cpu_us:.1f}",
            f"{summary.busy:.0%}",
        )
        for summary in results.summaries
    ]
    by_case: dict[str, dict[str, str]] = {}
    for ratio in all_ratios(options, results):
        text = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        by_case.setdefault(ratio.case, {})[ratio.metric] = text
    compared = [(case, "lbproxy / haproxy", by["cpu_us"], by["requests_per_s"]) for case, by in by_case.items()]
    lines = [f"- {name}: {CASES[name].title}." for name in options.cases]
    lines += [
        f"- {case}, {target}: each server had {min(parts):.1%} to {max(parts):.1%}."
        for (case, target), parts in results.shares.items()
        if case.startswith("grpc")
    ]
    lines += _paced_lines(results.paced)
    lines += [
        f"- {summary.case}, {summary.target}: disturbed; others used up to {summary.others:.0%} of the proxy's core."
        for summary in results.summaries
        if summary.others > DISTURBED
    ]
    return "\n\n".join(
        (
            f"{render_where(environment)}\nEach proxy alone on core {environment.proxy_core}, {options.seconds} s per "
            f"run, {options.rounds} round{'s' if options.rounds > 1 else ''}; medians.",
            table(("case", "proxy", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "core"), rows),
            table(("case", "ratio, median (range)", "CPU per request", "requests/s"), compared),
            "\n".join(lines) + "\n",
        )
    )


def _paced_lines(paced: Sequence[Run]) -> list[str]:
    """Of each case that was paced: the medians of p50 and p99, and the ratio of the p99s of each round."""
    found = []
    for case in dict.fromkeys(run.case for run in paced):
        runs = [run for run in paced if run.case == case]
        said = [
            f"{name} p50 {_median_ms(run.p50_us for run in its)}, p99 {_median_ms(run.p99_us for run in its)} ms"
            for name in TARGETS
            if (its := [run for run in runs if run.target == name])
        ]
        by_round = [
            next(run.p99_us for run in runs if run.round == number and run.target == TARGETS[0])
            / next(run.p99_us for run in runs if run.round == number and run.target == TARGETS[1])
            for number in sorted({run.round for run in runs})
        ]
        rate = median(run.requests_per_s for run in runs)
        found.append(
            f"- {case} in an open loop at {rate:,.0f} calls a second, half of HAProxy's capacity: {'; '.join(said)}; "
            f"ratio of p99 {median(by_round):.2f} ({min(by_round):.2f}-{max(by_round):.2f})."
        )
    return found


def _median_ms(values_us: Iterable[float]) -> str:
    return f"{median(values_us) / 1000:.2f}"


def render_json(options: Options, environment: Environment, results: Results) -> str:
    document = {
        "environment": dataclasses.asdict(environment),
        "options": dataclasses.asdict(options),
        "runs": [dataclasses.asdict(run) for run in results.runs],
        "paced": [dataclasses.asdict(run) for run in results.paced],
        "summaries": [dataclasses.asdict(summary) for summary in results.summaries],
        "ratios": [dataclasses.asdict(ratio) for ratio in all_ratios(options, results)],
        "shares": {f"{case} {target}": parts for (case, target), parts in results.shares.items()},
    }
    return json.dumps(document, indent=2) + "\n"
