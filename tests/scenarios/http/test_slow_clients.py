"""Clients that are slow on purpose: they are closed at the deadline, cost little memory, and nobody else notices."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.rig import get, post
from tests.support.waiting import wait_until
from tests.support.wire import Request

KIB = 1024
MIB = 1024 * KIB
DEADLINE_S = 1.0  # of a head, between two reads of a body, and without progress of a write
LATE_S = 2.0  # the sweep comes five times a second; the rest is for a busy machine
SLOW_P99_S = 0.05  # what other clients may have to wait, or twice what they wait without an attack
BIG = b"x" * (10 * MIB)
BYTES_PER_SLOW_CLIENT = 128 * KIB


def answer(request: Request) -> bytes:
    body = BIG if request.target.startswith("/big") else b"%d\n" % len(request.body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin

    def client(self, receive_buffer: int | None = None) -> Client:
        return Client(self.lb.port("main"), receive_buffer=receive_buffer, timeout_s=20)

    def rejected(self, reason: str) -> float:
        return self.lb.metric("rejected_total", reason=reason)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    deadlines = dict.fromkeys(("request_head", "request_body", "keep_alive", "write"), f"{DEADLINE_S}s")
    with Origin(answer=answer) as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "main", "bind": "127.0.0.1:0", "pool": "main", "timeouts": deadlines}],
            "pools": {"main": {"servers": [origin.address], "health_check": "off", "retry": {"attempts": 0}}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("slow")) as lb:
            yield Stage(lb, origin)


@dataclass
class Others:
    """A client that behaves, with the time that each of its requests took."""

    stage: Stage
    took: list[float] = field(default_factory=list)
    problem: str = ""

    def run(self, stop: threading.Event) -> None:
        with self.stage.client() as client:
            while not stop.wait(0.002):
                started = time.monotonic()
                if client.ask(post("/normal", b"hello")).body != b"5\n":
                    self.problem = "a wrong answer"
                    return
                self.took.append(time.monotonic() - started)

    def p99(self) -> float:
        return sorted(self.took)[int(len(self.took) * 0.99) - 1]


@contextlib.contextmanager
def others(stage: Stage) -> Iterator[Others]:
    """Somebody else is served meanwhile."""
    normal, stop = Others(stage), threading.Event()

    def run() -> None:
        try:
            normal.run(stop)
        except Exception as error:  # shown by the assertion below
            normal.problem = repr(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield normal
    finally:
        stop.set()
        thread.join()
    assert not normal.problem, normal.problem
    assert len(normal.took) > 20


@pytest.fixture(scope="module")
def base_s(stage: Stage) -> float:
    """The 99th percentile without an attack."""
    with others(stage) as normal:
        time.sleep(0.5)
    return normal.p99()


Crowd = Callable[..., list[Client]]


@pytest.fixture
def crowd(stage: Stage) -> Iterator[Crowd]:
    """Many connections at once, which are closed whatever the test finds."""
    everybody: list[Client] = []

    def gather(count: int, receive_buffer: int | None = None) -> list[Client]:
        clients = [stage.client(receive_buffer) for _ in range(count)]
        everybody.extend(clients)
        return clients

    yield gather
    close_all(everybody)


def drip(clients: list[Client], every_s: float, at_most_s: float) -> dict[Client, float]:
    """A byte of each client every so often; when each of them was closed by lbproxy, in seconds from now."""
    started = time.monotonic()
    closed: dict[Client, float] = {}
    dripped_at = started
    while len(closed) < len(clients) and time.monotonic() - started < at_most_s:
        live = [client for client in clients if client not in closed]
        for client in live if time.monotonic() - dripped_at >= every_s else []:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sock.send(b"y")
        if time.monotonic() - dripped_at >= every_s:
            dripped_at = time.monotonic()
        poller = select.poll()
        by_fd = {client.sock.fileno(): client for client in live}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll(50):
            if not by_fd[fd].stream.fill():
                closed[by_fd[fd]] = time.monotonic() - started
    return closed


def close_all(clients: list[Client]) -> None:
    for client in clients:
        client.close()


def test_row_59_slowloris(stage: Stage, crowd: Crowd, base_s: float) -> None:
    count = 200
    rss, before = stage.lb.rss_bytes(), stage.rejected("header_timeout")
    with others(stage) as normal:
        clients = crowd(count)
        for client in clients:
            client.send(b"GET /slowloris HTTP/1.1\r\nHost: a\r\nX: ")
        closed = drip(clients, DEADLINE_S / 5, DEADLINE_S + LATE_S)
        grown = stage.lb.rss_bytes() - rss
    assert len(closed) == count, f"{count - len(closed)} still open: each byte must not extend the deadline of a head"
    assert min(closed.values()) > DEADLINE_S / 2
    assert all(client.stream.record.startswith(b"HTTP/1.1 408 ") for client in clients)
    assert not [request for request in stage.origin.requests if request.target == "/slowloris"]
    assert stage.rejected("header_timeout") - before == count
    assert grown < count * BYTES_PER_SLOW_CLIENT
    assert normal.p99() < max(SLOW_P99_S, 2 * base_s)
    close_all(clients)
    stage.lb.check_idle()


@pytest.mark.parametrize(
    "head",
    ["Content-Length: 100000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
    ids=["length", "chunked"],
)
def test_row_60_a_body_that_stalls(stage: Stage, crowd: Crowd, base_s: float, head: str) -> None:
    count = 100
    rss, before = stage.lb.rss_bytes(), stage.rejected("body_timeout")
    stage.origin.reset()
    with others(stage) as normal:
        clients = crowd(count)
        for client in clients:
            client.send(f"POST /rudy HTTP/1.1\r\nHost: a\r\n{head}".encode())
        closed = drip(clients, 60, DEADLINE_S + LATE_S)
        grown = stage.lb.rss_bytes() - rss
    assert len(closed) == count
    assert min(closed.values()) > DEADLINE_S / 2
    assert all(client.stream.record.startswith(b"HTTP/1.1 408 ") for client in clients)
    assert stage.rejected("body_timeout") - before == count
    assert grown < count * BYTES_PER_SLOW_CLIENT
    assert normal.p99() < max(SLOW_P99_S, 2 * base_s)
    wait_until(lambda: len(broken_off(stage.origin)) == count, "the server to be told of every broken request")
    assert {peer.end for peer in broken_off(stage.origin)} == {"rst"}
    close_all(clients)


def broken_off(origin: Origin) -> list[Peer]:
    """Connections that ended inside a request's body."""
    return [peer for peer in origin.peers if peer.partial is not None and peer.closed.is_set()]


