"""The sender's own time: believed from trusted peers, kept over queue and tries, and passed on as what is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.origin import silent, steps
from tests.support.rig import get
from tests.support.site import Crowd, Pool, Site, timed
from tests.support.waiting import wait_until

ONE: dict[str, object] = {"n": 1, "max_inflight": 1, "queue": {"timeout": "300s"}}
PLAN: dict[str, dict[str, object]] = {
    "ends": {"n": 1},
    "tries": {"retry": {"on": ["timeout"], "idempotent": True, "attempts": 9}, "timeouts": {"response_head": "300ms"}},
    "queued": ONE,
    "late": ONE,
    "fifo": {**ONE, "queue": {"timeout": "300s", "order": "fifo"}},
    "unreadable": {"n": 1},
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("deadline"), PLAN, trusted_proxies=["127.0.0.0/8"], workers=n_workers) as site:
        yield site


def left(pool: Pool, target: str) -> list[float]:
    """What the servers were told, in the order of the tries."""
    found = sorted((r for s in pool.servers for r in s.requests if r.target == target), key=lambda r: r.connection)
    return [float(request.get("x-request-timeout") or "nan") for request in found]


def test_the_time_ends_the_request(site: Site) -> None:
    pool = site.pool("ends")
    pool.servers[0].script(silent)
    answer, seconds = timed(lambda: pool.ask(get("/ends", "X-Request-Timeout: 0.5")))
    assert answer.status == 504 and b"total_timeout" in answer.body
    assert seconds >= 0.5
    assert pool.log("/ends")["end"] == "total_timeout"


def test_each_try_is_told_what_is_left(site: Site) -> None:
    pool = site.pool("tries")
    for server in pool.servers:
        server.script(silent)
    answer, seconds = timed(lambda: pool.ask(get("/tries", "X-Request-Timeout: 100")))
    assert answer.status == 200
    told = sorted(left(pool, "/tries"), reverse=True)
    assert len(told) >= 3, "two are silent, and a busy machine may make more so"
    assert told[0] <= 100 and told[-1] > 100 - seconds - 0.01
    assert all(then - now >= 0.29 for then, now in itertools.pairwise(told))


def test_the_wait_in_the_queue_counts(site: Site) -> None:
    pool = site.pool("queued")
    pool.servers[0].gate.clear()
    with pool.client() as first, pool.client() as second:
        first.send(get("/first"))
        pool.wait_inflight(1)
        answer, seconds = timed(lambda: second.ask(get("/second", "X-Request-Timeout: 400ms")))
        assert answer.status == 504 and seconds >= 0.4
        pool.servers[0].gate.set()
        assert first.response().status == 200
    assert "/second" not in pool.servers[0].targets
    assert pool.metric("queue_depth") == 0


def known_to_take(pool: Pool, seconds: float) -> None:
    pool.servers[0].service_s = seconds
    assert pool.ask(get("/known")).status == 200


def test_who_would_be_late_is_refused_at_once(site: Site) -> None:
    pool = site.pool("late")
    known_to_take(pool, 0.8)
    server = pool.servers[0]
    server.gate.clear()
    with pool.client() as first, pool.client() as second, pool.client() as third:
        first.send(get("/first"))
        pool.wait_inflight(1)
        answer = second.ask(get("/second", "grpc-timeout: 700m"))
        assert answer.status == 503 and b"deadline_unreachable" in answer.body, "at its end it is total_timeout"
        assert int(answer.get("retry-after") or 0) >= 1
        third.send(get("/third", "X-Request-Timeout: 200"))
        pool.wait_queued(1)
        server.gate.set()
        assert first.response().status == third.response().status == 200
    assert server.targets == ["/known", "/first", "/third"]
    assert pool.rejected("deadline_unreachable") == 1
    assert pool.log("/second")["end"] == "deadline_unreachable"


def test_those_before_it_count_where_the_order_is_fifo(site: Site) -> None:
    pool = site.pool("fifo")
    known_to_take(pool, 0.5)
    server = pool.servers[0]
    server.gate.clear()
    with Crowd(5) as crowd:
        waiting = []
        for number in range(4):
            waiting.append(crowd.start(lambda n=number: pool.ask(get(f"/before-{n}"))))  # type: ignore[misc]
            wait_until(lambda: pool.metric("queue_depth") + pool.metric("server_inflight") == number + 1, "it")  # noqa: B023
        answer = pool.ask(get("/behind", "X-Request-Timeout: 1.2"))
        assert answer.status == 503 and b"deadline_unreachable" in answer.body
        waiting.append(crowd.start(lambda: pool.ask(get("/patient", "X-Request-Timeout: 200"))))
        pool.wait_queued(4)
        server.service_s = 0.0
        server.gate.set()
        assert [future.result().status for future in waiting] == [200] * 5


def test_a_time_that_cannot_be_read_is_taken_out(site: Site) -> None:
    pool = site.pool("unreadable")
    before = pool.lb.metric("headers_dropped_total", reason="bad_deadline")
    pool.servers[0].script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    assert pool.ask(get("/unreadable", "X-Request-Timeout: soon")).status == 200
    assert pool.servers[0].requests[0].get("x-request-timeout") is None
    assert pool.lb.metric("headers_dropped_total", reason="bad_deadline") == before + 1
