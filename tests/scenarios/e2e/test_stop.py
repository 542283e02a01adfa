"""SIGTERM: what is in flight finishes, what takes too long is cut, nobody is left hanging."""

from __future__ import annotations

import errno
import select
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.e2e_app import EXECUTED
from tests.support.open_loop import Servers as OpenLoopServers
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.servers import Gunicorn, Load, gunicorns, session
from tests.support.waiting import PATIENCE_S, wait_until

CLIENTS = 12


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gunicorn]]:
    folder = tmp_path_factory.mktemp("stop")
    with gunicorns(folder, 2, **{EXECUTED: str(folder / "executed")}) as started:
        yield started


def daemon(servers: list[Gunicorn], folder: Path, *, grace: str = "60s", delay: str = "0s") -> LbProxy:
    pool = {"servers": [server.address for server in servers], "health_check": "/health"}
    return LbProxy(
        {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": pool},
            "shutdown": {"grace": grace, "delay": delay},
        },
        folder,
    ).start()


class Slow:
    """One POST that takes so many seconds at the server."""

    def __init__(self, lb: LbProxy, seconds: float) -> None:
        self.status = 0
        self.error = ""
        self._url = f"http://127.0.0.1:{lb.port('in')}/work"
        self._task = {"id": f"slow-{seconds}", "seconds": seconds}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_until(lambda: lb.metric("server_inflight") == 1, "the slow request to be at a server")

    def _run(self) -> None:
        with session() as client:
            try:
                self.status = client.post(self._url, json=self._task, timeout=60).status_code
            except requests.RequestException as error:
                self.error = repr(error)

    def join(self) -> None:
        self._thread.join()


def ended(lb: LbProxy) -> int:
    """The exit status."""
    assert lb.process is not None
    return lb.process.wait(PATIENCE_S)


@pytest.mark.parametrize("delay", ["0s", "500ms"])
def test_requests_in_flight_finish(servers: list[Gunicorn], tmp_path: Path, delay: str) -> None:
    lb = daemon(servers, tmp_path, delay=delay)
    try:
        with Load(lb.port("in"), CLIENTS, (0.05, 0.2, 0.4)) as load:
            load.wait_for(30)
            load.stop_on_close = True
            lb.signal(signal.SIGTERM)
            wait_until(lambda: len(load.has_left) == CLIENTS, "every client to be told Connection: close")
        assert ended(lb) == 0, lb.stderr
        assert [(one.status, one.error) for one in load.failed] == []
        assert not lb.error_lines(), lb.stderr
        assert "nothing was cut" in lb.stderr
        assert len(lb.access_log()) == len(load.outcomes)
    finally:
        lb.kill()


RATE = 500.0


def test_stopping_under_500_requests_a_second(tmp_path: Path) -> None:
    """Clients that honour `Connection: close` see no error: what was sent is answered, and then nobody listens."""
    with OpenLoopServers(3, service_s=0.05) as servers, Origin() as slow, ExitStack() as stack:
        settings: dict[str, object] = {
            "listeners": [
                {
                    "name": "in",
                    "bind": "127.0.0.1:0",
                    "routes": [{"match": {"path": "/slow"}, "pool": "slow"}, {"pool": "p"}],
                }
            ],
            "pools": {"p": {"servers": servers.addresses}, "slow": {"servers": [slow.address], "health_check": "off"}},
            "shutdown": {"grace": "60s"},
        }
        release = threading.Event()

        def held(c: Peer) -> None:
            request = c.read_request()
            c.wait(release)
            c.send(c.origin.answer(request))

        slow.script(held)
        lb = LbProxy(settings, tmp_path).start()
        stack.callback(lb.kill)
        idle = [stack.enter_context(Client(lb.port("in"))) for _ in range(3)]
        for client in idle[1:]:  # the first says nothing at all
            assert client.ask(get("/idle")).status == 200
        waiting = stack.enter_context(Client(lb.port("in")))
        waiting.send(get("/slow"))
        wait_until(lambda: slow.requests, "the slow request to be at its server")
        with servers.load(lb.port("in"), RATE) as load:
            report = load.report
            wait_until(lambda: report.statuses[200] >= 1000, "a thousand answers")
            rate = report.sent / (time.monotonic() - load.began)
            assert report.refused == 0 and not report.broken
            lb.signal(signal.SIGTERM)
            wait_until(lambda: report.refused > 0, "the listener to be closed")
            assert not release.is_set() and lb.is_running, "it is closed first, while a request is in flight"
            wait_until(lambda: report.refused > RATE / 10, "nobody to have a connection any more")
        # Clients keep to a plan: a machine that is too busy for it has more requests under way at the stop, not less.
        assert rate > 0.1 * RATE, f"the test itself is too slow: {rate:.0f} requests a second"
        assert (set(report.statuses), report.broken) == ({200}, [])
        assert report.told_to_close > 0 and report.is_over
        assert [client.wait_end() for client in idle] == ["fin"] * 3
        release.set()
        answer = waiting.response()
        assert (answer.status, answer.is_kept_alive) == (200, False)
        assert ended(lb) == 0, lb.stderr
        assert "nothing was cut" in lb.stderr and not lb.error_lines(), lb.stderr
        assert Counter(entry["end"] for entry in lb.access_log()) == {"ok": report.statuses[200] + 3}


