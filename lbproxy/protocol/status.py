"""Status codes as they are written: the reason phrases of RFC 9110 section 15, and the status line."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

REASONS: Final = {
    100: b"Continue", 101: b"Switching Protocols", 200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content",
    206: b"Partial Content", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other", 304: b"Not Modified",
    307: b"Temporary Redirect", 308: b"Permanent Redirect", 400: b"Bad Request", 401: b"Unauthorized",
    403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    413: b"Content Too Large", 414: b"URI Too Long", 416: b"Range Not Satisfiable", 417: b"Expectation Failed",
    421: b"Misdirected Request",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout", 505: b"HTTP Version Not Supported", 508: b"Loop Detected",
}  # fmt: skip
_STATUS_LINES: Final = {(code, reason): b"HTTP/1.1 %d %b\r\n" % (code, reason) for code, reason in REASONS.items()}


def reason_of(status: int) -> bytes:
    """The reason phrase of a code. Python's list has those of RFC 9110 only from 3.13 on."""
    if status in REASONS:
        return REASONS[status]
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def status_line(status: int, reason: bytes) -> bytes:
    """The status line that is sent: always lbproxy's own version (RFC 9110 section 2.5)."""
    line = _STATUS_LINES.get((status, reason))
    return line if line is not None else b"HTTP/1.1 %d %b\r\n" % (status, reason)
