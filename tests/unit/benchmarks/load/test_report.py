"""The report: tables, notes and JSON."""

import json

from benchmarks.load.environment import Environment
from benchmarks.load.report import render_json, render_markdown, table
from benchmarks.load.results import Run, summarise
from benchmarks.load.runner import Options, Results

OPTIONS = Options(("http_small",), "lbproxy", ("haproxy",), rounds=1, seconds=4, connections=32)
ENVIRONMENT = Environment(
    date="2030-01-02 03:04 UTC",
    cpu="Some CPU",
    cores=2,
    proxy_core=1,
    kernel="6.1.0",
    versions={"lbproxy": "0.1.0", "haproxy": "2.6.12"},
    commit="abc1234+",
)


def a_run(target: str, cpu_us: float, others: float = 0.0) -> Run:
    return Run("http_small", target, 0, 1000, 50_000.0, 430, 1210, cpu_us, 0.97, others, 20_480)


def results(others: float = 0.0) -> Results:
    runs = [a_run("lbproxy", 18.0), a_run("haproxy", 15.0, others)]
    return Results(runs, [summarise([run], idle_rss_kib=10_240) for run in runs], ["haproxy was old"])


def test_tables_line_up_and_numbers_are_right_aligned() -> None:
    assert table(("a", "bb", "c"), [("xxx", "y", "10"), ("x", "y", "5")]) == (
        "| a   | bb |  c |\n| --- | -- | -: |\n| xxx | y  | 10 |\n| x   | y  |  5 |"
    )


def test_the_report_says_where_when_and_with_what() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results())
    assert "2030-01-02 03:04 UTC, commit abc1234+. Some CPU, 2 cores, Linux 6.1.0." in text
    assert "lbproxy 0.1.0, haproxy 2.6.12" in text
    assert "32 connections, 4 s per run, 1 round; medians" in text


def test_the_report_holds_numbers_ratios_and_notes() -> None:
    text = render_markdown(OPTIONS, ENVIRONMENT, results())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (numbers,) = [row for row in rows if row[:2] == ["http_small", "lbproxy"]]
    assert numbers == ["http_small", "lbproxy", "50,000", "0.43", "1.21", "18.0", "97%", "10.0", "20.0"]
    assert ["http_small", "lbproxy / haproxy", "1.20 (1.20-1.20)", "1.00 (1.00-1.00)"] in rows
    assert "- haproxy was old." in text
    assert "disturbed" not in text


def test_runs_that_others_disturbed_are_named() -> None:
    assert "http_small, haproxy: disturbed; others used up to 12%" in render_markdown(
        OPTIONS, ENVIRONMENT, results(others=0.12)
    )


def test_json_holds_every_run_and_the_ratios() -> None:
    document = json.loads(render_json(OPTIONS, ENVIRONMENT, results()))
    assert [run["target"] for run in document["runs"]] == ["lbproxy", "haproxy"]
    assert {ratio["metric"]: ratio["median"] for ratio in document["ratios"]} == {"cpu_us": 1.2, "requests_per_s": 1.0}
    assert document["environment"]["cpu"] == "Some CPU"


def test_the_price_of_protection_is_said_where_it_was_measured() -> None:
    found = results()
    assert "protects" not in render_markdown(OPTIONS, ENVIRONMENT, found)
    found.runs += [a_run("lbproxy_full", 18.5), a_run("lbproxy_bare", 17.75)]
    assert "costs +0.8 us (+0.8 to +0.8) per small request" in render_markdown(OPTIONS, ENVIRONMENT, found)
