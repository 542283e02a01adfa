"""Large bodies over HTTP: the kernel moves them, and everything around them is as it always is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bulk import (
    MIB,
    Check,
    Pattern,
    flat_memory,
    in_background,
    pipes,
    receive_pattern,
    send_pattern,
    sending,
)
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script
from tests.support.rig import get
from tests.support.waiting import wait_until

BODY = 5 * MIB + 4321
LONG = int(os.environ.get("LBPROXY_LONG_STREAM_MIB", "100")) * MIB
PAUSE_S = 0.01  # for every MiB
SHORT_S = 1.0


def head(size: int = BODY, *fields: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {size}", *fields, "", ""]).encode()


def post(target: str, size: int) -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()


class Setting:
    """One daemon and one scripted server."""

    def __init__(self, origin: Origin, lb: LbProxy) -> None:
        self.origin = origin
        self.lb = lb
        self.pipes_before = pipes(lb)

    def client(self, listener: str = "web", **options: int) -> Client:
        return Client(self.lb.port(listener), timeout_s=60, **options)

    @property
    def peer(self) -> Peer:
        """The server's side of the only connection."""
        (peer,) = wait_until(lambda: self.origin.peers, "the server to accept")
        return peer

    def wait_spliced(self) -> None:
        wait_until(lambda: pipes(self.lb) > self.pipes_before, "the body to be spliced")

    def wait_copied(self) -> None:
        wait_until(lambda: pipes(self.lb) == self.pipes_before, "the pipes to be given back")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Origin, LbProxy]]:
    with Origin() as origin:
        calm: dict[str, object] = {"servers": [origin.address], "health_check": "off", "circuit_breaker": "off"}
        short = dict.fromkeys(("read", "write"), f"{SHORT_S}s")
        settings: dict[str, object] = {
            "listeners": [
                {"name": "web", "bind": "127.0.0.1:0", "pool": "web"},
                {
                    "name": "short",
                    "bind": "127.0.0.1:0",
                    "pool": "short",
                    "timeouts": {"request_body": f"{SHORT_S}s", "write": f"{SHORT_S}s"},
                },
            ],
            "pools": {"web": calm, "short": {**calm, "timeouts": short}},
        }
        with LbProxy(settings, tmp_path_factory.mktemp("splice")) as lb:
            yield origin, lb


@pytest.fixture
def web(daemon: tuple[Origin, LbProxy]) -> Iterator[Setting]:
    origin, lb = daemon
    origin.reset()
    lb.access_log_path.write_bytes(b"")
    wait_until(lambda: not lb.metric("upstream_connections"), "the idle connections to be gone")
    yield Setting(origin, lb)
    lb.check_idle()
    assert lb.metric("internal_errors_total") == 0
    assert not lb.error_lines()


def sends(pattern: Pattern, *, then: bytes = b"", stop: int | None = None) -> Script:
    """Answer one request with a pattern, and serve the next ones; or stop in the middle and wait for the end."""

    def script(c: Peer) -> None:
        c.read_request()
        c.sock.sendall(head(pattern.size))
        send_pattern(c.sock, pattern, 0, stop)
        if stop is not None:
            c.read_to_end()
            return
        if then:
            c.sock.sendall(then)
        c.serve()

    return script


def takes(check: Check, *, pause_s: float = 0.0, until: Callable[[], None] | None = None) -> Script:
    """Read one upload of the pattern's size, say so, and serve the next requests. until: comes in the middle."""

    def script(c: Peer) -> None:
        c.read_head()
        if until is not None:
            while len(c.received) < MIB:
                c.stream.fill()
            until()
        first = bytes(c.stream.buffer)
        c.stream.buffer.clear()
        receive_pattern(c.sock, check, check.pattern.size, pause_s=pause_s, first=first)
        c.sock.sendall(head(4) + b"done")
        c.serve()

    return script


def read_head(client: Client) -> bytes:
    """Read the head of an answer; what came of the body with it."""
    while client.stream.line():
        pass
    first = bytes(client.stream.buffer)
    client.stream.buffer.clear()
    return first


def read_body(client: Client, pattern: Pattern, *, pause_s: float = 0.0, count: int | None = None) -> None:
    check = Check(pattern)
    receive_pattern(
        client.sock, check, pattern.size if count is None else count, pause_s=pause_s, first=read_head(client)
    )


