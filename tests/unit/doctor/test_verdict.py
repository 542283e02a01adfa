"""What is concluded from what was seen of a server."""

from __future__ import annotations

import json

import pytest

from lbproxy.doctor.answer import Reply
from lbproxy.doctor.http2 import Http2Answer
from lbproxy.doctor.pace import Pace
from lbproxy.doctor.verdict import HEALTH, MODELS, TGI, TRITON, VERSION, Evidence, judge, names_in, program, questions


def reply(status: int = 200, server: str = "", data: object = None, *, is_kept: bool = True) -> Reply:
    return Reply(
        status, {"server": server} if server else {}, b"" if data is None else json.dumps(data).encode(), is_kept
    )


def seen(server: str = "", *, is_kept: bool = True, **more: object) -> Evidence:
    return Evidence(replies={HEALTH: reply(404, server, is_kept=is_kept)}, **more)  # type: ignore[arg-type]


def pace(at_once: int | None, *, is_more: bool = False) -> Pace:
    return Pace(at_once, is_more=is_more, alone_s=0.1, requests=9)


INFO = {"model_id": "m", "max_concurrent_requests": 64, "max_best_of": 2, "version": "2.4.1"}
OTHERS_INFO = {"model_id": "m", "max_concurrent_requests": 512, "max_batch_tokens": 16384}


@pytest.mark.parametrize(
    ("replies", "kind", "what"),
    [
        ({HEALTH: reply(404, "gunicorn", is_kept=False)}, "gunicorn-sync", "gunicorn, sync workers"),
        ({HEALTH: reply(404, "gunicorn/20.0.4")}, "gunicorn-gthread", "gunicorn, gthread workers"),
        ({HEALTH: reply(200, "uvicorn"), MODELS: reply(404, "uvicorn")}, "uvicorn", "uvicorn"),
        ({HEALTH: reply(200, "waitress")}, "waitress", "waitress"),
        (
            {HEALTH: reply(400), TRITON: reply(200, "", {"name": "triton", "version": "2.47.0", "extensions": []})},
            "triton",
            "Triton 2.47.0",
        ),
        ({HEALTH: reply(), TRITON: reply(404), TGI: reply(200, "", INFO)}, "tgi", "text-generation-inference 2.4.1"),
        (
            {
                HEALTH: reply(200, "uvicorn"),
                MODELS: reply(200, "uvicorn", {"data": [{"id": "m", "owned_by": "vllm"}]}),
                VERSION: reply(200, "uvicorn", {"version": "0.6.3"}),
            },
            "vllm",
            "vLLM 0.6.3",
        ),
        (
            {
                HEALTH: reply(200, "uvicorn"),
                MODELS: reply(401, "uvicorn", {"error": "Unauthorized"}),
                VERSION: reply(200, "uvicorn", {"version": "0.6.3"}),
            },
            "vllm",
            "vLLM 0.6.3",
        ),
        # What only looks like one of them.
        ({HEALTH: reply(), TGI: reply(200, "", OTHERS_INFO)}, None, "a program that does not say what it is"),
        (
            {HEALTH: reply(), TRITON: reply(200, "", {"name": "another"})},
            None,
            "a program that does not say what it is",
        ),
        ({HEALTH: reply(), TRITON: reply(404, "", {"name": "triton"})}, None, "a program that does not say what it is"),
        ({HEALTH: reply(200, "uvicorn"), VERSION: reply(200, "uvicorn", {"version": "1"})}, "uvicorn", "uvicorn"),
        (
            {HEALTH: reply(200, "uvicorn"), MODELS: reply(200, "uvicorn", {"data": [{"owned_by": "me"}, 5]})},
            "uvicorn",
            "uvicorn",
        ),
        ({HEALTH: reply(200, "uvicorn"), MODELS: reply(200, "uvicorn", {"data": "vllm"})}, "uvicorn", "uvicorn"),
        ({HEALTH: reply(200, "hypercorn-h11")}, None, "hypercorn-h11"),
    ],
)
def test_who_it_is(replies: dict[str, Reply], kind: str | None, what: str) -> None:
    verdict = judge(Evidence(replies=replies))
    assert (verdict.kind, verdict.what, verdict.problems) == (kind, what, ())


