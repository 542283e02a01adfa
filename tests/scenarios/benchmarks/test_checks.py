"""Both variants of the comparison really serve the requests, and differ only in what they check."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from benchmarks.micro import checks
from benchmarks.micro.hot_path import HEAD, build
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.protocol.http1 import END
from lbproxy.telemetry.log_writer import LogWriter

Built = tuple[Http1Connection, UpstreamConnection, LogWriter]


@pytest.fixture
def built() -> Iterator[Built]:
    loop = asyncio.new_event_loop()
    connection, upstream, writer = build(loop)
    yield connection, upstream, writer
    writer.close(1.0)
    services = connection.services
    for end in (upstream, *services.swept):
        cast(Http1Connection, end).transport.abort()
    services.poller.turn_end.flush()  # and then their sockets are closed
    services.poller.close()
    loop.close()


def test_both_variants_serve_every_kind_of_request(built: Built) -> None:
    connection, upstream, writer = built
    bare = checks.bare_of(connection)
    for name, make in checks.KINDS:
        for client in (connection, bare):
            before = upstream.n_requests
            assert checks.cost_us(client, upstream, writer, [make(number) for number in range(50)]) > 0, name
            assert upstream.n_requests == before + 50, name


def test_the_bare_variant_forwards_what_the_strict_one_would_not(built: Built) -> None:
    connection, _, _ = built
    bare = checks.bare_of(connection)
    text = HEAD + b"Connection: x-a\r\nX-A: 1\r\nTransfer_Encoding: chunked"
    strict, loose = [client._read_head(text + END, is_whole=True) for client in (connection, bare)]
    assert strict is not None and b"Transfer_Encoding" not in strict.forward and b"X-A" not in strict.forward
    assert loose is not None and loose.forward == text + b"\r\n"


def test_the_kinds_are_what_they_say() -> None:
    kinds = dict(checks.KINDS)
    assert len({kinds["heads that repeat"](number) for number in range(3)}) == 1
    for name in list(kinds)[1:]:
        assert len({kinds[name](number) for number in range(3)}) == 3
