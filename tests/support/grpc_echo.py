"""A gRPC server without generated code: `grpc_echo.py PORT NAME`. Messages are bytes.

/echo.Echo/Once answers `NAME:` and the message; /echo.Echo/Each does it for every message of a stream;
/echo.Echo/Count sends as many messages as the request says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def serve(port: int, name: str) -> None:
    """Serve until killed. SO_REUSEPORT is off, so that a port in use is an error."""
    prefix = name.encode() + b":"

    def once(message: bytes, context: Any) -> bytes:
        return prefix + message

    def each(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for message in messages:
            yield prefix + message

    def count(message: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(message)):
            yield b"%d" % number

    handler = grpc.method_handlers_generic_handler(
        "echo.Echo",
        {
            "Once": grpc.unary_unary_rpc_method_handler(once),
            "Each": grpc.stream_stream_rpc_method_handler(each),
            "Count": grpc.unary_stream_rpc_method_handler(count),
        },
    )
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
