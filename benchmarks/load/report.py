"""Results as text: one Markdown form, which also reads well in a terminal, and JSON. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from statistics import median

from benchmarks.load.cases import CASES
from benchmarks.load.environment import Environment
from benchmarks.load.results import Ratio, differences, ratios
from benchmarks.load.runner import Options, Results
from benchmarks.load.targets import BARE, FULL

DISTURBED = 0.05


def all_ratios(options: Options, results: Results) -> list[Ratio]:
    """Ratios of every case, in the order of the cases."""
    found = []
    for case in options.cases:
        found += ratios([run for run in results.runs if run.case == case], options.subject)
    return found


def render_markdown(options: Options, environment: Environment, results: Results) -> str:
    parts = [
        _render_header(options, environment),
        _render_numbers(results),
        _render_ratios(all_ratios(options, results)),
        _render_notes(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_json(options: Options, environment: Environment, results: Results) -> str:
    document = {
        "environment": dataclasses.asdict(environment),
        "options": dataclasses.asdict(options),
        "runs": [dataclasses.asdict(run) for run in results.runs],
        "summaries": [dataclasses.asdict(summary) for summary in results.summaries],
        "ratios": [dataclasses.asdict(ratio) for ratio in all_ratios(options, results)],
        "notes": results.notes,
    }
    return json.dumps(document, indent=2) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns padded to the same width; the first two columns are left-aligned."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])


def render_where(environment: Environment) -> str:
    """When, on what and with which versions: the first line of every report."""
    versions = ", ".join(f"{name} {number}" for name, number in environment.versions.items())
    commit = f", commit {environment.commit}" if environment.commit else ""
    return (
        f"{environment.date}{commit}. {environment.cpu}, {environment.cores} cores, Linux {environment.kernel}. "
        f"{versions}."
    )


def _render_header(options: Options, environment: Environment) -> str:
    return (
        f"{render_where(environment)}\n"
        f"Each proxy alone on core {environment.proxy_core}; {options.connections} connections, "
        f"{options.seconds} s per run, {options.rounds} round{'s' if options.rounds > 1 else ''}; medians."
    )


def _render_numbers(results: Results) -> str:
    head = ("case", "proxy", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "core", "RSS MiB idle", "after")
    rows = [
        (
            summary.case,
            summary.target,
            f"{summary.requests_per_s:,.0f}",
            f"{summary.p50_us / 1000:.2f}",
            f"{summary.p99_us / 1000:.2f}",
            f"{summary.cpu_us:.1f}",
            f"{summary.busy:.0%}",
            f"{summary.idle_rss_kib / 1024:.1f}",
            f"{summary.rss_kib / 1024:.1f}",
        )
        for summary in results.summaries
    ]
    return table(head, rows)


def _render_ratios(found: Sequence[Ratio]) -> str:
    """One row per case and peer: CPU per request (below 1 is better) and requests/s (above 1 is better)."""
    if not found:
        return ""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for ratio in found:
        text = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        cells.setdefault((ratio.case, f"{ratio.subject} / {ratio.peer}"), {})[ratio.metric] = text
    rows = [(case, pair, by["cpu_us"], by["requests_per_s"]) for (case, pair), by in cells.items()]
    return table(("case", "ratio, median (range)", "CPU per request", "requests/s"), rows)


def _render_notes(results: Results) -> str:
    used = dict.fromkeys(summary.case for summary in results.summaries)
    lines = [f"- {name}: {CASES[name].title}." for name in used]
    lines += [f"- {note}." for note in results.notes]
    if price := differences(results.runs, FULL, BARE):
        lines.append(
            f"- What protects requests (slots, queue, retries, breaker, total time-out) costs {median(price):+.1f} us "
            f"({min(price):+.1f} to {max(price):+.1f}) per small request: {FULL} less {BARE}, within each round."
        )
    lines += [
        f"- {summary.case}, {summary.target}: disturbed; others used up to {summary.others:.0%} of the proxy's core."
        for summary in results.summaries
        if summary.others > DISTURBED
    ]
    return "\n".join(lines)
