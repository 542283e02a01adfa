"""Results as Markdown and JSON. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from benchmarks.latency.measure import DIRECT, REFERENCE, Options, Results, ratios
from benchmarks.latency.schedule import MOST_OF_CEILING
from benchmarks.load.environment import Environment
from benchmarks.load.report import render_where, table

_SUBJECT = "lbproxy"
_LATE = 0.2  # of the p99 that was measured


def render_markdown(options: Options, environment: Environment, results: Results) -> str:
    parts = [
        _render_header(options, environment, results),
        _render_numbers(options, results),
        _render_ratios(options, results),
        "\n".join(f"- {note}" for note in notes(options, environment, results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_json(options: Options, environment: Environment, results: Results) -> str:
    document = {
        "environment": dataclasses.asdict(environment),
        "options": dataclasses.asdict(options),
        "results": dataclasses.asdict(results),
        "ratios": [dataclasses.asdict(ratio) for peer in _peers(options) for ratio in ratios(results, _SUBJECT, peer)],
        "notes": list(notes(options, environment, results)),
    }
    return json.dumps(document, indent=2) + "\n"


def _peers(options: Options) -> list[str]:
    return [name for name in options.targets if name != _SUBJECT] if _SUBJECT in options.targets else []


def _render_header(options: Options, environment: Environment, results: Results) -> str:
    return (
        f"{render_where(environment)}\n"
        f"Open loop: POSTs as in `http_real`, due at random times that are fixed before the run; latency counts from "
        f"the time at which a request was due. {REFERENCE} would have all of its core to do with "
        f"{results.capacity:,.0f} requests/s (CPU per request under wrk, which kept it "
        f"{results.capacity_busy:.0%} busy); offered are shares of that. {options.connections} connections, "
        f"{options.seconds:g} s per run, {options.rounds} round{'s' if options.rounds > 1 else ''}; medians."
    )


def _render_numbers(options: Options, results: Results) -> str:
    head = ("offered", "proxy", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "worst", "sent late p99")
    rows = []
    for offer in results.offers:
        for name in (DIRECT, *options.targets):
            mine = [run.figures for run in results.runs_of(offer, name)]
            times = (
                *(
                    results.middle(offer, name, lambda run, field=field: getattr(run.figures, field))  # type: ignore[misc]
                    for field in ("p50_us", "p99_us", "p999_us")
                ),
                max(figures.worst_us for figures in mine),
                results.middle(offer, name, lambda run: run.figures.late_p99_us),
            )
            rows.append(
                (
                    f"{offer.share:.0%}",
                    name,
                    f"{results.middle(offer, name, lambda run: run.requests_per_s):,.0f}",
                    *(f"{time_us / 1000:.2f}" for time_us in times),
                    f"{results.middle(offer, name, lambda run: run.proxy_busy):.0%}" if name != DIRECT else "",
                    f"{results.middle(offer, name, lambda run: run.load_busy):.0%}",
                )
            )
    return table((*head, "proxy's core", "load's"), rows)


def _render_ratios(options: Options, results: Results) -> str:
    cells: dict[tuple[str, str], list[str]] = {}
    shares = {f"{offer.wanted_share:.0%}": f"{offer.share:.0%}" for offer in results.offers}
    for peer in _peers(options):
        for ratio in ratios(results, _SUBJECT, peer):
            text = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
            cells.setdefault((shares[ratio.case], f"{ratio.subject} / {ratio.peer}"), []).append(text)
    if not cells:
        return ""
    head = ("offered", "ratio, median (range)", "p50", "p99", "p99.9")
    return table(head, [(*key, *texts) for key, texts in cells.items()])


def notes(options: Options, environment: Environment, results: Results) -> Iterator[str]:
    """What a reader must know about these numbers."""
    yield (
        f"The generator (one Python process) and the backend share {environment.cores - 1} "
        f"core{'s' if environment.cores > 2 else ''}; `direct` is both without a proxy, at most "
        f"{results.ceiling:,.0f} requests/s. Its time is in every latency."
    )
    reached = {offer.wanted_share for offer in results.offers if not offer.is_capped}
    for wanted in sorted(options.shares):
        if wanted in reached:
            continue
        most = MOST_OF_CEILING * results.ceiling
        yield (
            f"{wanted:.0%} would be {wanted * results.capacity:,.0f} requests/s, which this generator cannot offer "
            f"here: {most:,.0f} ({most / results.capacity:.0%}) is {MOST_OF_CEILING:.0%} of what it can, above which "
            "its own delays are what is measured. More cores help."
        )
    for offer in results.offers:
        for name in (DIRECT, *options.targets):
            runs = results.runs_of(offer, name)
            if most := max(run.unanswered for run in runs):
                yield (
                    f"{offer.share:.0%}, {name}: it does not keep up; up to {most:.0%} of the requests had no answer "
                    "when the run was over, so the latencies are what they had waited until then."
                )
            late = [run for run in runs if run.figures.late_p99_us > _LATE * run.figures.p99_us]
            if late:
                yield (
                    f"{offer.share:.0%}, {name}: in {len(late)} of {len(runs)} rounds the generator itself was late by "
                    f"more than {_LATE:.0%} of the p99; up to {max(run.waited for run in late):.1%} of the requests "
                    "waited for a connection."
                )
