"""Kept connections and servers that close them: the time-out is learned, and no request is lost."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.daemon import Entry
from tests.support.origin import Peer, Stopped, echo
from tests.support.rig import get, post
from tests.support.site import Crowd, Pool, Site
from tests.support.waiting import wait_until
from tests.support.wire import Request

PATIENCE_S = 2.0  # of the servers: a fifth of it is more than the sweep needs
TURNS = 4
MOST_UNTIL_KNOWN = 60
PLAN: dict[str, dict[str, object]] = {
    "learned": {"n": 1, "keep_alive": {"idle_timeout": "300s"}},
    "announced": {"n": 1},
    "awkward": {"n": 2},
    "closes-half": {"n": 2},
    "curt": {"n": 1},
    "curt-crowd": {"n": 2},
    "curt-idle": {"n": 1},
    "short": {"n": 1},
    "waves": {"n": 1},
    "jitter": {"n": 1, "keep_alive": {"max_requests": 40}},
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("kept"), PLAN, workers=n_workers) as site:
        yield site


def impatient(c: Peer, patience_s: float = PATIENCE_S) -> None:
    """Serve, and close a connection on which nothing came for so long."""
    while True:
        if not c.stream.buffer and not select.select([c.sock], [], [], patience_s)[0]:
            raise Stopped  # a full close: what comes now is not taken in
        c.send(c.origin.answer(c.read_request()))


def patient(c: Peer) -> None:
    """Serve, and leave it to the other side to close."""
    c.serve()


def curt(c: Peer) -> None:
    """Answer once, take 5 ms over what is left to do, and close: what came meanwhile is not read."""
    c.send(c.origin.answer(c.read_request()))
    time.sleep(0.005)


def idle_timeout(pool: Pool) -> dict[str, float | None]:
    found = pool.member(0)["idle_timeout"]
    assert isinstance(found, dict)
    return found


def idle(pool: Pool) -> float:
    return pool.metric("upstream_connections", state="idle")


def learn(pool: Pool, number: int) -> None:
    """One request to each server, whose connections are then left alone."""
    for server in range(len(pool.servers)):
        assert pool.ask(get(f"/learn-{number}-{server}")).status == 200
    wait_until(lambda: idle(pool) == 0, "the servers to close the connections")


def test_a_server_s_idle_time_out_is_learned(site: Site) -> None:
    pool = site.pool("learned")
    server = pool.servers[0]
    server.default = impatient
    assert idle_timeout(pool) == {"announced": None, "learned": None}
    for number in range(2):
        learn(pool, number)
    learned = idle_timeout(pool)["learned"]
    assert learned is not None and learned > 0
    server.default = patient
    assert pool.ask(get("/retired")).status == 200
    peer = server.peers[-1]
    assert peer.closed.wait(PATIENCE_S + 60.0) and peer.end == "fin", "lbproxy waits for the server"


def test_what_a_server_announces_is_shown(site: Site) -> None:
    pool = site.pool("announced")

    def answer(request: Request) -> bytes:
        return echo(request).replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=7\r\n\r\n", 1)

    pool.servers[0].answer = answer
    assert pool.ask(get("/announced")).status == 200
    assert idle_timeout(pool) == {"announced": 7.0, "learned": None}


@pytest.mark.quiet  # the server closes within milliseconds of the next request
def test_posts_at_awkward_intervals_are_answered_and_executed_once(site: Site) -> None:
    """Each client pauses for about the server's patience: the worst moment to reuse a connection."""
    pool = site.pool("awkward")
    for server in pool.servers:
        server.default = impatient
    for number in range(2):
        learn(pool, number)
    answers: list[int] = []

    def work(number: int) -> None:
        with pool.client() as client:
            for turn in range(TURNS):
                answers.append(client.ask(post(f"/awkward-{number}-{turn}")).status)
                time.sleep(PATIENCE_S + (turn - 2) * 0.01)

    with Crowd(24) as crowd:
        for done in [crowd.start(lambda n=n: work(n)) for n in range(24)]:  # type: ignore[misc]
            done.result()
    assert answers == [200] * 24 * TURNS
    seen = [target for server in pool.servers for target in server.targets if target.startswith("/awkward")]
    assert len(seen) == len(set(seen)) == 24 * TURNS


def ask_until_known(pool: Pool, name: str, *, pause_s: float = 0.0) -> list[int]:
    """POSTs of one client until lbproxy knows how many a connection takes; the numbers of those that were lost."""
    lost = []
    with pool.client() as client:
        for number in range(MOST_UNTIL_KNOWN):
            if client.ask(post(f"/{name}-until-{number}")).status != 200:
                lost.append(number)
            if all(server["requests_per_connection"] == 1 for server in members(pool)):
                return lost
            time.sleep(pause_s)
    raise AssertionError(pool.status())


