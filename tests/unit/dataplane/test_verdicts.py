"""What an answer says about its server."""

from __future__ import annotations

import pytest

from lbproxy import errors
from lbproxy.dataplane.verdicts import STILL_WORKING, outcome_of, plural_of, retry_after_s
from lbproxy.domain.pool import Outcome
from lbproxy.protocol.http1 import ResponseHead, parse_response_head

FAILURES = frozenset((502, 503, 504))


def answer(status: int, *lines: str) -> ResponseHead:
    raw = "\r\n".join((f"HTTP/1.1 {status} X", *lines, "", "")).encode()
    return parse_response_head(raw, max_fields=20)


@pytest.mark.parametrize(
    ("status", "lines", "outcome", "penalty_s"),
    [
        (200, (), Outcome.SUCCESS, 0.0),
        (404, (), Outcome.SUCCESS, 0.0),
        (500, (), Outcome.ERROR, 0.0),  # a bad input makes every server answer 500
        (502, (), Outcome.FAILURE, 0.0),
        (503, (), Outcome.FAILURE, 0.0),
        (503, ("Retry-After: 7",), Outcome.PUSH_BACK, 7.0),
        (429, (), Outcome.PUSH_BACK, 0.0),
        (429, ("Retry-After: 2",), Outcome.PUSH_BACK, 2.0),
    ],
)
def test_outcomes(status: int, lines: tuple[str, ...], outcome: Outcome, penalty_s: float) -> None:
    assert outcome_of(answer(status, *lines), FAILURES)[:2] == (outcome, penalty_s)


def test_which_statuses_are_failures_is_the_configs_business() -> None:
    assert outcome_of(answer(500), frozenset((500,)))[0] is Outcome.FAILURE
    assert outcome_of(answer(502), frozenset())[0] is Outcome.ERROR
    assert outcome_of(answer(502), FAILURES)[2] == "answers 502"


@pytest.mark.parametrize(
    ("value", "seconds"), [("5", 5.0), ("86400", 300.0), ("-1", None), ("1e3", None), ("Mon, 23 Nov 2026", None)]
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s(answer(503, f"retry-after: {value}")) == seconds


def test_every_fault_has_a_plural() -> None:
    assert plural_of(errors.RESET) == "resets"
    assert all(plural_of(fault) for fault in errors.FAULTS.values())


def test_after_a_time_out_the_server_may_still_be_at_work() -> None:
    assert errors.RESPONSE_TIMEOUT in STILL_WORKING and errors.RESET not in STILL_WORKING
