"""Clients that are slow on purpose, by the hundred: they are closed at the deadline, cost little
memory and CPU, and nobody else notices.

Time is judged in ways that a busy machine cannot upset: deadlines exactly from below and patiently from above, other
clients against a control that asks the server directly at the same time, cost as CPU time of the daemon.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.client import Client
from tests.support.crowd import Crowd, others
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import wait_until
from tests.support.wire import Request

KIB = 1024
MIB = 1024 * KIB
DEADLINE_S = 1.0  # of a head, between two reads of a body, and without progress of a write
PATIENCE_S = 60.0  # a deadline that does not come at all is the defect; how late it comes is the machine's
SLOWLORIS = 1000
SLOW_POSTS = 300
SLOW_READERS = 200
VISITS = 25_000
BIG = b"x" * (10 * MIB)
BYTES_PER_SLOW_CLIENT = 128 * KIB
SLOW_HEAD = b"GET /slowloris HTTP/1.1\r\nHost: a\r\nX: "
RESET = struct.pack("ii", 1, 0)


def answer(request: Request) -> bytes:
    body = BIG if request.target.startswith("/big") else b"%d\n" % len(request.body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin
    calm: Origin  # serves the others, whose dials must not stand in a line that the attack makes at `origin`

    def client(self, receive_buffer: int | None = None) -> Client:
        return Client(self.lb.port("main"), receive_buffer=receive_buffer, timeout_s=60)

    def rejected(self, reason: str) -> float:
        return self.lb.metric("rejected_total", reason=reason)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    deadlines = dict.fromkeys(("request_head", "request_body", "keep_alive", "write"), f"{DEADLINE_S}s")
    with Origin(answer=answer) as origin, Origin(answer=answer) as calm:
        servers = {"main": origin, "calm": calm}
        quiet = {"health_check": "off", "circuit_breaker": "off", "retry": {"attempts": 0}}
        config: dict[str, object] = {
            "listeners": [
                {"name": "main", "bind": "127.0.0.1:0", "pool": "main", "timeouts": deadlines},
                {"name": "calm", "bind": "127.0.0.1:0", "pool": "calm"},
            ],
            "pools": {
                # The scripted server accepts slowly when hundreds come at once.
                name: {"servers": [server.address], **quiet, "timeouts": {"connect": "60s"}}
                for name, server in servers.items()
            },
        }
        with LbProxy(config, tmp_path_factory.mktemp("slow")) as lb:
            yield Stage(lb, origin, calm)


@pytest.fixture
def crowd(stage: Stage) -> Iterator[Crowd]:
    with Crowd(stage.client) as gathered:
        yield gathered


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_slowloris(stage: Stage, crowd: Crowd) -> None:
    """A thousand heads that never end; who is closed comes back, until it was somebody else twice over."""
    rss, before = stage.lb.rss_bytes(), stage.rejected("header_timeout")
    most = attackers = 0
    with others(stage.lb, "calm", stage.calm) as normal:
        started = dripped_at = time.monotonic()
        while attackers <= 2 * SLOWLORIS:
            assert time.monotonic() - started < 2 * PATIENCE_S, f"{attackers} attackers"
            attackers += len(crowd.gather(*[SLOW_HEAD] * min(100, SLOWLORIS - len(crowd.live))))
            if time.monotonic() - dripped_at > DEADLINE_S / 5:
                crowd.send(b"y")
                dripped_at = time.monotonic()
            for client in crowd.watch(0.02):
                assert client.stream.record.startswith(b"HTTP/1.1 408 ")
                client.close()
            most = max(most, stage.lb.rss_bytes() - rss)
        closed = crowd.drip(b"y", DEADLINE_S / 5, PATIENCE_S)
    assert not crowd.live, f"{len(crowd.live)} still open: each byte must not extend the deadline of a head"
    assert all(client.stream.record.startswith(b"HTTP/1.1 408 ") for client in closed)
    assert stage.rejected("header_timeout") - before == attackers
    assert not [request for request in stage.origin.requests if request.target == "/slowloris"]
    assert most < SLOWLORIS * BYTES_PER_SLOW_CLIENT
    # Accept, ten reads or so, the answer and the close: a fraction of a millisecond each.
    served = len(normal.through_s)
    assert normal.cpu_s < attackers * 0.003 + served * 0.002 + 2, f"{normal.cpu_s:.1f} s for {attackers} attackers"
    stage.lb.check_idle(PATIENCE_S)


def test_a_head_has_its_whole_time_and_not_more(crowd: Crowd) -> None:
    started = time.monotonic()
    clients = crowd.gather(*[SLOW_HEAD] * 50)
    gathered_s = time.monotonic() - started
    closed = crowd.drip(b"y", DEADLINE_S / 5, PATIENCE_S)
    assert len(closed) == len(clients)
    assert min(closed.values()) > DEADLINE_S - gathered_s - 0.01


@pytest.mark.parametrize(
    "head",
    ["Content-Length: 100000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
    ids=["length", "chunked"],
)
def test_a_body_that_stalls(stage: Stage, crowd: Crowd, head: str) -> None:
    count = SLOW_POSTS
    rss, before = stage.lb.rss_bytes(), stage.rejected("body_timeout")
    stage.origin.reset()
    with others(stage.lb, "calm", stage.calm):
        crowd.gather(*[f"POST /rudy HTTP/1.1\r\nHost: a\r\n{head}".encode()] * count)
        closed = crowd.drip(b"", PATIENCE_S * 2, PATIENCE_S)
        grown = stage.lb.rss_bytes() - rss
    assert len(closed) == count
    assert all(client.stream.record.startswith(b"HTTP/1.1 408 ") for client in closed)
    assert stage.rejected("body_timeout") - before == count
    assert grown < count * BYTES_PER_SLOW_CLIENT
    wait_until(lambda: not stage.origin.open_connections, "the server to be told of every broken request", PATIENCE_S)
    # A reset discards what this slow server has not read, so it may have missed a head; never has it a whole request.
    assert {peer.end for peer in stage.origin.peers} == {"rst"}
    assert stage.origin.partials
    assert not stage.origin.requests


def test_a_body_that_drips_costs_nobody_else(stage: Stage, crowd: Crowd) -> None:
    """The deadline of a body is between reads, so that a slow link can upload: such clients stay, and stay cheap.

    What bounds them is `limits.min_rate`: test_min_rate.py.
    """
    rss = stage.lb.rss_bytes()
    with others(stage.lb, "calm", stage.calm):
        for _ in range(5):
            gap_s, dripped_s, n_left = drip_bodies(stage, crowd)
            if gap_s < DEADLINE_S / 2:
                break
        grown = stage.lb.rss_bytes() - rss
    assert gap_s < DEADLINE_S / 2, "five times this test itself was slower than what it claims of its clients"
    assert dripped_s > DEADLINE_S
    assert n_left == SLOW_POSTS, "closed although bytes kept coming"
    assert grown < SLOW_POSTS * BYTES_PER_SLOW_CLIENT


def drip_bodies(stage: Stage, crowd: Crowd) -> tuple[float, float, int]:
    """(longest pause between two bytes, seconds in all, clients that were answered to the end)."""
    at = time.monotonic()
    clients = crowd.gather(*[b"POST /drip HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\nabcd"] * SLOW_POSTS)
    started = time.monotonic()
    gaps = [started - at]
    for _ in range(8):
        at = time.monotonic()
        crowd.watch(DEADLINE_S / 5)
        crowd.send(b"z")
        gaps.append(time.monotonic() - at)
    dripped_s = time.monotonic() - started
    n_left = 0
    if max(gaps) < DEADLINE_S / 2:  # else the caller tries again
        n_left = len(crowd.live)
        crowd.send(b"zz")
        n_left = min(n_left, sum(client.response().body == b"14\n" for client in clients))
    crowd.leave()
    return max(gaps), dripped_s, n_left


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_slow_read(stage: Stage, crowd: Crowd) -> None:
    """10 MB answers that nobody takes: reset at the deadline, and never held in memory."""
    count = SLOW_READERS
    rss = stage.lb.rss_bytes()
    before = stage.lb.metric("client_aborts_total", phase="write_timeout")
    most = 0
    stage.origin.reset()
    with others(stage.lb, "calm", stage.calm) as normal:
        started = time.monotonic()
        clients = crowd.gather(*[get(f"/big-{number}") for number in range(count)], receive_buffer=4096)
        while stage.lb.metric("client_aborts_total", phase="write_timeout") - before < count:
            most = max(most, stage.lb.rss_bytes() - rss)
            assert time.monotonic() - started < 4 * PATIENCE_S, "a client that does not read is still connected"
            time.sleep(0.1)
    assert time.monotonic() - started > DEADLINE_S / 2
    served = len(normal.through_s)
    assert normal.cpu_s < count * 0.01 + served * 0.002 + 2, f"{normal.cpu_s:.1f} s of CPU for {count} slow readers"
    assert most < count * BYTES_PER_SLOW_CLIENT, f"{most / count / KIB:.0f} KiB a client"
    for client in clients:
        client.read_to_end()
        assert client.end == "rst", "an answer that was cut off looks complete"
        assert len(client.stream.record) < len(BIG)
    targets = {f"/big-{number}" for number in range(count)}
    ends: dict[str, object] = {}

    def is_logged() -> bool:
        ends.update((str(entry["target"]), entry["end"]) for entry in stage.lb.access_log())
        return targets <= ends.keys()

    wait_until(is_logged, "a line for each of them")
    assert {ends[target] for target in targets} == {"client_write_timeout"}
    stage.lb.check_idle(PATIENCE_S)


def test_a_slow_reader_that_makes_progress_gets_everything(stage: Stage) -> None:
    """The deadline is for no progress at all: a steady reader may take several times as long."""
    for _ in range(5):
        gap_s, body = read_steadily(stage)
        if gap_s < DEADLINE_S / 2:
            break
    assert gap_s < DEADLINE_S / 2, "five times this test itself was slower than what it claims of its client"
    assert body == BIG


def read_steadily(stage: Stage) -> tuple[float, bytes]:
    """(longest pause between two reads, what came as body)."""
    gap_s = 0.0
    with stage.client(receive_buffer=64 * KIB) as client:
        client.send(get("/big-steady"))
        started = last = time.monotonic()
        while len(client.stream.record) < len(BIG) and client.stream.fill():
            gap_s, last = max(gap_s, time.monotonic() - last), time.monotonic()
            if last - started < 3 * DEADLINE_S:
                time.sleep(0.005)
        return (gap_s, client.response().body) if client.end is None else (gap_s, b"")


def test_idle_connections_are_closed(crowd: Crowd) -> None:
    clients = crowd.gather(*[b""] * 50, *[get("/idle")] * 50)
    for client in clients[50:]:
        assert client.response().status == 200
    closed = crowd.drip(b"", PATIENCE_S * 2, PATIENCE_S)
    assert len(closed) == 100
    assert not any(client.stream.record for client in clients[:50]), "an answer that nobody asked for"


def visit(port: int, number: int) -> None:
    """Connect and leave: by FIN or RST, in the middle of a head or without a byte.

    From 200 addresses in turn, because each FIN leaves a port in TIME_WAIT for a minute.
    """
    with socket.socket() as sock:
        if number % 3 == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            sock.bind((f"127.0.1.{number % 200 + 1}", 0))
        sock.connect(("127.0.0.1", port))
        if number % 10 == 0:
            sock.send(b"GET / HT")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_connections_that_come_and_go(stage: Stage) -> None:
    stage.lb.check_idle(PATIENCE_S)
    fds = stage.lb.fd_count()
    total = stage.lb.metric("client_connections_total", listener="main")
    port = stage.lb.port("main")
    for number in range(1000):
        visit(port, number)
    rss = stage.lb.rss_bytes()
    for number in range(1000, VISITS):
        visit(port, number)
    wait_until(
        lambda: stage.lb.metric("client_connections_total", listener="main") == total + VISITS,
        "all to be accepted",
        PATIENCE_S,
    )
    stage.lb.check_idle(PATIENCE_S)
    assert stage.lb.fd_count() <= fds + 2
    assert stage.lb.rss_bytes() - rss < 4 * MIB
    with stage.client() as client:
        assert client.ask(get("/after")).status == 200
