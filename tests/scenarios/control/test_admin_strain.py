"""The admin address among strangers, with the installed daemon: few connections, no 500, no flood of lines."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from lbproxy.control.admin_turns import SHARE
from tests.support import build, nursery
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import PATIENCE_S, wait_until

TOKEN = "s3cret"


def config(origin: Origin, **more: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "app"}],
        "pools": {"app": {"servers": [origin.address]}},
        **more,
    }


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    admin = {"bind": "127.0.0.1:0", "token": TOKEN}
    with Origin() as origin, LbProxy(config(origin, admin=admin), tmp_path_factory.mktemp("admin")) as running:
        yield running


def send(lb: LbProxy, data: bytes, *, leaves: bool = False) -> bytes:
    """Everything that comes back for these bytes; leaves: a FIN follows them."""
    with socket.create_connection(("127.0.0.1", lb.port("admin")), timeout=PATIENCE_S) as sock:
        sock.sendall(data)
        if leaves:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.slow
def test_silent_connections_take_nothing_from_the_traffic(tmp_path: Path) -> None:
    with Origin() as origin, LbProxy(config(origin), tmp_path / "lb", nofile=200) as lb, ExitStack() as stack:
        for _ in range(180):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(PATIENCE_S)
            sock.connect(("127.0.0.1", lb.port("admin")))
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(50)]
        for number, client in enumerate(clients):
            assert client.ask(get(f"/{number}")).status == 200
        assert lb.admin_get("/readyz")[0] == 200
        assert lb.fd_count() - lb.baseline_fds <= 50 + 50 + 12
        wait_until(lambda: "its limit: the longest silent one is closed" in lb.stderr, "the log to say it")
        assert lb.metric("rejected_total") == 0
        stack.close()


@pytest.mark.parametrize("sent", [b"", b'{"weight": '], ids=["no octet", "a piece"])
def test_who_leaves_before_the_body_is_whole_is_no_defect(lb: LbProxy, sent: bytes) -> None:
    """Its octets and its reset arrive together, before anybody began to read the body."""
    before = len(lb.stderr)
    head = f"PATCH /api/v1/pools/app/servers/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", lb.port("admin")), timeout=PATIENCE_S) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(head.encode() + sent)
    wait_until(lambda: lb.admin_get("/healthz")[0] == 200, "the admin address to go on")
    assert not lb.error_lines(before), lb.stderr[before:]


@pytest.mark.slow
def test_a_silent_and_a_trickling_connection_are_closed_within_seconds(lb: LbProxy) -> None:
    address = ("127.0.0.1", lb.port("admin"))
    with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
        began = time.monotonic()
        head = iter(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 1000)

        def is_closed() -> bool:
            try:
                slow.sendall(bytes([next(head)]))
                time.sleep(0.2)
            except OSError:
                return True
            return False

        wait_until(is_closed, "the slow head to be cut")
        silent.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionResetError):
            assert silent.recv(1) == b""
            raise ConnectionResetError
        assert time.monotonic() - began > 8.0


@pytest.mark.slow
def test_a_scraper_may_keep_its_connection(lb: LbProxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("admin"), timeout=PATIENCE_S)
    try:
        for pause_s in (0.0, 12.0, 0.0):
            time.sleep(pause_s)
            connection.request("GET", "/healthz")
            sock = connection.sock
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok\n")
            assert connection.sock is sock and sock is not None, "not the same connection"
    finally:
        connection.close()


class Hammer:
    """Calls without a pause, from several connections that are kept for as long as they are."""

    def __init__(self, port: int, paths: list[str]) -> None:
        self._port = port
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._call, args=(path,)) for path in paths]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    @property
    def n_answered(self) -> int:
        return sum(self.statuses.values())

    def _call(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self._is_over.is_set():
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except (OSError, http.client.HTTPException):
                connection.close()
            if self.statuses[503]:
                time.sleep(0.01)
        connection.close()


@pytest.mark.slow
def test_who_hammers_what_anybody_may_have_does_not_get_all_the_time(tmp_path: Path) -> None:
    """Without a bound it would do nothing else."""
    admin = {"bind": "127.0.0.1:0", "token": TOKEN}
    with Origin() as origin, LbProxy(config(origin, admin=admin), tmp_path / "lb") as lb:
        with Hammer(lb.port("admin"), ["/metrics"] * 4) as hammer:

            def is_bounded() -> bool:
                before, n_before = lb.cpu_s(), hammer.n_answered
                time.sleep(0.5)
                return hammer.n_answered > n_before and lb.cpu_s() - before <= 0.5 * SHARE * 1.3

            wait_until(is_bounded, "what may be had at once to be spent")
            before = lb.cpu_s()
            time.sleep(4.0)
            assert lb.cpu_s() - before <= 4.0 * SHARE * 1.3
            assert lb.admin_get("/readyz")[0] == 200
            for _ in range(20):
                assert lb.admin_get("/metrics", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert hammer.statuses.keys() == {200}


HEADERS = [
    b"Authorization: Bearer \xff",
    b"Authorization: Bearer \xc3\xa9",
    b"Authorization: \xff\xfe",
    b"Authorization: Bearer",
    b"Authorization:",
    b"Origin: http://[",
    b"Origin: http://[::1]]:80",
    b"Origin: \xff",
    b"Origin: null",
    b"Origin: http://\xe2\x84\x80.example",
    b"Host: [",
    b"Host: \xff",
    b"Host: ::::::",
    b"Host: 127.0.0.1:99999999",
    b"Accept: \xff;q=\xff, application/openmetrics-text;q=nan;q=, ,;",
    b"Accept: text/plain;q=1e999",
    b"Accept-Encoding: \xff",
    b"If-None-Match: \xff",
    b"If-Modified-Since: Mon, 99 Foo 0000 99:99:99 GMT",
    b"Range: bytes=-\xff",
    b'Cookie: \xff=\xff; =; a="',
    b"Content-Type: \xff/\xff; charset=\xff",
    b"Content-Length: 0",
    b"Expect: 100-continue",
    b"Expect: \xff",
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: \xff",
    b"X-Forwarded-For: \xff",
]


PATHS = [b"/api/v1/status", b"/metrics", b"/readyz", b"/", b"/nothing", b"/%ff%00?%ff=\xc3", b"*", b"http://a/b"]


@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_header_of_any_shape_never_gives_a_500(lb: LbProxy, header: bytes) -> None:
    before = len(lb.stderr)
    host = b"" if header.startswith(b"Host:") else b"Host: 127.0.0.1\r\n"
    for path in PATHS:
        for method in (b"GET", b"POST"):
            answer = send(
                lb, method + b" " + path + b" HTTP/1.1\r\n" + host + header + b"\r\nConnection: close\r\n\r\n"
            )
            status = re.match(rb"HTTP/1\.[01] (\d+) ", answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
            assert status is not None, (path, answer)
            assert 200 <= int(status[1]) < 500, (path, answer)
    assert not lb.error_lines(before), lb.stderr[before:]


JUNK = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret-of-a-stranger" + bytes(200),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nsecret-of-a-stranger",
    b"secret-of-a-stranger\r\n\r\n",
    b"GET http://[secret-of-a-stranger HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nsecret-of-a-stranger\r\n\r\n",
    b"GET / HTTP/1.1\r\nsecret-of-a-stranger\x00: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: secret-of-a-stranger\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nsecret-of-a-stranger\r\n",
    b"GET /" + b"secret-of-a-stranger" * 1000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"secret-of-a-stranger" * 1000 + b"\r\n\r\n",
    b"GET / HTTP/9.9 secret-of-a-stranger\r\n\r\n",
]


def test_junk_is_a_line_a_second_without_the_junk(lb: LbProxy) -> None:
    before, began = len(lb.stderr), time.monotonic()
    for _ in range(20):
        for junk in JUNK:
            answer = send(lb, junk, leaves=True)
            assert not answer.startswith(b"HTTP/1.1 500") and not answer.startswith(b"HTTP/1.0 500"), (junk, answer)
    assert lb.admin_get("/healthz")[0] == 200
    new, seconds = lb.stderr[before:], time.monotonic() - began
    assert "secret" not in new and "Traceback" not in new and "ERROR" not in new, new
    assert len(new.splitlines()) <= 5 * (seconds + 2), new


def test_a_second_run_without_a_file_finds_a_free_admin_address(tmp_path: Path) -> None:
    """Whoever has port 8404, the first or a stranger: both run and say where."""
    with Origin() as origin, ExitStack() as stack:
        found = []
        for name in ("first", "second"):
            path = tmp_path / name
            with path.open("wb") as stderr:
                process = stack.enter_context(
                    subprocess.Popen(
                        [*build.COMMAND, "run", "--to", origin.address, "--bind", "127.0.0.1:0"],
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                    )
                )
            stack.callback(process.kill)

            def said(path: Path = path) -> str:
                match = re.search(r"listening name=admin address=(\S+)", path.read_text())
                return match[1] if match else ""

            found.append(wait_until(said, "the admin address"))
        assert found[0] != found[1]
        told = (tmp_path / "second").read_text()
        assert f"the admin address of this one is {found[1]}" in told, told
        for address in found:
            done = nursery.run(["status", "--admin", address], tmp_path)
            assert done.returncode == 0 and "pool default" in done.stdout, done
