"""Heads between HTTP/2 and what requests and answers are inside of lbproxy, which is HTTP/1.1's (RFC 9113 section 8).

A request's head is written as the head of HTTP/1.1 that says the same, and then goes the way of all heads: routes,
limits, what is dropped, what servers get. Nothing of it can become two requests there, since every octet was checked
when its field was made (protocol/h2/fields.py), and is checked again when the head is read.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import length_line
from lbproxy.dataplane.client.answers import shown_id
from lbproxy.dataplane.exchange.own_answers import date_line, http_date
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.protocol.field_lines import fields_of
from lbproxy.protocol.h2.head import H2Head
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Fields, join_fields
from lbproxy.protocol.websocket import without_keys

_TE: Final = b"TE: trailers\r\nConnection: TE\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


def request_octets(head: H2Head, *, is_end: bool) -> bytes:
    """A request's head as HTTP/1.1 has it; the target of CONNECT is the authority. is_end: there is no body."""
    known = head.whole_octets if is_end else head.octets
    if not known:
        known = _request_octets(head, is_end=is_end)
        if is_end:
            head.whole_octets = known
        else:
            head.octets = known
    return known


def _request_octets(head: H2Head, *, is_end: bool) -> bytes:
    start = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.path or head.authority, head.authority)
    framing = b""
    if head.content_length is not None:
        framing = b"Content-Length: %d\r\n" % head.content_length
    elif not is_end:
        framing = _CHUNKED
    if head.accepts_trailers:
        framing += _TE
    return b"%b%b%b\r\n" % (start, head.lines, framing)


def connect_octets(head: H2Head) -> bytes:
    """The same of extended CONNECT (RFC 8441 section 5): a GET with Upgrade. The key of HTTP/1.1 is made when it is
    sent, as heads that are equal are remembered."""
    start = b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (head.path, head.authority)
    return b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (start, without_keys(head.lines), head.protocol)


def tunnel_lines(prepared: Prepared, head: ResponseHead) -> bytes:
    """The fields of the answer that opens a tunnel: all edits hold, and it has no length."""
    edits = prepared.route.response_edits
    lines = head.lines if head.has_date else b"%bDate: %b\r\n" % (head.lines, http_date())
    if not edits.is_empty:
        lines = join_fields(edits.apply(fields_of(lines)))
    return without_keys(lines)


def answer_lines(prepared: Prepared, head: ResponseHead, id_line: bytes) -> tuple[bytes, bytes, bytes]:
    """The fields of a server's final head as an HTTP/2 client gets them, as lines: what may be the same for many, what
    is for a second, and what is of this answer only.

    Who forwards an answer without a Date must add the time at which it came (RFC 9110 section 6.6.1).
    """
    edits = prepared.route.response_edits
    aside = b"" if head.has_date else date_line()
    lines = head.lines
    if not edits.is_empty:
        lines, aside = join_fields(edits.apply(fields_of(lines + aside))), b""
    own = shown_id(prepared, id_line)
    if head.content_length is not None and head.status != 204:
        own = length_line(head.content_length) + own
    return lines, aside, own


def own_lines(prepared: Prepared, status: int, fields: Fields, n_body: int, id_line: bytes) -> bytes:
    """Those of an answer of lbproxy's own."""
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % n_body
    return b"%b%b%b" % (join_fields(fields), length, shown_id(prepared, id_line))
