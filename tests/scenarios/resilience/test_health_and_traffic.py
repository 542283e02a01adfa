"""Checks say one thing and traffic another, busy is not dead, and one bad server of many."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbproxy.domain.server import PENALTY_S
from tests.support.daemon import LbProxy
from tests.support.origin import Peer, Script
from tests.support.rig import post
from tests.support.servers import Load, gunicorns
from tests.support.site import Crowd, Pool, Server, Site, status
from tests.support.waiting import wait_until

CHECK_S = 0.1
# A check that is late because the machine is busy must fail no test, unless the test is about time-outs.
CHECK = {"type": "http", "path": "/health", "interval": f"{CHECK_S}s", "timeout": "60s", "rise": 2, "fall": 2}
HASTY = {**CHECK, "timeout": f"{CHECK_S}s"}
LONG = {"open": "300s", "window": "600s"}
NO_RETRY = {"retry": {"attempts": 0}}
PATIENT = {"timeout": "300s"}
SINK = {
    "n": 8,
    "strategy": "least_connections",
    "health_check": CHECK,
    "circuit_breaker": {**LONG, "status": [500, 502, 503, 504]},
}
PLAN: dict[str, dict[str, object]] = {
    "row-44": {"health_check": CHECK, **NO_RETRY},
    "row-45": {"health_check": CHECK, "circuit_breaker": LONG, **NO_RETRY},
    "row-46": {"health_check": HASTY},
    "row-47": {"health_check": {**CHECK, "fall": 3}},
    "busy": {"health_check": {**HASTY, "busy_window": "60s"}},
    # A second for the server that does answer. If it is out too, nobody is asked in place of the wedged one.
    "wedged": {"health_check": {**CHECK, "timeout": "1s", "busy_window": "400ms"}, "fail_open": "off"},
    "sink-500": {**SINK, **NO_RETRY},
    "sink-503": {**SINK, **NO_RETRY},
    "sink-slots": {**SINK, "circuit_breaker": LONG, "max_inflight": 2, "queue": PATIENT, **NO_RETRY},
    "sink-slots-retried": {
        **SINK,
        "circuit_breaker": LONG,
        "max_inflight": 2,
        "queue": PATIENT,
        "retry": {"idempotent": True, "status": [500], "backoff": {"base": "1ms"}, "budget": {"min": 10}},
    },
    "sink-retried": {
        **SINK,
        "retry": {"idempotent": True, "status": [500, 503], "backoff": {"base": "1ms"}, "budget": {"min": 10}},
    },
}


@pytest.fixture
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    """The pool of this name with a daemon of its own: others' checks would keep descriptors open."""
    name: str = request.param
    with Site(tmp_path, {name: PLAN[name]}) as site:
        site.begin()
        made = site.pool(name)
        yield made
        for server in made.servers:
            server.default = checked_by(healthy)
            server.reset()  # checks that hang
        site.check()


