"""What is offered to the proxies: one row per case.

wrk (ab for full TLS handshakes) speaks HTTP in every case. In TCP mode the proxies relay its bytes without looking at
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["http", "tcp"]
Heads = Literal["same", "unique", "real"]

REQUEST_BODY = b'{"features": [5.1,3.5,1.4,0.2]}'
PREDICTION = b'{"prediction": 0.7312}'
MEGABYTE = bytes(range(256)) * 4096
REAL_PATH = "/v1/"  # what is below it is answered with a prediction and the query's `note`
REAL_ANSWER = '{"prediction": 0.7312, "note": "%s"}'
# Files of the backend, by path; everything else is a POST that is answered with a prediction.
FILES = {"/megabyte": MEGABYTE, "/64k": MEGABYTE[: 64 * 1024]}


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load.

    heads: `same` is one request again and again; `unique` adds a header whose value never came before; `real` is what
    an API in production sees: twelve fields, ids in path and query, trace and request ids and a session cookie that are
    new each time, one of 500 bearer tokens, one of six clients, bodies of 40 to 300 bytes, answers of varying length.
    close: one connection per request. think_ms: each connection waits this long before each request, so that every
    proxy gets the same rate and none is saturated.
    connections: client connections, 0 = as many as the command line says. tls: clients speak TLS; with `close` each
    request does a full handshake.
    """

    name: str
    mode: Mode
    title: str
    path: str = "/predict"
    heads: Heads = "same"
    close: bool = False
    think_ms: int = 0
    connections: int = 0
    tls: bool = False

    @property
    def is_handshake(self) -> bool:
        """wrk resumes sessions, so full handshakes are offered by ab."""
        return self.tls and self.close

    @property
    def method(self) -> str:
        return "GET" if self.is_bulk else "POST"

    @property
    def is_bulk(self) -> bool:
        return self.path in FILES

    @property
    def response_body(self) -> bytes:
        """What the case's path is answered with; the shortest of the answers where they vary."""
        if self.path.startswith(REAL_PATH):
            return (REAL_ANSWER % "").encode()
        return FILES.get(self.path, PREDICTION)


_REAL = "/v1/models/iris/predict"
# Traffic as it is comes first, in every table: heads that repeat are the exception outside of benchmarks.
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "http_real", "http", "POSTs as in production, no two heads the same, keep-alive", path=_REAL, heads="real"
        ),
        Case("http_unique", "http", "small POST, a header that is new in every request, keep-alive", heads="unique"),
        Case("http_close", "http", "small POST, one connection per request", close=True),
        Case("tcp_small", "tcp", "TCP mode, small requests on kept connections"),
        Case("http_small", "http", "small POST, every request head the same, keep-alive"),
        Case(
            "http_paced", "http", "http_small at about 15,000 requests/s for every proxy", think_ms=8, connections=128
        ),
        Case("http_64k", "http", "GET of 64 KiB, keep-alive", path="/64k"),
        Case("http_1mb", "http", "GET of 1 MiB, keep-alive", path="/megabyte"),
        Case("tls_real", "http", "TLS to the client: http_real", path=_REAL, heads="real", tls=True),
        Case("tls_small", "http", "TLS to the client: small POST, keep-alive", tls=True),
        Case("tls_1mb", "http", "TLS to the client: GET of 1 MiB, keep-alive", path="/megabyte", tls=True),
        Case("tls_handshake", "http", "TLS to the client: small POST, one full handshake each", close=True, tls=True),
        Case("tcp_1mb", "tcp", "TCP mode, responses of 1 MiB on kept connections", path="/megabyte"),
        Case("tcp_close", "tcp", "TCP mode, one connection per small request", close=True),
    )
}