def test_keep_alive_after_a_spliced_response(web: Setting) -> None:
    pattern = Pattern(BODY)
    web.origin.script(sends(pattern))
    with web.client() as client:
        client.send(get("/big"))
        read_body(client, pattern)
        for number in range(3):
            answer = client.ask(get(f"/after-{number}"))
            assert answer.body == b"GET /after-%d 0\n" % number
    assert web.peer.number == web.origin.requests[-1].connection
    assert web.lb.entry("/big")["bytes_out"] == BODY
    assert web.lb.entry("/big")["end"] == "ok"
    web.wait_copied()


def test_keep_alive_after_a_spliced_upload(web: Setting) -> None:
    pattern = Pattern(BODY, seed=1)
    check = Check(pattern)
    web.origin.script(takes(check, until=web.wait_spliced))
    with web.client() as client:
        client.send(post("/upload", BODY))
        with sending(client.sock, pattern):
            answer = client.response()
        assert answer.body == b"done" and check.is_whole
        assert client.ask(get("/next")).status == 200
    assert len(web.origin.peers) == 1
    entry = web.lb.entry("/upload")
    assert (entry["bytes_in"], entry["bytes_out"], entry["end"]) == (BODY, 4, "ok")


def test_many_large_bodies_in_turn_on_one_connection(web: Setting) -> None:
    def both_ways(c: Peer) -> None:
        for seed in range(6):
            c.read_head()
            first = bytes(c.stream.buffer)
            c.stream.buffer.clear()
            receive_pattern(c.sock, Check(Pattern(2 * MIB, seed)), 2 * MIB, first=first)
            pattern = Pattern(MIB + seed, seed)
            c.sock.sendall(head(pattern.size))
            send_pattern(c.sock, pattern)
        c.serve()

    web.origin.script(both_ways)
    with web.client() as client:
        for seed in range(6):
            client.send(post(f"/turn-{seed}", 2 * MIB))
            with sending(client.sock, Pattern(2 * MIB, seed)):
                read_body(client, Pattern(MIB + seed, seed))
        assert client.ask(get("/next")).status == 200
    assert len(web.origin.peers) == 1


@pytest.mark.parametrize("extra", [1, 100_000])
def test_a_request_behind_a_spliced_upload_is_the_next_one(web: Setting, extra: int) -> None:
    pattern = Pattern(BODY)
    check = Check(pattern)
    web.origin.script(takes(check))
    with web.client() as client:
        client.send(post("/upload", BODY))
        send_pattern(client.sock, pattern)
        requests = [get(f"/behind-{number}", "X-Pad: " + "x" * 1000) for number in range(1 if extra == 1 else 20)]
        client.sock.sendall(b"".join(requests))
        assert client.response().body == b"done"
        for number in range(len(requests)):
            assert client.response().body == b"GET /behind-%d 0\n" % number
    assert check.is_whole


def test_bytes_behind_a_spliced_response_are_seen_by_nobody(web: Setting) -> None:
    pattern = Pattern(BODY)
    stray = head(6) + b"stray!"
    web.origin.script(sends(pattern, then=stray))
    before = web.lb.metric("upstream_errors_total", reason="extra_data")
    with web.client() as client:
        client.send(get("/big"))
        read_body(client, pattern)
        wait_until(
            lambda: web.lb.metric("upstream_connections") == 0, "the connection with the surplus bytes to be closed"
        )
        assert client.ask(get("/next")).body == b"GET /next 0\n"
    assert len(web.origin.peers) == 2
    assert web.lb.metric("upstream_errors_total", reason="extra_data") == before + 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_truncated_response_shows(web: Setting, how: str) -> None:
    pattern = Pattern(BODY)

    def script(c: Peer) -> None:
        c.read_request()
        c.sock.sendall(head(BODY))
        send_pattern(c.sock, pattern, 0, 3 * MIB)
        web.wait_spliced()
        if how == "fin":
            c.fin()
            c.read_to_end()
        else:
            c.reset()

    web.origin.script(script)
    with web.client() as client:
        client.send(get("/cut"))
        with pytest.raises(ConnectionResetError):
            read_body(client, pattern)
    entry = web.lb.entry("/cut")
    assert (entry["status"], entry["end"]) == (200, "truncated_body")
    if how == "fin":
        assert 0 < int(str(entry["bytes_out"])) <= 3 * MIB


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("is_reading", [True, False])
def test_a_client_that_leaves_in_a_spliced_response(web: Setting, how: str, is_reading: bool) -> None:
    """is_reading: the server is slow, so nothing is under way; else the pipe is full."""
    pattern = Pattern(50 * MIB)
    web.origin.script(sends(pattern, stop=5 * MIB) if is_reading else sends(pattern))
    client = web.client(receive_buffer=64 * 1024)
    client.send(get("/left"))
    read_body(client, pattern, count=5 * MIB if is_reading else MIB)
    web.wait_spliced()
    client.finish_writing() if how == "fin" else client.reset()
    assert web.peer.closed.wait(60)
    assert web.lb.entry("/left")["end"] == "client_abort"
    client.close()


