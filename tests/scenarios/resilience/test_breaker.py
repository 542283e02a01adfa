"""Circuit breaker and backup servers through the real daemon: who is ejected, who never is, and how one comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.client import Client
from tests.support.origin import Peer, close_unanswered, reset_unanswered, silent
from tests.support.rig import get, post
from tests.support.site import Crowd, Pool, Server, Site, status
from tests.support.waiting import wait_until
from tests.support.wire import Request

OPEN_S = 0.3
# Neither an ejection nor a window ends within a test, however long the machine takes over it.
LONG = {"open": "300s", "window": "600s"}
QUICK = {"open": f"{OPEN_S}s"}
NO_RETRY = {"retry": {"attempts": 0}}
HIDDEN = {"retry": {"idempotent": True, "backoff": {"base": 0, "max": 0}}}
RETRY_AFTER = {
    "503-retry-after": "1",
    "503-retry-after-0": "0",
    "503-retry-after-date": "Fri, 31 Dec 2100 23:59:59 GMT",
    "503-retry-after-rfc850": "Friday, 31-Dec-60 23:59:59 GMT",
    "503-retry-after-asctime": "Fri Dec 31 23:59:59 2100",
    "503-retry-after-unreadable": "in a while",
}
NEVER = ("429", *RETRY_AFTER, "500", "404", "abort")
PLAN: dict[str, dict[str, object]] = {
    "closes": {"circuit_breaker": LONG, **NO_RETRY},
    "resets": {"circuit_breaker": LONG, **NO_RETRY},
    "answers-502": {"circuit_breaker": LONG, **NO_RETRY},
    "hidden": {"circuit_breaker": LONG, **HIDDEN},
    "four": {"circuit_breaker": {**LONG, "failures": 4}, **NO_RETRY},
    "interrupted": {"circuit_breaker": LONG, **NO_RETRY},
    "hangs": {"circuit_breaker": {**LONG, "failures": 2}, "timeouts": {"response_head": "500ms"}, **NO_RETRY},
    "back": {"circuit_breaker": QUICK, **HIDDEN},
    "worse": {"circuit_breaker": QUICK, **HIDDEN},
    "one-probe": {"circuit_breaker": QUICK, **HIDDEN},
    "probe-left": {"circuit_breaker": QUICK, **HIDDEN},
    **{f"never-{name}": {"circuit_breaker": {**LONG, "failures": 3, "min_requests": 5}} for name in NEVER},
    "configured": {"circuit_breaker": {**LONG, "status": [500]}},
    "poisoned": {"n": 3, "circuit_breaker": LONG, **NO_RETRY},
    "poisoned-hash": {"n": 3, "strategy": "ip_hash", "circuit_breaker": LONG, **NO_RETRY},
    "all-bad": {"circuit_breaker": LONG, **NO_RETRY},
    "outlier": {"n": 3, "circuit_breaker": LONG, **NO_RETRY},
    "off": {"circuit_breaker": "off", **NO_RETRY},
    "single": {"n": 1, "circuit_breaker": {**LONG, "failures": 3, "min_requests": 5}, **NO_RETRY},
    "rate": {"circuit_breaker": {**LONG, "failures": 1000, "min_requests": 10, "error_rate": 0.5}},
    "below-rate": {"circuit_breaker": {**LONG, "failures": 1000, "min_requests": 10, "error_rate": 0.5}},
    "half": {"n": 4, "circuit_breaker": {**LONG, "failures": 2}, **NO_RETRY},
    "none-out": {"circuit_breaker": {**LONG, "failures": 2, "max_ejected": 0.4}, **NO_RETRY},
    "backup": {"n": 3, "backups": (2,), "health_check": {"interval": "200ms", "rise": 1}},
    "backup-full": {"backups": (1,), "max_inflight": 1},
    "backup-ejected": {"backups": (1,), "circuit_breaker": {**LONG, "failures": 2}, **HIDDEN},
    "backup-relieved": {"backups": (1,), "circuit_breaker": {**QUICK, "failures": 2}, **HIDDEN},
    "slots": {"max_inflight": 1, "circuit_breaker": {**QUICK, "failures": 2}, **HIDDEN},
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("breaker"), PLAN, workers=n_workers) as site:
        yield site


def ask(pool: Pool, count: int, name: str = "x") -> list[int]:
    """So many requests one after the other on one connection: their statuses."""
    with pool.client() as client:
        return [_ask(client, f"/{name}-{number}") for number in range(count)]


def _ask(client: Client, target: str) -> int:
    return client.ask(get(target)).status


def recover(server: Server) -> None:
    """From the next connection on it works."""
    server.default = server.work


def ejections(pool: Pool, reason: str = "") -> float:
    return pool.metric("server_ejections_total", **({"reason": reason} if reason else {}))


def until_ejected(pool: Pool, number: int = 0, most: int = 60) -> None:
    """Ask until this server is out; the last request that it saw was the one that decided."""
    with pool.client() as client:
        for turn in range(most):
            _ask(client, f"/until-{turn}")
            if pool.member(number)["state"] in ("ejected", "probing"):  # the latter on a machine that is busy for long
                return
    raise AssertionError(pool.status())


# --- out ---


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("closes", "5 consecutive connections closed without an answer"),
        ("resets", "5 consecutive resets"),
        ("answers-502", "5 consecutive answers 502"),
    ],
)
def test_five_failures_in_a_row_eject(site: Site, name: str, what: str) -> None:
    pool = site.pool(name)
    bad, good = pool.servers
    if name == "answers-502":
        bad.answer = status(502)
    else:
        bad.default = close_unanswered if name == "closes" else reset_unanswered
    codes = ask(pool, 40)
    assert codes.count(502) == 5
    assert codes[-25:] == [200] * 25
    assert (len(bad.requests), len(good.requests)) == (5, 35)
    member = pool.member(0)
    assert member["state"] == "ejected"
    why = str(member["why"])
    assert what in why
    assert "next probe in" in why
    assert pool.states() == ["ejected", "up"]
    assert ejections(pool, "consecutive_failures") == ejections(pool) == 1
    assert pool.metric("server_transitions_total", to="ejected") == 1
    assert pool.metric("pool_servers", state="ejected") == 1


def test_clients_do_not_see_it_where_requests_may_be_repeated(site: Site) -> None:
    pool = site.pool("hidden")
    pool.servers[0].default = close_unanswered
    assert ask(pool, 60) == [200] * 60
    assert len(pool.servers[0].requests) == 5
    assert pool.states() == ["ejected", "up"]


def test_the_number_of_failures_is_configured(site: Site) -> None:
    pool = site.pool("four")
    pool.servers[0].default = close_unanswered
    assert ask(pool, 30).count(502) == 4


def test_a_success_in_between_starts_the_count_again(site: Site) -> None:
    pool = site.pool("interrupted")
    bad = pool.servers[0]
    # 4 failures, a success, 4 failures, a success ...: 80 % within a window too short for the error rate (20 requests).
    bad.script(*([close_unanswered] * 4 + [_once]) * 3)
    with pool.client() as client:
        while len(bad.requests) < 15:
            _ask(client, "/interrupted")
    assert pool.states() == ["up", "up"]
    assert ejections(pool) == 0


def _once(c: Peer) -> None:
    c.read_request()
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_a_server_that_hangs_is_ejected(site: Site) -> None:
    pool = site.pool("hangs")
    bad = pool.servers[0]
    bad.default = silent
    until_ejected(pool)
    assert "2 consecutive response time-outs" in str(pool.member(0)["why"])
    ask(pool, 6)
    wait_until(lambda: bad.open_connections == 0, "the server to have read what it got")
    assert len(bad.requests) == 2


def test_an_error_rate_ejects(site: Site) -> None:
    pool = site.pool("rate")
    bad, good = pool.servers
    turn = iter(range(1000))
    bad.answer = lambda request: status(502 if next(turn) % 2 else 200)(request)
    ask(pool, 60)
    assert len(bad.requests) == 10
    assert len(good.requests) == 50
    assert pool.states() == ["ejected", "up"]
    assert "5 of 10 requests failed within 600 s" in str(pool.member(0)["why"])
    assert ejections(pool, "error_rate") == ejections(pool) == 1


def test_an_error_rate_below_the_limit_does_not(site: Site) -> None:
    pool = site.pool("below-rate")
    turn = iter(range(1000))
    pool.servers[0].answer = lambda request: status(502 if next(turn) % 3 == 2 else 200)(request)
    ask(pool, 80)
    assert len(pool.servers[0].requests) > 10
    assert ejections(pool) == 0


# --- back ---


def test_a_probe_brings_a_server_back(site: Site) -> None:
    pool = site.pool("back")
    bad = pool.servers[0]
    bad.default = close_unanswered
    began = time.monotonic()  # of what it is ejected for: when that was seen is later than when it was
    until_ejected(pool)
    recover(bad)
    before = len(bad.requests)
    member = pool.wait_state(0, "probing")
    assert time.monotonic() - began >= OPEN_S
    assert "the next request is a probe" in str(member["why"])
    assert ask(pool, 1) == [200]
    assert len(bad.requests) == before + 1
    pool.wait_state(0, "up")
    ask(pool, 10)
    assert len(bad.requests) == before + 1 + 5
    assert ejections(pool) == 1


def test_a_failed_probe_doubles_the_time(site: Site) -> None:
    pool = site.pool("worse")
    bad = pool.servers[0]
    bad.default = close_unanswered
    until_ejected(pool)
    before = len(bad.requests)
    for turn, open_s in enumerate((2 * OPEN_S, 4 * OPEN_S)):
        pool.wait_state(0, "probing")
        asked_at = time.monotonic()
        assert ask(pool, 1) == [200]  # the probe fails, and its request is repeated at the other server
        assert len(bad.requests) == before + 1 + turn
        member = pool.member(0)
        if time.monotonic() - asked_at < open_s:
            assert member["state"] == "ejected"
            assert "the probe met connections closed without an answer" in str(member["why"])
        pool.wait_state(0, "probing")
        assert time.monotonic() - asked_at >= open_s
    assert ejections(pool, "probe_failed") == 2
    recover(bad)
    ask(pool, 1)
    pool.wait_state(0, "up")


def probed_at_a_gate(pool: Pool) -> tuple[Server, int]:
    """A server that was ejected, is well again, and holds its probe back; how many requests it has had."""
    bad = pool.servers[0]
    bad.default = close_unanswered
    until_ejected(pool)
    recover(bad)
    bad.gate.clear()
    before = len(bad.requests)
    pool.wait_state(0, "probing")
    return bad, before


def test_one_probe_at_a_time(site: Site) -> None:
    pool = site.pool("one-probe")
    bad, before = probed_at_a_gate(pool)
    with Crowd() as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/probe-{number}"))) for number in range(12)]
        wait_until(lambda: sum(answer.done() for answer in answers) == 11, "all but the probe to be answered")
        assert len(bad.requests) == before + 1
        assert "a probe is out" in str(pool.member(0)["why"])
        bad.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 12
    pool.wait_state(0, "up")


def test_a_client_that_leaves_a_probe_proves_nothing(site: Site) -> None:
    pool = site.pool("probe-left")
    bad, before = probed_at_a_gate(pool)
    with pool.client() as client:
        client.send(get("/probe-left"))
        wait_until(lambda: len(bad.requests) > before, "the probe to arrive")
        client.reset()
    pool.wait_inflight(0)
    assert pool.member(0)["state"] == "probing"
    bad.gate.set()

    def is_back() -> bool:
        return ask(pool, 1) == [200] and pool.member(0)["state"] == "up"

    wait_until(is_back, "the server to be probed again")
    assert ejections(pool) == 1


def test_with_slots_a_recovered_server_takes_its_share_again(site: Site) -> None:
    """Breaker and queue together: while one of two one-slot servers is out, and when it comes back, nobody is lost."""
    pool = site.pool("slots")
    bad, good = pool.servers
    bad.default = close_unanswered
    for server in pool.servers:
        server.service_s = 0.01
    with Crowd(16) as crowd:
        rounds = [crowd.start(partial(ask, pool, 15, f"crowd-{number}")) for number in range(8)]
        wait_until(lambda: ejections(pool) >= 1, "the ejection")
        recover(bad)
        codes = [code for done in rounds for code in done.result()]
    assert codes == [200] * 120
    assert (bad.most_at_work <= 1, good.most_at_work) == (True, 1)

    def is_back() -> bool:
        ask(pool, 1)
        return pool.member(0)["state"] == "up"

    wait_until(is_back, "the server to come back")


# --- never ---


@pytest.mark.parametrize("name", NEVER[:-1])
def test_answers_that_never_eject(site: Site, name: str) -> None:
    pool = site.pool(f"never-{name}")
    fields = [f"Retry-After: {RETRY_AFTER[name]}"] if name in RETRY_AFTER else []
    code = int(name[:3])
    for server in pool.servers:
        server.answer = status(code, *fields)
    assert ask(pool, 60) == [code] * 60
    assert pool.states() == ["up", "up"]
    assert ejections(pool) == 0


def echo_into_a_field(request: Request) -> bytes:
    """A server that trusts its query: whatever stands behind n= is the value of a field."""
    value = unquote_to_bytes(request.target.partition("n=")[2])
    return b"HTTP/1.1 200 OK\r\nX-Name: " + value + b"\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("name", ["poisoned", "poisoned-hash"])
def test_one_poisoned_url_ejects_nobody(site: Site, name: str) -> None:
    """100 times, whatever the query; everybody else is served."""
    pool = site.pool(name)
    for server in pool.servers:
        server.answer = echo_into_a_field
    with pool.client() as client:
        for number in range(100):
            assert client.ask(get(f"/echo?i={number}&n=a%1bb")).status == 502
            if number % 10 == 0:
                assert ask(pool, 3, "echo?n=well") == [200] * 3
    assert pool.states() == ["up"] * 3
    assert ejections(pool) == 0


def test_a_server_whose_answers_are_all_bad_is_ejected_quickly(site: Site) -> None:
    pool = site.pool("all-bad")
    pool.servers[0].answer = lambda request: b"HTTP/1.1 200 OK\r\nX: \x1b\r\nContent-Length: 2\r\n\r\nok"
    assert ask(pool, 30).count(502) == 5
    assert pool.states() == ["ejected", "up"]
    assert "5 consecutive bad answers" in str(pool.member(0)["why"])


def test_errors_that_the_others_do_not_give_eject(site: Site) -> None:
    """500 is not in `circuit_breaker.status`."""
    pool = site.pool("outlier")
    pool.servers[1].answer = status(500)
    # How many requests come between two comparisons depends on how fast this machine is: until it is out, then.
    until_ejected(pool, 1, most=5_000)
    assert ask(pool, 12) == [200] * 12
    assert pool.states() == ["up", "ejected", "up"]
    assert ejections(pool, "outlier") == ejections(pool) == 1
    assert "of the others' few" in str(pool.member(1)["why"])


def test_clients_that_leave_never_eject(site: Site) -> None:
    pool = site.pool("never-abort")
    for server in pool.servers:
        server.default = silent
    for number in range(20):
        with pool.client() as client:
            client.send(post(f"/abort-{number}"))
            wait_until(lambda: pool.n_attempts == number + 1, "the request to arrive")  # noqa: B023
            client.reset()
    wait_until(lambda: pool.metric("client_aborts_total") == 20, "20 aborts")
    assert pool.states() == ["up", "up"]
    assert ejections(pool) == 0
    for server in pool.servers:
        recover(server)
    assert ask(pool, 6) == [200] * 6


def test_a_single_server_is_never_ejected(site: Site) -> None:
    pool = site.pool("single")
    (server,) = pool.servers
    server.default = close_unanswered
    assert ask(pool, 40) == [502] * 40
    assert len(server.requests) == 40
    assert pool.states() == ["up"]
    recover(server)
    assert ask(pool, 3) == [200] * 3
    assert ejections(pool) == 0


def test_no_breaker_no_ejection(site: Site) -> None:
    pool = site.pool("off")
    pool.servers[0].default = close_unanswered
    assert ask(pool, 40).count(502) == 20
    assert pool.states() == ["up", "up"]


def test_a_500_ejects_where_it_is_configured(site: Site) -> None:
    pool = site.pool("configured")
    pool.servers[0].answer = status(500)
    assert ask(pool, 30).count(500) == 5
    assert pool.states() == ["ejected", "up"]
    pool.servers[1].answer = status(502)  # not in the list: no failure
    assert ask(pool, 20) == [502] * 20


def test_not_more_than_the_allowed_share_is_out(site: Site) -> None:
    pool = site.pool("half")
    for server in pool.servers[:3]:
        server.default = close_unanswered
    ask(pool, 100)
    states = pool.states()
    assert states.count("ejected") == 2
    assert states[3] == "up"
    assert ejections(pool) == 2
    kept_in = states.index("up")
    before = len(pool.servers[kept_in].requests)
    assert ask(pool, 20).count(502) == 10  # the third bad one goes on getting its share
    assert len(pool.servers[kept_in].requests) == before + 10


def test_a_share_that_is_less_than_one_server_ejects_nobody(site: Site) -> None:
    pool = site.pool("none-out")
    pool.servers[0].default = close_unanswered
    assert ask(pool, 30).count(502) == 15
    assert ejections(pool) == 0


# --- backup servers ---


def test_a_backup_serves_only_when_nobody_else_can(site: Site) -> None:
    pool = site.pool("backup")
    first, second, backup = pool.servers
    assert ask(pool, 20) == [200] * 20
    assert (len(first.requests), len(second.requests), len(backup.requests)) == (10, 10, 0)
    first.close()
    assert ask(pool, 20) == [200] * 20
    assert len(backup.requests) == 0
    second.close()
    assert ask(pool, 20) == [200] * 20
    assert len(backup.requests) == 20


def test_a_backup_is_not_used_because_the_others_are_full(site: Site) -> None:
    pool = site.pool("backup-full")
    first, backup = pool.servers
    first.gate.clear()
    with Crowd() as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/full-{number}"))) for number in range(4)]
        pool.wait_queued(3)
        first.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 4
    assert len(backup.requests) == 0


def test_a_backup_stands_in_for_an_ejected_server(site: Site) -> None:
    pool = site.pool("backup-ejected")
    first, backup = pool.servers
    first.default = close_unanswered
    assert ask(pool, 10) == [200] * 10
    assert (ejections(pool), len(first.requests), len(backup.requests)) == (1, 2, 10)


def test_a_backup_is_relieved_when_the_server_is_back(site: Site) -> None:
    pool = site.pool("backup-relieved")
    first, backup = pool.servers
    first.default = close_unanswered
    until_ejected(pool)
    recover(first)
    pool.wait_state(0, "probing")
    assert ask(pool, 1) == [200]
    pool.wait_state(0, "up")
    served = len(backup.requests)
    assert ask(pool, 10) == [200] * 10
    assert len(backup.requests) == served
