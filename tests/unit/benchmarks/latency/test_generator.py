"""What the load generator sends."""

from __future__ import annotations

import json
from dataclasses import asdict

from benchmarks.latency.generator import Outcome, parse_outcome, prepare
from benchmarks.latency.schedule import Figures
from benchmarks.traffic import Traffic
from lbproxy.protocol.http1 import parse_request_head


def test_each_request_has_an_id_of_its_own() -> None:
    pieces = prepare(Traffic(7), "run-", 3)
    whole = [b"%b%08x%b" % (before, number, after) for number, (before, after) in enumerate(pieces)]
    for number, request in enumerate(whole):
        raw, _, body = request.partition(b"\r\n\r\n")
        assert parse_request_head(raw + b"\r\n\r\n", max_fields=100).content_length == len(body)
        assert b"\r\nX-Request-ID: run-%08x\r\n" % number in raw
    assert len({before for before, _ in pieces}) == 3


def test_what_it_prints_is_read_back() -> None:
    outcome = Outcome(Figures(10, 1.0, 2.0, 3.0, 4.0, 0.5), 1000.0, 0.1, 0.25, 0.5, 8.0)
    assert parse_outcome(json.dumps(asdict(outcome))) == outcome