@pytest.mark.parametrize(("how", "is_reading"), [("fin", True), ("rst", True), ("rst", False)])
def test_a_client_that_leaves_in_a_spliced_upload(web: Setting, how: str, is_reading: bool) -> None:
    """is_reading: the server takes all there is; else the pipe is full (and a FIN would wait behind the data)."""
    pattern = Pattern(50 * MIB)

    def script(c: Peer) -> None:
        c.read_head()
        if is_reading:
            c.read_to_end()
            return
        while c.end is None and not is_over:
            time.sleep(0.01)
        c.read_to_end()

    is_over: list[bool] = []
    web.origin.script(script)
    client = web.client()
    client.send(post("/left", pattern.size))
    send_pattern(client.sock, pattern, 0, 4 * MIB)
    web.wait_spliced()
    if not is_reading:
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            send_pattern(client.sock, pattern, 4 * MIB)
    client.finish_writing() if how == "fin" else client.reset()
    assert web.lb.entry("/left")["end"] == "client_abort"
    is_over.append(True)
    assert web.peer.closed.wait(60)
    assert web.peer.end == "rst"
    client.close()


def test_an_early_answer_to_a_spliced_upload(web: Setting) -> None:
    """The server has seen enough: its answer arrives, although it resets what the client still sends."""

    def script(c: Peer) -> None:
        c.read_head()
        while len(c.received) < 3 * MIB:
            c.stream.fill()
        web.wait_spliced()
        c.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")

    web.origin.script(script)
    with web.client() as client:
        client.send(post("/early", 100 * MIB))
        client.sock.settimeout(60)
        try:
            send_pattern(client.sock, Pattern(100 * MIB))
        except OSError:
            pytest.fail("lbproxy must read on, or the answer is lost")
        answer = client.response()
    assert (answer.status, answer.body) == (413, b"big")
    assert web.lb.entry("/early")["status"] == 413


def test_a_server_that_resets_a_spliced_upload_unanswered(web: Setting) -> None:
    def script(c: Peer) -> None:
        c.read_head()
        while len(c.received) < 3 * MIB:
            c.stream.fill()
        web.wait_spliced()
        c.reset()

    web.origin.script(script)
    with web.client() as client:
        client.send(post("/reset", 30 * MIB))
        with sending(client.sock, Pattern(30 * MIB)):
            assert client.response().status == 502
    assert web.lb.entry("/reset")["attempts"] == 1


def test_a_tunnel_with_bulk_right_behind_the_heads(web: Setting) -> None:
    """What was read ahead on either side goes first, then what the kernel moves."""
    up, down = Pattern(BODY, 3), Pattern(BODY, 4)
    got = Check(up)
    fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n"

    def script(c: Peer) -> None:
        c.read_request()
        switching = f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode()
        c.sock.sendall(switching + down.piece(0, 100_000))
        with in_background(threading.Thread(target=send_pattern, args=(c.sock, down, 100_000), daemon=True)):
            first = bytes(c.stream.buffer)
            c.stream.buffer.clear()
            receive_pattern(c.sock, got, up.size, first=first)
        web.wait_spliced()
        c.sock.sendall(b"bye")
        c.fin()
        c.read_to_end()

    web.origin.script(script)
    with web.client() as client:
        request = f"GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()
        client.sock.sendall(request + up.piece(0, 50_000))
        with in_background(threading.Thread(target=send_pattern, args=(client.sock, up, 50_000), daemon=True)):
            read_body(client, down)
        assert client.take(3) == b"bye"
        assert client.wait_end() == "fin"
    assert got.is_whole
    entry = web.lb.entry("/ws")
    assert (entry["status"], entry["bytes_in"], entry["bytes_out"]) == (101, BODY, BODY + 3)


# --- time-outs ---


