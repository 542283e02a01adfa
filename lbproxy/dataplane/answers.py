"""Answers that lbproxy gives itself: problem+json (RFC 9457) with Proxy-Status (RFC 9209)."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

from lbproxy.errors import Fault
from lbproxy.protocol.http1 import REASONS

_ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_date = (0, b"")


def http_date() -> bytes:
    """The Date field's value, made once a second (RFC 9110 section 6.6.1)."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]


def reason_of(status: int) -> bytes:
    return REASONS.get(status, b"Unknown")


def problem(
    fault: Fault, detail: str, request_id: str, retry_after_s: int | None
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Fields and body of the answer to a fault. `detail` says what happened here, the fault's hint what to do."""
    text = f"{detail[:1].upper()}{detail[1:]}. {fault.hint}" if detail else fault.hint
    body = json.dumps(
        {
            "type": f"urn:lbproxy:fault:{fault.word}",
            "title": reason_of(fault.status).decode(),
            "status": fault.status,
            "detail": text,
            "request_id": request_id,
        }
    ).encode()
    fields = [
        (b"Date", http_date()),
        (b"Content-Type", b"application/problem+json"),
        (b"Proxy-Status", b'lbproxy; error=%b; details="%b"' % (fault.error.encode(), fault.word.encode())),
    ]
    if fault.status == 405:
        fields.append(_ALLOW)
    if fault.status in (429, 503):
        fields.append((b"Retry-After", b"%d" % (retry_after_s if retry_after_s is not None else 1)))
    return fields, body + b"\n"