def test_whose_answer_began_before_the_signal_is_told_with_the_next_one(tmp_path: Path) -> None:
    """Its head could not say `Connection: close` any more, and the client may send at the moment when its body ends."""
    release = threading.Event()

    def in_two_pieces(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        c.wait(release)
        c.send(b"cd")

    with Origin() as origin:
        origin.script(in_two_pieces)
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p"}
        pools = {"p": {"servers": [origin.address], "health_check": "off"}}
        lb = LbProxy({"listeners": [listener], "pools": pools}, tmp_path).start()
        try:
            with Client(lb.port("in")) as client:
                client.send(get("/first"))
                client.wait_for(b"ab")
                lb.signal(signal.SIGTERM)
                wait_until(lambda: refuses(lb.port("in")), "the listener to be closed")
                release.set()
                first = client.response()
                assert (first.body, first.is_kept_alive) == (b"abcd", True)
                second = client.ask(get("/second"))
                assert (second.status, second.is_kept_alive) == (200, False)
                assert client.wait_end() == "fin"
            assert ended(lb) == 0, lb.stderr
            assert [entry["end"] for entry in lb.access_log()] == ["ok", "ok"]
        finally:
            lb.kill()


def test_what_is_pipelined_behind_an_answer_that_is_read_late_is_served(tmp_path: Path) -> None:
    """Sizes around what the kernel holds for the client, so that of some answers the last part waits in lbproxy."""
    small = [100_000, 500_000]
    sizes = [*small, *range(2_400_000, 3_200_000, 98_304)]
    piece = bytes(8192)

    def answers(c: Peer) -> None:
        while True:
            size = int(c.read_request().target[1:])
            c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            c.send(b"".join(b"2000\r\n%b\r\n" % piece for _ in range(size // len(piece))) + b"0\r\n\r\n")

    with Origin(default=answers) as origin, ExitStack() as stack:
        # What is read last has waited for all the others, which takes a busy machine half a minute.
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "timeouts": {"write": "150s"}}
        pools = {"p": {"servers": [origin.address], "health_check": "off", "timeouts": {"write": "150s"}}}
        config = {"listeners": [listener], "pools": pools, "shutdown": {"grace": "150s"}}
        lb = LbProxy(config, tmp_path).start()
        stack.callback(lb.kill)
        clients = [stack.enter_context(Client(lb.port("in"), receive_buffer=4096)) for _ in sizes]
        for client, size in zip(clients, sizes, strict=True):
            client.send(get(f"/{size}") + get("/8192"))
        for client in clients:
            client.wait_for(b"\r\n\r\n")
        wait_until(lambda: lb.metric("requests_total") >= 2 * len(small), "the short ones to be over")
        lb.signal(signal.SIGTERM)
        wait_until(lambda: lb.metric("client_connections") <= len(sizes) - len(small), "the idle ones to be closed")
        for client, size in zip(clients, sizes, strict=True):
            first = client.response()
            assert (first.status, len(first.body)) == (200, size // len(piece) * len(piece))
            if first.is_kept_alive:
                second = client.response()
                assert (second.status, len(second.body)) == (200, 8192), size
            assert client.wait_end() == "fin"
        assert ended(lb) == 0, lb.stderr


def test_ready_says_draining_and_new_clients_are_refused(tmp_path: Path) -> None:
    release = threading.Event()

    def held(c: Peer) -> None:
        request = c.read_request()
        if request.target == "/held":
            c.wait(release)
        c.send(c.origin.answer(request))
        c.serve()

    with Origin(default=held) as origin:
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p"}
        pools = {"p": {"servers": [origin.address]}}
        lb = LbProxy({"listeners": [listener], "pools": pools, "shutdown": {"grace": "60s"}}, tmp_path).start()
        try:
            wait_until(lambda: lb.admin_get("/readyz")[0] == 200, "a first check to pass")
            with Client(lb.port("in")) as client:
                client.send(get("/held"))
                wait_until(lambda: origin.requests, "the request to be at the server")
                lb.signal(signal.SIGTERM)
                wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
                assert b"draining" in lb.admin_get("/readyz")[1]
                assert lb.admin_get("/healthz")[0] == 200
                wait_until(lambda: refuses(lb.port("in")), "the listener to be closed")
                assert lb.is_running
                release.set()
                assert client.response().status == 200
            assert ended(lb) == 0
        finally:
            lb.kill()


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_new_clients_are_served_during_the_delay(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, delay="4s")
    try:
        lb.signal(signal.SIGTERM)
        wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
        with Client(lb.port("in")) as client:
            assert client.ask(get("/while-others-are-told")).status == 200
        assert ended(lb) == 0
    finally:
        lb.kill()


def test_idle_connections_do_not_hold_it_up(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, grace="300s")
    try:
        with Client(lb.port("in")) as used, Client(lb.port("in")) as silent:
            assert used.ask(get("/")).status == 200
            lb.signal(signal.SIGTERM)
            assert ended(lb) == 0
            assert (used.wait_end(), silent.wait_end()) == ("fin", "fin")
    finally:
        lb.kill()


def test_a_request_longer_than_grace_is_cut(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, grace="1s")
    try:
        slow = Slow(lb, 20.0)
        started = time.monotonic()
        lb.signal(signal.SIGTERM)
        assert ended(lb) == 1, lb.stderr
        assert time.monotonic() - started > 0.9
        slow.join()
        assert (slow.status, slow.error) == (503, "")
        assert "1 requests or connections were cut" in lb.stderr
        assert [entry["status"] for entry in lb.access_log()] == [503]
    finally:
        lb.kill()


def test_a_body_that_is_cut_at_grace_shows(servers: list[Gunicorn], tmp_path: Path) -> None:
    """The client must not take half a download for a whole one: its connection is reset."""
    lb = daemon(servers, tmp_path, grace="1s")
    try:
        with Client(lb.port("in"), receive_buffer=8192) as client:
            client.send(get("/download/1000"))
            client.wait_for(b"\r\n\r\n")
            lb.signal(signal.SIGTERM)
            assert ended(lb) == 1, lb.stderr
            client.read_to_end()
            assert client.end == "rst"
            assert len(client.stream.record) < 1000 * 65536
    finally:
        lb.kill()


EVENT = b"data: x\n\n"
ENDLESS = {
    "http": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "until-close": b"HTTP/1.1 200 OK\r\n\r\n",
    "tunnel": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "tcp": b"",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_stream_that_never_ends_is_cut_at_grace(tmp_path: Path, kind: str) -> None:
    """It goes on until then, the cut shows on both sides, and the exit status says that something was cut."""

    ends: list[str] = []

    def streams(c: Peer) -> None:
        c.read_request()
        c.send(ENDLESS[kind])
        event = b"%x\r\n%s\r\n" % (len(EVENT), EVENT) if kind == "http" else EVENT
        # The kernel tells of a reset once, to whichever call comes first, so one thread makes them all.
        while not select.select([c.sock], [], [], 0.005)[0]:
            try:
                c.sock.sendall(event)
            except ConnectionResetError:
                ends.append("rst")
                return
        ends.append(c.read_to_end())

    with Origin(default=streams) as origin:
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "mode": "tcp" if kind == "tcp" else "http"}
        pools = {"p": {"servers": [origin.address], "health_check": "off"}}
        lb = LbProxy({"listeners": [listener], "pools": pools, "shutdown": {"grace": "1s"}}, tmp_path).start()
        try:
            with Client(lb.port("in")) as client:
                upgrade = ("Connection: Upgrade", "Upgrade: websocket") if kind == "tunnel" else ()
                client.send(get("/endless", *upgrade))
                client.wait_for(EVENT)
                started, before = time.monotonic(), len(client.stream.record)
                lb.signal(signal.SIGTERM)
                client.read_to_end()
                assert client.end == "rst", "the cut looks like a clean end"
                assert time.monotonic() - started > 0.9
                assert len(client.stream.record) > before + 3 * len(EVENT), "it did not go on until the end of grace"
                assert b"\r\n0\r\n\r\n" not in client.stream.record
                assert ended(lb) == 1, lb.stderr
            assert origin.peers[0].closed.wait(60) and ends == ["rst"]
            assert "1 requests or connections were cut" in lb.stderr
            assert [entry["end"] for entry in lb.access_log()] == ["shutdown"]
        finally:
            lb.kill()


@pytest.mark.parametrize(
    ("first", "number"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
    ],
)
def test_a_second_signal_ends_it_at_once(
    servers: list[Gunicorn], tmp_path: Path, first: signal.Signals, number: signal.Signals
) -> None:
    lb = daemon(servers, tmp_path)
    try:
        slow = Slow(lb, 20.0)
        lb.signal(first)
        wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
        lb.signal(number)
        assert ended(lb) == 1, lb.stderr
        slow.join()
        assert slow.status != 200
        assert f"{number.name} again: stopping at once" in lb.stderr
    finally:
        lb.kill()
