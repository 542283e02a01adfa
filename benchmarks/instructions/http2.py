"""The part of the trace that speaks HTTP/2 on both sides: requests as `benchmarks.h2` has them, many in each read.

One connection of a client and one to a server, as far as frames go: what is written is dropped, and what is read was
made before. A server's streams are those of its client in their order, so that answers can be made without it.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from benchmarks.h2.cases import CASES
from benchmarks.h2.generator import BODIES, Requests
from benchmarks.instructions.kinds import COUNTED, WARM
from benchmarks.micro.hot_path import build_runtimes, connect
from lbproxy.dataplane.client.http2 import Http2Connection as ClientConnection
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.dataplane.server.http2_connection import Http2Connection as ServerConnection
from lbproxy.dataplane.server.http2_endpoint import Http2Endpoint
from lbproxy.dataplane.server.http2_wire import Http2Wire
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    PREFACE,
)
from lbproxy.protocol.h2.encoder import Encoder
from lbproxy.telemetry.log_writer import LogWriter

STREAMS: Final = 20
"""Requests in a read, and answers; WARM and COUNTED are multiples of it."""
CASE_OF: Final = {"h2": "h2c_h2c_1x32", "h2_unique": "h2c_h2c_1x32_unique", "grpc": "grpc_1x32_unique"}
"""The kind of the trace, and whose requests it has."""
CONFIG: Final = """
access_log: {path: /dev/null}
listeners: [{bind: "127.0.0.1:5000", pool: predict}]
pools:
  predict:
    servers: [127.0.0.1:1]
    protocol: h2
"""
_PREDICTION: Final = b'{"prediction": 0.7312}'
_WINDOWS: Final = frames.settings([(2, 0), (4, MAX_WINDOW)]) + frames.window_update(0, MAX_WINDOW - DEFAULT_WINDOW)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both connections, each of which has read what its peer begins with."""

    client: ClientConnection
    server: ServerConnection
    writer: LogWriter


def build(loop: asyncio.AbstractEventLoop) -> Pair:
    """A listener, its pool, a client, and the server's connection."""
    listener, runtime, writer = build_runtimes(loop, CONFIG)
    listener.services.read_turns.turn_s = math.inf  # here all is slow, and a read must be read whole
    endpoint = runtime.endpoint
    assert isinstance(endpoint, Http2Endpoint)
    client = ClientConnection(listener, ClientFacts(listener.runtime))
    connect(listener.services, client)
    server = ServerConnection(listener.services, runtime, endpoint, expected=0)
    endpoint.connections.append(server)
    connect(listener.services, Http2Wire(server))
    client.data_received(PREFACE + _WINDOWS + frames.settings_ack())
    server.octets_came(frames.settings([(4, MAX_WINDOW)]) + _WINDOWS[-13:] + frames.settings_ack())
    listener.services.poller.turn_end.flush()
    return Pair(client, server, writer)


def make_turns(kind: str) -> list[tuple[bytes, bytes]]:
    """What the client's connection reads, and then the server's."""
    requests = Requests(CASES[CASE_OF[kind]], 1)
    asking, answering = Encoder(), Encoder()
    turns = []
    for first in range(0, WARM + COUNTED, STREAMS):
        numbers = [2 * at + 1 for at in range(first, first + STREAMS)]
        turns.append(
            (
                b"".join([requests.next(asking, number) for number in numbers]),
                b"".join([_answer(kind, answering, number) for number in numbers]),
            )
        )
    return turns


def _answer(kind: str, encoder: Encoder, number: int) -> bytes:
    if kind != "grpc":
        own = b"content-length: %d\r\n" % len(_PREDICTION)
        head = encoder.encode_answer(200, b"content-type: application/json\r\n", own)
        return _frame(HEADERS, END_HEADERS, number, head) + _frame(DATA, END_STREAM, number, _PREDICTION)
    head = encoder.encode_answer(200, b"content-type: application/grpc\r\n")
    trailers = encoder.encode_trailers(b"grpc-status: 0\r\ngrpc-message: \r\n")
    return (
        _frame(HEADERS, END_HEADERS, number, head)
        + _frame(DATA, 0, number, BODIES["grpc"])
        + _frame(HEADERS, END_HEADERS | END_STREAM, number, trailers)
    )


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return frames.frame_header(len(payload), kind, flags, number) + payload
