"""Clients that speak HTTP/2, by others: curl, h2load, nghttp, httpx; and one by hand, for what those do not do."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from lbproxy.protocol.h2.codes import MAX_STREAM_ID, NO_ERROR
from tests.support.certificates import Authority
from tests.support.daemon import STOP_S, LbProxy
from tests.support.h2_ends import RecordingEnd
from tests.support.origin import Origin, Peer, steps
from tests.support.servers import needed
from tests.support.waiting import PATIENCE_S, wait_until

RUN_S = 60.0
MIB = 1 << 20
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin
    authority: Authority

    def url(self, path: str = "/", listener: str = "plain") -> str:
        scheme = "https" if listener == "tls" else "http"
        return f"{scheme}://localhost:{self.lb.port(listener)}{path}"


def config(origin: Origin) -> dict[str, object]:
    # A connection for each request, since scripts are for connections.
    pool = {"servers": [origin.address], "health_check": "off", "keep_alive": "off", "retry": {"attempts": 0}}
    return {
        "listeners": [{"name": "plain", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": pool},
        "shutdown": {"grace": "10s"},
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    first, second = authority.issue("first", "localhost", "one.example"), authority.issue("second", "two.example")
    with Origin() as origin:
        settings = config(origin)
        settings["listeners"] = [
            {"name": "plain", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "tls", "bind": "127.0.0.1:0", "pool": "p", "tls": {"certs": [first.tls, second.tls]}},
            {"name": "behind", "bind": "127.0.0.1:0", "pool": "p", "proxy_protocol": "accept"},
        ]
        settings["trusted_proxies"] = ["127.0.0.1"]
        with LbProxy(settings, tmp_path_factory.mktemp("http2")) as lb:
            yield Stage(lb, origin, authority)
            lb.check_idle()
            assert origin.violations == []


class Http2Socket:
    """A client by hand: a socket and the codec. `end.seen` is what came."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.end = RecordingEnd(False)
        self.has_ended = False
        self.flush()

    def __enter__(self) -> Http2Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        data = self.end.take_output()
        if data:
            self.sock.sendall(data)

    def begin(self, path: str, *, method: bytes = b"GET", authority: bytes = b"localhost", is_end: bool = True) -> int:
        number = self.end.open_stream()
        self.end.send_request(number, method, b"http", authority, path.encode(), b"", b"", is_end)
        self.flush()
        return number

    def read_until(self, *wanted: tuple[object, ...]) -> None:
        """Until each of these, or of what begins like them, has been seen."""
        self.sock.settimeout(PATIENCE_S)
        while not all(any(entry[: len(want)] == want for entry in self.end.seen) for want in wanted):
            data = self.sock.recv(65536)
            assert data, f"the connection ended; seen so far: {self.end.seen}"
            self.end.received(data, time.monotonic())
            self.flush()

    def read_to_end(self) -> None:
        self.sock.settimeout(PATIENCE_S)
        while data := self.sock.recv(65536):
            self.end.received(data, time.monotonic())
            self.flush()


def connect(port: int, before: bytes = b"") -> Http2Socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(before)
    return Http2Socket(sock)


