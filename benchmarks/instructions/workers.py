"""The part of the trace that one of several workers has, beside the same with one process: what shared books cost.

A small POST whose head repeats and whose answers differ, so that little else is counted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks.micro.hot_path import build_plane, connect
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.telemetry.log_writer import LogWriter

N_SERVERS: Final = 4
N_WORKERS: Final = 2
_CONFIG: Final = f"""
access_log: {{path: /dev/null}}
listeners: [{{bind: "127.0.0.1:5000", pool: predict}}]
pools:
  predict:
    servers: [{", ".join(f"127.0.0.1:{port}" for port in range(1, N_SERVERS + 1))}]
"""
_SLOTS: Final = """\
    max_inflight: 16
    queue: {size: 200, timeout: 5s}
"""


@dataclass(frozen=True, slots=True)
class Plane:
    """A client's connection, and one to each server."""

    client: Http1Connection
    servers: list[UpstreamConnection]
    writer: LogWriter

    def ask(self, request: bytes, answer: bytes) -> None:
        """One request, and its answer from the server that got it."""
        self.client.data_received(request)
        self.client.services.poller.turn_end.flush()
        next(server for server in self.servers if server.sink is not None).data_received(answer)

    @property
    def n_requests(self) -> int:
        return sum(server.n_requests for server in self.servers)


def build(loop: asyncio.AbstractEventLoop, kind: str) -> Plane:
    """The data plane of a kind of WORKERS."""
    who, _, has_slots = kind.partition("_")
    n_workers = N_WORKERS if who == "worker" else 1
    listener, runtimes, writer = build_plane(loop, _CONFIG + (_SLOTS if has_slots else ""), n_workers)
    client = Http1Connection(listener, ClientFacts(listener.runtime))
    connect(listener.services, client)
    servers = []
    for runtime in runtimes:
        server = UpstreamConnection(listener.services, runtime)
        connect(listener.services, server)
        runtime.idle.put(server, 8)
        servers.append(server)
    return Plane(client, servers, writer)
