"""One line of the access log."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.micro.timing import Piece
from lbproxy.telemetry.accesslog import HeadPart, LogRecord, make_format

_NUMBER = 0.0123456


def _record(log_head: HeadPart) -> LogRecord:
    """A finished prediction, as the formats read it."""
    record = LogRecord()
    record.log_head = log_head
    record.wall = 1_800_000_000.125
    record.request_id = "0123456789abcdef0123456789abcdef"
    record.client = "127.0.0.1"
    record.listener = "0.0.0.0:5000"
    record.status = 200
    record.bytes_in, record.bytes_out = 31, 22
    record.pool, record.server = "predict", "127.0.0.1:5001"
    record.attempts = 1
    record.queue_s, record.connect_s, record.ttfb_s, record.total_s = 0.0, None, 0.0123, 0.0125
    record.end = "ok"
    record.tries = ()
    return record


def pieces() -> Iterator[Piece]:
    request = ("POST", "/predict", "127.0.0.1:5000", "HTTP/1.1", "python-requests/2.32.3", "")
    for name in ("json", "common", "combined"):
        log_format = make_format(name)
        record = _record(log_format.head_part(*request))
        yield Piece(f"access log: {name} line", lambda f=log_format, r=record: f.line(r))  # type: ignore[misc]
    json_format = make_format("json")
    yield Piece("access log: json head part (memoised with the head)", lambda: json_format.head_part(*request))
    yield Piece("a number by format(): f'{x:.3f}'", lambda: f"{_NUMBER:.3f}")
    yield Piece("a number by repr(): round(x, 3)", lambda: repr(round(_NUMBER, 3)))
