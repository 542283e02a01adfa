"""Results as text: Markdown, which also reads well in a terminal, and JSON. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from statistics import median

from benchmarks.balancing.cases import CASES
from benchmarks.balancing.measures import Run, Verdict
from benchmarks.balancing.runner import Options, Results
from benchmarks.load.environment import Environment
from benchmarks.load.report import table


def render_markdown(options: Options, environment: Environment, results: Results) -> str:
    parts = [
        _render_header(options, environment),
        _render_verdicts(results.verdicts),
        _render_figures(results.runs),
        "\n".join(
            [f"- {name}: {CASES[name].title}." for name in options.cases] + [f"- {note}." for note in results.notes]
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_json(options: Options, environment: Environment, results: Results) -> str:
    document = {
        "environment": dataclasses.asdict(environment),
        "options": dataclasses.asdict(options),
        "runs": [dataclasses.asdict(run) for run in results.runs],
        "notes": results.notes,
        "verdicts": [{**dataclasses.asdict(verdict), "is_met": verdict.is_met} for verdict in results.verdicts],
    }
    # Bounds that are not set are infinite, which JSON does not know.
    return json.dumps(document, indent=2).replace("-Infinity", "null").replace("Infinity", "null") + "\n"


def _render_header(options: Options, environment: Environment) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment.versions.items())
    commit = f", commit {environment.commit}" if environment.commit else ""
    repeats = f"{options.repeats} repeat{'s' if options.repeats > 1 else ''}"
    return (
        f"{environment.date}{commit}. {environment.cpu}, {environment.cores} cores, Linux {environment.kernel}. "
        f"{versions}.\nTraces of {options.seconds:g} s, of which the first {options.warm_up_s:g} s do not count; "
        f"{repeats}; median (range)."
    )


def _render_verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    rows = [
        (
            verdict.case,
            verdict.check.text,
            f"{'worst ' if verdict.check.is_worst else ''}{verdict.value:.3g} ({verdict.low:.3g}-{verdict.high:.3g})",
            "met" if verdict.is_met else "MISSED",
        )
        for verdict in verdicts
    ]
    return table(("case", "what must be", "measured", ""), rows)


def _render_figures(runs: Sequence[Run]) -> str:
    head = ("case", "policy", "mean ms", "p99 ms", "p99 / ideal", "failed", "goodput", "at once", "attempts")
    rows = []
    for case, policy in dict.fromkeys((run.case, run.policy) for run in runs):
        these = [run.figures for run in runs if (run.case, run.policy) == (case, policy)]
        rows.append(
            (
                case,
                policy,
                spread([f.mean_ms for f in these], "{:.0f}"),
                spread([f.p99_ms for f in these], "{:.0f}"),
                spread([f.ideal_p99 for f in these], "{:.2f}"),
                f"{max(f.failed for f in these):.2%}",
                spread([f.goodput for f in these], "{:.2f}"),
                f"{max(f.most_at_once for f in these):.0f}",
                f"{max(f.attempts for f in these):.2f}",
            )
        )
    return table(head, rows)


def spread(values: Sequence[float], form: str) -> str:
    """Median and range, or the one value."""
    middle = form.format(median(values))
    return middle if len(values) == 1 else f"{middle} ({form.format(min(values))}-{form.format(max(values))})"
