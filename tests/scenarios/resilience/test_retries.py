"""Retries through the real daemon: which requests are sent again, how often, and what the client gets in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.origin import Peer, close_unanswered, echo, reset_unanswered, silent, stalls_after
from tests.support.rig import get, post
from tests.support.site import Crowd, Pool, Site, status, timed
from tests.support.waiting import wait_until
from tests.support.wire import Ended, Request, Response

KIB = 1024
TOTAL_S = 0.5
BUDGET = {"ratio": 0.2, "min": 1}
_NOW = {"backoff": {"base": 0, "max": 0}}  # no wait before a retry
_NO_BREAKER: dict[str, object] = {"circuit_breaker": "off"}
PURE: dict[str, object] = {"retry": {"status": [503], "idempotent": True, **_NOW}, **_NO_BREAKER}
CAREFUL: dict[str, object] = {"retry": {"status": [503], **_NOW}, **_NO_BREAKER}
PLAN: dict[str, dict[str, object]] = {
    "pure": PURE,
    "both": PURE,
    "head": PURE,
    "sticky-fault": PURE,
    "large-length": PURE,
    "large-chunked": PURE,
    "small-chunked": PURE,
    "body": PURE,
    "body-too-long": {"retry": {"status": [503], "idempotent": True, "body_bytes": "1KiB", **_NOW}, **_NO_BREAKER},
    "other-status": PURE,
    "careful": CAREFUL,
    "careful-get": CAREFUL,
    "key": {"retry": {"status": [503], "idempotency_key": True, **_NOW}, **_NO_BREAKER},
    "key-reset": {"retry": {"idempotency_key": True, **_NOW}, **_NO_BREAKER},
    "key-off": CAREFUL,
    "trust": {"retry": {"status": [503], "trust_retry_after": True, **_NOW}, **_NO_BREAKER},
    "trust-off": CAREFUL,
    # A second for the server that does answer, which a busy machine may need.
    "slow": {"retry": {"on": ["connect", "reset", "timeout"], **_NOW}, "timeouts": {"response_head": "1s"}},
    "slow-post": {"retry": {"on": ["connect", "reset", "timeout"], **_NOW}, "timeouts": {"response_head": "300ms"}},
    "slow-off": {"retry": _NOW, "timeouts": {"response_head": "300ms"}},
    **{
        f"attempts-{extra}": {"retry": {"attempts": extra, "status": [503], **_NOW}, **_NO_BREAKER}
        for extra in (0, 1, 3)
    },
    "leaver": {"retry": {"status": [503], "backoff": {"base": "60s", "max": "60s"}}, **_NO_BREAKER},
    "permits": {
        "retry": {"status": [503], "budget": {"ratio": 1, "min": 1}, "backoff": {"base": "60s", "max": "60s"}},
        **_NO_BREAKER,
    },
    "kept-rst": PURE,
    "kept-whole": PURE,
    "kept-stall": {**PURE, "timeouts": {"read": "200ms"}},
    "kept-left": PURE,
    "head-both": PURE,
    "early": PURE,
    "expects": PURE,
    "low": {"retry": {"status": [404, 408, 425], **_NOW}},
    "piped": PURE,
    "total-backoff": {
        "retry": {"status": [503], "backoff": {"base": "60s", "max": "60s"}},
        "timeouts": {"total": f"{TOTAL_S}s"},
        **_NO_BREAKER,
    },
    "routed": {
        "routes": [
            {"match": {"path": "/pure"}, "pool": "routed", "retry": {"status": [503], "idempotent": True}},
            {"match": {"path": "/brief"}, "pool": "routed", "timeouts": {"total": "300ms"}},
            {"pool": "routed"},
        ],
        **_NO_BREAKER,
    },
    "outage": {**PURE, "retry": {"status": [503], "idempotent": True, "attempts": 3, "budget": BUDGET}},
    "outage-reset": {**PURE, "retry": {"idempotent": True, "attempts": 3, "budget": BUDGET}},
    "total": {"timeouts": {"total": f"{TOTAL_S}s"}},
    "total-slots": {
        "n": 1,
        "max_inflight": 1,
        "queue": {"timeout": "300s"},
        "routes": [
            {"match": {"path": "/total-holder"}, "pool": "total-slots"},
            {"pool": "total-slots", "timeouts": {"total": f"{TOTAL_S}s"}},
        ],
    },
    "total-cut": {"n": 1, "timeouts": {"total": f"{TOTAL_S}s"}},
    "total-tries": {
        "retry": {"attempts": 9, "on": ["timeout"], **_NOW},
        "timeouts": {"total": "2s", "response_head": "300ms"},
        **_NO_BREAKER,
    },
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("retries"), PLAN, workers=n_workers) as site:
        yield site


def one_is_busy(pool: Pool, *fields: str) -> None:
    """The server that is asked first answers 503, the other one 200."""
    pool.servers[0].answer = status(503, *fields)
    assert_first(pool)


def assert_first(pool: Pool) -> None:
    """No request was made yet: round robin begins with the first server."""
    assert pool.n_attempts == 0


def tries(pool: Pool) -> list[int]:
    return [len(server.requests) for server in pool.servers]


def assert_fault(answer: Response, code: int, word: str) -> None:
    assert answer.status == code
    assert answer.get("content-type") == "application/problem+json"
    assert f"urn:lbproxy:fault:{word}".encode() in answer.body


# --- statuses ---


def test_a_busy_server_is_not_seen_by_the_client(site: Site) -> None:
    pool = site.pool("pure")
    one_is_busy(pool)
    answer = pool.ask(post("/pure", b"abc"))
    assert (answer.status, answer.body) == (200, b"POST /pure 3\n")
    assert tries(pool) == [1, 1]
    assert pool.servers[0].requests[0].body == pool.servers[1].requests[0].body == b"abc"
    line = pool.log("/pure")
    assert (line["status"], line["attempts"], line["end"]) == (200, 2, "ok")
    assert pool.metric("retries_total", reason="status", outcome="success") == 1
    assert pool.metric("retries_total") == 1


def test_the_last_real_answer_is_returned_when_all_are_busy(site: Site) -> None:
    pool = site.pool("both")
    for number, server in enumerate(pool.servers):
        server.answer = status(503, f"X-Server: {number}", body=f"server {number} is busy\n".encode())
    with pool.client() as client:
        answer = client.ask(post("/both"))
        assert (answer.status, answer.get("content-type")) == (503, "text/x-origin")
        assert sum(tries(pool)) == 3  # attempts: 2
        last = answer.get("x-server")
        assert answer.body == f"server {last} is busy\n".encode()
        for server in pool.servers:
            server.answer = status(200)
        assert client.ask(post("/both-again")).status == 200
    line = pool.log("/both")
    assert (line["status"], line["attempts"], line["end"]) == (503, 3, "ok")
    assert line["bytes_out"] == len(answer.body)
    assert pool.metric("retries_total", reason="status", outcome="failure") == 2


def test_an_answer_without_a_body_is_retried_too(site: Site) -> None:
    pool = site.pool("head")
    one_is_busy(pool)
    with pool.client() as client:
        client.send(b"HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.response(is_head=True)
    assert (answer.status, tries(pool)) == (200, [1, 1])


def test_a_real_answer_is_better_than_a_later_fault(site: Site) -> None:
    pool = site.pool("sticky-fault")
    one_is_busy(pool)
    pool.servers[1].default = reset_unanswered
    answer = pool.ask(get("/sticky-fault"))
    assert (answer.status, answer.body, answer.get("content-type")) == (503, b"no\n", "text/x-origin")
    assert sum(tries(pool)) == 3


def _chunked(code: int, body: bytes) -> bytes:
    step = 10 * KIB
    chunks = [b"%x\r\n%b\r\n" % (len(body[i : i + step]), body[i : i + step]) for i in range(0, len(body), step)]
    return b"HTTP/1.1 %d Busy\r\nTransfer-Encoding: chunked\r\n\r\n" % code + b"".join(chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_long_body_with_a_retryable_status_streams_through(site: Site, framing: str) -> None:
    pool = site.pool(f"large-{framing}")
    body = bytes(range(256)) * 4 * 300  # 300 KiB
    for server in pool.servers:
        server.answer = status(503, body=body) if framing == "length" else lambda _: _chunked(503, body)
    with pool.client() as client:
        for turn in range(3):
            answer = client.ask(get(f"/large-{turn}"))
            assert (answer.status, answer.body) == (503, body)
    assert sum(tries(pool)) == 3
    assert pool.metric("retries_total") == 0
    assert pool.log("/large-0")["bytes_out"] == len(body)


def test_a_short_chunked_answer_is_retried(site: Site) -> None:
    pool = site.pool("small-chunked")
    pool.servers[0].answer = lambda _: _chunked(503, b"x" * 50 * KIB)
    assert pool.ask(get("/small-chunked")).status == 200
    assert tries(pool) == [1, 1]


def test_a_busy_answer_that_breaks_off_is_retried(site: Site) -> None:
    pool = site.pool("kept-rst")
    part = b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf"

    def breaks_off(c: Peer) -> None:
        c.read_request()
        c.send(part)
        time.sleep(0.02)
        c.reset()

    pool.servers[0].script(breaks_off)
    with pool.client() as client:
        assert client.ask(get("/kept-rst")).body == b"GET /kept-rst 0\n"
        assert client.ask(get("/kept-rst-next")).status == 200
    assert pool.log("/kept-rst")["attempts"] == 2


def test_a_whole_busy_answer_is_not_lost_to_half_a_one(site: Site) -> None:
    """Each of the later tries breaks off inside its answer: the client gets the one that was whole, not 502."""
    pool = site.pool("kept-whole")
    count = [0]

    def script(c: Peer) -> None:
        c.read_request()
        count[0] += 1
        if count[0] == 1:
            c.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nwhole")
            c.serve()
        else:
            c.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf")
            c.fin()

    for server in pool.servers:
        server.default = script
    answer = pool.ask(get("/kept-whole"))
    assert (answer.status, answer.body) == (503, b"whole")
    line = pool.log("/kept-whole")
    assert (line["end"], line["attempts"]) == ("ok", 3)


def test_a_busy_answer_that_stalls_ends_in_time(site: Site) -> None:
    pool = site.pool("kept-stall")
    pool.servers[0].script(stalls_after(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf"))
    assert pool.ask(get("/kept-stall")).status in (200, 502, 504)  # nothing of the half answer


def test_a_client_that_leaves_while_an_answer_is_held_back(site: Site) -> None:
    pool = site.pool("kept-left")
    (first, second) = pool.servers
    first.script(stalls_after(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nhalf"))
    with pool.client() as client:
        client.send(get("/kept-left"))
        wait_until(lambda: first.requests, "the request to arrive")
        assert client.is_silent(0.05)
    line = pool.log("/kept-left")
    assert (line["status"], line["end"]) == (499, "client_abort")
    wait_until(lambda: first.open_connections == 0, "the server's connection to be closed")
    assert not second.requests


def test_the_last_answer_to_head_has_no_body(site: Site) -> None:
    pool = site.pool("head-both")
    for server in pool.servers:
        server.answer = status(503, body=b"twelve bytes")
    with pool.client() as client:
        client.send(b"HEAD /head-both HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.response(is_head=True)
        assert (answer.status, answer.get("content-length")) == (503, "12")
        for server in pool.servers:
            server.answer = status(200)
        assert client.ask(get("/head-both-next")).body == b"no\n"


def test_an_early_answer_to_an_unfinished_request_is_passed_on(site: Site) -> None:
    pool = site.pool("early")

    def refuses_early(c: Peer) -> None:
        c.read_head()
        c.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")
        c.read_to_end()

    for server in pool.servers:
        server.default = refuses_early
    with pool.client() as client:
        client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nfirst part")
        answer = client.response()
    assert (answer.status, answer.body) == (503, b"early")
    assert pool.log("/early")["attempts"] == 1


def test_a_request_that_waits_for_100_is_retried(site: Site) -> None:
    pool = site.pool("expects")
    one_is_busy(pool)
    with pool.client(timeout_s=60) as client:
        client.send(b"POST /expects HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        client.wait_for(b"100 Continue\r\n\r\n")
        client.send(b"hello")
        answer = client.response()
    assert (answer.status, answer.body, len(answer.interim)) == (200, b"POST /expects 5\n", 1)


def test_pipelined_requests_keep_their_order(site: Site) -> None:
    pool = site.pool("piped")
    turn = iter(range(1000))
    pool.servers[0].answer = lambda request: (echo if next(turn) % 2 else status(503))(request)
    with pool.client() as client:
        client.send(b"".join(post(f"/piped-{number}", b"x" * number) for number in range(10)))
        bodies = [client.response().body for _ in range(10)]
    assert bodies == [b"POST /piped-%d %d\n" % (number, number) for number in range(10)]


@pytest.mark.parametrize("code", [404, 408, 425])
def test_any_listed_status_is_retried(site: Site, code: int) -> None:
    pool = site.pool("low")
    for server in pool.servers:
        server.reset()
        server.answer = status(code)
    assert pool.ask(get(f"/low-{code}")).status == code
    assert sum(tries(pool)) == 3


def test_a_long_better_answer_is_not_mixed_with_the_kept_one(site: Site) -> None:
    pool = site.pool("low")
    body = bytes(range(256)) * 16 * KIB  # 4 MiB: it comes in many reads, after the kept answer
    for server in pool.servers:
        server.reset()
    before = tries(pool)
    first, second = pool.servers
    first.answer = status(425)
    second.answer = status(200, body=body)
    for _ in range(2):  # whoever is asked first: one of the two meets the 425
        answer = pool.ask(get("/long-better"))
        assert answer.status == 200 and answer.body == body
    assert tries(pool)[0] > before[0]


def test_a_body_is_replayed_whole(site: Site) -> None:
    pool = site.pool("body")
    one_is_busy(pool)
    body = bytes(range(256)) * 2 * KIB  # 512 KiB
    assert pool.ask(post("/body", body)).body == b"POST /body %d\n" % len(body)
    assert [server.requests[0].body == body for server in pool.servers] == [True, True]


def test_a_body_that_was_not_kept_is_not_replayed(site: Site) -> None:
    pool = site.pool("body-too-long")
    one_is_busy(pool)
    answer = pool.ask(post("/body-too-long", b"x" * 4 * KIB))
    assert (answer.status, answer.body, tries(pool)) == (503, b"no\n", [1, 0])


def test_other_statuses_are_passed_on(site: Site) -> None:
    pool = site.pool("other-status")
    codes = (429, 500, 502, 504)
    for code in codes:
        for server in pool.servers:
            server.answer = status(code)
        answer = pool.ask(get(f"/{code}"))
        assert (answer.status, answer.body) == (code, b"no\n")
    assert sum(tries(pool)) == len(codes)


# --- which requests ---


def test_a_post_is_not_sent_twice(site: Site) -> None:
    pool = site.pool("careful")
    one_is_busy(pool)
    answer = pool.ask(post("/careful"))
    assert (answer.status, answer.get("content-type"), tries(pool)) == (503, "text/x-origin", [1, 0])


def test_a_get_is_sent_again(site: Site) -> None:
    pool = site.pool("careful-get")
    one_is_busy(pool)
    assert (pool.ask(get("/careful-get")).status, tries(pool)) == (200, [1, 1])


def test_a_post_with_a_key_is_sent_again_where_keys_count(site: Site) -> None:
    pool = site.pool("key")
    one_is_busy(pool)
    assert pool.ask(post("/key", b"hello", "Idempotency-Key: 1")).status == 200
    assert tries(pool) == [1, 1]
    keys = [server.requests[0].get("idempotency-key") for server in pool.servers]
    assert keys == ["1", "1"]


def test_a_post_without_a_key_is_not(site: Site) -> None:
    pool = site.pool("key")
    for server in pool.servers:
        server.reset()
        server.answer = status(503)
    assert pool.ask(post("/keyless")).status == 503
    assert sum(tries(pool)) == 1


def test_a_post_with_a_key_survives_a_reset(site: Site) -> None:
    pool = site.pool("key-reset")
    pool.servers[0].default = reset_unanswered
    assert pool.ask(post("/key-reset", b"hello", "Idempotency-Key: 1")).status == 200
    assert tries(pool) == [1, 1]
    assert pool.metric("retries_total", reason="reset", outcome="success") == 1


def test_a_key_counts_only_where_the_config_says_so(site: Site) -> None:
    pool = site.pool("key-off")
    one_is_busy(pool)
    assert pool.ask(post("/key-off", b"hello", "Idempotency-Key: 1")).status == 503
    assert tries(pool) == [1, 0]


def test_a_503_with_retry_after_was_not_executed_where_that_is_trusted(site: Site) -> None:
    pool = site.pool("trust")
    one_is_busy(pool, "Retry-After: 1")
    assert pool.ask(post("/trust")).status == 200
    assert tries(pool) == [1, 1]


def test_a_503_without_retry_after_is_not_trusted(site: Site) -> None:
    pool = site.pool("trust")
    for server in pool.servers:
        server.reset()
        server.answer = status(503)
    assert pool.ask(post("/trust-not")).status == 503
    assert sum(tries(pool)) == 1


def test_retry_after_is_not_trusted_unless_the_config_says_so(site: Site) -> None:
    pool = site.pool("trust-off")
    one_is_busy(pool, "Retry-After: 1")
    answer = pool.ask(post("/trust-off"))
    assert (answer.status, answer.get("retry-after"), tries(pool)) == (503, "1", [1, 0])


def test_a_timeout_is_retried_where_the_config_says_so(site: Site) -> None:
    pool = site.pool("slow")
    pool.servers[0].default = silent
    answer, seconds = timed(partial(pool.ask, get("/slow")))
    assert answer.status == 200
    assert seconds >= 1.0
    wait_until(lambda: tries(pool) == [1, 1], "each server to have read it")
    assert pool.metric("retries_total", reason="timeout", outcome="success") == 1


def test_a_post_that_timed_out_is_not_retried(site: Site) -> None:
    pool = site.pool("slow-post")
    pool.servers[0].default = silent
    assert_fault(pool.ask(post("/slow-post")), 504, "response_timeout")
    wait_until(lambda: pool.servers[0].requests, "the server to have read it")
    assert tries(pool) == [1, 0]


def test_a_timeout_is_not_retried_by_default(site: Site) -> None:
    pool = site.pool("slow-off")
    pool.servers[0].default = silent
    assert_fault(pool.ask(get("/slow-off")), 504, "response_timeout")
    wait_until(lambda: pool.servers[0].requests, "the server to have read it")
    assert tries(pool) == [1, 0]


def test_a_route_has_its_own_rules(site: Site) -> None:
    pool = site.pool("routed")
    for server in pool.servers:
        server.answer = status(503)
    assert pool.ask(post("/other")).status == 503
    assert sum(tries(pool)) == 1
    assert pool.ask(post("/pure")).status == 503
    assert sum(tries(pool)) == 1 + 3
    for server in pool.servers:
        server.gate.clear()
    answer, seconds = timed(partial(pool.ask, get("/brief")))
    assert_fault(answer, 504, "total_timeout")
    assert seconds >= 0.3


# --- how often ---


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_attempts_is_the_number_of_extra_tries(site: Site, extra: int) -> None:
    pool = site.pool(f"attempts-{extra}")
    for server in pool.servers:
        server.answer = status(503)
    assert pool.ask(get("/busy")).status == 503
    assert sum(tries(pool)) == 1 + extra
    for server in pool.servers:
        server.reset()
        server.default = close_unanswered
    assert_fault(pool.ask(get("/closed")), 502, "closed_early")
    assert sum(tries(pool)) == 1 + extra
    assert pool.log("/closed")["attempts"] == 1 + extra


def test_a_client_that_leaves_ends_the_wait_for_its_retry(site: Site) -> None:
    pool = site.pool("leaver")
    for server in pool.servers:
        server.answer = status(503)
    with pool.client() as client:
        client.send(get("/leaver"))
        wait_until(lambda: sum(tries(pool)) == 1, "the first attempt")
        wait_until(lambda: pool.metric("server_inflight") == 0, "the first attempt to end")
    line = pool.log("/leaver")
    assert (line["status"], line["end"]) == (499, "client_abort")
    assert sum(tries(pool)) == 1


def test_clients_that_leave_give_their_permits_back(site: Site) -> None:
    """The budget allows one retry at a time: were a permit lost, the next client would have its 503 at once."""
    pool = site.pool("permits")
    for server in pool.servers:
        server.answer = status(503)
    for number in range(4):
        with pool.client() as client:
            client.send(get(f"/permits-{number}"))
            wait_until(lambda: sum(tries(pool)) > number, "the first attempt")  # noqa: B023
            wait_until(lambda: pool.metric("server_inflight") == 0, "the first attempt to end")
        assert pool.log(f"/permits-{number}")["status"] == 499
    assert pool.metric("retry_budget_exhausted_total") == 0


@pytest.mark.parametrize("name", ["outage", "outage-reset"])
def test_an_outage_is_not_multiplied(site: Site, name: str) -> None:
    pool = site.pool(name)
    for server in pool.servers:
        if name == "outage":
            server.answer = status(503)
        else:
            server.default = reset_unanswered
    answers: list[int] = []

    def asks() -> None:
        with pool.client() as client:
            answers.extend(client.ask(post(f"/{name}")).status for _ in range(25))

    began = time.monotonic()
    with Crowd(8) as crowd:
        for done in [crowd.start(asks) for _ in range(8)]:
            done.result()
    most = 0.2 * 200 + 10 + (time.monotonic() - began)  # a share, and one a second
    assert answers == [503 if name == "outage" else 502] * 200
    assert 200 < pool.n_attempts <= 200 + most
    assert pool.metric("retry_budget_exhausted_total") > 0
    retried = pool.metric("retries_total", reason="status" if name == "outage" else "reset")
    assert retried == pool.n_attempts - 200


# --- the total time ---


def test_the_total_time_ends_a_request_at_its_server(site: Site) -> None:
    pool = site.pool("total")
    pool.servers[0].default = silent
    with pool.client() as client:
        answer, seconds = timed(partial(client.ask, get("/total")))
        assert_fault(answer, 504, "total_timeout")
        assert seconds >= TOTAL_S
        pool.wait_inflight(0)
        pool.servers[0].default = pool.servers[0].work
        wait_until(lambda: client.ask(get("/total-next")).status == 200, "its connection to be of use")
    line = pool.log("/total")
    assert (line["status"], line["end"], line["attempts"]) == (504, "total_timeout", 1)
    wait_until(lambda: pool.servers[0].open_connections == 0, "the server's connection to be closed")


def test_the_total_time_includes_the_queue(site: Site) -> None:
    pool = site.pool("total-slots")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        holder = crowd.start(partial(pool.ask, get("/total-holder")))
        pool.wait_inflight(1)
        others = [crowd.start(partial(timed, partial(pool.ask, get(f"/total-{n}")))) for n in range(3)]
        for answer, seconds in [other.result() for other in others]:
            assert_fault(answer, 504, "total_timeout")
            assert seconds >= TOTAL_S
        server.gate.set()
        assert holder.result().status == 200
    pool.wait_queued(0)
    assert server.targets == ["/total-holder"]
    lines = [pool.log(f"/total-{n}") for n in range(3)]
    assert [(line["end"], line["attempts"]) for line in lines] == [("total_timeout", 0)] * 3
    assert all(float(str(line["queue_ms"])) >= 1000 * TOTAL_S - 1 for line in lines), lines


def test_the_total_time_cuts_an_answer_that_has_begun(site: Site) -> None:
    pool = site.pool("total-cut")
    (server,) = pool.servers
    stop = threading.Event()

    def drips(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            c.send(b"x")

    server.script(drips)

    def cut() -> bool:
        """False: on a busy machine the time may be over before the answer begins."""
        server.script(drips)
        with pool.client() as client:
            started = time.monotonic()
            client.send(get("/total-cut"))
            try:
                assert client.response().status == 504
            except Ended as ended:
                assert time.monotonic() - started >= TOTAL_S
                assert isinstance(ended.partial, Response) and ended.partial.status == 200
                return True
        server.reset()
        return False

    wait_until(cut, "an answer that has begun to be cut off")
    stop.set()
    wait_until(lambda: [x for x in pool.lines() if (x["status"], x["end"]) == (200, "total_timeout")], "its line")


def test_the_total_time_ends_a_wait_for_a_retry_with_the_real_answer(site: Site) -> None:
    pool = site.pool("total-backoff")
    for server in pool.servers:
        server.answer = status(503)
    answer = pool.ask(get("/total-backoff"))
    assert (answer.status, answer.get("content-type")) == (503, "text/x-origin")


def test_the_total_time_includes_all_tries(site: Site) -> None:
    pool = site.pool("total-tries")
    for server in pool.servers:
        server.default = silent
    answer, seconds = timed(partial(pool.ask, get("/total-tries")))
    assert_fault(answer, 504, "total_timeout")
    assert seconds >= 2.0
    attempts = pool.log("/total-tries")["attempts"]
    assert isinstance(attempts, int) and 2 <= attempts <= 7


def test_what_the_servers_saw_is_what_was_sent(site: Site) -> None:
    """A retry changes nothing in the request, the request id included."""
    pool = site.pool("pure")
    seen: list[Request] = []
    for server in pool.servers:
        server.reset()
        server.answer = status(503)
    pool.ask(post("/same", b"abc", "X-Anything: at all"))
    for server in pool.servers:
        seen += server.requests
    assert len(seen) == 3
    assert len({tuple(sorted(request.fields)) for request in seen}) == 1
    assert len({request.get("x-request-id") for request in seen}) == 1
