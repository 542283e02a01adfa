"""Answers as an HTTP/1 client gets them: lbproxy's own in their framing, and the heads of servers' answers."""

from __future__ import annotations

from collections.abc import Sequence

from lbproxy.dataplane.exchange.own_answers import http_date
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field, Fields, forwardable_trailers, join_fields
from lbproxy.protocol.status import reason_of, status_line
from lbproxy.protocol.websocket import accept_of, sent_key, without_keys


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
    data = status_line(status, reason_of(status)) + join_fields(fields) + shown_id(prepared, id_line) + b"\r\n"
    return data if prepared.is_head or status in (204, 304) else data + body


def shown_id(prepared: Prepared, id_line: bytes) -> bytes:
    """The line of X-Request-ID, unless the route's edits take it out or set another."""
    return b"" if b"x-request-id" in prepared.route.response_touched else id_line


def interim_head(prepared: Prepared, head: ResponseHead) -> bytes:
    """A server's 1xx as the client gets it. What edits remove or set is taken out; they put nothing in.

    A 103 (Early Hints) shows fields of the answer that is to come, and must not show what that will not have.
    """
    return status_line(head.status, head.reason) + untouched_lines(prepared, head) + b"\r\n"


def untouched_lines(prepared: Prepared, head: ResponseHead) -> bytes:
    """The lines of a server's head without those that edits remove or set."""
    touched = prepared.route.response_touched
    if not touched:
        return head.lines
    return join_fields([field for field in head.fields if field[0].lower() not in touched])


def switching_head(prepared: Prepared, head: ResponseHead, id_line: bytes, cookie_line: bytes = b"") -> bytes:
    """A server's 101, or its 2xx to extended CONNECT, as the client gets it: its last answer in HTTP, so all edits
    hold."""
    edits = prepared.route.response_edits
    lines = head.lines if edits.is_empty else join_fields(edits.apply(head.fields))
    reason = head.reason
    if head.status != 101:
        key = sent_key(prepared.head.lines)
        lines = b"%bSec-WebSocket-Accept: %b\r\n" % (without_keys(lines), accept_of(key))
        reason = reason_of(101)
    own = b"Connection: Upgrade\r\nUpgrade: %b\r\n%b%b\r\n" % (
        head.upgrade,
        cookie_line,
        shown_id(prepared, id_line),
    )
    return status_line(101, reason) + lines + own


def sent_trailers(prepared: Prepared, trailers: Sequence[Field], nominated: frozenset[bytes]) -> bytes:
    """The trailer section of an answer: what edits remove or set is taken out, as it would add to the head."""
    touched = prepared.route.response_touched
    return join_fields(forwardable_trailers(trailers, nominated | touched if nominated or touched else nominated))


def response_head(
    prepared: Prepared, head: ResponseHead, id_line: bytes, cookie_line: bytes = b"", *, closes: bool
) -> tuple[bytes, bool, bool]:
    """A server's head as this client gets it: (bytes, is the body chunked, does the connection end with it).

    Hop-by-hop fields are gone, the framing is lbproxy's own: a length where it is known, else chunks for HTTP/1.1, and
    the end of the connection for HTTP/1.0. Who forwards an answer without a Date must add the time at which it came
    (RFC 9110 section 6.6.1), and a 426 must say to what it asks to upgrade (section 15.5.22).
    """
    status = head.status
    edits = prepared.route.response_edits
    if edits.is_empty:
        lines = head.lines if head.has_date else b"%bDate: %b\r\n" % (head.lines, http_date())
    else:
        lines = join_fields(edits.apply(head.fields if head.has_date else [*head.fields, (b"Date", http_date())]))
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
    option = b"close" if closes else b"" if prepared.minor else b"keep-alive"
    if head.upgrade:
        framing += b"Upgrade: %b\r\n" % head.upgrade
        option = b"Upgrade, " + option if option else b"Upgrade"
    if option:
        framing += b"Connection: %b\r\n" % option
    shown = cookie_line + shown_id(prepared, id_line)
    return b"%b%b%b%b\r\n" % (status_line(status, head.reason), lines, framing, shown), is_chunking, closes
