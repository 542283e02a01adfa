"""A finished request, as the formats of the access log read it."""

from __future__ import annotations

from lbproxy.telemetry.accesslog import NO_HEAD, LogRecord

DEFAULTS: dict[str, object] = {
    "wall": 1_796_076_129.5,
    "log_head": NO_HEAD,
    "request_id": "0123456789abcdef0123456789abcdef",
    "client": "192.0.2.7",
    "listener": "0.0.0.0:5000",
    "status": 200,
    "bytes_in": 12,
    "bytes_out": 34,
    "pool": "predict",
    "server": "127.0.0.1:5001",
    "attempts": 1,
    "queue_s": None,
    "connect_s": 0.0004,
    "ttfb_s": 0.25,
    "total_s": 0.3,
    "end": "ok",
}


def record(**fields: object) -> LogRecord:
    made = LogRecord()
    made.tries = ()
    for name, value in {**DEFAULTS, **fields}.items():
        setattr(made, name, value)
    return made
