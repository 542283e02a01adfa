"""The central queue, through the real daemon: who waits, who is refused, who leaves, and what is written about it."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.origin import Peer, close_unanswered, silent
from tests.support.rig import get, post
from tests.support.site import Crowd, Pool, Site, timed
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Response

KIB = 1024
PATIENT = {"timeout": "300s"}  # nobody is refused for having waited, unless the test is about it
ONE: dict[str, object] = {"n": 1, "max_inflight": 1, "queue": PATIENT}
PLAN: dict[str, dict[str, object]] = {
    "slots": {"max_inflight": 1, "queue": PATIENT},
    "unequal": {"max_inflight": 1, "slots": (3, 1), "strategy": "least_connections", "queue": PATIENT},
    "ordered": ONE,
    "short": {**ONE, "queue": {**PATIENT, "size": 2}},
    "none": {**ONE, "queue": {"size": 0}},
    "hasty": {**ONE, "queue": {"timeout": "300ms"}},
    "left-fin": ONE,
    "left-rst": ONE,
    "left-many": ONE,
    "logged": ONE,
    "bodies": ONE,
    "piped": ONE,
    "crowded": {**ONE, "queue": {**PATIENT, "size": 3}},
    "fair": {**ONE, "queue": {**PATIENT, "fair_by": "header:x-tenant"}},
    "flooded": {**ONE, "queue": {**PATIENT, "size": 2, "fair_by": "header:x-tenant"}},
    "classes": {**ONE, "queue": {**PATIENT, "priority": {"from": "any", "classes": ["high", "low"]}}},
    "calm": {"max_inflight": 2},
    "dying": {"max_inflight": 1, "queue": {"timeout": "2s"}, "health_check": {"interval": "200ms"}},
    "cut-rst": {**ONE, "circuit_breaker": "off"},
    "cut-fin": {**ONE, "circuit_breaker": "off"},
    "cut-chunk": {**ONE, "circuit_breaker": "off"},
    "aborted": ONE,
    "retried": {"max_inflight": 1, "queue": PATIENT, "retry": {"backoff": {"base": 0, "max": 0}}},
    "tunnel": ONE,
    "upload": ONE,
    "late-body": ONE,
    "tcp": {**ONE, "mode": "tcp"},
    "tcp-dying": {"mode": "tcp", "max_inflight": 1, "queue": {"timeout": "1s"}},
    "tcp-hasty": {**ONE, "mode": "tcp", "queue": {"timeout": "300ms"}},
    "tcp-short": {**ONE, "mode": "tcp", "queue": {**PATIENT, "size": 1}},
    "tcp-left": {**ONE, "mode": "tcp"},
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("queue"), PLAN, workers=n_workers) as site:
        yield site


def assert_refused(answer: Response, reason: str) -> None:
    """503 of lbproxy's own, with the fault's name and a usable Retry-After."""
    assert answer.status == 503
    assert answer.get("content-type") == "application/problem+json"
    assert f"urn:lbproxy:fault:{reason}".encode() in answer.body
    assert 1 <= int(answer.get("retry-after") or 0) <= 60


# --- slots ---


def test_a_server_never_has_more_than_its_slots(site: Site) -> None:
    pool = site.pool("slots")
    for server in pool.servers:
        server.service_s = 0.01
        server.gate.clear()
    with Crowd(24) as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/slots-{number}"))) for number in range(24)]
        pool.wait_queued(22)
        for server in pool.servers:
            server.gate.set()
    assert [a.result().body for a in answers] == [f"GET /slots-{number} 0\n".encode() for number in range(24)]
    assert [server.most_at_work for server in pool.servers] == [1, 1]
    assert pool.n_attempts == 24
    assert pool.metric("queue_depth") == 0
    assert pool.metric("queue_wait_seconds_count") == 22


def test_servers_have_slots_of_their_own(site: Site) -> None:
    pool = site.pool("unequal")
    for server in pool.servers:
        server.gate.clear()
    with Crowd() as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/unequal-{number}"))) for number in range(10)]
        pool.wait_queued(6)
        wait_until(lambda: [server.at_work for server in pool.servers] == [3, 1], "each to have what it may have")
        for server in pool.servers:
            server.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 10
    assert [server.most_at_work for server in pool.servers] == [3, 1]


def test_first_come_first_served(site: Site) -> None:
    pool = site.pool("ordered")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        answers = []
        for number in range(8):
            answers.append(crowd.start(partial(pool.ask, get(f"/in-order-{number}"))))
            pool.wait_inflight(1) if number == 0 else pool.wait_queued(number)
        server.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 8
    assert server.targets == [f"/in-order-{number}" for number in range(8)]
    assert server.most_at_work == 1


def test_tenants_have_turns(site: Site) -> None:
    pool = site.pool("fair")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        answers = []
        for number, tenant in enumerate(["big", "big", "big", "big", "small", "tiny", "small"]):
            answers.append(crowd.start(partial(pool.ask, get(f"/fair-{number}", f"X-Tenant: {tenant}"))))
            pool.wait_inflight(1) if number == 0 else pool.wait_queued(number)
        queue = pool.status()["queue"]
        assert isinstance(queue, dict) and (queue["keys"], queue["classes"]) == (3, {})
        assert pool.metric("queue_keys") == 3
        server.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 7
    assert server.targets == [f"/fair-{number}" for number in (0, 1, 4, 5, 2, 6, 3)]
    assert server.most_at_work == 1


def test_a_flood_loses_its_own_places(site: Site) -> None:
    pool = site.pool("flooded")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        flood = []
        for number in range(3):
            flood.append(crowd.start(partial(pool.ask, get(f"/flood-{number}", "X-Tenant: big"))))
            pool.wait_inflight(1) if number == 0 else pool.wait_queued(number)
        light = crowd.start(partial(pool.ask, get("/light", "X-Tenant: small")))
        refused = flood[2].result()
        assert refused.status == 503 and 1 <= int(refused.get("retry-after") or 0) <= 60
        assert pool.log("/flood-2")["end"] == "queue_full"
        again = pool.ask(get("/flood-3", "X-Tenant: big"))
        assert again.status == 503, "a flood has its place, and no other's"
        server.gate.set()
        assert [answer.result().status for answer in (flood[0], flood[1], light)] == [200] * 3
    assert pool.rejected("queue_full") == 2
    assert server.most_at_work == 1


def test_classes_have_their_shares(site: Site) -> None:
    pool = site.pool("classes")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        answers = []
        for number, word in enumerate(["low", "low", "low", "high", "high", "high", "High", "no such"]):
            answers.append(crowd.start(partial(pool.ask, get(f"/class-{number}", f"X-Priority: {word}"))))
            pool.wait_inflight(1) if number == 0 else pool.wait_queued(number)
        queue = pool.status()["queue"]
        assert isinstance(queue, dict) and (queue["keys"], queue["classes"]) == (None, {"high": 4, "low": 3})
        assert pool.metric("queue_class_depth", **{"class": "high"}) == 4
        server.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 8
    assert server.targets == [f"/class-{number}" for number in (0, 3, 4, 1, 5, 6, 2, 7)]


def test_pipelined_requests_take_one_slot_after_the_other(site: Site) -> None:
    pool = site.pool("piped")
    (server,) = pool.servers
    with pool.client() as client:
        client.send(b"".join(get(f"/piped-{number}") for number in range(5)))
        assert [client.response().body for _ in range(5)] == [f"GET /piped-{n} 0\n".encode() for n in range(5)]
    assert server.most_at_work == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_arrives_while_queued_is_sent_whole(site: Site, framing: str) -> None:
    pool = site.pool("bodies")
    (server,) = pool.servers
    server.reset()
    body = bytes(range(256)) * 2 * KIB
    if framing == "length":
        request = post("/bodies-length", body)
    else:
        head = b"POST /bodies-chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = [b"%x\r\n%b\r\n" % (8 * KIB, body[at : at + 8 * KIB]) for at in range(0, len(body), 8 * KIB)]
        request = head + b"".join(chunks) + b"0\r\n\r\n"
    server.gate.clear()
    with Crowd() as crowd, pool.client() as holder:
        holder.send(get(f"/bodies-holder-{framing}"))
        pool.wait_inflight(1)
        answer = crowd.start(partial(pool.ask, request))
        pool.wait_queued(1)
        server.gate.set()
        assert holder.response().status == 200
        assert answer.result().body == f"POST /bodies-{framing} {len(body)}\n".encode()
    assert server.requests[-1].body == body


# --- bounds ---


def test_a_full_queue_refuses_at_once(site: Site) -> None:
    pool = site.pool("short")
    (server,) = pool.servers
    server.gate.clear()
    with Crowd() as crowd:
        kept = [crowd.start(partial(pool.ask, get(f"/short-{number}"))) for number in range(3)]
        pool.wait_queued(2)
        with pool.client() as client:
            assert_refused(client.ask(get("/one-too-many")), "queue_full")
            assert pool.metric("queue_depth") == 2
            queue = pool.status()["queue"]
            assert isinstance(queue, dict) and (queue["depth"], queue["size"]) == (2, 2)
            server.gate.set()
            assert [waiting.result().status for waiting in kept] == [200] * 3
            assert client.ask(get("/short-later")).status == 200  # the refused client keeps its connection
    assert pool.rejected("queue_full") == 1
    line = pool.log("/one-too-many")
    assert (line["status"], line["end"], line["attempts"], line["server"]) == (503, "queue_full", 0, "")
    assert "/one-too-many" not in server.targets


def test_a_queue_of_no_length_refuses_when_the_slot_is_taken(site: Site) -> None:
    pool = site.pool("none")
    (server,) = pool.servers
    server.gate.clear()
    with pool.client() as holder:
        holder.send(get("/none-0"))
        pool.wait_inflight(1)
        assert_refused(pool.ask(get("/none-1")), "queue_full")
        server.gate.set()
        assert holder.response().status == 200
    assert pool.ask(get("/none-2")).status == 200


def test_who_waits_too_long_is_refused(site: Site) -> None:
    pool = site.pool("hasty")
    (server,) = pool.servers
    server.gate.clear()
    with pool.client() as holder:
        holder.send(get("/hasty-holder"))
        pool.wait_inflight(1)
        answer, seconds = timed(partial(pool.ask, get("/hasty-late")))
        assert_refused(answer, "queue_timeout")
        assert seconds >= 0.3
        assert pool.metric("queue_depth") == 0
        server.gate.set()
        assert holder.response().status == 200
    assert server.targets == ["/hasty-holder"]
    assert pool.rejected("queue_timeout") == 1
    line = pool.log("/hasty-late")
    assert (line["status"], line["end"], line["attempts"]) == (503, "queue_timeout", 0)
    waited = line["queue_ms"]
    assert isinstance(waited, (int, float))
    assert 300 <= waited <= 1000 * seconds


# --- who leaves ---


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_leaves_the_queue_at_once(site: Site, how: str) -> None:
    pool = site.pool(f"left-{how}")
    (server,) = pool.servers
    server.gate.clear()
    with pool.client() as holder, pool.client() as leaver:
        holder.send(get("/stays"))
        pool.wait_inflight(1)
        leaver.send(post("/leaves"))
        pool.wait_queued(1)
        leaver.close() if how == "fin" else leaver.reset()
        pool.wait_queued(0)
        server.gate.set()
        assert holder.response().status == 200
        assert holder.ask(get("/after")).status == 200
    assert server.targets == ["/stays", "/after"]
    line = pool.log("/leaves")
    assert (line["status"], line["end"], line["attempts"], line["server"]) == (499, "client_abort", 0, "")
    assert isinstance(line["queue_ms"], (int, float)), "how long it had waited when its client gave up"
    assert pool.metric("client_aborts_total", phase="queued") == 1
    assert pool.metric("client_aborts_total") == 1
    assert pool.metric("queue_wait_seconds_count") == 0


def test_only_those_who_stay_are_served(site: Site) -> None:
    pool = site.pool("left-many")
    (server,) = pool.servers
    server.gate.clear()
    clients = [pool.client() for _ in range(21)]
    for number, client in enumerate(clients):
        client.send(get(f"/many-{number}"))
        if not number:
            pool.wait_inflight(1)
    pool.wait_queued(20)
    for client in clients[2::2]:
        client.reset()
    pool.wait_queued(10)
    server.gate.set()
    assert [client.response().status for client in [clients[0], *clients[1::2]]] == [200] * 11
    for client in clients:
        client.close()
    assert sorted(server.targets) == sorted(["/many-0", *(f"/many-{number}" for number in range(1, 21, 2))])
    assert server.most_at_work == 1
    assert pool.metric("client_aborts_total", phase="queued") == 10


# --- what is written ---


def test_the_wait_is_counted_and_logged(site: Site) -> None:
    pool = site.pool("logged")
    (server,) = pool.servers
    assert pool.ask(get("/logged-free")).status == 200
    assert pool.metric("queue_wait_seconds_count") == 0  # who finds a slot has not waited
    server.gate.clear()
    with Crowd() as crowd, pool.client() as holder:
        holder.send(get("/logged-holder"))
        pool.wait_inflight(1)
        began = time.monotonic()
        waiting = crowd.start(partial(pool.ask, get("/logged-waits")))
        pool.wait_queued(1)
        queued_at = time.monotonic()
        time.sleep(0.1)
        waited_s = time.monotonic() - queued_at
        server.gate.set()
        assert waiting.result().status == holder.response().status == 200
    assert pool.metric("queue_depth") == 0
    assert pool.metric("queue_wait_seconds_count") == 1
    assert waited_s <= pool.metric("queue_wait_seconds_sum") <= time.monotonic() - began
    assert [pool.log(f"/logged-{name}")["queue_ms"] for name in ("free", "holder")] == [0, 0]
    line = pool.log("/logged-waits")
    assert line["queue_ms"] == pytest.approx(1000 * pool.metric("queue_wait_seconds_sum"), abs=0.01)
    assert (line["status"], line["attempts"], line["end"]) == (200, 1, "ok")


# --- other pools ---


def test_a_full_queue_does_not_disturb_another_pool(site: Site) -> None:
    crowded, calm = site.pool("crowded"), site.pool("calm")
    crowded.servers[0].gate.clear()
    with Crowd() as crowd:
        stuck = [crowd.start(partial(crowded.ask, get(f"/crowded-{number}"))) for number in range(4)]
        crowded.wait_queued(3)
        assert_refused(crowded.ask(get("/crowded-out")), "queue_full")
        with calm.client() as client:
            answers = [client.ask(get(f"/calm-{number}")).status for number in range(50)]
        crowded.servers[0].gate.set()
        assert [waiting.result().status for waiting in stuck] == [200] * 4
    assert answers == [200] * 50
    assert calm.metric("queue_wait_seconds_count") == 0
    assert calm.rejected("queue_full") == 0


# --- slots come back ---


def test_queued_requests_get_an_answer_when_all_servers_die(site: Site) -> None:
    pool = site.pool("dying")
    for server in pool.servers:
        server.gate.clear()
    with Crowd() as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/dying-{number}"))) for number in range(10)]
        wait_until(lambda: _known(pool) == 10, "all to be there")
        for server in pool.servers:
            server.close()
        results = [answer.result().status for answer in answers]
    assert set(results) <= {502, 503}
    assert results.count(503) >= 8
    assert pool.metric("queue_depth") == 0
    assert pool.ask(get("/dying-later")).status == 503


def _known(pool: Pool) -> float:
    """Who is at a server, who waits, and who, on a busy machine, has waited in vain before the last one came."""
    return pool.metric("server_inflight") + pool.metric("queue_depth") + pool.rejected("queue_timeout")


@pytest.mark.parametrize("how", ["rst", "fin", "chunk"])
def test_an_answer_that_breaks_off_gives_its_slot_back(site: Site, how: str) -> None:
    pool = site.pool(f"cut-{how}")
    (server,) = pool.servers

    def breaks_off(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        c.wait(server.gate)
        if how == "rst":
            c.reset()
        elif how == "chunk":
            c.send(b"no size\r\n")
            c.read_to_end()

    for turn in range(3):
        server.gate.clear()
        server.script(breaks_off)
        with Crowd() as crowd, pool.client() as victim:
            victim.send(get(f"/cut-{turn}"))
            victim.wait_for(b"half")
            waiting = crowd.start(partial(pool.ask, get(f"/cut-next-{turn}")))
            pool.wait_queued(1)
            server.gate.set()
            assert waiting.result().status == 200
            assert b"\r\n0\r\n" not in victim.read_to_end()  # the truncation shows
        pool.wait_inflight(0)
        server.reset()
    assert server.most_at_work == 1


def test_a_client_that_leaves_its_server_gives_the_slot_back(site: Site) -> None:
    pool = site.pool("aborted")
    (server,) = pool.servers
    for turn in range(3):
        server.script(silent)
        with Crowd() as crowd, pool.client() as leaver:
            leaver.send(post(f"/aborted-{turn}"))
            wait_until(lambda: server.requests, "the request to arrive")
            waiting = crowd.start(partial(pool.ask, get(f"/aborted-next-{turn}")))
            pool.wait_queued(1)
            leaver.reset()
            assert waiting.result().status == 200
        server.reset()
    assert pool.metric("client_aborts_total", phase="waiting") == 3


def test_a_tunnel_holds_its_slot_until_its_end(site: Site) -> None:
    pool = site.pool("tunnel")
    (server,) = pool.servers

    def upgrades(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        c.read_to_end()

    server.script(upgrades)
    with Crowd() as crowd, pool.client() as tunnel:
        assert tunnel.ask(get("/tunnel", "Connection: Upgrade", "Upgrade: websocket")).status == 101
        waiting = crowd.start(partial(pool.ask, get("/tunnel-next")))
        pool.wait_queued(1)
        tunnel.close()
        assert waiting.result().status == 200


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_upload_that_is_given_up_gives_the_slot_back(site: Site, how: str) -> None:
    pool = site.pool("upload")
    with Crowd() as crowd, pool.client() as uploader:
        uploader.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nten bytes.")
        pool.wait_inflight(1)
        waiting = crowd.start(partial(pool.ask, get(f"/upload-next-{how}")))
        pool.wait_queued(1)
        uploader.close() if how == "fin" else uploader.reset()
        assert waiting.result().status == 200


def test_a_body_that_stops_while_queued_does_not_keep_its_place(site: Site) -> None:
    """The client sends a part of its body, waits, is handed over, and leaves: the server sees no complete request."""
    pool = site.pool("late-body")
    (server,) = pool.servers
    server.gate.clear()
    with pool.client() as holder, pool.client() as uploader:
        holder.send(get("/late-holder"))
        pool.wait_inflight(1)
        uploader.send(b"POST /late-body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nten bytes.")
        pool.wait_queued(1)
        uploader.reset()
        pool.wait_queued(0)
        server.gate.set()
        assert holder.response().status == 200
    assert server.targets == ["/late-holder"]
    assert not server.partials
    assert pool.log("/late-body")["status"] == 499


def test_a_retry_waits_for_its_slot_like_any_request(site: Site) -> None:
    pool = site.pool("retried")
    first, second = pool.servers
    second.gate.clear()
    first.gate.clear()

    def lets_go(c: Peer) -> None:
        first.attend(c)
        close_unanswered(c)

    first.script(lets_go)
    with Crowd() as crowd:
        answers = [crowd.start(partial(pool.ask, get(f"/retried-{number}"))) for number in range(6)]
        pool.wait_queued(4)
        first.gate.set()
        second.gate.set()
        assert [answer.result().status for answer in answers] == [200] * 6
    assert [server.most_at_work for server in pool.servers] == [1, 1]
    assert pool.metric("retries_total", outcome="success") == 1


# --- TCP mode ---


def _line_server(c: Peer) -> None:
    """Say hello to each connection, then give every line back."""
    c.send(b"hello\n")
    while data := c.sock.recv(65536):
        c.sock.sendall(data)


def test_tcp_connections_queue(site: Site) -> None:
    pool = site.pool("tcp")
    (server,) = pool.servers
    server.default = _line_server
    with pool.client() as first, contextlib.ExitStack() as stack:
        assert first.take(6) == b"hello\n"
        second = stack.enter_context(pool.client())
        second.send(b"early words\n")
        pool.wait_queued(1)
        third = stack.enter_context(pool.client())
        pool.wait_queued(2)
        assert second.is_silent(0.05)
        assert len(server.peers) == 1
        first.close()
        assert second.take(18) == b"hello\nearly words\n"
        assert third.is_silent(0.05)
        second.finish_writing()
        assert second.wait_end() == "fin"
        assert third.take(6) == b"hello\n"
        assert len(server.peers) == 3
    assert pool.metric("queue_wait_seconds_count") == 2
    wait_until(lambda: len(pool.lines()) == 3, "three log lines")
    waits = sorted(
        float(str(line["queue_ms"])) for line in pool.lines()
    )  # each worker writes its own, when it gets to it
    assert waits[0] == 0
    assert waits[1] > 40


def test_tcp_who_waits_too_long_is_reset(site: Site) -> None:
    pool = site.pool("tcp-hasty")
    pool.servers[0].default = _line_server
    with pool.client() as first:
        assert first.take(6) == b"hello\n"
        end, seconds = timed(partial(_end_of_connection, pool))
        assert end == "rst" and seconds >= 0.3
    assert pool.rejected("queue_timeout") == 1
    wait_until(lambda: len(pool.lines()) == 2, "two log lines")
    (line,) = [line for line in pool.lines() if line["end"] == "queue_timeout"]
    waited = line["queue_ms"]
    assert isinstance(waited, (int, float))
    assert waited >= 300
    assert len(pool.servers[0].peers) == 1


def _end_of_connection(pool: Pool) -> str:
    """Connect and say how the proxy ends it; its reset may be here before connect(2) has returned."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(("127.0.0.1", pool.lb.port(pool.name)))
            return "fin" if sock.recv(1) == b"" else "data"
        except ConnectionResetError:
            return "rst"