def curl(*arguments: str) -> str:
    done = subprocess.run(
        [needed("curl"), "-sS", "--max-time", str(int(RUN_S)), "-w", "\n%{http_version} %{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_S + 5,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- programs of others ---------------------------------------------------------------------------------------------


def test_curl_with_prior_knowledge(stage: Stage) -> None:
    assert curl("--http2-prior-knowledge", stage.url("/curl")) == "GET /curl 0\n\n2 200"
    assert stage.lb.entry("/curl")["protocol"] == "HTTP/2"
    assert stage.origin.requests[-1].get("via") == "2 lbproxy"


@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1"), ("--http1.0", "1.1")])
def test_curl_chooses_by_alpn(stage: Stage, option: str, version: str) -> None:
    got = curl(option, "--cacert", stage.authority.ca, stage.url("/alpn", "tls"))
    assert got == f"GET /alpn 0\n\n{version} 200"


@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
def test_curl_without_tls_and_prior_knowledge_gets_http_1(stage: Stage, option: str) -> None:
    """With --http2 it offers `Upgrade: h2c`, which nobody takes (RFC 9113 section 3.1)."""
    assert curl(option, stage.url("/upgrade")) == "GET /upgrade 0\n\n1.1 200"


def test_curl_sends_a_file_and_a_stream(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(3 * MIB))
    got = curl("--http2-prior-knowledge", "-T", str(file), stage.url("/file"))
    assert got == f"PUT /file {3 * MIB}\n\n2 200"
    done = subprocess.run(
        [needed("curl"), "-sS", "--http2-prior-knowledge", "-T", "-", stage.url("/stream")],
        input=bytes(MIB),
        capture_output=True,
        timeout=RUN_S,
    )
    assert done.stdout == b"PUT /stream %d\n" % MIB
    assert stage.origin.requests[-1].get("transfer-encoding") == "chunked"


@pytest.mark.parametrize(("clients", "streams"), [(3, 10), (1, 32), (32, 1)])
@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_h2load(stage: Stage, listener: str, clients: int, streams: int) -> None:
    before = stage.lb.metric("requests_total", listener=listener, code="2xx")
    command = [needed("h2load"), "-n", "300", "-c", str(clients), "-m", str(streams), stage.url("/load", listener)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
    assert "300 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    assert stage.lb.metric("requests_total", listener=listener, code="2xx") - before == 300
    wait_until(lambda: not stage.lb.metric("h2_streams", listener=listener), "no stream to be left")


def test_nghttp(stage: Stage) -> None:
    urls = [stage.url(f"/nghttp/{count}") for count in range(5)]
    done = subprocess.run([needed("nghttp"), *urls], capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:-1]) == [f"GET /nghttp/{count} 0" for count in range(5)]


def test_httpx_over_tls(stage: Stage) -> None:
    context = ssl.create_default_context(cafile=stage.authority.ca)
    with httpx.Client(http2=True, verify=context, timeout=RUN_S) as client:
        for size in (0, 1, 100_000, 2 * MIB):
            answer = client.post(stage.url(f"/httpx/{size}", "tls"), content=bytes(size))
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert answer.text == f"POST /httpx/{size} {size}\n"
            assert len(answer.headers["x-request-id"]) == 32
        assert client.head(stage.url("/head", "tls")).headers["content-length"] == "13"


def test_a_large_answer(stage: Stage, tmp_path: Path) -> None:
    body = bytes(range(256)) * (16 * 1024)
    stage.origin.script(steps(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    file = tmp_path / "answer"
    assert curl("--http2-prior-knowledge", "-o", str(file), stage.url("/large")) == "\n2 200"
    assert file.read_bytes() == body


# --- by hand --------------------------------------------------------------------------------------------------------


def test_behind_a_proxy_header(stage: Stage) -> None:
    header = b"PROXY TCP4 198.51.100.7 198.51.100.8 4711 80\r\n"
    with connect(stage.lb.port("behind"), header) as client:
        client.begin("/behind")
        client.read_until(("head", 1, 200), ("data", 1))
    assert stage.lb.entry("/behind")["client"] == "198.51.100.7"


@pytest.mark.parametrize(("source", "status"), [("127.0.0.1", 200), ("127.0.0.2", 421)])
def test_a_request_for_another_certificate_is_misdirected(stage: Stage, source: str, status: int) -> None:
    """But not one of a trusted proxy, which may put everything on one connection."""
    context = stage.authority.trusting()
    context.set_alpn_protocols(["h2"])
    sock = socket.create_connection(("127.0.0.1", stage.lb.port("tls")), source_address=(source, 0))
    with Http2Socket(context.wrap_socket(sock, server_hostname="one.example")) as client:
        number = client.begin("/misdirected", authority=b"two.example")
        client.read_until(("head", number, status))
        client.begin("/right", authority=b"one.example")
        client.read_until(("head", number + 2, 200))


def test_one_slow_answer_does_not_hold_up_others(stage: Stage) -> None:
    go_on = threading.Event()
    stage.origin.script(steps(go_on, OK))
    with connect(stage.lb.port("plain")) as client:
        slow = client.begin("/slow")
        wait_until(lambda: any(request.target == "/slow" for request in stage.origin.requests), "the slow one")
        quick = client.begin("/quick")
        client.read_until(("data", quick))
        assert not any(entry[:2] == ("head", slow) for entry in client.end.seen)
        go_on.set()
        client.read_until(("data", slow))


def test_who_resets_a_stream_ends_the_request_at_its_server(stage: Stage) -> None:
    def waits(peer: Peer) -> None:
        peer.read_request()
        peer.read_to_end()

    stage.origin.script(waits)
    with connect(stage.lb.port("plain")) as client:
        number = client.begin("/given-up")
        wait_until(lambda: any(request.target == "/given-up" for request in stage.origin.requests), "the request")
        peer = next(peer for peer in stage.origin.peers if any(r.target == "/given-up" for r in peer.requests))
        client.end.reset(number, 8)
        client.flush()
        assert peer.closed.wait(PATIENCE_S)
        assert stage.lb.entry("/given-up")["end"] == "client_abort"
        client.begin("/next")
        client.read_until(("head", number + 2, 200))


def test_rapid_resets_end_the_connection(stage: Stage) -> None:
    before = stage.lb.metric("h2_goaways_total", listener="plain", reason="flood")
    with connect(stage.lb.port("plain")) as client:
        for _ in range(400):
            number = client.end.open_stream()
            client.end.send_request(number, b"GET", b"http", b"a", b"/rapid", b"", b"", True)
            client.end.reset(number, 8)
        client.flush()
        client.read_until(("goaway",))
        assert next(entry for entry in client.end.seen if entry[0] == "goaway")[2] == 11
    assert stage.lb.metric("h2_goaways_total", listener="plain", reason="flood") == before + 1
    assert curl("--http2-prior-knowledge", stage.url("/after")).endswith("2 200")


# --- stop and reload ------------------------------------------------------------------------------------------------


def test_a_stop_tells_clients_and_serves_what_is_under_way(tmp_path: Path) -> None:
    go_on = threading.Event()
    with Origin() as origin:
        lb = LbProxy(config(origin), tmp_path).start()
        try:
            origin.script(steps(go_on, OK))
            with connect(lb.port("plain")) as client:
                number = client.begin("/under-way")
                wait_until(lambda: len(origin.requests) == 1, "the request to be at the server")
                lb.signal(signal.SIGTERM)
                client.read_until(("goaway", MAX_STREAM_ID, NO_ERROR), ("goaway", number, NO_ERROR))
                go_on.set()
                client.read_until(("data", number, b"ok"))
                client.read_to_end()
            wait_until(lambda: not lb.is_running, "the end", STOP_S)
            assert lb.exit_code == 0
            assert lb.error_lines() == []
        finally:
            lb.kill()


def test_a_listener_that_goes_lets_its_clients_finish(tmp_path: Path) -> None:
    go_on = threading.Event()
    with Origin() as origin, LbProxy(config(origin), tmp_path) as lb:
        origin.script(steps(go_on, OK))
        with connect(lb.port("plain")) as client:
            number = client.begin("/under-way")
            wait_until(lambda: len(origin.requests) == 1, "the request to be at the server")
            written = yaml.safe_load(lb.config_path.read_text())
            written["listeners"][0] |= {"name": "other", "protocols": "h1"}
            lb.config_path.write_text(yaml.dump(written))
            lb.signal(signal.SIGHUP)
            client.read_until(("goaway", number, NO_ERROR))
            go_on.set()
            client.read_until(("data", number, b"ok"))
            client.read_to_end()
        wait_until(lambda: "listening name=other" in lb.stderr, "the other listener")
