"""What the strict checks of HTTP cost per request: the hot path as it is, and with nothing but a bare llhttp parse.

    python -m benchmarks.micro.checks

The bare variant parses every head with httptools, collects its fields, and forwards the head as it came: no check of
targets, hosts, framing or octets, no hop-by-hop rule, no re-serialisation, no memo. All else (balancing, forwarding
fields, counters, log line) is the same, so the difference is the price of the checks. Printed are microseconds of CPU
per small POST for heads that repeat, heads with one field that is new each time (a trace id), and heads of which more
is new.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import httptools

from benchmarks.micro.hot_path import BODY, HEAD, RESPONSE, build, connect
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.process.tuning import tune_gc
from lbproxy.protocol.http1 import END
from lbproxy.protocol.message import Fields
from lbproxy.protocol.repeats import Repeats
from lbproxy.telemetry.log_writer import LogWriter

ROUNDS = 7


class Collector:
    """As much of a sink as a proxy without checks would need."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: Fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


class BareConnection(Http1Connection):
    """A client connection that believes what llhttp believes."""

    __slots__ = ("template",)

    template: Prepared

    def _read_head(self, data: bytes, *, is_whole: bool) -> Prepared | None:
        size = data.index(END) + len(END)
        httptools.HttpRequestParser(Collector()).feed_data(data[:size])
        prepared = self.template
        prepared.head.size = size
        prepared.forward = data[: size - 2]
        return prepared


def repeating(number: int) -> bytes:
    return HEAD + b"\r\n" + BODY


def one_new_field(number: int) -> bytes:
    return HEAD + b"X-Id: %d\r\n\r\n" % number + BODY


def new_target(number: int) -> bytes:
    return HEAD.replace(b"/predict", b"/predict?%d" % number) + b"\r\n" + BODY


def all_new(number: int) -> bytes:
    """The target is new and so are five fields, names included."""
    head = HEAD.replace(b"/predict", b"/predict?%d" % number)
    return head + b"".join(b"X-%d: %d\r\n" % (place, number) for place in range(5)) + b"\r\n" + BODY


KINDS: tuple[tuple[str, Callable[[int], bytes]], ...] = (
    ("heads that repeat", repeating),
    ("one field new each time", one_new_field),
    ("target new each time", new_target),
    ("target and five fields new", all_new),
)


def cost_us(
    connection: Http1Connection, upstream: UpstreamConnection, writer: LogWriter, requests: list[bytes]
) -> float:
    started = time.process_time()
    for number, request in enumerate(requests):
        connection.data_received(request)
        connection.services.poller.turn_end.flush()
        upstream.data_received(RESPONSE)
        if number & 1023 == 0:
            writer.flush_soon()
    return (time.process_time() - started) / len(requests) * 1e6


def bare_of(connection: Http1Connection) -> BareConnection:
    """A second connection to the same listener, without checks."""
    prepared = connection._read_head(HEAD + b"\r\n", is_whole=True)
    assert prepared is not None
    bare = BareConnection(connection._owner, ClientFacts(connection.facts.listener))
    bare.template = prepared
    bare._memo = Repeats(most=1, longest=0)  # which knows nothing
    connect(connection.services, bare)
    return bare


def compare(count: int, rounds: int = ROUNDS) -> list[tuple[str, float, float]]:
    """Kind, microseconds with the checks, microseconds without; the best of some rounds that take turns."""
    connection, upstream, writer = build(asyncio.new_event_loop())
    tune_gc()
    bare = bare_of(connection)
    found = []
    for name, make in KINDS:
        strict_us, bare_us = [], []
        for turn in range(rounds):
            requests = [make(turn * count + number) for number in range(count)]
            strict_us.append(cost_us(connection, upstream, writer, requests))
            bare_us.append(cost_us(bare, upstream, writer, requests))
        found.append((name, min(strict_us), min(bare_us)))
    writer.close(1.0)
    return found


def main() -> int:
    print("us per request    strict    bare   checks")
    for name, strict_us, bare_us in compare(10_000):
        print(f"{name:28s} {strict_us:7.2f} {bare_us:7.2f} {strict_us - bare_us:+8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