def test_a_version_that_could_harm_a_terminal_is_left_out() -> None:
    told = {"name": "triton", "version": "\x1b[2J"}
    assert judge(Evidence(replies={TRITON: reply(200, "", told)})).what == "Triton"
    assert judge(seen("x\x1b[2J")).what == repr("x\x1b[2J")


def test_only_those_are_asked_more_who_may_know_an_answer() -> None:
    assert questions({HEALTH: reply(200, "gunicorn")}) == ()
    assert questions({HEALTH: reply(200, "uvicorn")}) == (MODELS, VERSION)
    assert questions({HEALTH: reply(200)}) == (TRITON, TGI, MODELS)
    assert program({HEALTH: reply(), TRITON: reply(200, "x" * 500)}) == "x" * 80


@pytest.mark.parametrize(
    ("evidence", "limit"),
    [
        (seen("gunicorn", is_kept=False), None),
        (seen("gunicorn", is_kept=False, pids=(7,)), 1),
        (seen("gunicorn", is_kept=False, pids=(7, 8, 9)), 3),
        (seen("gunicorn", is_kept=False, pids=(7,), pace=pace(4)), 4),
        (seen("gunicorn", pids=(7,)), None),
        (seen("gunicorn", pace=pace(4)), 4),
        (seen("uvicorn", pace=pace(16, is_more=True)), None),
        (seen("uvicorn", pace=pace(None)), None),
        (Evidence(replies={TGI: reply(200, "", INFO)}), 64),
        (Evidence(replies={TGI: reply(200, "", {**INFO, "max_concurrent_requests": True})}), None),
        (Evidence(replies={TGI: reply(200, "", {**INFO, "max_concurrent_requests": -1})}), None),
    ],
)
def test_how_many_requests_at_once(evidence: Evidence, limit: int | None) -> None:
    assert judge(evidence).max_inflight == limit


@pytest.mark.parametrize(
    ("server", "closed_after_s", "expected"),
    [
        ("uvicorn", None, None),
        ("uvicorn", 5.0, None),
        ("uvicorn", 6.4, None),  # it looks late
        ("uvicorn", 3.0, 1.6),
        ("uvicorn", 75.2, 59.3),
        ("gunicorn", 2.9, None),
        ("gunicorn", 1.0, 0.5),
        ("waitress", 149.0, None),
        ("something", 10.0, 7.2),
        ("something", 0.05, 0.1),
    ],
)
def test_how_long_a_connection_may_be_idle(server: str, closed_after_s: float | None, expected: float | None) -> None:
    assert judge(seen(server, closed_after_s=closed_after_s)).idle_timeout_s == expected


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        (seen("gunicorn", pids=(7, 8)), "2 processes (7, 8) share this port; "),
        (seen("x", pids=tuple(range(1, 20))), "19 processes (1, 2, 3, 4, 5, 6, 7, 8, ...) share this port; "),
        (seen("x", ids=frozenset({"pid 7", "pid 8"})), "its answers come from 2 workers (pid 7, pid 8); "),
        (seen("gunicorn", is_kept=False, pace=pace(3)), "sync workers take one request each, so at least 3 share"),
    ],
)
def test_several_workers_behind_a_port_are_told(evidence: Evidence, told: str) -> None:
    verdict = judge(evidence)
    assert verdict.is_shared
    assert verdict.hints[0].startswith(told)
    assert verdict.problems == ()


@pytest.mark.parametrize(
    "evidence",
    [
        seen("uvicorn", pids=(7,), ids=frozenset({"pid 7"}), pace=pace(16, is_more=True)),
        seen("gunicorn", pace=pace(4)),  # threads, as far as is known
        seen("gunicorn", is_kept=False, pace=pace(1)),
    ],
)
def test_one_worker_is_not(evidence: Evidence) -> None:
    assert not judge(evidence).is_shared