def members(pool: Pool) -> list[Entry]:
    return [pool.member(number) for number in range(len(pool.servers))]


def lost_of(pool: Pool, n_posts: int, name: str, *, pause_s: float = 0.0) -> list[int]:
    """The numbers of the POSTs of one client that were not answered with 200."""
    lost = []
    with pool.client() as client:
        for number in range(n_posts):
            if client.ask(post(f"/{name}-{number}")).status != 200:
                lost.append(number)
            time.sleep(pause_s)
    return lost


@pytest.mark.parametrize(("name", "pause_s"), [("curt", 0.0), ("curt-idle", 0.02)])
def test_a_server_that_closes_after_each_answer_without_a_word(site: Site, name: str, pause_s: float) -> None:
    """Some servers do. In the time that this takes the next request is lost; so they get one a connection."""
    pool = site.pool(name)
    pool.servers[0].default = curt
    lost = ask_until_known(pool, name, pause_s=pause_s)
    assert len(lost) <= 3, lost  # three early ends teach it in any case
    assert lost_of(pool, 100, name, pause_s=pause_s) == []
    assert pool.member(0)["requests_per_connection"] == 1


def test_many_clients_of_servers_that_close_after_each_answer(site: Site) -> None:
    pool = site.pool("curt-crowd")
    for server in pool.servers:
        server.default = curt
    ask_until_known(pool, "curt-crowd")
    with Crowd(8) as crowd:
        lost = [done.result() for done in [crowd.start(lambda n=n: lost_of(pool, 30, f"c{n}")) for n in range(8)]]  # type: ignore[misc]
    assert lost == [[]] * 8


@pytest.mark.quiet  # the server closes within milliseconds of the next request
def test_an_idle_time_out_of_200_ms_is_learned(site: Site) -> None:
    """With requests at about that distance, which is the worst."""
    pool = site.pool("short")
    pool.servers[0].default = partial(impatient, patience_s=0.2)
    with pool.client() as client:  # the server does keep connections
        for number in range(3):
            assert client.ask(get(f"/short-{number}")).status == 200
    for number in range(4):
        assert pool.ask(get(f"/short-a-{number}")).status == 200
        assert pool.ask(get(f"/short-b-{number}")).status == 200
        wait_until(lambda: idle(pool) == 0, "the server to close the connection")
    learned = idle_timeout(pool)["learned"]
    assert learned is not None and 0.19 < learned < 0.3, learned
    assert lost_of(pool, 40, "short", pause_s=0.198) == []
    assert pool.member(0)["requests_per_connection"] is None


def test_a_time_out_is_learned_from_waves(site: Site) -> None:
    """Two dozen connections fall idle together, and are closed together; one is not more than the others."""
    pool = site.pool("waves")
    pool.servers[0].default = partial(impatient, patience_s=1.0)
    for wave in range(2):
        with Crowd(24) as crowd:
            for done in [crowd.start(partial(pool.ask, get(f"/wave-{wave}-{n}"))) for n in range(24)]:
                assert done.result().status == 200
        wait_until(lambda: idle(pool) == 0, "the server to close the connections")
    learned = idle_timeout(pool)["learned"]
    # The server counts from when it has sent its answer, lbproxy from when it has read it, which a busy machine delays.
    assert learned is not None and learned > 0.3


def test_servers_that_close_after_half_of_their_answers(site: Site) -> None:
    pool = site.pool("closes-half")
    count = [0]
    lock = threading.Lock()

    def every_other(c: Peer) -> None:
        while True:
            request = c.read_request()
            with lock:
                count[0] += 1
                closes = count[0] % 2 == 0
            answer = c.origin.answer(request)
            c.send(answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1) if closes else answer)
            if closes:
                c.fin()
                assert not c.stream.read_to_end(), "it was used again"
                raise Stopped

    for server in pool.servers:
        server.default = every_other
    with pool.client() as client:
        for number in range(60):
            answer = client.ask(post(f"/half-{number}"))
            assert answer.status == 200 and answer.is_kept_alive
    assert len(set(pool.servers[0].targets + pool.servers[1].targets)) == pool.n_attempts == 60
    assert pool.metric("stale_connections_total") == 0
    assert 30 <= pool.metric("upstream_connects_total", result="ok") <= 33


def test_connections_do_not_all_end_after_the_same_number_of_requests(site: Site) -> None:
    pool = site.pool("jitter")
    with pool.client() as client:
        for number in range(400):
            assert client.ask(get(f"/jitter-{number}")).status == 200
    lengths = [len(peer.requests) for peer in pool.servers[0].peers if peer.closed.is_set()]
    assert len(lengths) >= 9 and all(36 <= length <= 40 for length in lengths), lengths
    assert len(set(lengths)) > 1, lengths