def test_row_60_a_body_that_drips_costs_nobody_else(stage: Stage, crowd: Crowd, base_s: float) -> None:
    """The deadline of a body is between reads, so that a slow link can upload: such clients stay, and stay cheap."""
    count = 100
    rss = stage.lb.rss_bytes()
    with others(stage) as normal:
        clients = crowd(count)
        for client in clients:
            client.send(b"POST /drip HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\nabcd")
        assert not drip(clients, DEADLINE_S / 5, DEADLINE_S * 1.5), "closed although bytes kept coming"
        grown = stage.lb.rss_bytes() - rss
        for client in clients:
            client.send(b"z" * 14)
            assert client.response().body == b"14\n"
    assert grown < count * BYTES_PER_SLOW_CLIENT
    assert normal.p99() < max(SLOW_P99_S, 2 * base_s)


def test_row_61_slow_read(stage: Stage, crowd: Crowd, base_s: float) -> None:
    """10 MB answers that nobody takes: reset at the deadline, and never held in memory."""
    count = 60
    rss = stage.lb.rss_bytes()
    before = stage.lb.metric("client_aborts_total", phase="write_timeout")
    most = 0
    stage.origin.reset()
    with others(stage) as normal:
        started = time.monotonic()
        clients = crowd(count, 4096)
        for number, client in enumerate(clients):
            client.send(get(f"/big-{number}"))
        while stage.lb.metric("client_aborts_total", phase="write_timeout") - before < count:
            most = max(most, stage.lb.rss_bytes() - rss)
            assert time.monotonic() - started < DEADLINE_S + 5, "a client that does not read is still connected"
            time.sleep(0.02)
    assert time.monotonic() - started > DEADLINE_S / 2
    assert most < count * BYTES_PER_SLOW_CLIENT + 4 * MIB
    for client in clients:
        client.read_to_end()
        assert client.end == "rst", "an answer that was cut off looks complete"
        assert len(client.stream.record) < len(BIG)
    assert {stage.lb.entry(f"/big-{number}")["end"] for number in range(count)} == {"client_write_timeout"}
    assert normal.p99() < max(SLOW_P99_S, 2 * base_s)
    close_all(clients)
    stage.lb.check_idle()


def test_a_slow_reader_that_makes_progress_gets_everything(stage: Stage) -> None:
    """The deadline is for no progress at all: a steady reader may take several times as long."""
    with stage.client(receive_buffer=64 * KIB) as client:
        client.send(get("/big-steady"))
        started = time.monotonic()
        while len(client.stream.record) < len(BIG):
            assert client.stream.fill(), client.end
            if time.monotonic() - started < 3 * DEADLINE_S:
                time.sleep(0.005)
        assert time.monotonic() - started > 0.3
        assert client.response().body == BIG


def test_idle_connections_are_closed(crowd: Crowd) -> None:
    clients = crowd(100)
    for client in clients[50:]:
        assert client.ask(get("/idle")).status == 200
    closed = drip(clients, 60, DEADLINE_S + LATE_S)
    assert len(closed) == 100
    assert not any(client.stream.record for client in clients[:50]), "an answer that nobody asked for"


def test_row_63_connections_that_come_and_go(stage: Stage) -> None:
    count = 3000
    stage.lb.check_idle()
    fds, rss = stage.lb.fd_count(), stage.lb.rss_bytes()
    total = stage.lb.metric("client_connections_total", listener="main")
    for number in range(count):
        with stage.client() as client:
            if number % 10 == 0:
                client.send(b"GET / HT")
            if number % 3 == 0:
                client.reset()
    wait_until(
        lambda: stage.lb.metric("client_connections_total", listener="main") == total + count, "all to be accepted"
    )
    stage.lb.check_idle()
    assert stage.lb.fd_count() <= fds + 2
    assert stage.lb.rss_bytes() - rss < 8 * MIB
    with stage.client() as client:
        assert client.ask(get("/after")).status == 200
