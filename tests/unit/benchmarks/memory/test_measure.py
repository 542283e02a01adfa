"""From what two looks at a process gave to bytes per connection."""

from __future__ import annotations

import json
import resource

import pytest

from benchmarks.load.environment import Environment
from benchmarks.load.errors import BenchmarkError
from benchmarks.memory.__main__ import make_parser
from benchmarks.memory.crowd import HELD, IDLE, request
from benchmarks.memory.measure import Options, Results, Run, raise_file_limit, sockets, summarise
from benchmarks.memory.report import render_json, render_markdown
from lbproxy.protocol.http1 import parse_request_head

ENVIRONMENT = Environment("2030-01-02 03:04 UTC", "Some CPU", 2, 1, "6.1.0", {"lbproxy": "0.1.0"}, "abc1234")


def run(case: str, target: str, number: int, growth_kib: int) -> Run:
    return Run(case, target, number, 2000, 40_000, 40_000 + growth_kib)


def test_growth_is_divided_by_the_connections_that_were_added() -> None:
    assert run("idle", "lbproxy", 0, 2000).each_bytes == 1024.0
    summary = summarise([run("idle", "lbproxy", number, growth) for number, growth in enumerate((4000, 2000, 3000))])
    assert (summary.each_bytes, summary.low_bytes, summary.high_bytes) == (1536.0, 1024.0, 2048.0)
    assert (summary.before_kib, summary.after_kib) == (40_000, 43_000)


def test_rows_come_by_case_and_then_in_the_order_of_the_first_round() -> None:
    results = Results(
        [
            run("active", "lbproxy", 0, 8000),
            run("active", "haproxy", 0, 9000),
            run("idle", "lbproxy", 0, 4000),
            run("active", "haproxy", 1, 9000),
            run("active", "lbproxy", 1, 9000),
        ]
    )
    text = render_markdown(Options(("lbproxy", "haproxy"), 2000, 2), ENVIRONMENT, results)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] != "| -"]
    assert [row for row in rows if row[0] in ("idle", "active")] == [
        ["idle", "lbproxy", "2.00", "2.00-2.00", "39.1", "43.0"],
        ["active", "lbproxy", "4.25", "4.00-4.50", "39.1", "47.4"],
        ["active", "haproxy", "4.50", "4.50-4.50", "39.1", "47.9"],
    ]
    assert "2,000 connections" in text and "2 rounds" in text and "commit abc1234" in text


def test_json_is_json() -> None:
    results = Results([run("idle", "lbproxy", 0, 4000)])
    document = json.loads(render_json(Options(("lbproxy",), 2000, 1), ENVIRONMENT, results))
    assert document["summaries"][0]["each_bytes"] == 2048.0
    assert document["runs"][0]["after_kib"] == 44_000


@pytest.mark.parametrize("path", [IDLE, HELD])
def test_what_clients_send_is_a_request(path: str) -> None:
    raw, _, body = request(path).partition(b"\r\n\r\n")
    head = parse_request_head(raw + b"\r\n\r\n", max_fields=100)
    assert (head.method, head.content_length) == ("POST", len(body))


def test_descriptors_that_may_not_be_had_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append((what, limits)))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    with pytest.raises(BenchmarkError, match=f"{sockets(5000)} descriptors are needed and at most 4096"):
        raise_file_limit(sockets(5000))
    raise_file_limit(1024)
    assert asked == []
    raise_file_limit(4000)
    assert asked == [(resource.RLIMIT_NOFILE, (4000, 4096))]
    assert sockets(5000) > 2 * 5000


def test_a_few_thousand_connections_by_default() -> None:
    args = make_parser().parse_args([])
    assert (args.targets, args.connections, args.rounds) == (("lbproxy", "haproxy"), 5000, 3)
