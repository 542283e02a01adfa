"""What an answer to the doctor's call says of a server."""

from __future__ import annotations

import pytest

from lbproxy.control.probe_http2 import Asking
from lbproxy.doctor.http2 import LIMIT_BYTES, Http2Answer, judged
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import RecordingEnd, shake

SERVING = b"\x00\x00\x00\x00\x02\x08\x01"


def answered(lines: bytes, body: bytes, trailers: bytes, *, streams: int) -> Http2Answer:
    asking = Asking(LIMIT_BYTES)
    asking.ask(b"POST", b"h", b"/", b"", b"x", is_tls=False)
    server = RecordingEnd(True, OwnSettings(streams=streams))
    shake(asking, server)
    server.send_answer(1, 200, lines, b"", False)
    server.send_data(1, body, not trailers)
    if trailers:
        server.send_trailers(1, trailers)
    shake(asking, server)
    assert asking.is_over
    return judged(asking)


GRPC = b"content-type: application/grpc\r\n"


@pytest.mark.parametrize(
    ("lines", "body", "trailers", "expected"),
    [
        (GRPC, SERVING, b"grpc-status: 0\r\n", Http2Answer("", 7, True, True, "says SERVING")),
        (GRPC, b"", b"grpc-status: 12\r\n", Http2Answer("", 7, True, False, "has no health service (grpc.health.v1)")),
        (b"server: x\r\n", b"no", b"", Http2Answer("x", 7, False, False, "")),
        (b"server: \xe4\r\n", b"no", b"", Http2Answer("\ufffd", 7, False, False, "")),
    ],
)
def test_an_answer(lines: bytes, body: bytes, trailers: bytes, expected: Http2Answer) -> None:
    assert answered(lines, body, trailers, streams=7) == expected
