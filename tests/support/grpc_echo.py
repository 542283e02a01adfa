"""A gRPC server without generated code: `grpc_echo.py PORT NAME`. Messages are bytes.

/echo.Echo/Once answers `NAME:` and the message, /echo.Echo/Slow does so after a tenth of a second; /echo.Echo/Each does
it for every message of a stream; /echo.Echo/Count sends as many messages as the request says; /echo.Echo/Sum answers
with the number of octets of all messages; /echo.Echo/End ends with the status that the message names; /echo.Echo/Left
answers with the milliseconds that the caller gives it, /echo.Echo/Told with the metadata that it was sent (and sends
some itself, and its answer compressed), and /echo.Echo/Wait with nothing, when the call is cancelled. Each message to
Once, Slow and End, and each Wait, when it begins and when it is cancelled, is a line of the output.
grpc.health.v1.Health/Check says SERVING for "" and "echo.Echo".

SIGHUP ends it in peace: NOT_SERVING first, and when whoever checks has come again after they were told that, the end.
Without that, gRPC cancels calls that were taken from the connection and not yet begun.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

PEACE_S = 30.0
SLOW_S = 0.1
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def say(what: str, message: bytes) -> None:
    """A line of the output, in one write."""
    sys.stdout.write(f"{what} {message.decode('ascii', 'replace')[:40]}\n")
    sys.stdout.flush()


def serve(port: int, name: str) -> None:
    """Serve until it is told to end. SO_REUSEPORT is off, so that a port in use is an error."""
    prefix = name.encode() + b":"
    is_over, is_known = threading.Event(), threading.Event()
    n_told: list[int] = []

    def once(message: bytes, context: Any) -> bytes:
        say("once", message)
        return prefix + message

    def slow(message: bytes, context: Any) -> bytes:
        say("once", message)
        time.sleep(SLOW_S)
        return prefix + message

    def each(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for message in messages:
            yield prefix + message

    def count(message: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(message)):
            yield b"%d" % number

    def sum_up(messages: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(len(message) for message in messages)

    def end(message: bytes, context: Any) -> bytes:
        say("end", message)
        context.set_trailing_metadata((("who", name),))
        context.abort(grpc.StatusCode[message.decode()], f"{name} says so: 100 %")
        return b""

    def left(message: bytes, context: Any) -> bytes:
        return b"%d" % int(min(context.time_remaining() or 1e9, 1e9) * 1000.0)

    def told(message: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        context.send_initial_metadata((("x-first", "1"), ("x-first", "2"), ("x-octets-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-last", "3"), ("x-octets-bin", b"\xff\x00")))
        lines = [f"{key}={value!r}" for key, value in context.invocation_metadata() if key.startswith("x-told")]
        return message + "\n".join(sorted(lines)).encode()

    def wait(message: bytes, context: Any) -> bytes:
        has_left = threading.Event()
        if not context.add_callback(has_left.set):  # it had left before
            has_left.set()
        say("waits", message)
        has_left.wait(300.0)
        say("cancelled", message)
        return b""

    def check(message: bytes, context: Any) -> bytes:
        if message not in (b"", b"\x0a\x09echo.Echo"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        if not is_over.is_set():
            return SERVING
        n_told.append(1)
        if len(n_told) == 2:
            is_known.set()
        return NOT_SERVING

    echo = grpc.method_handlers_generic_handler(
        "echo.Echo",
        {
            "Once": grpc.unary_unary_rpc_method_handler(once),
            "Slow": grpc.unary_unary_rpc_method_handler(slow),
            "Each": grpc.stream_stream_rpc_method_handler(each),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Sum": grpc.stream_unary_rpc_method_handler(sum_up),
            "End": grpc.unary_unary_rpc_method_handler(end),
            "Told": grpc.unary_unary_rpc_method_handler(told),
            "Left": grpc.unary_unary_rpc_method_handler(left),
            "Wait": grpc.unary_unary_rpc_method_handler(wait),
        },
    )
    health = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
    )
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 1 << 26)]
    server = grpc.server(ThreadPoolExecutor(64), options=options)
    server.add_generic_rpc_handlers((echo, health))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.signal(signal.SIGHUP, lambda *_: is_over.set())
    is_over.wait()
    is_known.wait(PEACE_S)
    server.stop(PEACE_S).wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
