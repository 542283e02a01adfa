"""What a run of the benchmark of HTTP/2 says."""

from __future__ import annotations

import json
from dataclasses import replace

from benchmarks.h2.report import render_json, render_markdown
from benchmarks.h2.runner import Options, Results
from benchmarks.load.environment import Environment
from benchmarks.load.results import Run, summarise

WHERE = Environment("2026-01-01 00:00 UTC", "a processor", 2, 1, "6.1", {"lbproxy": "1"}, "abc")


def run(target: str, number: int, cpu_us: float) -> Run:
    return Run("grpc_1x32", target, number, 1000, 500.0, 900, 2000, cpu_us, 0.5, 0.01, 40_000)


def made() -> tuple[Options, Results]:
    runs = [run("lbproxy", 0, 12.0), run("haproxy", 0, 10.0), run("lbproxy", 1, 11.0), run("haproxy", 1, 10.0)]
    summaries = [summarise([one for one in runs if one.target == name], 1) for name in ("lbproxy", "haproxy")]
    return Options(("grpc_1x32",), 2, 4), Results(runs, summaries, {("grpc_1x32", "lbproxy"): [0.33, 0.34, 0.33]})


def test_ratios_and_shares_are_told() -> None:
    options, results = made()
    text = render_markdown(options, WHERE, results)
    assert "1.15 (1.10-1.20)" in text
    assert "grpc_1x32, lbproxy: each server had 33.0% to 34.0%" in text
    assert "disturbed" not in text


def test_json_has_all_of_it() -> None:
    options, results = made()
    found = json.loads(render_json(options, WHERE, results))
    assert len(found["runs"]) == 4 and found["shares"] == {"grpc_1x32 lbproxy": [0.33, 0.34, 0.33]}


def test_p99_at_half_of_haproxys_capacity_is_compared_by_rounds() -> None:
    options, results = made()
    paced = [(0, "lbproxy", 300), (0, "haproxy", 200), (1, "haproxy", 100), (1, "lbproxy", 120)]
    results.paced = [replace(run(target, number, 9.0), p99_us=p99_us) for number, target, p99_us in paced]
    text = render_markdown(options, WHERE, results)
    assert "at 500 calls a second" in text and "lbproxy p50 0.90, p99 0.21 ms; haproxy p50 0.90, p99 0.15 ms" in text
    assert "ratio of p99 1.35 (1.20-1.50)" in text
    assert len(json.loads(render_json(options, WHERE, results))["paced"]) == 4
