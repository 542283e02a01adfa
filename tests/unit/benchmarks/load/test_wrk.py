"""Scripts for wrk and its results."""

import pytest

from benchmarks.load.cases import CASES, MEGABYTE, PREDICTION, REQUEST_BODY
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.wrk import Load, check_load, parse_output, render_script

NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}
OUTPUT = """Running 1s test @ http://127.0.0.1:1/predict
Requests/sec:  67442.10

BENCHMARK {"requests": 10, "duration_us": 1000000, "bytes": 2200, "p50_us": 430, "p99_us": 840, \
"errors": {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}}
"""


def a_load(requests: int = 10, size: int = 10 * len(PREDICTION), **errors: int) -> Load:
    return Load(requests, 1_000_000, size, 400, 900, {**NO_ERRORS, **errors})


def test_the_request_body_is_what_the_documents_say() -> None:
    assert len(REQUEST_BODY) == 31
    assert len(MEGABYTE) == 2**20


def test_the_result_is_found_behind_what_wrk_prints_for_people() -> None:
    load = parse_output(OUTPUT)
    assert (load.requests, load.p50_us, load.p99_us, load.errors) == (10, 430, 840, NO_ERRORS)


def test_without_a_result_what_wrk_said_is_shown() -> None:
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse_output("unable to connect to 127.0.0.1:1")


def test_whole_answers_without_errors_pass() -> None:
    check_load(a_load(), CASES["http_small"], "nginx")


@pytest.mark.parametrize("kind", NO_ERRORS)
def test_a_single_error_of_any_kind_fails_the_run(kind: str) -> None:
    with pytest.raises(BenchmarkError, match=f"1 {kind}"):
        check_load(a_load(**{kind: 1}), CASES["http_small"], "nginx")


def test_answers_shorter_than_their_bodies_fail_the_run() -> None:
    with pytest.raises(BenchmarkError, match="bytes came back"):
        check_load(a_load(size=10 * len(PREDICTION) - 1), CASES["http_small"], "nginx")


def test_no_answer_at_all_fails_the_run() -> None:
    with pytest.raises(BenchmarkError, match="no request"):
        check_load(a_load(requests=0), CASES["http_small"], "nginx")


def test_static_cases_leave_the_request_to_wrk() -> None:
    script = render_script(CASES["http_small"], "seed")
    assert "request = function" not in script
    assert 'wrk.headers["Connection"] = "keep-alive"' in script
    assert REQUEST_BODY.decode() in script


def test_the_unique_case_has_another_header_in_every_run() -> None:
    script = render_script(CASES["http_unique"], "1f-2")
    assert "request = function" in script
    assert "X-Trace-Id: 1f-2-" in script


def test_the_real_case_makes_every_head_anew_with_twelve_fields() -> None:
    script = render_script(CASES["http_real"], "00a1b2-0001")
    assert "request = function" in script
    assert "SEED" not in script
    template = script[script.index("local template") : script.index("init = function")]
    assert template.count(": ") == 12
    assert "X-Request-ID: 00a1b2-0001-%08x" in template


def test_real_traffic_is_the_first_of_the_cases() -> None:
    assert list(CASES)[:4] == ["http_real", "http_unique", "http_close", "tcp_small"]


def test_the_closing_case_says_so_to_the_proxy() -> None:
    assert 'wrk.headers["Connection"] = "close"' in render_script(CASES["http_close"], "seed")


def test_downloads_send_no_body() -> None:
    script = render_script(CASES["http_1mb"], "seed")
    assert 'wrk.method = "GET"' in script
    assert "wrk.body" not in script


def test_only_a_paced_case_makes_connections_wait() -> None:
    assert "delay = function() return 8 end" in render_script(CASES["http_paced"], "seed")
    assert "delay" not in render_script(CASES["http_small"], "seed")
