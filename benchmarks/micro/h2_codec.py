"""What a request of HTTP/2 costs a server's end without sockets, beside the libraries `h2` and, if it is there, `ngh2`.

A gRPC call as its client sends it: HEADERS with ten fields and DATA of 100 bytes, in one read; then a head, DATA and
trailers go out. All on one connection, whose tables are warm. Once with the same head each time, and once with a
timeout and a traceparent that are new in each, which the client's encoder puts into its table, as many do.

`make bench` runs it with the installed, compiled lbproxy: python -P benchmarks/installed.py benchmarks.micro.h2_codec
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import time
from typing import Any

import h2.config
import h2.connection
import hpack

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.settings import OwnSettings

COUNT = 4_000
MESSAGE = bytes(100)
ANSWER_LINES = b"content-type: application/grpc\r\ngrpc-encoding: identity\r\n"
TRAILER_LINES = b"grpc-status: 0\r\ngrpc-message: \r\n"


def fields(number: int | None) -> list[tuple[str, str]]:
    """Of the request; number: None: of a head that is always the same."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "models.example:8001"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python/1.74.0 grpc-c/48.0.0 (linux; chttp2)"),
        ("grpc-accept-encoding", "identity, deflate, gzip"),
        ("grpc-timeout", f"{number or 2_999_000}u"),
        ("traceparent", f"00-{(number or 7) * 0x9E3779B97F4A7C15 % 2**128:032x}-{number or 7:016x}-01"),
    ]


def requests(varies: bool) -> tuple[bytes, list[bytes]]:
    """How the connection begins, and the requests in it, each as one read."""
    encoder = hpack.Encoder()
    begin = PREFACE + frames.settings([]) + frames.window_update(0, 1 << 30) + frames.settings_ack()
    made = []
    for number in range(COUNT):
        block = encoder.encode(fields(number + 1 if varies else None))
        stream = 2 * number + 1
        made.append(
            frames.frame_header(len(block), HEADERS, END_HEADERS, stream)
            + block
            + frames.frame_header(len(MESSAGE), DATA, END_STREAM, stream)
            + MESSAGE
        )
    return begin, made


class Conversation:
    """The requests in turn on one connection; a new connection when they are over."""

    def __init__(self, varies: bool) -> None:
        self._begin, self._requests = requests(varies)
        self._next = COUNT

    def step(self) -> None:
        if self._next == COUNT:
            self._next = 0
            self.connect(self._begin)
        self.serve(self._requests[self._next], 2 * self._next + 1)
        self._next += 1

    def connect(self, begin: bytes) -> None:
        raise NotImplementedError

    def serve(self, octets: bytes, stream: int) -> None:
        raise NotImplementedError

    def output(self, octets: bytes) -> None:
        """What would be written."""


class Own(Conversation):
    def connect(self, begin: bytes) -> None:
        self._connection = H2Connection(True, OwnSettings())
        self._connection.received(begin, 0.0)
        self._connection.take_output()

    def serve(self, octets: bytes, stream: int) -> None:
        connection = self._connection
        connection.received(octets, 0.0)
        connection.consumed(stream, len(MESSAGE))
        connection.send_answer(stream, 200, ANSWER_LINES, b"", False)
        connection.send_data(stream, MESSAGE, False)
        connection.send_trailers(stream, TRAILER_LINES)
        self.output(connection.take_output())


class Hyper(Conversation):
    """The library h2."""

    def connect(self, begin: bytes) -> None:
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._connection.initiate_connection()
        self._connection.receive_data(begin[:-9])
        self._connection.data_to_send()

    def serve(self, octets: bytes, stream: int) -> None:
        connection = self._connection
        connection.receive_data(octets)
        connection.acknowledge_received_data(len(MESSAGE), stream)
        connection.send_headers(
            stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "identity")]
        )
        connection.send_data(stream, MESSAGE)
        connection.send_headers(stream, [("grpc-status", "0"), ("grpc-message", "")], end_stream=True)
        self.output(connection.data_to_send())


class Native(Conversation):
    """The library ngh2, which is written in C. Any: it need not be installed."""

    def __init__(self, varies: bool) -> None:
        super().__init__(varies)
        self._module: Any = importlib.import_module("ngh2")

    def connect(self, begin: bytes) -> None:
        ngh2 = self._module
        self._connection = ngh2.Connection(ngh2.Role.SERVER, ngh2.Configuration(auto_window_update=False))
        self._connection.initiate_connection()
        self._connection.receive_data(begin)
        self._connection.data_to_send()

    def serve(self, octets: bytes, stream: int) -> None:
        connection = self._connection
        connection.receive_data(octets)
        connection.events()
        connection.acknowledge_received_data(len(MESSAGE), stream)
        connection.send_response(
            stream, [(b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-encoding", b"identity")]
        )
        connection.send_data(stream, MESSAGE)
        connection.send_trailers(stream, [(b"grpc-status", b"0"), (b"grpc-message", b"")])
        self.output(connection.data_to_send())


def kinds() -> list[tuple[str, type[Conversation]]]:
    """What is compared."""
    found: list[tuple[str, type[Conversation]]] = [("lbproxy", Own), ("h2", Hyper)]
    if importlib.util.find_spec("ngh2") is not None:
        found.append(("ngh2", Native))
    return found


def cost_us(conversation: Conversation, rounds: int = 10) -> float:
    """Microseconds of CPU for a request: the best of so many rounds, each on a connection of its own."""
    best = math.inf
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(COUNT):
            conversation.step()
        best = min(best, time.process_time() - began)
    return best / COUNT * 1e6


def main() -> int:
    for name, kind in kinds():
        for varies in (False, True):
            cost = cost_us(kind(varies), 2 if kind is Hyper else 10)
            print(f"{cost:8.2f} us  {name}, {'varying' if varies else 'repeated'} head", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
