"""Answers of lbproxy's own: what they say, and what a route's edits do to them."""

from __future__ import annotations

import json
import re

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.own_answers import date_line, edited, http_date, local_answer, problem
from lbproxy.dataplane.runtime import Edits
from tests.support.prepared import prepared_of


@pytest.mark.parametrize("fault", errors.FAULTS.values(), ids=lambda fault: fault.word)
def test_every_fault_has_a_problem_document(fault: errors.Fault) -> None:
    fields, body = problem(fault, "what happened", "the-id", None)
    names = dict(fields)
    document = json.loads(body)
    assert document["type"] == f"urn:lbproxy:fault:{fault.word}" and document["request_id"] == "the-id"
    assert document["status"] == fault.status
    assert document["detail"] == f"What happened. {fault.hint}"
    assert names[b"Content-Type"] == b"application/problem+json"
    assert f'details="{fault.word}"'.encode() in names[b"Proxy-Status"]
    assert (names.get(b"Retry-After") == b"1") is (fault.status in (429, 503))
    assert (b"Allow" in names) is (fault.status == 405)


def test_the_detail_is_escaped_and_may_be_missing() -> None:
    _, body = problem(errors.NO_ROUTE, 'no route for "\x7f\n', "", None)
    assert json.loads(body)["detail"].startswith('No route for "\x7f\n. ')
    assert json.loads(problem(errors.NO_ROUTE, "", "", None)[1])["detail"] == errors.NO_ROUTE.hint


def test_retry_after_is_the_pool_s() -> None:
    assert dict(problem(errors.NO_SERVER, "", "", 7)[0])[b"Retry-After"] == b"7"


def test_a_date_as_http_has_it() -> None:
    pattern = rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    assert re.fullmatch(pattern, http_date())


def test_redirects_and_fixed_responses() -> None:
    status, fields, body = local_answer(prepared_of(redirect=(308, b"/x")))
    assert (status, fields[-1], body) == (308, (b"Location", b"/x"), b"")
    status, fields, body = local_answer(prepared_of(respond=(503, ((b"A", b"b"),), b"closed")))
    assert (status, fields[-1], body) == (503, (b"A", b"b"), b"closed")
    dateless = prepared_of(edits=Edits(remove=frozenset((b"date",))), respond=(200, (), b""))
    assert local_answer(dateless)[1] == []


def test_options_that_went_far_enough() -> None:
    prepared = prepared_of("OPTIONS * HTTP/1.1")
    prepared.is_local = True
    status, fields, body = local_answer(prepared)
    assert (status, fields[-1][0], body) == (200, b"Allow", b"")


def test_edits_of_errors_leave_out_what_is_said_of_the_server_s_answer() -> None:
    edits = Edits(
        set=((b"Strict-Transport-Security", b"max-age=1"), (b"Content-Type", b"a/b"), (b"Cache-Control", b"max-age=9")),
        add=((b"Access-Control-Allow-Origin", b"*"), (b"Set-Cookie", b"a=b")),
        remove=frozenset((b"proxy-status",)),
    )
    fields, _ = problem(errors.NO_SERVER, "", "id", 3)
    assert edited(prepared_of(edits=edits), fields) == [
        *((name, value) for name, value in fields if name != b"Proxy-Status"),
        (b"Strict-Transport-Security", b"max-age=1"),
        (b"Access-Control-Allow-Origin", b"*"),
    ]
    assert edited(prepared_of(), fields) == fields


def test_allow_is_what_the_listener_serves() -> None:
    fields, _ = problem(errors.METHOD_NOT_ALLOWED, "", "id", None, b"GET, HEAD")
    assert (b"Allow", b"GET, HEAD") in fields
    prepared = prepared_of("OPTIONS * HTTP/1.1")
    prepared.is_local = True
    assert (b"Allow", b"PURGE") in local_answer(prepared, b"PURGE")[1]


def test_a_location_that_was_filled_in_and_a_date_of_one_s_own() -> None:
    prepared = prepared_of(redirect=(302, b"https://{host}/"))
    prepared.location = b"https://a/"
    assert local_answer(prepared)[1][-1] == (b"Location", b"https://a/")
    dated = prepared_of(respond=(200, ((b"date", b"then"),), b""))
    assert local_answer(dated)[1] == [(b"date", b"then")]


def test_the_line_of_a_date_is_made_once_a_second() -> None:
    for _ in range(3):  # a second may pass in between, but not each time
        first, value, second = date_line(), http_date(), date_line()
        if first is second:
            break
    assert first is second and first == b"Date: %b\r\n" % value