def test_a_server_that_stalls_in_a_spliced_response(web: Setting) -> None:
    pattern = Pattern(BODY)
    web.origin.script(sends(pattern, stop=3 * MIB))
    with web.client("short") as client:
        client.send(get("/stall"))
        with pytest.raises(ConnectionResetError):
            read_body(client, pattern)
    assert web.peer.closed.wait(60) and web.peer.end == "rst"
    assert web.lb.entry("/stall")["end"] == "idle_timeout"


def test_a_client_that_does_not_read_a_spliced_response(web: Setting) -> None:
    pattern = Pattern(50 * MIB)
    web.origin.script(sends(pattern))
    with web.client("short", receive_buffer=64 * 1024) as client:
        client.send(get("/unread"))
        read_body(client, pattern, count=MIB)
        assert web.lb.entry("/unread")["end"] == "client_write_timeout"
        with pytest.raises(ConnectionResetError):
            while client.sock.recv(65536):
                pass
    assert web.peer.closed.wait(60)


def test_a_client_that_reads_slowly_is_not_late(web: Setting) -> None:
    pattern = Pattern(20 * MIB)
    web.origin.script(sends(pattern))
    with web.client("short", receive_buffer=64 * 1024) as client:
        client.send(get("/slow"))
        read_body(client, pattern, pause_s=SHORT_S / 10)
    assert web.lb.entry("/slow")["end"] == "ok"


def test_a_client_that_stalls_in_a_spliced_upload(web: Setting) -> None:
    web.origin.script(Peer.serve)
    with web.client("short") as client:
        client.send(post("/stall", BODY))
        send_pattern(client.sock, Pattern(BODY), 0, 3 * MIB)
        web.wait_spliced()
        assert client.response().status == 408
    assert web.peer.closed.wait(60) and web.peer.end == "rst"


def test_a_server_that_does_not_read_a_spliced_upload(web: Setting) -> None:
    def script(c: Peer) -> None:
        c.read_head()
        while c.stream.fill() and len(c.received) < 3 * MIB:
            pass
        wait_until(lambda: web.lb.metric("upstream_connections", state="active") == 0, "lbproxy to give up")

    web.origin.script(script)
    with web.client("short") as client:
        client.send(post("/unread", 100 * MIB))
        with sending(client.sock, Pattern(100 * MIB)):
            assert client.response().status == 504
    assert web.lb.entry("/unread")["end"] == "upstream_write_timeout"


# --- long ones ---


def test_a_long_response_past_a_slow_client(web: Setting) -> None:
    pattern = Pattern(LONG)

    def script(c: Peer) -> None:
        for body in (Pattern(BODY), pattern):
            c.read_request()
            c.sock.sendall(head(body.size))
            send_pattern(c.sock, body)
        c.serve()

    web.origin.script(script)
    with web.client() as client:
        client.send(get("/first"))  # what the first one allocates stays
        read_body(client, Pattern(BODY))
    with flat_memory(web.lb), web.client(receive_buffer=64 * 1024) as client:
        client.send(get("/long"))
        read_body(client, pattern, pause_s=PAUSE_S)
    assert web.lb.entry("/long")["bytes_out"] == LONG


def test_a_long_upload_to_a_slow_server(web: Setting) -> None:
    pattern = Pattern(LONG)
    check = Check(pattern)
    web.origin.script(takes(check, pause_s=PAUSE_S))
    with flat_memory(web.lb), web.client() as client:
        client.send(post("/long", LONG))
        with sending(client.sock, pattern):
            assert client.response().body == b"done"
    assert check.is_whole
    assert web.lb.entry("/long")["bytes_in"] == LONG


def test_stopping_waits_for_a_spliced_response_and_then_cuts_it(tmp_path: Path) -> None:
    pattern = Pattern(50 * MIB)
    with Origin() as origin:
        origin.script(sends(pattern))
        config: dict[str, object] = {
            "listeners": [{"name": "web", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
            "shutdown": {"grace": "1s"},
        }
        lb = LbProxy(config, tmp_path).start()
        try:
            web = Setting(origin, lb)
            with web.client(receive_buffer=64 * 1024) as client:
                client.send(get("/cut"))
                read_body(client, pattern, count=MIB)
                web.wait_spliced()
                started = time.monotonic()
                lb.signal(signal.SIGTERM)
                assert lb.process is not None and lb.process.wait(60) == 1
                assert time.monotonic() - started > 0.9
                with pytest.raises(ConnectionResetError):
                    while client.sock.recv(65536):
                        pass
            assert lb.entry("/cut")["end"] == "shutdown"
            assert not lb.error_lines()
        finally:
            lb.kill()
