"""What one small POST costs in Python alone: both protocol objects and their transports, no system call, no loop.

    python -m benchmarks.micro.hot_path [--profile]

The system calls (about 11 us on the machine of RESULTS.md) and the event loop come on top. Printed: microseconds per
request with identical heads, and with a head that is new each time; then with identical heads and everything that
protects requests (slots, queue, retries, breaker, total time-out) on, and off.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import random
import socket
import sys
import time
from typing import cast

from benchmarks.load.configs import LBPROXY_EXTRAS
from lbproxy.config.loader import load_text
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.client.gate import ConnectionGate
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.listener import Listener
from lbproxy.dataplane.net.socket_transport import SocketTransport
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.dataplane.services import Services
from lbproxy.process.tuning import tune_gc
from lbproxy.process.wiring import Wiring
from lbproxy.process.workers.part import Part
from lbproxy.process.workers.share import Share
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.slots import PROCESS, Slots

CONFIG = """
access_log: {path: /dev/null}
listeners: [{bind: "127.0.0.1:5000", pool: predict}]
pools:
  predict:
    servers: [127.0.0.1:1]
"""
BODY = b'{"instances":[[5.1,3.5,1.4,0.2]]}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nUser-Agent: python-requests/2.32\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


class QuietSocket:
    """A connected socket whose reads and writes never reach the kernel. What is sent is dropped, or kept if asked."""

    def __init__(self) -> None:
        self._sock, self._peer = socket.socketpair()
        self.is_keeping = False
        self._kept = bytearray()

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        if self.is_keeping:
            self._kept += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._kept)
        self._kept.clear()
        return taken

    def close(self) -> None:
        self._sock.close()
        self._peer.close()


def connect(services: Services, protocol: asyncio.Protocol) -> QuietSocket:
    """Give the protocol object a connection, on the transport that every connection has."""
    quiet = QuietSocket()
    services.poller.turn_end.is_turning = True  # whoever measures says when a turn ends
    sock = cast(socket.socket, quiet)
    SocketTransport(services.poller, sock, ("127.0.0.1", 40000), ("127.0.0.1", 5000)).start(protocol)
    return quiet


def build(loop: asyncio.AbstractEventLoop, extras: str = "") -> tuple[Http1Connection, UpstreamConnection, LogWriter]:
    """extras: a key of LBPROXY_EXTRAS."""
    listener, upstream, writer = build_listener(loop, CONFIG + LBPROXY_EXTRAS[extras])
    connection = Http1Connection(listener, ClientFacts(listener.runtime))
    connect(listener.services, connection)
    return connection, upstream, writer


def build_listener(loop: asyncio.AbstractEventLoop, text: str) -> tuple[Listener, UpstreamConnection, LogWriter]:
    """What a configuration with one listener and the pool `predict` says, with an idle connection to its server."""
    listener, runtime, writer = build_runtimes(loop, text)
    upstream = UpstreamConnection(listener.services, runtime)
    connect(listener.services, upstream)
    runtime.idle.put(upstream, 8)
    return listener, upstream, writer


def build_runtimes(loop: asyncio.AbstractEventLoop, text: str) -> tuple[Listener, ServerRuntime, LogWriter]:
    """The same without a connection to the server."""
    listener, servers, writer = build_plane(loop, text)
    return listener, servers[0], writer


def build_plane(
    loop: asyncio.AbstractEventLoop, text: str, n_workers: int = 1
) -> tuple[Listener, list[ServerRuntime], LogWriter]:
    """A listener and the servers of `predict`; with several workers, as the first of them has it."""
    config = load_text(text, "hot_path.yaml", {}).config
    slots, registry = Slots(), Registry("bench")
    writer = LogWriter("/dev/null")
    row = slots.allocate(PROCESS)
    services = Services(loop, row, access_writer=writer, buffered_limit=1 << 30)
    part = Part(Share(config, n_workers), 0, services.clock) if n_workers > 1 else None
    wiring = Wiring(
        config,
        slots,
        registry,
        rng=random.Random(1),
        dial_failed=lambda pool, server, fault: None,
        strategy_failed=lambda pool, error: None,
        base_dir=".",
        part=part,
    )
    pools = wiring.build_pools()
    gate = ConnectionGate(100, part.places if part is not None else None)
    listener = Listener(services, wiring.build_listener(config.listeners[0]), gate)
    return listener, list(pools["predict"].servers.values()), writer


def measure(
    connection: Http1Connection, upstream: UpstreamConnection, writer: LogWriter, n: int, *, unique: bool
) -> float:
    heads = [HEAD + (b"X-Id: %d\r\n" % number if unique else b"") + b"\r\n" + BODY for number in range(n)]
    started = time.process_time()
    end_turn = connection.services.poller.turn_end.flush
    for number, head in enumerate(heads):
        connection.data_received(head)
        end_turn()  # the request leaves before it is answered
        upstream.data_received(RESPONSE)
        if number & 1023 == 0:
            writer.flush_soon()
    return (time.process_time() - started) / n * 1e6


def main() -> None:
    loop = asyncio.new_event_loop()
    connection, upstream, writer = build(loop)
    tune_gc()
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(measure, connection, upstream, writer, 50_000, unique="--unique" in sys.argv)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    for name, unique in (("identical heads", False), ("unique heads", True)):
        best = min(measure(connection, upstream, writer, 20_000, unique=unique) for _ in range(5))
        print(f"{name}: {best:.2f} us per request")
    writer.close(1.0)
    for extras, best in measure_protection(loop).items():
        print(f"protection {extras}: {best:.2f} us per request")


def measure_protection(loop: asyncio.AbstractEventLoop, rounds: int = 20, n: int = 5_000) -> dict[str, float]:
    """Microseconds per request with all of it ("full") and none ("bare"): the best of short, interleaved runs."""
    built = {extras: build(loop, extras) for extras in ("full", "bare")}
    runs = [{extras: measure(*parts, n, unique=False) for extras, parts in built.items()} for _ in range(rounds)]
    for _, _, writer in built.values():
        writer.close(1.0)
    return {extras: min(run[extras] for run in runs) for extras in built}


if __name__ == "__main__":
    main()
