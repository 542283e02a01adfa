"""One line of the access log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.micro.timing import Piece
from lbproxy.telemetry.accesslog import make_format

_NUMBER = 0.0123456


@dataclass(slots=True)
class _Record:
    """A finished prediction, as the formats read it."""

    log_head: str
    wall: float = 1_800_000_000.125
    request_id: str = "0123456789abcdef0123456789abcdef"
    client: str = "127.0.0.1"
    listener: str = "0.0.0.0:5000"
    status: int | None = 200
    bytes_in: int = 31
    bytes_out: int = 22
    pool: str = "predict"
    server: str = "127.0.0.1:5001"
    attempts: int = 1
    queue_s: float | None = 0.0
    connect_s: float | None = None
    ttfb_s: float | None = 0.0123
    total_s: float = 0.0125
    end: str = "ok"


def pieces() -> Iterator[Piece]:
    request = ("POST", "/predict", "127.0.0.1:5000", "HTTP/1.1", "python-requests/2.32.3", "")
    for name in ("json", "common", "combined"):
        log_format = make_format(name)
        record = _Record(log_format.head_part(*request))
        yield Piece(f"access log: {name} line", lambda f=log_format, r=record: f.line(r))  # type: ignore[misc]
    json_format = make_format("json")
    yield Piece("access log: json head part (memoised with the head)", lambda: json_format.head_part(*request))
    yield Piece("a number by format(): f'{x:.3f}'", lambda: f"{_NUMBER:.3f}")
    yield Piece("a number by repr(): round(x, 3)", lambda: repr(round(_NUMBER, 3)))