@pytest.mark.parametrize(
    ("evidence", "hint"),
    [
        (seen("Werkzeug/3.1.9 Python/3.11"), "this is Flask's development server: serve it with gunicorn or waitress"),
        (seen("nginx/1.22"), "another proxy answers in place of the server: point lbproxy to the server itself"),
        (seen("gunicorn"), "how many threads there are is not known: --probe tells"),
        (seen("gunicorn", is_kept=False), "how many workers there are is not known: --probe tells"),
        (
            seen("uvicorn", pace=pace(16, is_more=True)),
            "it takes 16 requests at once or more; --at-most tries more",
        ),
    ],
)
def test_what_else_is_worth_a_word(evidence: Evidence, hint: str) -> None:
    assert judge(evidence).hints == (hint,)


def test_a_path_for_checks_is_one_that_says_200() -> None:
    assert judge(Evidence(replies={HEALTH: reply(200, "waitress")})).health_path == HEALTH
    assert judge(Evidence(replies={HEALTH: reply(204, "waitress")})).health_path is None
    assert judge(Evidence(replies={"/": reply(200, "waitress")})).health_path is None


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (Evidence(unreachable="connection refused"), "connection refused"),
        (Evidence(trouble="no answer"), "no answer"),
        (
            seen("uvicorn", check="answered 503 to GET /, expected 200-399", is_check_failed=True),
            "its health check fails: it answered 503 to GET /, expected 200-399",
        ),
        (
            seen("uvicorn", pace=Pace(None, is_more=False, alone_s=0.0, requests=1, failed="answered 404 to GET /x")),
            "the requests of --probe failed: answered 404 to GET /x",
        ),
    ],
)
def test_what_is_wrong(evidence: Evidence, problem: str) -> None:
    assert judge(evidence).problems == (problem,)


def test_a_server_that_is_passed_on_as_it_is_has_no_verdict_and_no_problem() -> None:
    verdict = judge(Evidence(check="accepted a connection"))
    assert (verdict.what, verdict.problems) == ("", ())


def test_workers_that_sign_their_answers() -> None:
    assert names_in(reply(200, "", {"pid": 7, "n": 1, "worker": "a"})) == {"pid 7", "worker a"}
    assert names_in(Reply(200, {"x-worker-id": "3"}, b"[7]", is_kept=True)) == {"x-worker-id 3"}
    assert names_in(reply(200, "", {"pid": None, "worker": "\x1b"})) == frozenset()


@pytest.mark.parametrize(
    ("answer", "what", "why", "checks"),
    [
        (
            Http2Answer("", 100, is_grpc=True, is_serving=True, says="says SERVING"),
            "a server of gRPC",
            "it speaks HTTP/2, 100 requests at once on a connection; grpc.health.v1: it says SERVING",
            True,
        ),
        (
            Http2Answer("", None, is_grpc=True, is_serving=False, says="has no health service (grpc.health.v1)"),
            "a server of gRPC",
            "it speaks HTTP/2, any number of requests at once on a connection; grpc.health.v1: it has no health service"
            " (grpc.health.v1)",
            False,
        ),
        (
            Http2Answer("nghttpd", 128, is_grpc=False, is_serving=False, says=""),
            "nghttpd",
            "it speaks HTTP/2, 128 requests at once on a connection",
            False,
        ),
    ],
)
def test_a_server_of_http_2(answer: Http2Answer, what: str, why: str, checks: bool) -> None:
    verdict = judge(Evidence(http2=answer, pids=(1, 2)))
    assert (verdict.kind, verdict.what, verdict.why) == (None, what, why)
    assert verdict.speaks_http2 and verdict.checks_grpc is checks and verdict.is_shared and verdict.hints
    assert judge(Evidence(http2=answer, check="x", is_check_failed=True)).problems == ("its health check fails: it x",)
