"""A connection that is over is freed at once: nothing of it waits for the garbage collector, whatever ended it.

The daemon's collector is off. Each kind of connection comes and goes some times; then the collector may run once, and
must find none of the daemon's objects in a cycle. Otherwise memory would grow with the rate of connections, up to what
fits between two collections.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient, server_wrap
from tests.support.client import Client
from tests.support.collector import CollectorlessDaemon
from tests.support.origin import (
    FIN,
    RST,
    Origin,
    Peer,
    black_hole_port,
    close_unanswered,
    refusing_port,
    silent,
    stalls_after,
    steps,
)
from tests.support.rig import get, post
from tests.support.waiting import wait_until
from tests.support.wire import Ended

TIMES = 3
MANY = 2_000_000
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MANY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % MANY
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Stage:
    def __init__(self, lb: CollectorlessDaemon, origin: Origin, secure_origin: Origin, authority: Authority) -> None:
        self.lb = lb
        self.origin = origin
        self.secure_origin = secure_origin
        self._authority = authority

    def secure_client(self, listener: str) -> TlsClient:
        return TlsClient(self.lb.port(listener), self._authority.trusting())

    def client(self, listener: str) -> Client:
        return Client(self.lb.port(listener))

    def sent(self, listener: str, request: bytes) -> Client:
        """A client whose request has reached the server."""
        before = len(self.origin.requests)
        client = self.client(listener)
        client.send(request)
        wait_until(lambda: len(self.origin.requests) > before, "the request to reach the server")
        return client


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    files = authority.issue("server", "localhost", "127.0.0.1")
    with (
        Origin() as origin,
        Origin(wrap=server_wrap(files)) as secure_origin,
        refusing_port() as dead,
        black_hole_port() as hole,
    ):
        off: dict[str, object] = {"health_check": "off", "circuit_breaker": "off"}
        good = {"servers": [origin.address], **off}
        short = {"connect": "300ms", "response_head": "300ms", "read": "300ms", "tunnel": "300ms"}
        pools: dict[str, dict[str, object]] = {
            "http": good,
            "no-keep": {**good, "keep_alive": "off"},
            "narrow": {**good, "max_inflight": 1, "queue": {"timeout": "200ms"}},
            "patient": {**good, "max_inflight": 1, "queue": {"timeout": "300s"}},
            "quick": {**good, "keep_alive": "off", "timeouts": short, "retry": {"attempts": 0}},
            "dead": {**good, "servers": [f"127.0.0.1:{dead}"]},
            "hole": {**good, "servers": [f"127.0.0.1:{hole}"], "timeouts": short, "retry": {"attempts": 0}},
            "patient-hole": {**good, "servers": [f"127.0.0.1:{hole}"], "timeouts": {"connect": "300s"}},
            "tls": {**good, "servers": [secure_origin.address], "tls": {"ca": authority.ca}, "keep_alive": "off"},
            "tls-tcp": {**good, "servers": [secure_origin.address], "tls": {"ca": authority.ca}},
            "tcp": good,
            "tcp-narrow": {**good, "max_inflight": 1, "queue": {"timeout": "200ms"}},
            "tcp-quick": {**good, "timeouts": {"connect": "300ms", "tunnel": "300ms"}},
            "tcp-dead": {**good, "servers": [f"127.0.0.1:{dead}"]},
            "tcp-hole": {
                **good,
                "servers": [f"127.0.0.1:{hole}"],
                "timeouts": {"connect": "300ms"},
                "retry": {"attempts": 0},
            },
        }
        listeners: list[dict[str, object]] = [
            {"name": name, "bind": "127.0.0.1:0", "pool": name, "mode": "tcp" if "tcp" in name else "http"}
            for name in pools
        ]
        for listener in listeners:
            if "tls" in str(listener["name"]):
                listener["tls"] = files.tls
        config: dict[str, object] = {"listeners": listeners, "pools": pools}
        lb = CollectorlessDaemon(config, tmp_path_factory.mktemp("cycles"))
        with lb:
            yield Stage(lb, origin, secure_origin, authority)


# --- HTTP ---


def answered(stage: Stage, listener: str = "http") -> None:
    with stage.client(listener) as client:
        assert client.ask(get("/")).status == 200
        assert client.ask(post("/")).status == 200


def not_kept(stage: Stage) -> None:
    answered(stage, "no-keep")


def refused(stage: Stage) -> None:
    with stage.client("http") as client:
        assert client.ask(b"NONSENSE\r\n\r\n").status == 400
        client.wait_end()


def no_server(stage: Stage) -> None:
    with stage.client("dead") as client:
        assert client.ask(get("/")).status in (502, 503)


def no_answer_to_the_dial(stage: Stage) -> None:
    with stage.client("hole") as client:
        assert client.ask(get("/")).status == 504


def no_answer(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.client("quick") as client:
        assert client.ask(get("/")).status == 504


def tried_again(stage: Stage) -> None:
    stage.origin.script(close_unanswered)
    with stage.client("no-keep") as client:
        assert client.ask(get("/")).status == 200


def left_while_waiting(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.sent("no-keep", get("/")) as client:
        client.reset()


def left_while_queued(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.sent("patient", get("/")) as first, stage.client("patient") as second:
        second.send(get("/"))
        wait_until(lambda: stage.lb.metric("queue_depth", pool="patient") == 1, "it to be queued")
        second.reset()
        first.reset()


def too_late_in_the_queue(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.sent("narrow", get("/")) as first, stage.client("narrow") as second:
        assert second.ask(get("/")).status == 503
        first.reset()


def left_while_dialling(stage: Stage) -> None:
    with stage.client("patient-hole") as client:
        client.send(get("/"))
        wait_until(lambda: stage.lb.metric("server_inflight", pool="patient-hole") == 1, "the dial to begin")
        client.reset()


def large(stage: Stage) -> None:
    stage.origin.script(steps(LARGE + bytes(MANY)))
    with stage.client("no-keep") as client:
        assert len(client.ask(get("/")).body) == MANY


def large_and_chunked(stage: Stage) -> None:
    stage.origin.script(steps(CHUNKED + bytes(MANY) + b"\r\n0\r\n\r\n"))
    with stage.client("no-keep") as client:
        assert len(client.ask(get("/")).body) == MANY


def left_in_a_large_answer(stage: Stage, head: bytes = LARGE) -> None:
    stage.origin.script(stalls_after(head + bytes(MANY // 2)))
    with stage.client("no-keep") as client:
        client.send(get("/"))
        client.take(MANY // 4)
        client.reset()


def left_in_a_chunked_answer(stage: Stage) -> None:
    left_in_a_large_answer(stage, CHUNKED)


def cut_off(stage: Stage, head: bytes = LARGE, how: str = RST) -> None:
    stage.origin.script(steps(head + bytes(MANY // 2), how))
    with stage.client("no-keep") as client, contextlib.suppress(Ended):
        client.ask(get("/"))


def cut_off_chunked(stage: Stage) -> None:
    cut_off(stage, CHUNKED, FIN)


def stalled(stage: Stage, head: bytes = LARGE) -> None:
    stage.origin.script(stalls_after(head + bytes(MANY // 2)))
    with stage.client("quick") as client, contextlib.suppress(Ended):
        client.ask(get("/"))


def stalled_chunked(stage: Stage) -> None:
    stalled(stage, CHUNKED)


def uploaded(stage: Stage) -> None:
    with stage.client("no-keep") as client:
        assert client.ask(post("/", bytes(MANY))).status == 200


def uploaded_in_chunks(stage: Stage) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % MANY
    with stage.client("no-keep") as client:
        assert client.ask(head + bytes(MANY) + b"\r\n0\r\n\r\n").status == 200


def left_in_an_upload(stage: Stage, framing: bytes = b"Content-Length: %d\r\n\r\n" % MANY) -> None:
    before = len(stage.origin.peers)
    with stage.client("no-keep") as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + bytes(MANY // 2))
        wait_until(
            lambda: any(len(peer.received) > MANY // 4 for peer in stage.origin.peers[before:]),
            "half of it to reach the server",
        )
        client.reset()


def left_in_a_chunked_upload(stage: Stage) -> None:
    left_in_an_upload(stage, b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MANY)


def early_answer_to_an_upload(stage: Stage) -> None:
    def refuses(c: Peer) -> None:
        c.read_head()
        c.stream.take(400_000)
        c.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
        c.reset()

    stage.origin.script(refuses)
    with stage.client("no-keep") as client:
        uploader = threading.Thread(target=client.send, args=(post("/", bytes(8 * MANY)),))
        uploader.start()
        with contextlib.suppress(Ended):
            assert client.response().status in (413, 502)
        uploader.join()


def tunnel(stage: Stage) -> None:
    stage.origin.script(steps(SWITCHING + b"hello", FIN))
    with stage.client("no-keep") as client:
        client.send(UPGRADE)
        client.wait_for(b"hello")
        client.finish_writing()
        client.read_to_end()


def tunnel_left(stage: Stage) -> None:
    stage.origin.script(stalls_after(SWITCHING + b"hello"))
    with stage.client("no-keep") as client:
        client.send(UPGRADE)
        client.wait_for(b"hello")
        client.reset()


# --- TCP mode ---


def tcp(stage: Stage, size: int = 5) -> None:
    with stage.client("tcp") as client:
        client.send(post("/", bytes(size), "Connection: close"))
        client.finish_writing()
        assert client.read_to_end().startswith(b"HTTP/1.1 200")


def tcp_large(stage: Stage) -> None:
    tcp(stage, MANY)


def tcp_left(stage: Stage) -> None:
    with stage.sent("tcp", get("/")) as client:
        client.reset()


def tcp_left_in_bulk(stage: Stage) -> None:
    stage.origin.script(stalls_after(bytes(MANY)))
    with stage.client("tcp") as client:
        client.send(get("/"))
        client.take(MANY // 2)
        client.reset()


def tcp_reset_by_the_server(stage: Stage) -> None:
    stage.origin.script(steps(bytes(MANY), RST))
    with stage.client("tcp") as client:
        client.send(get("/"))
        client.read_to_end()


def tcp_silent(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.client("tcp-quick") as client:
        client.send(get("/"))
        client.wait_end()


def tcp_no_server(stage: Stage, listener: str = "tcp-dead") -> None:
    with contextlib.suppress(ConnectionResetError), stage.client(listener) as client:
        client.wait_end()


def tcp_no_answer_to_the_dial(stage: Stage) -> None:
    tcp_no_server(stage, "tcp-hole")


def tcp_too_late_in_the_queue(stage: Stage) -> None:
    stage.origin.script(silent)
    with stage.sent("tcp-narrow", get("/")) as first:
        tcp_no_server(stage, "tcp-narrow")
        first.reset()


# --- TLS ---


def tls_answered(stage: Stage, listener: str = "tls") -> None:
    with stage.secure_client(listener) as client:
        assert client.ask(post("/", bytes(100_000), "Connection: close")).status == 200


def tls_tcp_answered(stage: Stage) -> None:
    tls_answered(stage, "tls-tcp")


def tls_left(stage: Stage, listener: str = "tls") -> None:
    stage.secure_origin.script(silent)
    before = len(stage.secure_origin.requests)
    with stage.secure_client(listener) as client:
        client.send(get("/"))
        wait_until(lambda: len(stage.secure_origin.requests) > before, "the request to reach the server")
        client.reset()


def tls_tcp_left(stage: Stage) -> None:
    tls_left(stage, "tls-tcp")


def tls_cut_off(stage: Stage, listener: str = "tls") -> None:
    stage.secure_origin.script(steps(LARGE + bytes(1000), RST))
    with stage.secure_client(listener) as client, contextlib.suppress(Ended):
        client.ask(get("/"))


def tls_tcp_cut_off(stage: Stage) -> None:
    tls_cut_off(stage, "tls-tcp")


ENDS: list[Callable[[Stage], None]] = [
    *(answered, not_kept, refused, no_server, no_answer_to_the_dial, no_answer, tried_again),
    *(left_while_waiting, left_while_queued, too_late_in_the_queue, left_while_dialling),
    *(large, large_and_chunked, left_in_a_large_answer, left_in_a_chunked_answer),
    *(cut_off, cut_off_chunked, stalled, stalled_chunked),
    *(uploaded, uploaded_in_chunks, left_in_an_upload, left_in_a_chunked_upload, early_answer_to_an_upload),
    *(tunnel, tunnel_left),
    *(tcp, tcp_large, tcp_left, tcp_left_in_bulk, tcp_reset_by_the_server, tcp_silent),
    *(tcp_no_server, tcp_no_answer_to_the_dial, tcp_too_late_in_the_queue),
    *(tls_answered, tls_left, tls_cut_off, tls_tcp_answered, tls_tcp_left, tls_tcp_cut_off),
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_nothing_waits_for_the_collector(stage: Stage, end: Callable[[Stage], None]) -> None:
    stage.lb.check_idle()
    stage.lb.garbage()  # of the last test, should it have failed
    for _ in range(TIMES):
        end(stage)
    stage.origin.reset()
    stage.secure_origin.reset()
    stage.lb.check_idle()
    wait_until(lambda: not stage.lb.metric("upstream_connections"), "the servers' ends to be seen")
    assert stage.lb.garbage() == {}


def test_nor_does_a_health_check(tmp_path: Path) -> None:
    with Origin() as origin, refusing_port() as dead:
        often = {"interval": "100ms", "timeout": "100ms"}
        checks: dict[str, tuple[str, dict[str, object]]] = {
            "http": (origin.address, {"type": "http", "path": "/health", **often}),
            "wrong": (origin.address, {"type": "http", "path": "/health", "expect": {"status": "300"}, **often}),
            "tcp": (origin.address, {"type": "tcp", **often}),
            "dead": (f"127.0.0.1:{dead}", {"type": "tcp", **often}),
        }
        pools = {name: {"servers": [address], "health_check": check} for name, (address, check) in checks.items()}
        listeners = [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools]
        lb = CollectorlessDaemon({"listeners": listeners, "pools": pools}, tmp_path)
        with lb:
            for name in pools:
                wait_until(lambda: lb.metric("health_checks_total", pool=name) >= 10, f"checks of {name}")  # noqa: B023
            assert lb.garbage() == {}
