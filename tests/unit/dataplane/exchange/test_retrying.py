"""What is tried for a request, in which order, and what is said of it afterwards."""

from __future__ import annotations

import errno

from tests.support.fake_transport import GET, FakeLb, ok, post, status_of


def config(pool: str = "") -> str:
    return f"""
access_log: {{path: /dev/null}}
listeners: [{{name: web, bind: "127.0.0.1:5000", pool: app}}]
pools:
  app: {{servers: ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"], health_check: off{pool}}}
"""


ONE_TRY = ", retry: {attempts: 0}"


def test_three_attempts_are_the_default_and_then_the_last_fault_shows() -> None:
    with FakeLb(config(", strategy: round_robin")) as lb:
        client = lb.connect()
        client.send(GET)
        for _ in range(3):
            lb.refuse(errno.EHOSTUNREACH)
        assert status_of(client.got()) == 502
        assert lb.ends == ["connect_unreachable"]
        assert lb.log[0]["attempts"] == 3
        assert lb.of_pool("retries_total", "connect", "failure") == 2
        assert lb.of_servers("upstream_errors_total", "connect_unreachable") == 3


def test_a_retry_avoids_the_servers_that_were_tried() -> None:
    with FakeLb(config(", strategy: ip_hash, retry: {attempts: 2}")) as lb:
        client = lb.connect()
        client.send(GET)
        addresses = []
        for _ in range(3):
            addresses.append(lb.loop.dials[0].address)
            lb.refuse(errno.EHOSTUNREACH)
        assert len(set(addresses)) == 3


def test_the_log_names_each_server_that_was_tried() -> None:
    with FakeLb(config(", strategy: round_robin")) as lb:
        client = lb.connect()
        client.send(GET)
        lb.advance(0.25)
        lb.refuse()
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        lb.exchange(client, post()).fin()
        assert "tries" not in lb.log[1], "there was one attempt only"
        first, second = lb.log[0]["tries"]
        assert (first["server"], first["reason"]) == ("127.0.0.1:9001", "connect_refused") and first["ms"] >= 250
        assert (second["server"], second["reason"]) == ("127.0.0.1:9002", "ok") and second["ms"] < first["ms"]


def test_an_error_names_each_server_that_was_tried() -> None:
    with FakeLb(config(", strategy: round_robin")) as lb:
        client = lb.connect()
        client.send(GET)
        for _ in range(3):
            lb.advance(0.25)
            lb.refuse()
        answer = client.got()
        assert status_of(answer) == 503
        tries = lb.log[0]["tries"]
        assert [item["server"] for item in tries] == [f"127.0.0.1:900{number}" for number in (1, 2, 3)]
        assert {item["reason"] for item in tries} == {"connect_refused"}, "what each did, not what it led to"
        shown = ", ".join(f"{item['server']} connect_refused {round(item['ms'])}ms" for item in tries)
        assert f'; details="no_server; tries: {shown}"\r\n'.encode() in answer


def test_an_error_of_the_only_attempt_names_no_others() -> None:
    with FakeLb(config(ONE_TRY)) as lb:
        client = lb.connect()
        client.send(GET)
        lb.accept().reset()
        assert b'; details="reset"\r\n' in client.got()
        assert "tries" not in lb.log[0]


REPEATED = config(", strategy: round_robin, retry: {attempts: 1, backoff: {base: 0, max: 0}}")


def test_a_permit_is_held_until_something_comes_of_the_retry() -> None:
    with FakeLb(REPEATED) as lb:
        client = lb.connect()
        lb.exchange(client, GET).reset()
        server = lb.accept()
        assert lb.pool.budget.active == 1
        server.send(ok())
        assert lb.pool.budget.active == 0 and lb.of_pool("retries_total", "reset", "success") == 1


def test_a_client_that_leaves_gives_the_permit_back() -> None:
    with FakeLb(REPEATED) as lb:
        client = lb.connect()
        lb.exchange(client, GET).reset()
        lb.accept()
        client.reset()
        assert lb.pool.budget.active == 0 and lb.ends == ["client_abort"]


def test_without_a_permit_there_is_no_retry() -> None:
    with FakeLb(REPEATED) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        lb.pool.budget.active = 1 << 30
        server.reset()
        assert status_of(client.got()) == 502 and lb.log[0]["attempts"] == 1
        assert lb.of_pool("retry_budget_exhausted_total") == 1 and not lb.loop.dials
