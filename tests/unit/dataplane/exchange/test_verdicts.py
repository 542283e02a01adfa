"""What an answer says about its server."""

from __future__ import annotations

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.verdicts import (
    BAD_ANSWERS,
    STILL_WORKING,
    has_retry_after,
    outcome_of,
    plural_of,
    request_key,
    retry_after_s,
)
from lbproxy.domain.lease import Outcome
from lbproxy.protocol.http1 import ResponseHead, parse_response_head

FAILURES = frozenset((502, 503, 504))
WALL = 1_795_000_000.0  # Wed, 18 Nov 2026 11:06:40 GMT


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
        (503, ("Retry-After: 0",), Outcome.PUSH_BACK, 0.0),
        (503, ("Retry-After: Wed, 18 Nov 2026 11:06:49 GMT",), Outcome.PUSH_BACK, 9.0),
        (503, ("Retry-After: Wed, 18 Nov 2026 11:06:00 GMT",), Outcome.PUSH_BACK, 0.0),
        (503, ("Retry-After: soon",), Outcome.PUSH_BACK, 0.0),
        (503, ("Retry-After:",), Outcome.PUSH_BACK, 0.0),
        (429, (), Outcome.PUSH_BACK, 0.0),
        (429, ("Retry-After: 2",), Outcome.PUSH_BACK, 2.0),
    ],
)
def test_outcomes(status: int, lines: tuple[str, ...], outcome: Outcome, penalty_s: float) -> None:
    assert outcome_of(answer(status, *lines), FAILURES, WALL)[:2] == (outcome, penalty_s)


def test_which_statuses_are_failures_is_the_configs_business() -> None:
    assert outcome_of(answer(500), frozenset((500,)), WALL)[0] is Outcome.FAILURE
    assert outcome_of(answer(502), frozenset(), WALL)[0] is Outcome.ERROR
    assert outcome_of(answer(502), FAILURES, WALL)[2] == "answers 502"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("0", 0.0),
        ("86400", 300.0),
        ("9" * 400, 300.0),
        ("Wed, 18 Nov 2026 11:07:00 GMT", 20.0),
        ("Wednesday, 18-Nov-26 11:07:00 GMT", 20.0),
        ("Wed Nov 18 11:07:00 2026", 20.0),
        ("Thu, 18 Nov 2027 11:07:00 GMT", 300.0),
        ("Wed, 18 Nov 2020 11:07:00 GMT", 0.0),
        ("-1", 0.0),
        ("1e3", 0.0),
        ("Mon, 23 Nov 2026", 0.0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after_s(answer(503, f"retry-after: {value}"), WALL) == seconds


def test_absent_is_not_unreadable() -> None:
    assert retry_after_s(answer(503), WALL) is None
    assert not has_retry_after(answer(503))
    assert has_retry_after(answer(503, "Retry-After: whenever"))


def test_every_fault_has_a_plural() -> None:
    assert plural_of(errors.RESET) == "resets"
    assert all(plural_of(fault) for fault in errors.FAULTS.values())


def test_after_a_time_out_the_server_may_still_be_at_work() -> None:
    assert errors.RESPONSE_TIMEOUT in STILL_WORKING and errors.RESET not in STILL_WORKING


def test_sorts_of_requests() -> None:
    """One client and one path are one sort: whoever finds a poisoned query can write it in many ways."""
    key = request_key("192.0.2.1", b"/echo?n=a%1bb")
    assert request_key("192.0.2.1", b"/echo?n=%00") == key
    assert request_key("::ffff:192.0.2.1", b"/echo") == key
    assert request_key("192.0.2.2", b"/echo?n=a%1bb") != key
    assert request_key("192.0.2.1", b"/other?n=a%1bb") != key
    assert request_key("2001:db8::1", b"/") == request_key("2001:db8::2", b"/"), "a host owns its /64"


def test_bad_answers_blame_the_server_and_leave_no_doubt_that_it_answered() -> None:
    assert all(fault.blames and fault.side is errors.Side.UPSTREAM for fault in BAD_ANSWERS)
    assert errors.CONNECT_REFUSED not in BAD_ANSWERS and errors.RESET not in BAD_ANSWERS
