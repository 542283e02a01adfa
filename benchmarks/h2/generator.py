"""The load: a closed loop over connections of HTTP/2, each with so many requests at once, or, with a rate, an open one.
Its result is a line of JSON.

Heads are packed by lbproxy's encoder, which writes what comes again as an index and what is new each time in full, as
clients of gRPC do. Of answers it looks at frames and at the first octet of the head, so that it costs little itself:
python -P benchmarks/installed.py benchmarks.h2.generator PORT CONNECTIONS STREAMS SECONDS CASE [RATE]
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Final

from benchmarks.h2.cases import CASES, Case
from benchmarks.latency.schedule import due_times
from benchmarks.percentiles import percentile
from benchmarks.timerfd import Timer
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    ACK,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from lbproxy.protocol.h2.encoder import Encoder

BODIES: Final = {
    "predict": b'{"features": [5.1,3.5,1.4,0.2]}',
    "grpc": b"\x00\x00\x00\x00\x64" + b"p" * 100,
    "file": b"",
}
LINES: Final = {
    "predict": b"user-agent: benchmark/1\r\naccept: */*\r\ncontent-type: application/json\r\n",
    "grpc": b"user-agent: grpc-benchmark/1\r\nte: trailers\r\ncontent-type: application/grpc\r\n"
    b"grpc-accept-encoding: identity, deflate, gzip\r\n",
    "file": b"user-agent: benchmark/1\r\naccept: */*\r\n",
}
OK: Final = 0x88  # `:status: 200` of the static table
_GIVE_BACK: Final = 1 << 20
_READ: Final = 256 * 1024
_END_S: Final = 10.0
_MOST_STREAMS: Final = 100


class Requests:
    """What is sent: each on a new stream. serial: keeps runs apart."""

    def __init__(self, case: Case, serial: int) -> None:
        self._case = case
        self._serial = serial
        self._count = 0
        self.body = BODIES[case.kind]

    def next(self, encoder: Encoder, number: int) -> bytes:
        """The frames of one request, on the stream with this number."""
        self._count += 1
        case = self._case
        own = b"content-length: %d\r\n" % len(self.body) if case.kind == "predict" else b""
        if case.is_unique:
            name = b"grpc-timeout: %dm\r\n" if case.kind == "grpc" else b"x-timeout-ms: %d\r\n"
            trace = b"traceparent: 00-%032x-%016x-01\r\n" % (self._serial << 64 | self._count, self._count * 2654435761)
            own += trace + name % (20_000 + self._count % 10_007)
        method = b"GET" if case.kind == "file" else b"POST"
        scheme = b"https" if case.tls else b"http"
        block = encoder.encode_request(method, scheme, b"bench.example", case.path.encode(), LINES[case.kind], own)
        flags = END_HEADERS if self.body else END_HEADERS | END_STREAM
        head = frames.frame_header(len(block), HEADERS, flags, number) + block
        return head + (frames.frame_header(len(self.body), DATA, END_STREAM, number) + self.body if self.body else b"")


class Connection:
    """One client. errors: what went wrong, by name."""

    def __init__(self, sock: socket.socket, requests: Requests, clock: Callable[[], float]) -> None:
        self.sock = sock
        self._requests = requests
        self._clock = clock
        self._encoder = Encoder()
        self.out = bytearray(PREFACE + frames.settings([(2, 0), (4, MAX_WINDOW)]))
        self.out += frames.window_update(0, MAX_WINDOW - DEFAULT_WINDOW)
        self._kept = b""
        self._next = 1
        self._window = DEFAULT_WINDOW
        self._taken = 0
        self._n_wanted = 0  # requests that a window holds back
        self.begun: dict[int, float] = {}
        self.n_bytes = 0
        self.latencies_s: list[float] = []
        self.errors: dict[str, int] = {}

    def ask(self, due: float | None = None) -> None:
        """One more request. due: when it should have been sent, from which its latency counts; None: now."""
        size = len(self._requests.body)
        if size > self._window:
            self._n_wanted += 1
            return
        self._window -= size
        number = self._next
        self._next += 2
        self.begun[number] = self._clock() if due is None else due
        self.out += self._requests.next(self._encoder, number)

    def received(self, data: bytes) -> int:
        """What came; how many requests have ended."""
        data = self._kept + data
        at, size, n_ended = 0, len(data), 0
        while size - at >= FRAME_HEADER:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + FRAME_HEADER + length
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            number = int.from_bytes(data[at + 5 : at + 9], "big")
            if kind == DATA:
                self.n_bytes += length
                self._taken += length
            elif kind == HEADERS and length and data[at + FRAME_HEADER] != OK and number in self.begun:
                self._wrong("status", data[at + FRAME_HEADER])
            elif kind in (RST_STREAM, GOAWAY):
                self._wrong("reset" if kind == RST_STREAM else "goaway", 0)
                n_ended += self.begun.pop(number, None) is not None
            elif kind not in (DATA, HEADERS):
                self._control(kind, flags, number, data[at + FRAME_HEADER : end])
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                began = self.begun.pop(number, None)
                if began is not None:
                    self.latencies_s.append(self._clock() - began)
                    n_ended += 1
            at = end
        self._kept = data[at:]
        if self._taken >= _GIVE_BACK:
            self.out += frames.window_update(0, self._taken)
            self._taken = 0
        return n_ended

    def _wrong(self, what: str, octet: int) -> None:
        # A table's size may change in front of a head (RFC 7541 section 6.3), or the status be in the dynamic table.
        if what != "status" or not (0x20 <= octet < 0x40 or octet >= 0xBE):
            self.errors[what] = self.errors.get(what, 0) + 1

    def _control(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.out += frames.settings_ack()
        elif kind == PING and not flags & ACK:
            self.out += frames.ping(body, True)
        elif kind == WINDOW_UPDATE and not number:
            self._window += int.from_bytes(body, "big")
            wanted, self._n_wanted = self._n_wanted, 0
            for _ in range(wanted):
                self.ask()

    def flush(self) -> None:
        """Send what the socket takes."""
        while self.out:
            try:
                sent = self.sock.send(self.out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            del self.out[:sent]


def connect(port: int, case: Case) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if case.tls:
        # The certificate is our own and new.
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2"])
        sock = context.wrap_socket(sock)
        if sock.selected_alpn_protocol() != "h2":
            raise OSError("HTTP/2 was not chosen")
    sock.setblocking(False)
    return sock


def drive(connections: list[Connection], streams: int, seconds: float, clock: Callable[[], float]) -> float:
    """Keep so many requests under way on each for that long, and wait for the last; how long it took."""
    selector = selectors.DefaultSelector()
    for one in connections:
        selector.register(one.sock, selectors.EVENT_READ, one)
        for _ in range(streams):
            one.ask()
        one.flush()
    began = clock()
    until = began + seconds
    while any(one.begun for one in connections):
        now = clock()
        if now > until + _END_S:
            raise OSError("answers are missing")
        for key, _ in selector.select(0.1):
            one = key.data
            n_ended = _read(one)
            if now < until:
                for _ in range(n_ended):
                    one.ask()
        for one in connections:
            one.flush()
    return clock() - began


def pace(one: Connection, due: list[float], clock: Callable[[], float]) -> float:
    """Send a request at each of these times, which ascend and count from now; how long it took until all were answered.

    No more are under way at once than every server allows; who waits for that was due all the same."""
    began = clock()
    until = began + due[-1] + _END_S
    timer, poller = Timer(), select.poll()
    poller.register(one.sock, select.POLLIN)
    poller.register(timer.fd, select.POLLIN)
    number = 0
    while number < len(due) or one.begun:
        now = clock()
        if now > until:
            raise OSError("answers are missing")
        while number < len(due) and began + due[number] <= now and len(one.begun) < _MOST_STREAMS:
            one.ask(began + due[number])
            number += 1
        one.flush()
        if number < len(due) and len(one.begun) < _MOST_STREAMS:
            timer.arm(began + due[number])
        if any(fd == one.sock.fileno() for fd, _ in poller.poll(100)):
            _read(one)
    timer.close()
    return clock() - began


def _read(one: Connection) -> int:
    n_ended = 0
    while True:
        try:
            data = one.sock.recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError):
            return n_ended
        if not data:
            raise OSError("the connection ended")
        n_ended += one.received(data)
        if len(data) < _READ and not isinstance(one.sock, ssl.SSLSocket):
            return n_ended


def main(arguments: list[str]) -> int:
    port, n_connections, streams = (int(text) for text in arguments[:3])
    case, seconds = CASES[arguments[4]], float(arguments[3])
    requests = Requests(case, time.time_ns() & 0xFFFFFFFF)
    connections = [Connection(connect(port, case), requests, time.monotonic) for _ in range(n_connections)]
    if len(arguments) > 5:
        duration_s = pace(connections[0], due_times(float(arguments[5]), seconds, 1), time.monotonic)
    else:
        duration_s = drive(connections, streams, seconds, time.monotonic)
    latencies = sorted(latency for one in connections for latency in one.latencies_s)
    errors: dict[str, int] = {}
    for one in connections:
        for name, count in one.errors.items():
            errors[name] = errors.get(name, 0) + count
    print(
        json.dumps(
            {
                "requests": len(latencies),
                "duration_us": round(duration_s * 1e6),
                "bytes": sum(one.n_bytes for one in connections),
                "p50_us": round(percentile(latencies, 0.5) * 1e6),
                "p99_us": round(percentile(latencies, 0.99) * 1e6),
                "errors": errors,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
