"""Key updates without end. Each has an answer, and none is data: no buffer grows for ever, no time-out is fooled."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.daemon import LbProxy
from tests.support.key_updates import KeyUpdates
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Request

LARGE = 16 << 20
WRITE_S = 3.0


def answer(request: Request) -> bytes:
    body = bytes(LARGE if request.target == "/large" else 2)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture(scope="module", params=["http", "tcp"])
def lb(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[LbProxy]:
    files = authority.issue("records", "localhost")
    with Origin(answer=answer) as origin:
        listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "mode": request.param, "tls": files.tls}
        config: dict[str, object] = {
            "listeners": [{**listener, "timeouts": {"write": f"{WRITE_S}s"}}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("records")) as lb:
            yield lb


class Raw:
    """A client that has made its handshake, and writes records by itself from then on. It reads nothing."""

    def __init__(self, lb: LbProxy, authority: Authority, keylog: Path) -> None:
        self.client = TlsClient(lb.port("in"), authority.trusting(keylog_filename=str(keylog)), receive_buffer=4096)
        cipher = self.client.tls.cipher()
        assert cipher is not None
        self.records = KeyUpdates(keylog, cipher[0])
        self.plain = socket.socket(fileno=self.client.tls.detach())
        self.plain.settimeout(0.5)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.plain.close()

    def send(self, data: bytes) -> bool:
        """False when the connection was ended."""
        try:
            self.plain.sendall(data)
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


@pytest.fixture
def raw(lb: LbProxy, authority: Authority, tmp_path: Path) -> Iterator[Raw]:
    with Raw(lb, authority, tmp_path / "keys") as raw:
        yield raw


@pytest.mark.parametrize("is_request", [True, False], ids=["to be answered", "not to be answered"])
@pytest.mark.parametrize("asks", [True, False], ids=["behind an answer", "idle"])
def test_a_flood(lb: LbProxy, raw: Raw, is_request: bool, asks: bool) -> None:
    rss = lb.rss_bytes()
    if asks:
        raw.send(raw.records.record(get("/large")))
        wait_until(lambda: lb.metric("server_inflight") == 1, "the request to be under way")
        rss = lb.rss_bytes()
    sent = 0
    while raw.send(data := b"".join(raw.records.update(is_request=is_request) for _ in range(500))):
        sent += len(data)
        assert sent < 4 << 20, "lbproxy took them all"
    assert lb.rss_bytes() - rss < 4 << 20
    wait_until(lambda: not lb.metric("client_connections"), "it to be gone")
    assert lb.metric("internal_errors_total") == 0 and not lb.error_lines()


def test_a_few_fool_no_time_out(lb: LbProxy, raw: Raw) -> None:
    """The answer is not read, and a key update comes again and again: its answer is no progress."""
    raw.send(raw.records.record(get("/large")))
    wait_until(lambda: lb.metric("server_inflight") == 1, "the request to be under way")
    began = time.monotonic()
    while lb.metric("client_connections"):
        raw.send(raw.records.update())
        assert time.monotonic() - began < WRITE_S + PATIENCE_S, "timeouts.write does not hold"
        time.sleep(0.1)
    wait_until(lambda: lb.access_log() and lb.access_log()[-1]["end"] == "client_write_timeout", "its log line")


def test_a_client_that_updates_its_keys_now_and_then_is_served(lb: LbProxy, raw: Raw) -> None:
    """RFC 8446 section 5.5: after some 24 million records it must."""
    with contextlib.closing(raw.plain):
        for _ in range(200):
            raw.send(raw.records.update() + raw.records.record(get("/small")))
            arrived = 0
            while arrived < 50:  # an answer, with what TLS adds
                data = raw.plain.recv(65536)
                assert data, "it was ended"
                arrived += len(data)
