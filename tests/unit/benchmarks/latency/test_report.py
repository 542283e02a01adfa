"""The report says what was offered, what came of it, and where the generator itself was the limit."""

from __future__ import annotations

import json
from dataclasses import replace

from benchmarks.latency.measure import Options, Results, Run, describe, ratios
from benchmarks.latency.report import render_json, render_markdown
from benchmarks.latency.schedule import Figures, Offer, offers
from benchmarks.load.environment import Environment

OPTIONS = Options(("lbproxy", "haproxy"), (0.5, 0.8), rounds=3, seconds=8.0, warm_up_s=1.0, connections=64)
ENVIRONMENT = Environment("2030-01-02 03:04 UTC", "Some CPU", 2, 1, "6.1.0", {"lbproxy": "0.1.0"}, "abc1234")


def run(target: str, offer: Offer, number: int, p99_us: float, late_us: float = 10.0) -> Run:
    figures = Figures(1000, 200.0, p99_us, 2 * p99_us, 9_000.0 + number, late_us)
    return Run(target, offer.wanted_share, offer.rate, number, figures, offer.rate, 0.0, 0.01, 0.4, 0.3, 0.6)


def results(capacity: float, ceiling: float, late_us: float = 10.0) -> Results:
    found = Results(capacity, 0.97, ceiling, offers(capacity, ceiling, OPTIONS.shares))
    for number in range(3):
        for offer in found.offers:
            found.runs += [
                run("direct", offer, number, 300.0),
                run("lbproxy", offer, number, 1_100.0 + 100 * number),
                run("haproxy", offer, number, 1_000.0, late_us),
            ]
    return found


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_each_proxy_has_a_row_for_each_rate() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results(10_000.0, 30_000.0))
    found = rows(text)
    assert ["50%", "direct", "5,000", "0.20", "0.30", "0.60", "9.00", "0.01", "", "60%"] in found
    assert ["50%", "lbproxy", "5,000", "0.20", "1.20", "2.40", "9.00", "0.01", "40%", "60%"] in found
    assert ["80%", "haproxy", "8,000", "0.20", "1.00", "2.00", "9.00", "0.01", "40%", "60%"] in found
    assert "10,000 requests/s" in text and "commit abc1234" in text and "3 rounds" in text
    assert "cannot offer" not in text and "was late" not in text


def test_ratios_are_taken_within_each_round() -> None:
    found = results(10_000.0, 30_000.0)
    p99 = [ratio for ratio in ratios(found, "lbproxy", "haproxy") if ratio.metric == "p99_us"]
    assert [(ratio.case, ratio.median, ratio.low, ratio.high) for ratio in p99] == [
        ("50%", 1.2, 1.1, 1.3),
        ("80%", 1.2, 1.1, 1.3),
    ]
    line = ["80%", "lbproxy / haproxy", "1.00 (1.00-1.00)", "1.20 (1.10-1.30)", "1.20 (1.10-1.30)"]
    assert line in rows(render_markdown(OPTIONS, ENVIRONMENT, found))


def test_a_rate_that_cannot_be_offered_is_said() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results(10_000.0, 10_000.0))
    assert ["70%", "haproxy", "7,000"] in [row[:3] for row in rows(text)]
    assert "80% would be 8,000 requests/s, which this generator cannot offer here: 7,000 (70%)" in text
    assert "50% would be" not in text


def test_a_late_generator_is_said() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results(10_000.0, 30_000.0, late_us=400.0))
    assert "50%, haproxy: in 3 of 3 rounds the generator itself was late by more than 20% of the p99" in text


def test_a_proxy_that_does_not_keep_up_is_said() -> None:
    found = results(10_000.0, 30_000.0)
    slow = next(run for run in found.runs_of(found.offers[1], "lbproxy"))
    found.runs[found.runs.index(slow)] = replace(slow, unanswered=0.3)
    text = render_markdown(OPTIONS, ENVIRONMENT, found)
    assert "80%, lbproxy: it does not keep up; up to 30% of the requests had no answer" in text
    assert text.count("does not keep up") == 1


def test_json_is_json() -> None:
    document = json.loads(render_json(OPTIONS, ENVIRONMENT, results(10_000.0, 10_000.0)))
    assert len(document["results"]["runs"]) == 18
    assert document["results"]["runs"][0]["figures"]["p99_us"] == 300.0
    assert {ratio["metric"] for ratio in document["ratios"]} == {"p50_us", "p99_us", "p999_us"}
    assert any("cannot offer" in note for note in document["notes"])


def test_progress_is_a_line() -> None:
    text = describe(run("lbproxy", Offer(0.5, 0.5, 5_000.0), 1, 1_100.0))
    assert text.startswith("5,000/s round 2 lbproxy: p50 0.20 ms, p99 1.10, p99.9 2.20")
