"""Results as Markdown and JSON. Pure."""

from __future__ import annotations

import dataclasses
import json

from benchmarks.load.environment import Environment
from benchmarks.load.report import render_where, table
from benchmarks.memory.measure import CASES, Options, Results


def render_markdown(options: Options, environment: Environment, results: Results) -> str:
    rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''}"
    head = (
        f"{render_where(environment)}\n"
        f"Growth of the resident memory (PSS) with {options.connections:,} connections more, divided by them; a new "
        f"process each time, {rounds}, medians."
    )
    rows = [
        (
            summary.case,
            summary.target,
            f"{summary.each_bytes / 1024:.2f}",
            f"{summary.low_bytes / 1024:.2f}-{summary.high_bytes / 1024:.2f}",
            f"{summary.before_kib / 1024:.1f}",
            f"{summary.after_kib / 1024:.1f}",
        )
        for summary in results.summaries
    ]
    numbers = table(("memory", "proxy", "KiB each", "range", "PSS MiB before", "with them"), rows)
    notes = "\n".join(f"- {name}: {meaning}." for name, (_, meaning) in CASES.items())
    return f"{head}\n\n{numbers}\n\n{notes}\n- What the kernel holds for sockets is not in it.\n"


def render_json(options: Options, environment: Environment, results: Results) -> str:
    document = {
        "environment": dataclasses.asdict(environment),
        "options": dataclasses.asdict(options),
        "runs": [dataclasses.asdict(run) for run in results.runs],
        "summaries": [dataclasses.asdict(summary) for summary in results.summaries],
    }
    return json.dumps(document, indent=2) + "\n"
