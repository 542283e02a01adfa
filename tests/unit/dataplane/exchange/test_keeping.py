"""Answers that are held back while a better one is sought: whole ones are given in the end, half ones never."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, body_of, ok, status_of

TIMEOUTS = "timeouts: {connect: 1s, response_head: 2s, read: 3s, write: 4s, tunnel: 5s, half_closed: 2s}"
BUSY = ok(b"busy", status="503 Service Unavailable")
HALF = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nhalf"


def two(**pool: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in pool.items())
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app: {{servers: ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"], strategy: round_robin, health_check: off,
        {TIMEOUTS}{extra}}}
"""


@pytest.mark.parametrize("how", ["time", "grace"])
@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_that_is_kept_back_and_not_whole_is_never_given(how: str, framing: bytes) -> None:
    """Of a half answer the rest would be taken out of the next one, or it would look whole."""
    with FakeLb(two(retry="{status: [503]}").replace("timeouts: {", "timeouts: {total: 3s, ")) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        part = b"4\r\nhalf\r\n" if b"chunked" in framing else b"half"
        server.send(b"HTTP/1.1 503 Service Unavailable\r\n" + framing + b"\r\n\r\n" + part)
        assert client.got() == b""
        if how == "time":
            lb.advance(4.0)
        else:
            for item in list(lb.services.swept):
                item.shut_down()
            lb.loop.run()
        answer = client.got()
        assert status_of(answer) == (504 if how == "time" else 503)
        assert b"half" not in answer and b"application/problem+json" in answer


def test_an_answer_that_is_kept_back_may_take_its_time_if_it_is_not_silent() -> None:
    with FakeLb(two(retry="{status: [503], attempts: 1}")) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\n")
        for _ in range(3):
            lb.advance(2.0)  # of 3 s without a byte
            server.send(b"12")
        server.send(b"12")
        lb.advance(1.0)
        lb.accept().send(ok(b"better"))
        assert body_of(client.got()) == b"better"
        assert lb.of_servers("upstream_errors_total", "idle_timeout") == 0


@pytest.mark.parametrize("end", ["fin", "reset", "silence"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_whole_answer_that_is_kept_is_not_lost_to_half_a_one(attempts: int, end: str) -> None:
    with FakeLb(two(retry=f"{{status: [503], attempts: {attempts}}}")) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(BUSY)
        for _ in range(attempts):
            server = lb.accept()
            server.send(HALF)
            assert client.got() == b""
            lb.advance(4.0) if end == "silence" else getattr(server, end)()
        answer = client.got()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and body_of(answer) == b"busy"
        assert not client.saw_reset and not lb.loop.dials
        assert lb.ends == ["ok"] and lb.log[0]["attempts"] == 1 + attempts


def test_of_whole_answers_the_last_one_is_given() -> None:
    with FakeLb(two(retry="{status: [503], attempts: 1}")) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(BUSY)
        server = lb.accept()
        server.send(HALF)
        server.send(b"full")
        assert body_of(client.got()) == b"halffull"
        assert lb.of_servers("upstream_errors_total", "retryable_status") == 1


def test_half_a_better_answer_is_streamed_and_not_held_back() -> None:
    with FakeLb(two(retry="{status: [503], attempts: 1}")) as lb:
        client = lb.connect()
        lb.exchange(client, GET).send(BUSY)
        server = lb.accept()
        server.send(ok(b"halffull")[:-4])
        assert body_of(client.got()) == b"half"
        server.fin()
        assert client.saw_reset and lb.ends == ["truncated_body"]
