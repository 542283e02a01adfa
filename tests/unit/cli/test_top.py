"""Which messages become pages, and how the command ends."""

from __future__ import annotations

import time

import pytest

from lbproxy import cli
from tests.support.event_scripts import Streams, lost

Capture = pytest.CaptureFixture[str]
STATE = {"version": "1.2.3", "pools": [{"name": "p", "usable": 1, "servers": [{"name": "a", "state": "up"}]}]}


def rates(t: float) -> tuple[str, object]:
    return "rates", {"t": t, "pools": {}, "servers": {}}


def test_once_is_one_page_with_rates_that_somebody_watched(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Streams(monkeypatch, [("state", STATE), rates(1.0), rates(2.0), ("error", "not reached")])
    assert cli.main(["top", "--once"]) == 0
    assert capsys.readouterr().out.count("lbproxy 1.2.3: ready") == 1


def test_nobody_to_ask_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for words in (["--once"], ["--plain"], []):
        Streams(monkeypatch, [lost("nothing listens")])
        assert cli.main(["top", *words]) == 1
        assert capsys.readouterr().err == "lbproxy top: nothing listens\n"


def test_once_says_that_lbproxy_stops(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Streams(monkeypatch, [("state", STATE)])
    assert cli.main(["top", "--once"]) == 1
    assert capsys.readouterr().err == "lbproxy top: 127.0.0.1:8404 is stopping\n"


def test_a_pipe_gets_one_page_after_the_other(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ticks = iter((10.0, 11.0, 12.0, 13.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    Streams(monkeypatch, [rates(1.0), rates(2.0), rates(3.0), rates(4.0), ("interrupt", None)])
    assert cli.main(["top", "--interval", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("lbproxy None") == 2, "the first and the third"
    assert "\x1b" not in out
