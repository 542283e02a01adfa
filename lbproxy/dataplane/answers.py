"""Answers that lbproxy gives itself: problem+json (RFC 9457) with Proxy-Status (RFC 9209)."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from lbproxy.dataplane.prepare import Prepared
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field, Fields, join_fields
from lbproxy.protocol.status import REASONS, status_line

_ALLOW: Final[Field] = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_date = (0, b"")


def http_date() -> bytes:
    """The Date field's value, made once a second (RFC 9110 section 6.6.1)."""
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True).encode())
    return _date[1]


def reason_of(status: int) -> bytes:
    if status in REASONS:
        return REASONS[status]
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


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


def local_answer(prepared: Prepared) -> tuple[int, Fields, bytes]:
    """Status, fields and body of a route's redirect or fixed response, or of OPTIONS with Max-Forwards: 0."""
    route = prepared.route
    status, body = 200, b""
    fields: Fields = [(b"Date", http_date())]
    if prepared.is_local:
        fields.append(_ALLOW)
    elif route.redirect is not None:
        status, location = route.redirect
        fields.append((b"Location", location))
    elif route.respond is not None:
        status, extra, body = route.respond
        fields += extra
    return status, route.response_edits.apply(fields) if route.edits_responses else fields, body


def answer_bytes(
    prepared: Prepared, status: int, fields: Fields, body: bytes, id_line: bytes, *, closes: bool
) -> bytes:
    """A whole answer of lbproxy's own, framed for this client."""
    fields = list(fields)
    if status not in (204, 304):
        fields.append((b"Content-Length", b"%d" % len(body)))
    if closes:
        fields.append((b"Connection", b"close"))
    elif not prepared.minor:
        fields.append((b"Connection", b"keep-alive"))
    data = status_line(status, reason_of(status)) + join_fields(fields) + id_line + b"\r\n"
    return data if prepared.is_head or status in (204, 304) else data + body


def response_head(prepared: Prepared, head: ResponseHead, id_line: bytes, *, closes: bool) -> tuple[bytes, bool, bool]:
    """A server's head as this client gets it: (bytes, is the body chunked, does the connection end with it).

    Hop-by-hop fields are gone, the framing is lbproxy's own: a length where it is known, else chunks for HTTP/1.1, and
    the end of the connection for HTTP/1.0.
    """
    status = head.status
    edits = prepared.route.response_edits
    lines = head.lines if edits.is_empty else join_fields(edits.apply(head.fields))
    is_chunking = False
    framing = b""
    if head.content_length is not None:
        if status != 204:
            framing = b"Content-Length: %d\r\n" % head.content_length
    elif status not in (204, 304):
        if prepared.minor:
            framing = b"Transfer-Encoding: chunked\r\n"
            is_chunking = not prepared.is_head
        elif not prepared.is_head:
            closes = True
    if closes:
        framing += b"Connection: close\r\n"
    elif not prepared.minor:
        framing += b"Connection: keep-alive\r\n"
    return b"%b%b%b%b\r\n" % (status_line(status, head.reason), lines, framing, id_line), is_chunking, closes
