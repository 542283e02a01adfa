"""Answers that lbproxy gives itself, for any version of HTTP: problem+json (RFC 9457) with Proxy-Status (RFC 9209)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.exchange.tries import details
from lbproxy.dataplane.runtime import DEFAULT_METHODS
from lbproxy.errors import RATE_LIMITED, Fault, Retry
from lbproxy.protocol import grpc
from lbproxy.protocol.message import Fields
from lbproxy.protocol.status import reason_of
from lbproxy.telemetry.accesslog import Try

# What a server says of its own answer, and a route's edits repeat, is not true of one that lbproxy gives in its place:
# an error would be kept by caches for as long as a good answer.
_ABOUT_ANOTHER_ANSWER: Final = frozenset(
    b"age cache-control cdn-cache-control clear-site-data content-disposition content-encoding content-language "
    b"content-location content-md5 content-range content-type etag expires last-modified location retry-after "
    b"set-cookie surrogate-control www-authenticate".split()
)
_time: Final = time.time


class _Date:
    """The present second, its name, and the line that says it. One object: a name of the module takes a look-up."""

    __slots__ = ("line", "second", "value")

    def __init__(self) -> None:
        self.second = 0
        self.value = b""
        self.line = b""

    def renew(self) -> None:
        second = int(_time())
        if self.second != second:
            self.second = second
            self.value = formatdate(second, usegmt=True).encode()
            self.line = b"Date: %b\r\n" % self.value


_DATE: Final = _Date()


def http_date() -> bytes:
    """The Date field's value, made once a second (RFC 9110 section 6.6.1)."""
    _DATE.renew()
    return _DATE.value


def date_line() -> bytes:
    """The whole line, the same object for a second."""
    _DATE.renew()
    return _DATE.line


def problem(
    fault: Fault,
    detail: str,
    request_id: str,
    retry_after_s: int | None,
    allow: bytes = DEFAULT_METHODS,
    tries: Sequence[Try] = (),
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Fields and body of the answer to a fault. `detail` says what happened here, the fault's hint what to do.

    allow: the methods that the listener serves. tries: the attempts, where there were several.
    """
    text = _text(fault, detail)
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
        (b"Proxy-Status", b"lbproxy; error=%b; details=%b" % (fault.error.encode(), details(fault.word, tries))),
    ]
    if fault.status == 405:
        fields.append((b"Allow", allow))
    if fault.status in (429, 503) or fault.word == RATE_LIMITED.word:
        fields.append((b"Retry-After", b"%d" % (retry_after_s if retry_after_s is not None else 1)))
    return fields, body + b"\n"


def _text(fault: Fault, detail: str) -> str:
    return f"{detail[:1].upper()}{detail[1:]}. {fault.hint}" if detail else fault.hint


def grpc_problem(fault: Fault, detail: str, tries: Sequence[Try] = ()) -> Fields:
    """Fields of the same answer to a call of gRPC: it has no body, and HTTP's own status is 200."""
    # What never reached an application may be repeated by whoever called, which is what UNAVAILABLE says. Not what is
    # the same the next time, too: 501 (RFC 9110 section 15.6.2).
    may_repeat = fault.retry is Retry.ALWAYS and fault.status != 501
    status = grpc.UNAVAILABLE if may_repeat else grpc.of_http(fault.status)
    return [
        (b"Date", http_date()),
        *grpc.trailers_only(status, _text(fault, detail)),
        (b"Proxy-Status", b"lbproxy; error=%b; details=%b" % (fault.error.encode(), details(fault.word, tries))),
    ]


def edited(prepared: Prepared, fields: Fields) -> Fields:
    """The fields of an error of lbproxy's own with the route's edits, without what is meant for the server's answer."""
    edits = prepared.route.response_edits
    if edits.is_empty:
        return fields
    put = [item for item in edits.set if item[0].lower() not in _ABOUT_ANOTHER_ANSWER]
    gone = edits.remove | {name.lower() for name, _ in put}
    added = [item for item in edits.add if item[0].lower() not in _ABOUT_ANOTHER_ANSWER]
    return [item for item in fields if item[0].lower() not in gone] + put + added


def local_answer(prepared: Prepared, allow: bytes = DEFAULT_METHODS) -> tuple[int, Fields, bytes]:
    """Status, fields and body of a route's redirect or fixed response, or of OPTIONS with Max-Forwards: 0."""
    route = prepared.route
    status, body = 200, b""
    fields: Fields = [(b"Date", http_date())]
    if prepared.is_local:
        fields.append((b"Allow", allow))
    elif route.redirect is not None:
        status, location = route.redirect
        fields.append((b"Location", prepared.location or location))
    elif route.respond is not None:
        status, extra, body = route.respond
        if any(name.lower() == b"date" for name, _ in extra):
            fields = []
        fields += extra
    return status, route.response_edits.apply(fields) if route.edits_responses else fields, body
