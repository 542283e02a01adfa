"""What is offered: one row per case. The load comes from `generator.py`, the answers from HAProxy, NGINX or nghttpd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["predict", "grpc", "file"]
Server = Literal["h1", "h2"]

PREDICT_PATH: Final = "/v1/models/iris/predict"
GRPC_PATH: Final = "/inference.GRPCInferenceService/ModelInfer"
FILE_PATH: Final = "/megabyte"
FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load.

    kind: `predict`: a small POST; `grpc`: a unary call; `file`: an answer of 1 MiB. server: what the servers speak.
    tls: clients do, and choose HTTP/2 by ALPN. connections, streams: of the clients, and requests at once on each.
    is_unique: each request has a traceparent and a timeout that never came before.
    """

    name: str
    title: str
    kind: Kind
    server: Server
    connections: int
    streams: int
    tls: bool = False
    is_unique: bool = False

    @property
    def path(self) -> str:
        return {"predict": PREDICT_PATH, "grpc": GRPC_PATH, "file": FILE_PATH}[self.kind]


def _small(name: str, title: str, server: Server, *, tls: bool = False) -> list[Case]:
    """Of one channel with many requests, and of many clients with one each."""
    found = []
    for connections, streams in ((1, 32), (32, 1)):
        shape = f"{connections}x{streams}"
        says = f"{title}, {connections} connection{'s' if connections > 1 else ''} of {streams} at once"
        found.append(Case(f"{name}_{shape}", says, "predict", server, connections, streams, tls))
        also = f"{says}, a new traceparent and timeout in each"
        found.append(Case(f"{name}_{shape}_unique", also, "predict", server, connections, streams, tls, is_unique=True))
    return found


CASES: Final = {
    case.name: case
    for case in (
        *_small("h2c_h1", "small POST, HTTP/2 in clear text to HTTP/1.1", "h1"),
        *_small("h2c_h2c", "small POST, HTTP/2 in clear text on both sides", "h2"),
        *_small("tls_h1", "small POST, HTTP/2 over TLS to HTTP/1.1", "h1", tls=True),
        Case("grpc_1x32", "unary calls of one channel to three servers", "grpc", "h2", 1, 32),
        Case(
            "grpc_1x32_unique", "the same, a new traceparent and timeout in each", "grpc", "h2", 1, 32, is_unique=True
        ),
        Case("file_h1", "answers of 1 MiB, HTTP/1.1 to HTTP/2 in clear text", "file", "h1", 4, 2),
        Case("file_h2c", "answers of 1 MiB, HTTP/2 in clear text on both sides", "file", "h2", 4, 2),
    )
}
