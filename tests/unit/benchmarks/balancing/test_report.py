"""The report: verdicts, figures, JSON."""

import json
from dataclasses import replace

from benchmarks.balancing.cases import CASES, Check
from benchmarks.balancing.measures import Figures, Run, Verdict
from benchmarks.balancing.report import render_json, render_markdown, spread
from benchmarks.balancing.runner import Options, Results
from benchmarks.load.environment import Environment

OPTIONS = Options(("slots_1",), ("lbproxy_slots",), repeats=2, seconds=10.0, warm_up_s=2.0)
ENVIRONMENT = Environment("2030-01-02 03:04 UTC", "Some CPU", 2, 1, "6.1.0", {"lbproxy": "0.1.0"}, "abc1234")
FIGURES = Figures(100, 200.0, 100.0, 800.0, 0.0, 0.9, 1.0, 1.0, 0.5, 3.0, 1.01, 1.02)


def results() -> Results:
    met = Verdict("slots_1", Check("is small", "p99_ms", "lbproxy_slots", at_most=1.0), 0.7, 0.6, 0.8)
    missed = Verdict("slots_1", Check("is tiny", "p99_ms", "lbproxy_slots", at_most=0.5, is_worst=True), 0.8, 0.6, 0.8)
    runs = [Run("slots_1", "lbproxy_slots", number, replace(FIGURES, p99_ms=800.0 + number)) for number in range(2)]
    return Results(runs, [met, missed], ["it rained"])


def test_the_report_says_what_was_met_and_what_was_missed() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["slots_1", "is small", "0.7 (0.6-0.8)", "met"] in rows
    assert ["slots_1", "is tiny", "worst 0.8 (0.6-0.8)", "MISSED"] in rows
    (figures,) = [row for row in rows if row[:2] == ["slots_1", "lbproxy_slots"]]
    assert figures[2:5] == ["200 (200-200)", "800 (800-801)", "1.02 (1.02-1.02)"]
    assert "2 repeats" in text and "- it rained." in text and CASES["slots_1"].title in text


def test_json_is_json() -> None:
    document = json.loads(render_json(OPTIONS, ENVIRONMENT, results()))
    assert [verdict["is_met"] for verdict in document["verdicts"]] == [True, False]
    assert document["verdicts"][0]["check"]["at_least"] is None
    assert len(document["runs"]) == 2 and document["notes"] == ["it rained"]


def test_one_value_has_no_range() -> None:
    assert (spread([3.0], "{:.1f}"), spread([3.0, 1.0, 2.0], "{:.0f}")) == ("3.0", "2 (1-3)")