def test_tcp_a_full_queue_resets(site: Site) -> None:
    pool = site.pool("tcp-short")
    pool.servers[0].default = _line_server
    with pool.client() as first, contextlib.ExitStack() as stack:
        assert first.take(6) == b"hello\n"
        second = stack.enter_context(pool.client())
        pool.wait_queued(1)
        assert _end_of_connection(pool) == "rst"
        first.close()
        assert second.take(6) == b"hello\n"
    assert pool.rejected("queue_full") == 1


def test_tcp_who_leaves_leaves_the_queue(site: Site) -> None:
    pool = site.pool("tcp-left")
    (server,) = pool.servers
    server.default = _line_server
    with pool.client() as first:
        assert first.take(6) == b"hello\n"
        with pool.client() as leaver:
            leaver.send(b"never mind")
            pool.wait_queued(1)
            leaver.reset()
        pool.wait_queued(0)
        with pool.client() as second:
            pool.wait_queued(1)
            first.close()
            assert second.take(6) == b"hello\n"
    assert len(server.peers) == 2
    assert pool.metric("client_aborts_total", phase="queued") == 1


def test_tcp_queued_connections_end_when_all_servers_die(site: Site) -> None:
    pool = site.pool("tcp-dying")
    for server in pool.servers:
        server.default = _line_server
    clients = [pool.client() for _ in range(6)]
    wait_until(lambda: _known(pool) == 6, "all to be there")
    for server in pool.servers:
        server.close()
    for client in clients:
        client.read_to_end()
        client.close()
    pool.wait_queued(0)


# --- the end ---


def test_queued_requests_are_served_when_the_daemon_stops(tmp_path: Path) -> None:
    with Site(tmp_path, {"stops": ONE}) as site:
        pool = site.pool("stops")
        (server,) = pool.servers
        server.gate.clear()
        with Crowd() as crowd:
            answers = [crowd.start(partial(pool.ask, get(f"/stops-{number}"))) for number in range(4)]
            pool.wait_queued(3)
            site.lb.signal(signal.SIGTERM)
            wait_until(lambda: not _accepts(pool), "the listener to close")
            server.gate.set()
            assert [answer.result().status for answer in answers] == [200] * 4
        wait_until(lambda: not site.lb.is_running, "the daemon to end")
        assert site.lb.exit_code == 0
        assert not site.lb.error_lines()


def _accepts(pool: Pool) -> bool:
    try:
        socket.create_connection(("127.0.0.1", pool.lb.port(pool.name))).close()
    except OSError:
        return False
    return True
