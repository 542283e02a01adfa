"""The admin address under attack while traffic flows: nothing is changed, nothing grows, and requests are not hurt.

LBPROXY_ATTACK_S in the environment says for how long; `make soak` makes it a minute, with 1,000 slow readers of events.
It holds the latency of requests against that of a time of peace too, for which the calls are spaced out: each takes up
to CALL_S of the one loop, so a flood of them is felt, as a flood of requests is.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import LbProxy
from tests.support.open_loop import OpenLoop, Servers
from tests.support.waiting import PATIENCE_S, wait_until

ATTACK_S = float(os.environ.get("LBPROXY_ATTACK_S", "1"))
IS_FULL = ATTACK_S >= 30
RATE = 500 if IS_FULL else 100
N_READERS = 1000 if IS_FULL else 100
N_ATTACKERS = 3
PACE_S = 0.2 if IS_FULL else 0.0  # between two calls of an attacker
CALL_S = 0.001
ADMIN_CONNECTIONS = 64 + 16
GROWTH_BYTES = 48 << 20  # 80 connections with what they may hold each, and what the interpreter keeps of a busy time
TOKENS = {"token": "s3cret", "tokens": {"monitoring": {"token": "reads", "scope": "read"}}}
READ = "Authorization: Bearer reads\r\n"
JSON = "Content-Type: application/json\r\n"
SERVERS = "/api/v1/pools/p/servers"


def request(line: str, headers: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    host = "" if "Host:" in headers else "Host: localhost\r\n"
    framing = f"Content-Length: {len(body) if length is None else length}\r\n"
    return f"{line} HTTP/1.1\r\n{host}{headers}{framing}Connection: close\r\n\r\n".encode() + body


WEIGHT = b'{"weight": 9}'
REFUSED = (
    # without the right to
    request("POST /api/v1/reload"),
    request("POST /api/v1/reload", "Authorization: Bearer wrong\r\n"),
    request("POST /api/v1/reload", "Authorization: Bearer " + "x" * 5000 + "\r\n"),
    request("POST /api/v1/reload", "Authorization: Basic czNjcmV0\r\n"),
    request("POST /api/v1/reload", READ),
    request("POST /api/v1/reload?dry_run=1", READ + "Host: evil.example\r\n"),
    request("POST /api/v1/reload", "Origin: http://evil.example\r\n"),
    request("POST /api/v1/reload", "Host: evil.example\r\n"),
    request(f"POST {SERVERS}", JSON, b'{"address": "127.0.0.1:9"}'),
    request(f"PATCH {SERVERS}/one", JSON, WEIGHT),
    request(f"PATCH {SERVERS}/one", JSON + READ, WEIGHT),
    request(f"DELETE {SERVERS}/one", READ),
    # wrong methods
    request("PUT /api/v1/reload", "Authorization: Bearer s3cret\r\n"),
    request("DELETE /metrics"),
    request("BREW /api/v1/status"),
    request("TRACE /"),
    # paths that lead out
    request("GET /../../../../etc/passwd"),
    request("GET /static/..%2f..%2f..%2fetc/passwd"),
    request("GET /%2e%2e/%2e%2e/lb.yaml"),
    request("GET //etc/passwd"),
    request(f"PATCH {SERVERS}/..%2f..%2freload", JSON, WEIGHT),
    # bodies without an end
    request(f"PATCH {SERVERS}/one", JSON + "Authorization: Bearer s3cret\r\n", b"[" * 100_000),
    request("POST /api/v1/reload", "Authorization: Bearer wrong\r\n", b"x" * 1_000_000),
)
WRITE = "Authorization: Bearer s3cret\r\n"
UNFINISHED = (  # the rest never comes
    request(f"PATCH {SERVERS}/one", JSON + WRITE, b'{"weight": 7', length=1000),
    request(f"PATCH {SERVERS}/one", JSON + WRITE, b"{" * 50_000, length=1 << 40),
)


class Attack:
    """What comes of the calls, by status; 0: closed without one, as others needed the connection."""

    def __init__(self, lb: LbProxy) -> None:
        self._address = ("127.0.0.1", lb.port("admin"))
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.leaked: list[bytes] = []

    @property
    def is_tried(self) -> bool:
        """Has all of it been tried, or as much?"""
        return self.statuses.total() > len(REFUSED)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(N_ATTACKERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(PATIENCE_S)

    def _work(self, number: int) -> None:
        while not self._is_over.is_set():
            for data in (*REFUSED[number::N_ATTACKERS], *UNFINISHED):
                self.statuses[self._status(data, waits=data not in UNFINISHED)] += 1
                self._is_over.wait(PACE_S)

    def _status(self, data: bytes, *, waits: bool) -> int:
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=PATIENCE_S) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(data)  # it may be refused before all of it is there
            while waits and (piece := sock.recv(65536)):
                answer += piece
        if b"root:" in answer or b"s3cret" in answer:
            self.leaked.append(answer)
        found = re.match(rb"HTTP/1\.[01] (\d+) ", answer)
        return int(found[1]) if found else 0


class SlowReaders:
    """They ask for events and take nothing. Who finds the kernel's queue full tries again, as TCP does."""

    def __init__(self, lb: LbProxy, count: int) -> None:
        self._address = ("127.0.0.1", lb.port("admin"))
        self._socks = [socket.socket() for _ in range(count)]
        self._waiting = list(self._socks)
        self.n_asked = 0
        for sock in self._socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)

    @property
    def are_there(self) -> bool:
        """Have more than half of them asked?"""
        return self.n_asked > len(self._socks) // 2

    def go_on(self) -> None:
        """Twenty more try, and those ask who are connected."""
        for sock in self._waiting[:20]:
            sock.connect_ex(self._address)
        for sock in self._waiting[:20]:
            with contextlib.suppress(OSError):
                sock.send(f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{READ}\r\n".encode())
                self.n_asked += 1
                self._waiting.remove(sock)
        self._waiting = self._waiting[10:] + self._waiting[:10]

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def p99_s(load: OpenLoop) -> float:
    found = sorted(load.report.latencies_s)
    return found[len(found) * 99 // 100]


def is_well(load: OpenLoop) -> bool:
    report = load.report
    return report.statuses == {200: report.sent} and not report.broken and not report.refused


def what_may_not_change(lb: LbProxy) -> object:
    token = {"Authorization": "Bearer reads"}
    code, body = lb.admin_get("/api/v1/pools/p/servers/one", token)
    assert code == 200
    kept = ("admin", "weight", "max_inflight", "leaving")
    return {key: re.findall(rf'"{key}": ?("[^"]*"|[\w.]+)'.encode(), body) for key in kept}


def test_requests_are_not_hurt_and_nothing_changes_nor_grows(tmp_path: Path) -> None:
    with Servers(1, 0.0) as servers:
        config: dict[str, object] = {
            "admin": {"bind": "127.0.0.1:0", **TOKENS},
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [{"name": "one", "address": servers.addresses[0]}]}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            with servers.load(lb.port("in"), RATE) as peace:
                time.sleep(15.0 if IS_FULL else 0.2)
            assert is_well(peace)
            before, rss = what_may_not_change(lb), lb.rss_bytes()
            attack = Attack(lb)
            most_fds = most_rss = 0
            with contextlib.ExitStack() as stack, attack.going_on(), servers.load(lb.port("in"), RATE) as war:
                readers = stack.enter_context(contextlib.closing(SlowReaders(lb, N_READERS)))
                ends = time.monotonic() + ATTACK_S
                gives_up = ends + PATIENCE_S
                while (now := time.monotonic()) < ends or (
                    not (attack.is_tried and readers.are_there) and now < gives_up
                ):
                    readers.go_on()
                    most_fds, most_rss = max(most_fds, lb.fd_count()), max(most_rss, lb.rss_bytes())
                    time.sleep(0.05)
            assert is_well(war), war.report
            assert attack.leaked == []
            assert attack.is_tried and readers.are_there
            assert all(400 <= status < 500 for status in attack.statuses if status), attack.statuses
            for_requests = 2 * (peace.report.connections + war.report.connections)  # a busy machine needs more
            assert most_fds - lb.baseline_fds <= ADMIN_CONNECTIONS + for_requests + 16
            assert most_rss - rss <= GROWTH_BYTES
            wait_until(lambda: what_may_not_change(lb) == before, "the admin address to answer as before")
            assert lb.metric("config_reloads_total") == 0
            assert ", by " not in lb.stderr
            print(f"p99 {1e3 * p99_s(peace):.1f} ms in peace, {1e3 * p99_s(war):.1f} ms in war; {attack.statuses}")
            print(f"most descriptors {most_fds}, memory {rss >> 10} KiB, at most {most_rss >> 10}")
            if IS_FULL:
                assert p99_s(war) <= 1.1 * p99_s(peace) + CALL_S
