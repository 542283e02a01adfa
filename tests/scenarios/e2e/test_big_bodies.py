"""Bodies past peers that are much slower than the other side, several at once. Nothing is lost, memory
stays flat, and the fast side is held back by TCP.

In `make test` four clients move 24 MiB each. The size that the rows name, 1 GB for each of four clients that take 1 MB
a second, runs for about 18 minutes a test and needs the variable:

    LBPROXY_BIG_BODY_MB=1024 .venv/bin/pytest tests/scenarios/e2e/test_big_bodies.py -rP

With the variable (any size in MiB) the slow side pauses for a second after each MiB, as the rows say; without it, for
20 ms. What was moved, how long it took and by how much the daemon grew is printed (`-rP`).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path

import pytest

from tests.support.daemon import LbProxy
from tests.support.e2e_app import BLOCK, blocks
from tests.support.in_flight import kernel_queues
from tests.support.servers import Gunicorn, session

MIB = 1024 * 1024
FULL = os.environ.get("LBPROXY_BIG_BODY_MB")
SIZE_MIB = int(FULL or 24)
PAUSE_S = 1.0 if FULL else 0.02  # for every MiB; an unhindered transfer takes about 1 ms for each
CLIENTS = 4
BLOCKS = SIZE_MIB * MIB // len(BLOCK)
RSS_GROWTH = 16 * MIB  # of the daemon, for all clients together
PATIENCE_S = 120.0
LOOK_S = 0.02
TIMEOUT_S = 120 + 3 * SIZE_MIB * PAUSE_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S)]


@cache
def expected() -> str:
    checksum = hashlib.sha256()
    for block in blocks(BLOCKS):
        checksum.update(block)
    return checksum.hexdigest()


@pytest.fixture(scope="module")
def lb(echo_server: Gunicorn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    settings: dict[str, object] = {
        "listeners": [
            {"name": "http", "bind": "127.0.0.1:0", "pool": "p", "timeouts": {"write": "300s"}},
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "p", "mode": "tcp", "timeouts": {"write": "300s"}},
        ],
        "pools": {
            "p": {
                "servers": [echo_server.address],
                "health_check": "/health",
                "timeouts": {"write": "300s", "read": "300s", "response_head": "300s"},
            }
        },
    }
    with LbProxy(settings, tmp_path_factory.mktemp("big")) as daemon:
        yield daemon


@contextmanager
def flat_memory(lb: LbProxy, listener: str) -> Iterator[None]:
    """The daemon's RSS does not grow by more than the bound at any moment of the block; afterwards it holds nothing."""
    with session() as client:
        assert client.get(f"http://127.0.0.1:{lb.port(listener)}/download/4", timeout=60).status_code == 200
    before = peak = lb.rss_bytes()
    started = time.monotonic()
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
    took_s = time.monotonic() - started
    print(f"{CLIENTS} x {SIZE_MIB} MiB in {took_s:.1f} s: RSS {before / MIB:.1f} + {(peak - before) / MIB:.1f} MiB")
    assert peak - before <= RSS_GROWTH, f"RSS grew by {(peak - before) / MIB:.1f} MiB"
    assert took_s > SIZE_MIB * PAUSE_S * 0.9, "the slow side was not slow"
    lb.check_idle()


def held_back(*, local_port: int | None = None, remote_port: int | None = None) -> set[tuple[str, str]]:
    """lbproxy's connections, told by their ports, on which it leaves unread what has come.

    Whether the sender's own buffer is full, too, is up to the kernel, which may take 32 MiB for the other end.
    """
    found = set()
    for (local, remote), (_, to_read) in kernel_queues().items():
        ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
        if to_read and ports == (local_port or ports[0], remote_port or ports[1]):
            found.add((local, remote))
    return found


def results(
    clients: list[Future[tuple[str, int]]], look: Callable[[], set[tuple[str, str]]], go_on: Callable[[], None]
) -> list[tuple[str, int]]:
    """What came of the transfers, each of whose connections was seen to be held back by TCP.

    The slow side waits within its first MiB until `go_on` is called: when each was seen. Seen several times: in 17
    minutes one look met the answer to a health check on its way.
    """
    looks: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[str, str]] = set()
    deadline = time.monotonic() + PATIENCE_S / 2
    while len(seen) < len(clients) and time.monotonic() < deadline:
        looks.update(look())
        seen = {connection for connection, count in looks.items() if count >= 3}
        time.sleep(LOOK_S)
    go_on()
    done = [client.result() for client in clients]
    assert len(seen) == len(clients), f"held back: {looks}"
    return done


def download(port: int, may_go_on: threading.Event) -> tuple[str, int]:
    """The checksum and the size of what a slow client gets."""
    checksum, size = hashlib.sha256(), 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", port))
        sock.sendall(f"GET /download/{BLOCKS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        with sock.makefile("rb", buffering=MIB) as stream:
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            while stream.readline() != b"\r\n":
                pass
            while data := stream.read(MIB):
                may_go_on.wait(PATIENCE_S)
                checksum.update(data)
                size += len(data)
                time.sleep(PAUSE_S)
    return checksum.hexdigest(), size


def upload(port: int, framing: str, may_go_on: Path) -> tuple[str, int]:
    """What a slow server says that it got, which waits for that file."""
    whole = BLOCKS * len(BLOCK)
    headers = {"Content-Length": str(whole)} if framing == "length" else {"Transfer-Encoding": "chunked"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as client:
        client.request(
            "POST",
            f"/upload?pause={PAUSE_S}&until={may_go_on}",
            blocks(BLOCKS),
            headers,
            encode_chunked=framing == "chunked",
        )
        answer = client.getresponse()
        assert answer.status == 200
        got = json.load(answer)
        return got["sha256"], got["size"]


@pytest.mark.parametrize("listener", ["http", "tcp"])
def test_downloads_by_slow_clients(lb: LbProxy, echo_server: Gunicorn, listener: str) -> None:
    wanted = (expected(), BLOCKS * len(BLOCK))
    may_go_on = threading.Event()
    with flat_memory(lb, listener), ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(download, lb.port(listener), may_go_on) for _ in range(CLIENTS)]
        assert results(clients, partial(held_back, remote_port=echo_server.port), may_go_on.set) == [wanted] * CLIENTS


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("listener", ["http", "tcp"])
def test_uploads_to_a_slow_server(lb: LbProxy, tmp_path: Path, listener: str, framing: str) -> None:
    may_go_on = tmp_path / "go-on"
    wanted = (expected(), BLOCKS * len(BLOCK))
    port = lb.port(listener)
    with flat_memory(lb, listener), ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(upload, port, framing, may_go_on) for _ in range(CLIENTS)]
        assert results(clients, partial(held_back, local_port=port), may_go_on.touch) == [wanted] * CLIENTS
