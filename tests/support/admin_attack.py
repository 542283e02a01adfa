"""An attack on the admin address, in a process of its own that gives way to all others (nice 19): what it does must not
be in the way of whoever measures.

`python -m tests.support.admin_attack PORT READERS PACE_S` reads words from its standard input, one a line, and says
each back when that is done:

    war      the attackers call, each PACE_S after its last call, and the readers come
    peace    nobody calls, and every connection is closed
    end      the same, and what came of it all, as JSON in one line
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator

from tests.support.waiting import PATIENCE_S

WRITE_TOKEN, READ_TOKEN = "s3cret", "reads"
TOKENS = {"token": WRITE_TOKEN, "tokens": {"monitoring": {"token": READ_TOKEN, "scope": "read"}}}
N_ATTACKERS = 3
_READ = f"Authorization: Bearer {READ_TOKEN}\r\n"
_WRITE = f"Authorization: Bearer {WRITE_TOKEN}\r\n"
_JSON = "Content-Type: application/json\r\n"
_SERVERS = "/api/v1/pools/p/servers"
_WEIGHT = b'{"weight": 9}'


def request(line: str, headers: str = "", body: bytes = b"", length: int | None = None) -> bytes:
    host = "" if "Host:" in headers else "Host: localhost\r\n"
    framing = f"Content-Length: {len(body) if length is None else length}\r\n"
    return f"{line} HTTP/1.1\r\n{host}{headers}{framing}Connection: close\r\n\r\n".encode() + body


REFUSED: dict[str, tuple[int, bytes]] = {
    # without the right to
    "no token": (401, request("POST /api/v1/reload")),
    "a wrong token": (401, request("POST /api/v1/reload", "Authorization: Bearer wrong\r\n")),
    "a token that is too long": (401, request("POST /api/v1/reload", f"Authorization: Bearer {'x' * 5000}\r\n")),
    "another scheme": (401, request("POST /api/v1/reload", "Authorization: Basic czNjcmV0\r\n")),
    "two tokens": (401, request("POST /api/v1/reload", "Authorization: Bearer wrong\r\n" + _WRITE)),
    "a token that may only read": (403, request("POST /api/v1/reload", _READ)),
    "a dry run with it": (403, request("POST /api/v1/reload?dry_run=1", _READ + "Host: evil.example\r\n")),
    "an upgrade with it": (403, request("POST /api/v1/upgrade", _READ)),
    "a foreign Origin": (401, request("POST /api/v1/reload", "Origin: http://evil.example\r\n")),
    "a foreign Host": (401, request("POST /api/v1/reload", "Host: evil.example\r\n")),
    "a foreign Origin that reads": (403, request("GET /api/v1/status", "Origin: http://evil.example\r\n")),
    "a foreign Host that reads": (403, request("GET /api/v1/status", "Host: evil.example\r\n")),
    "a foreign Host for events": (403, request("GET /api/v1/events", "Host: evil.example:8404\r\n")),
    "a server without a token": (401, request(f"POST {_SERVERS}", _JSON, b'{"address": "127.0.0.1:9"}')),
    "a weight without a token": (401, request(f"PATCH {_SERVERS}/one", _JSON, _WEIGHT)),
    "a weight with a token that reads": (403, request(f"PATCH {_SERVERS}/one", _JSON + _READ, _WEIGHT)),
    "a removal with it": (403, request(f"DELETE {_SERVERS}/one", _READ)),
    "a form of a page": (
        415,
        request(f"PATCH {_SERVERS}/one", "Content-Type: text/plain\r\n" + _WRITE, _WEIGHT),
    ),
    # wrong methods
    "PUT for a reload": (405, request("PUT /api/v1/reload", _WRITE)),
    "DELETE for metrics": (405, request("DELETE /metrics")),
    "POST for the page": (405, request("POST /")),
    "a method that nobody knows": (401, request("BREW /api/v1/status")),
    "TRACE": (405, request("TRACE /")),
    "CONNECT": (404, request("CONNECT 127.0.0.1:22")),
    # paths that lead out
    "dots": (404, request("GET /../../../../etc/passwd")),
    "encoded dots": (404, request("GET /static/..%2f..%2f..%2fetc/passwd")),
    "encoded dots below the page": (404, request("GET /dashboard/%2e%2e/%2e%2e/pages.py")),
    "dots of a file": (404, request("GET /%2e%2e/%2e%2e/lb.yaml")),
    "an empty segment": (404, request("GET //etc/passwd")),
    "a reload as a server": (401, request(f"PATCH {_SERVERS}/..%2f..%2freload", _JSON, _WEIGHT)),
    # bodies
    "a body that is too large": (413, request(f"PATCH {_SERVERS}/one", _JSON + _WRITE, b"[" * 100_000)),
    "a large body without a token": (401, request("POST /api/v1/reload", "Authorization: Bearer no\r\n", b"x" * 10**6)),
    "a length that is none": (
        400,
        b"POST /api/v1/reload HTTP/1.1\r\nHost: a\r\n" + _WRITE.encode() + b"Content-Length: -1\r\n\r\n",
    ),
    "JSON that is very deep": (400, request(f"PATCH {_SERVERS}/one", _JSON + _WRITE, b"[" * 60_000)),
}
"""What is refused, by what is wrong with it: with which status, and the octets."""
UNFINISHED: dict[str, bytes] = {
    "a body that stops": request(f"PATCH {_SERVERS}/one", _JSON + _WRITE, b'{"weight": 7', length=1000),
    "a large one": request(f"PATCH {_SERVERS}/one", _JSON + _WRITE, b"{" * 50_000, length=1 << 40),
    "one without the right to": request("POST /api/v1/reload", _JSON, b"{" * 50_000, length=1 << 40),
    "a head that stops": b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nX: ",
}
"""The rest never comes."""


def answer(port: int, data: bytes) -> bytes:
    """What comes back; nothing if it is closed without, as others needed the connection."""
    found = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)  # it may be refused before all of it is there
        while piece := sock.recv(65536):
            found += piece
    return found


def status(answer: bytes) -> int:
    """0 if there is none."""
    found = re.match(rb"HTTP/1\.[01] (\d+) ", answer)
    return int(found[1]) if found else 0


def leaks(answer: bytes) -> bool:
    """Does it tell what stands in a file that it must not, or a token?"""
    return b"root:" in answer or WRITE_TOKEN.encode() in answer or b"import" in answer


class SlowReaders:
    """They ask for events and take nothing. Who finds the kernel's queue full tries again, as TCP does."""

    def __init__(self, port: int, count: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socks = [socket.socket() for _ in range(count)]
        self._waiting = list(self._socks)
        self.n_asked = 0
        for sock in self._socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)

    def go_on(self) -> None:
        """Twenty more try, and those ask who are connected."""
        for sock in self._waiting[:20]:
            sock.connect_ex(self._address)
        for sock in self._waiting[:20]:
            with contextlib.suppress(OSError):
                sock.send(f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{_READ}\r\n".encode())
                self.n_asked += 1
                self._waiting.remove(sock)
        self._waiting = self._waiting[10:] + self._waiting[:10]

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


class Attack:
    """What comes of the calls, by status; 0: closed without one."""

    def __init__(self, port: int, n_readers: int, pace_s: float) -> None:
        self._port = port
        self._n_readers = n_readers
        self._pace_s = pace_s
        self.statuses: Counter[int] = Counter()
        self.n_leaks = 0
        self.n_readers = 0

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        is_over = threading.Event()
        works = [threading.Thread(target=self._call, args=(number, is_over)) for number in range(N_ATTACKERS)]
        works.append(threading.Thread(target=self._read, args=(is_over,)))
        for thread in works:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in works:
                thread.join(PATIENCE_S)

    def _call(self, number: int, is_over: threading.Event) -> None:
        calls = [data for _, data in REFUSED.values()][number::N_ATTACKERS]
        kept: list[socket.socket] = []
        try:
            while not is_over.is_set():
                for data in calls:
                    told = answer(self._port, data)
                    self.statuses[status(told)] += 1
                    self.n_leaks += leaks(told)
                    if is_over.wait(self._pace_s):
                        break
                for data in UNFINISHED.values():
                    with contextlib.suppress(OSError):
                        kept.append(socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S))
                        kept[-1].settimeout(0.0)
                        kept[-1].send(data)
                while len(kept) > 32:
                    kept.pop(0).close()
        finally:
            for sock in kept:
                sock.close()

    def _read(self, is_over: threading.Event) -> None:
        readers = SlowReaders(self._port, self._n_readers)
        try:
            while not is_over.wait(0.05):
                readers.go_on()
                self.n_readers = max(self.n_readers, readers.n_asked)
        finally:
            readers.close()

    def told(self) -> str:
        return json.dumps({"statuses": dict(self.statuses), "leaks": self.n_leaks, "readers": self.n_readers})


def main(port: int, n_readers: int, pace_s: float) -> None:
    os.nice(19)
    attack = Attack(port, n_readers, pace_s)
    with contextlib.ExitStack() as war:
        for line in sys.stdin:
            word = line.strip()
            if word == "so far":
                print(attack.told(), flush=True)
                continue
            war.close()
            if word == "war":
                war.enter_context(attack.going_on())
            print(word, flush=True)
            if word == "end":
                print(attack.told(), flush=True)
                return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
