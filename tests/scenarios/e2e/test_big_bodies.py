"""200 MB through the proxy past a peer that is much slower than the other: nothing is lost and memory stays flat."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.e2e_app import BLOCK, blocks
from tests.support.servers import Daemon, Gunicorn, session

MIB = 1024 * 1024
BLOCKS = 200 * MIB // len(BLOCK)
RSS_GROWTH = 16 * MIB
PAUSE_S = 0.02  # for every MiB: 200 MiB take 4 s at least, where an unhindered transfer takes well under one


def expected() -> str:
    checksum = hashlib.sha256()
    for block in blocks(BLOCKS):
        checksum.update(block)
    return checksum.hexdigest()


@pytest.fixture(scope="module")
def lb(echo_server: Gunicorn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings: dict[str, object] = {
        "listeners": [
            {"name": "http", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "p", "mode": "tcp"},
        ],
        "pools": {"p": {"servers": [echo_server.address], "health_check": "/health"}},
    }
    with Daemon(settings, tmp_path_factory.mktemp("big")) as daemon:
        yield daemon


@contextmanager
def flat_memory(lb: Daemon, listener: str) -> Iterator[None]:
    """The daemon's RSS does not grow by more than the bound at any moment of the block."""
    with session() as client:
        assert client.get(f"http://127.0.0.1:{lb.port(listener)}/download/4", timeout=20).status_code == 200
    before = peak = lb.rss_bytes()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.02):
            peak = max(peak, lb.rss_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    assert peak - before <= RSS_GROWTH, f"RSS grew by {(peak - before) / MIB:.1f} MiB"


@pytest.mark.slow
@pytest.mark.parametrize("listener", ["http", "tcp"])
def test_download_by_a_slow_client(lb: Daemon, listener: str) -> None:
    checksum, size = hashlib.sha256(), 0
    with flat_memory(lb, listener), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", lb.port(listener)))
        sock.sendall(f"GET /download/{BLOCKS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        stream = sock.makefile("rb", buffering=MIB)
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        while stream.readline() != b"\r\n":
            pass
        started = time.monotonic()
        while data := stream.read(MIB):
            checksum.update(data)
            size += len(data)
            time.sleep(PAUSE_S)
        stream.close()
    assert time.monotonic() - started > 200 * PAUSE_S
    assert size == BLOCKS * len(BLOCK)
    assert checksum.hexdigest() == expected()


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("listener", ["http", "tcp"])
def test_upload_to_a_slow_server(lb: Daemon, listener: str, framing: str) -> None:
    whole = BLOCKS * len(BLOCK)
    headers = {"Content-Length": str(whole)} if framing == "length" else {"Transfer-Encoding": "chunked"}
    client = http.client.HTTPConnection("127.0.0.1", lb.port(listener), timeout=30)
    with flat_memory(lb, listener), closing(client):
        client.request("POST", f"/upload?pause={PAUSE_S}", blocks(BLOCKS), headers, encode_chunked=framing == "chunked")
        answer = client.getresponse()
        assert answer.status == 200
        assert json.load(answer) == {"sha256": expected(), "size": whole}
