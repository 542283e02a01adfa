import time

import pytest

from lbproxy.cli.changing import Target
from lbproxy.cli.top_page import COLUMNS, cells, page, seconds, share, span
from lbproxy.cli.top_view import Row, View

STATE: dict[str, object] = {
    "version": "1.2.3",
    "reason": None,
    "pools": [
        {
            "name": "predict",
            "usable": 1,
            "failing_open": False,
            "servers": [
                {
                    "name": "10.0.0.1:80",
                    "state": "up",
                    "health": "up",
                    "why": "answered 200",
                    "since": 61.0,
                    "inflight": 2,
                    "max_inflight": 4,
                    "latency": 0.0123,
                },
                {
                    "name": "10.0.0.2:80",
                    "state": "drain",
                    "health": "up",
                    "why": "drained by ci",
                    "since": None,
                    "inflight": 0,
                    "max_inflight": None,
                    "latency": 0.0,
                    "leaving": True,
                    "sources": {"admin": {"source": "live", "by": "ci"}},
                },
            ],
        }
    ],
    "recent": [{"t": 5.0, "text": "pool predict: server 10.0.0.2:80: admin: ready -> drain", "by": "ci"}],
}
RATES: dict[str, object] = {
    "t": 3600.0,
    "pools": {
        "predict": {
            "rps": 12.0,
            "error_ratio": 0.025,
            "p50": 0.012,
            "p99": 1.5,
            "p999": None,
            "saturation": 0.5,
            "slots": 4,
            "inflight": 2,
            "queue": 0,
        }
    },
    "servers": {"predict/10.0.0.1:80": {"rps": 12.0, "error_ratio": 0.025, "ttfb_p50": 0.01}},
}


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    monkeypatch.setattr(time, "localtime", time.gmtime)
    made = View(lambda: 100.0)
    made.take("state", STATE)
    return made


def test_a_page(view: View) -> None:
    view.take("rates", RATES)
    assert page(view) == (
        """\
lbproxy 1.2.3: ready  01:00:00
pool predict: 1 of 2 usable, 12.0 req/s, errors 2.5%, p50 12.0 ms p99 1.50 s p99.9 -, in flight 2/4 (50.0%), waiting 0

SERVER               STATE  SINCE  IN FLIGHT  REQ/S  ERRORS     TTFB  LATENCY  WHY
predict/10.0.0.1:80  up      61 s        2/4   12.0    2.5%  10.0 ms  12.3 ms
predict/10.0.0.2:80  drain      -          0      -       -        -        -  drained by ci; goes when it is idle

00:00:05  pool predict: server 10.0.0.2:80: admin: ready -> drain, by ci"""
    )


def test_who_set_a_state_is_told_where_the_reason_does_not_say_it(view: View) -> None:
    sources = {"admin": {"source": "live", "by": "ci"}}
    server = {"name": "a", "state": "maint", "why": "connection refused", "sources": sources}
    view.take("state", {"pools": [{"name": "p", "servers": [server]}]})
    assert page(view).splitlines()[-1].endswith("connection refused; set by ci")


def test_before_the_first_rates_there_are_none(view: View) -> None:
    assert page(view).splitlines()[:2] == ["lbproxy 1.2.3: ready", "pool predict: 1 of 2 usable"]


def test_a_narrow_terminal_cuts_lines(view: View) -> None:
    view.take("rates", RATES)
    lines = page(view, width=40).splitlines()
    assert max(map(len, lines)) == 40
    assert lines[1] == "pool predict: 1 of 2 usable, 12.0 req/s~"


def test_a_filter_that_fits_nothing_says_so(view: View) -> None:
    assert "no server" in page(view, wanted="nothing").splitlines()


def test_what_is_wrong_is_said(view: View) -> None:
    pool = {"name": "p", "usable": 0, "standby": 2, "failing_open": True, "servers": []}
    view.take("state", {"version": "1", "reason": "pool p has no usable server", "pools": [pool]})
    lines = page(view).splitlines()
    assert lines[:2] == ["lbproxy 1: pool p has no usable server", "pool p: 0 of 0 usable, 2 stand by, FAILS OPEN"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7200, "2 h"), (172800.0, "2 d"), (None, "-")]
)
def test_spans(value: object, text: str) -> None:
    assert span(value) == text


def test_times_and_shares() -> None:
    assert [seconds(value) for value in (None, 0.0, 0.0123, 1.0)] == ["-", "-", "12.3 ms", "1.00 s"]
    assert share(0.1234) == "12.3%"


@pytest.mark.parametrize(
    ("latency", "age", "shown"),
    [(0.0123, 59.0, "12.3 ms"), (0.0123, 300.0, "12.3 ms, 5 min ago"), (0.0, None, "-"), (0.0123, None, "12.3 ms")],
)
def test_a_latency_of_the_past_says_so(latency: float, age: float | None, shown: str) -> None:
    row = Row(Target("p", "a"), {"state": "up", "latency": latency, "latency_age": age}, {})
    assert cells(row)[COLUMNS.index("LATENCY")] == shown