def with_pool(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pool", [name], indirect=True)


def healthy(c: Peer) -> None:
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def checked_by(health: Script, work: Callable[[], float] = lambda: 0.0) -> Script:
    """A server whose /health runs `health`, and that takes `work()` seconds for anything else."""

    def script(c: Peer) -> None:
        while True:
            request = c.read_request()
            if request.target == "/health":
                health(c)
                continue
            time.sleep(work())
            c.send(c.origin.answer(request))

    return script


def hang(c: Peer) -> None:
    c.read_to_end()


def checks(pool: Pool, result: str, server: Server) -> float:
    return pool.metric("health_checks_total", result=result, server=server.address)


def wait_well(pool: Pool) -> None:
    """Until now a check may have got the answer to a request: wait until the servers' new scripts answer them."""
    before = [checks(pool, "pass", server) for server in pool.servers]
    wait_until(
        lambda: all(checks(pool, "pass", s) >= n + 2 for s, n in zip(pool.servers, before, strict=True)),
        "two more checks of each server to pass",
    )


def predictions(server: Server) -> int:
    """Requests of clients that it has read."""
    return sum(target != "/health" for target in server.targets)


def statuses(pool: Pool, count: int, clients: int = 1) -> Counter[int]:
    """So many POSTs by so many clients at once."""
    found: list[int] = []

    def work() -> None:
        with pool.client() as client:
            found.extend(client.ask(post(f"/{pool.name}")).status for _ in range(count // clients))

    with Crowd(clients) as crowd:
        for done in [crowd.start(work) for _ in range(clients)]:
            done.result()
    return Counter(found)


def statuses_and_trials(pool: Pool, count: int) -> tuple[Counter[int], int]:
    """So many POSTs by 16 clients, and how often in that time, at most, a penalised server was due to be tried."""
    began = time.monotonic()
    found = statuses(pool, count, clients=16)
    return found, 1 + int((time.monotonic() - began) / PENALTY_S)


@with_pool("row-44")
def test_a_500_of_the_servers_is_relayed_and_nobody_is_ejected(pool: Pool) -> None:
    for server in pool.servers:
        server.default = checked_by(healthy)
    wait_well(pool)
    for server in pool.servers:
        server.answer = status(500, body=b"bad input")
    with pool.client() as client:
        for _ in range(60):
            answer = client.ask(post("/row-44"))
            assert (answer.status, answer.body) == (500, b"bad input")
    assert pool.states() == ["up", "up"] and pool.metric("server_ejections_total") == 0
    for server in pool.servers:
        assert checks(pool, "fail", server) == 0


@with_pool("row-45")
def test_traffic_fails_although_checks_pass(pool: Pool) -> None:
    for server in pool.servers:
        server.default = checked_by(healthy)
    wait_well(pool)
    pool.servers[0].answer = status(502)
    found = statuses(pool, 60)
    assert found == {200: 55, 502: 5}, "five in a row, and no more"
    why = pool.wait_state(0, "ejected")["why"]
    assert "5 consecutive answers 502, next probe in" in str(why)
    passes = checks(pool, "pass", pool.servers[0])
    wait_until(lambda: checks(pool, "pass", pool.servers[0]) >= passes + 5, "five more checks to pass")
    assert pool.member(0)["state"] == "ejected" and pool.member(0)["health"] == "up"


def is_given_up(sock: socket.socket) -> bool:
    """Has lbproxy ended this connection, whether or not the thread that reads it has run since?"""
    return bool(select.select([sock], [], [], 0)[0])  # it sends nothing behind its request


@with_pool("row-46")
def test_the_health_end_point_hangs(pool: Pool) -> None:
    open_now: list[socket.socket] = []
    most = [0]
    lock = threading.Lock()

    def counted_hang(c: Peer) -> None:
        with lock:
            open_now.append(c.sock)
            most[0] = max(most[0], sum(not is_given_up(sock) for sock in open_now))
        try:
            c.read_to_end()
        finally:
            with lock:
                open_now.remove(c.sock)

    pool.servers[0].default = checked_by(counted_hang)
    pool.servers[1].default = checked_by(healthy)
    member = pool.wait_state(0, "down")
    assert "no answer" in str(member["why"])
    failed = checks(pool, "fail", pool.servers[0])
    wait_until(lambda: checks(pool, "fail", pool.servers[0]) >= failed + 6, "six more checks")
    assert most[0] == 1, "checks pile up"
    assert statuses(pool, 10) == {200: 10}
    pool.servers[0].default = checked_by(healthy)
    pool.wait_state(0, "up")


def alternating(c: Peer, turn: list[int]) -> None:
    turn[0] += 1
    c.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % (200 if turn[0] % 2 else 500))


@with_pool("row-47")
def test_checks_that_alternate_flip_nobody(pool: Pool) -> None:
    turn = [0]
    pool.servers[0].default = checked_by(lambda c: alternating(c, turn))
    pool.servers[1].default = checked_by(healthy)
    wait_until(lambda: checks(pool, "fail", pool.servers[0]) >= 8, "eight failed checks")
    flips = sum(pool.metric("server_transitions_total", server=pool.servers[0].address, to=to) for to in ("up", "down"))
    assert flips <= 1, "at most the one before the first pass"


@with_pool("busy")
def test_busy_is_not_dead(pool: Pool) -> None:
    """/health stalls while predictions flow: nobody is taken out, nobody is ejected, no request fails."""
    wait_until(lambda: pool.states() == ["up", "up"], "both to be well")
    assert statuses(pool, 10) == {200: 10}, "from now on each has made progress of late"
    for server in pool.servers:
        server.default = checked_by(hang, work=lambda: 0.005)
    seen = [checks(pool, "busy", server) for server in pool.servers]
    found: Counter[int] = Counter()

    def is_seen() -> bool:
        found.update(statuses(pool, 20, clients=4))
        return all(checks(pool, "busy", s) >= before + 10 for s, before in zip(pool.servers, seen, strict=True))

    downs = pool.metric("server_transitions_total", to="down")
    wait_until(is_seen, "ten stalled checks of each server")
    assert set(found) == {200}
    assert pool.metric("server_transitions_total", to="down") == downs
    assert pool.metric("server_ejections_total") == 0
    assert set(pool.states()) <= {"busy", "up"}


@with_pool("wedged")
def test_a_wedged_server_is_dead(pool: Pool) -> None:
    """No progress and no answer: out after `fall` checks, though its kernel accepts connections."""
    stopped = threading.Event()

    def wedge(c: Peer) -> None:
        while True:
            request = c.read_request()
            if stopped.is_set():
                c.read_to_end()
            c.send(c.origin.answer(request))

    pool.servers[0].default = wedge
    pool.servers[1].default = checked_by(healthy)
    wait_until(lambda: checks(pool, "pass", pool.servers[0]) >= 2, "the server to be well")
    wait_until(lambda: statuses(pool, 10) == {200: 10}, "both to serve")
    stopped.set()
    pool.wait_state(0, "down")
    before = predictions(pool.servers[0])
    wait_until(lambda: statuses(pool, 10) == {200: 10}, "the other to serve everybody")
    assert predictions(pool.servers[0]) == before


@pytest.mark.parametrize(("pool", "code"), [("sink-500", 500), ("sink-503", 503)], indirect=["pool"])
def test_one_bad_server_of_eight_costs_a_handful_of_answers(pool: Pool, code: int) -> None:
    """It fails at once while the others take their time, so the least load is always its.

    Each time that it is tried again, every client may be there before the first answer is.
    """
    begin_sinkhole(pool, code)
    found, trials = statuses_and_trials(pool, 320)
    assert set(found) == {200, code}
    assert found[code] <= 16 * trials, "what was sent before the first answer was there"
    later, trials = statuses_and_trials(pool, 400)
    assert set(later) <= {200, code} and later[code] <= 16 * trials


@with_pool("sink-slots")
def test_with_slots_the_one_bad_server_is_not_used_because_the_others_are_full(pool: Pool) -> None:
    """500 is not the breaker's business; 16 clients at the 14 slots of the others, so somebody waits nearly always."""
    bad = begin_sinkhole(pool, 500)
    statuses(pool, 320, clients=16)
    before = predictions(bad)
    later, trials = statuses_and_trials(pool, 800)
    assert set(later) <= {200, 500} and later[500] <= 5 * trials
    assert predictions(bad) - before == later[500]


@with_pool("sink-slots-retried")
def test_with_slots_and_retries_the_one_bad_server_is_not_seen(pool: Pool) -> None:
    begin_sinkhole(pool, 500)
    assert statuses(pool, 400, clients=16) == {200: 400}


def begin_sinkhole(pool: Pool, code: int) -> Server:
    """The first server answers `code` at once from now on, while the others take 10 ms."""
    for server in pool.servers:
        server.default = checked_by(healthy, work=lambda: 0.01)
    bad = pool.servers[0]
    bad.default = checked_by(healthy)
    wait_well(pool)
    bad.answer = status(code)
    return bad


@with_pool("sink-retried")
def test_one_bad_server_of_eight_is_not_seen_where_requests_may_be_repeated(pool: Pool) -> None:
    for server in pool.servers:
        server.default = checked_by(healthy, work=lambda: 0.005)
    bad = pool.servers[0]
    bad.default = checked_by(healthy)
    wait_well(pool)
    bad.answer = status(503)
    assert statuses(pool, 400, clients=16) == {200: 400}
    assert sum(map(predictions, pool.servers)) <= 1.1 * 400


def test_a_stopped_server_is_out_and_comes_back(tmp_path: Path) -> None:
    """SIGSTOP on a real server: the kernel accepts for it, requests to it are lost only to time."""
    check: dict[str, object] = {"type": "http", "path": "/health", "interval": "300ms", "timeout": "300ms"}
    check |= {"busy_window": "1s", "fall": 2}
    with gunicorns(tmp_path, 3, E2E_EXECUTED=str(tmp_path / "executed")) as servers:
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [{"address": s.address, "name": f"s{n}"} for n, s in enumerate(servers)],
                    "health_check": check,
                    "timeouts": {"response_head": "2s"},
                    "retry": {"idempotent": True, "on": ["connect", "reset", "timeout"], "budget": {"min": 100}},
                }
            },
        }
        with LbProxy(settings, tmp_path / "lb") as lb:
            wait_until(lambda: lb.metric("server_up") == 3, "all servers to be up")
            with Load(lb.port("in"), 8, (0.01, 0.03)) as load:
                load.wait_for(50)
                servers[0].pause()
                wait_until(lambda: lb.metric("server_up", server="s0") == 0, "the stopped server to be out")
                load.wait_for(100)
                servers[0].go_on()
                wait_until(lambda: lb.metric("server_up", server="s0") == 1, "it to be back")
            assert not load.failed
