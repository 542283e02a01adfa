"""What a health check says and hears over HTTP/2: a request like that of HTTP/1, or a call of grpc.health.v1.

The two messages of gRPC's health check have one field each, and are written and read here by hand:

    HealthCheckRequest   1: service, a string
    HealthCheckResponse  1: status, an enum: 0 UNKNOWN, 1 SERVING, 2 NOT_SERVING, 3 SERVICE_UNKNOWN
"""

from __future__ import annotations

import struct

from lbproxy.control.probe_result import Result, Verdict, failed
from lbproxy.protocol import grpc
from lbproxy.protocol.h2.codes import error_name
from lbproxy.protocol.h2.connection import H2Connection
from lbproxy.protocol.h2.fields import H2Field
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.h2.settings import OwnSettings

CHECK_PATH = b"/grpc.health.v1.Health/Check"
_SERVING = 1
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_NOT_FOUND = 5


class Asking(H2Connection):
    """The client's end, for one request. why: what went wrong, as (reason, sentence); is_over: nothing more is needed.

    limit_bytes: of the body; what is behind that is not looked at.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(False, OwnSettings())
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []  # of the head, and trailers behind them
        self.body = bytearray()
        self.is_over = False
        self.why: tuple[str, str] | None = None
        self._limit_bytes = limit_bytes
        self._has_read = False

    def ask(self, method: bytes, authority: bytes, path: bytes, lines: bytes, body: bytes, *, is_tls: bool) -> None:
        """Send the request."""
        stream = self.open_stream()
        scheme = b"https" if is_tls else b"http"
        self.send_request(stream, method, scheme, authority, path, lines, b"", not body)
        if body:
            self.send_data(stream, body, True)

    def read(self, data: bytes) -> None:
        """What the server sent."""
        if not self._has_read and data.startswith(b"HTTP/1."):
            self._fails("bad_response", "speaks HTTP/1 and not HTTP/2")
        self._has_read = True
        self.received(data, 0.0)

    def _fails(self, reason: str, why: str) -> None:
        if self.why is None:
            self.why = (reason, why)
        self.is_over = True

    # --- hooks --------------------------------------------------------------------------------------------------------

    def head_received(self, stream_id: int, head: H2Head, is_end: bool) -> None:
        if head.excess:
            self._fails("bad_response", f"sent a head with {head.excess}")
        elif head.status >= 200:
            self.status = head.status
            self.fields = [(field.name, field.value) for field in head.fields]
            self.is_over = is_end

    def data_received(self, stream_id: int, data: bytes, n_flow: int, is_end: bool) -> None:
        self.consumed(stream_id, n_flow)
        self.body += data
        if is_end or len(self.body) >= self._limit_bytes:
            self.is_over = True

    def trailers_received(self, stream_id: int, fields: list[H2Field]) -> None:
        self.fields += [(field.name, field.value) for field in fields]
        self.is_over = True

    def malformed(self, stream_id: int, why: str) -> None:
        self._fails("bad_response", f"sent an answer that is not allowed: {why}")

    def stream_reset(self, stream_id: int, code: int) -> None:
        if not self.is_over:
            self._fails("reset", f"reset the request ({error_name(code)})")

    def goaway_received(self, last_stream_id: int, code: int, debug: bytes) -> None:
        if not last_stream_id:
            self._fails("closed", f"closed the connection ({error_name(code)})")

    def connection_failed(self, code: int, why: str) -> None:
        self._fails("bad_response", f"broke HTTP/2: {why}")


def message(service: str) -> bytes:
    """A HealthCheckRequest in its frame."""
    name = service.encode()
    payload = b"\x0a" + _varint(len(name)) + name if name else b""
    return struct.pack(">BI", 0, len(payload)) + payload


def _varint(number: int) -> bytes:
    octets = []
    while number > 0x7F:
        octets.append(0x80 | (number & 0x7F))
        number >>= 7
    return bytes([*octets, number])


def serving_status(body: bytes) -> int | None:
    """The status in a framed HealthCheckResponse, 0 if it has none; None for what is no such message."""
    if len(body) < 5 or body[0] or len(body) != 5 + int.from_bytes(body[1:5], "big"):
        return None
    payload = body[5:]
    if not payload:
        return 0
    return payload[1] if len(payload) == 2 and payload[0] == 0x08 else None


def judge_call(asking: Asking, service: str) -> Result:
    """What the whole answer to a Check says."""
    if asking.status != 200:
        return failed("status", f"answered HTTP {asking.status} to a gRPC health check")
    status = grpc.status_of(asking.fields)
    if status == _NOT_FOUND:
        return failed("unknown_service", f"knows no service {service!r}")
    if status == grpc.UNIMPLEMENTED:
        return failed("unimplemented", "has no health service (grpc.health.v1)")
    if status != grpc.OK:
        return failed("grpc_status", f"answered the gRPC health check with status {status}")
    serving = serving_status(bytes(asking.body))
    if serving == _SERVING:
        return Result(Verdict.PASS, why="says SERVING")
    if serving is None or serving >= len(_STATUSES):
        return failed("bad_response", "sent no answer of grpc.health.v1")
    return failed("not_serving", f"says {_STATUSES[serving]}")


def lines_of(fields: dict[str, str]) -> bytes:
    """Field lines with lower-case names."""
    return b"".join([f"{name.lower()}: {value}\r\n".encode("latin-1", "replace") for name, value in fields.items()])


CALL_FIELDS = {
    "te": "trailers",
    "content-type": "application/grpc",
    "user-agent": "lbproxy-health-check",
}


def call(asking: Asking, authority: str, service: str, *, is_tls: bool) -> None:
    """Ask the server whether it serves."""
    asking.ask(b"POST", authority.encode(), CHECK_PATH, lines_of(CALL_FIELDS), message(service), is_tls=is_tls)
