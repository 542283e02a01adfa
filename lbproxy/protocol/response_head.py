"""Response heads: what a server answers, read line by line as requests are, and written as it goes to the client.

Whatever is not understood is refused. A pool may be `lenient`: then a head that is not strict HTTP is repaired where
that is sound (repair.py), and read again, strictly.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.compiling import cut, i64, join_five, length_line, mypyc_attr
from lbproxy.protocol.connection_auth import CHALLENGES, binds
from lbproxy.protocol.field_lines import (
    MAX_NAME,
    MAX_REMEMBERED,
    NO_OPTIONS,
    FieldLines,
    HeadError,
    Names,
    fields_of,
    name_of,
    without,
)
from lbproxy.protocol.message import HOP_BY_HOP, KEEP_ALIVE, Fields, parse_length
from lbproxy.protocol.repair import one_length, repaired
from lbproxy.protocol.status import REASONS, status_line

NO_PROMISE: Final = -1.0  # seconds: no `Keep-Alive: timeout`; 0 is one, and means now

_status_line = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n").fullmatch
_keep_alive_timeout = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,6})").search
_no_more_requests = re.compile(rb"(?:^|[,; \t])max=0+(?![0-9])").search
_Lines = dict[bytes, list[bytes]]  # by lower-case name, the values of the fields that are read

_NOTHING: Final[_Lines] = {}  # never added to
_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))


@mypyc_attr(free_list_len=1, acyclic=True)
class ResponseHead:
    """An accepted response head; may be shared.

    lines: end-to-end fields in order, each `name: value` and CR LF, without framing. size: of the head as it was read,
    with its blank line. content_length: None without one.
    keep_alive: the server will keep the connection. keep_alive_timeout_s: what its Keep-Alive promises, negative
    without one.
    is_bodiless: the status alone says so (1xx, 204, 304). body_length: what follows unless the request was HEAD, -1
    if that is not known. is_grpc: gRPC's, over HTTP/2; grpc_status: what it says itself, as there is no body, else
    -1. is_plain: has a length and a date, so that `wire` (status line, fields and length) can be sent as it is.
    has_date: whoever forwards an answer without a Date adds one. upgrade: of a 101 what was chosen, of a 426 what the
    server asks for. binds: the connection is, or can become, one user's. is_shared: it is kept and not bound, so that
    the next request on it may be anybody's. secrets: over HTTP/2, names of fields that may enter no table.
    """

    __slots__ = (
        "binds",
        "body_length",
        "chunked",
        "content_length",
        "grpc_status",
        "has_date",
        "is_bodiless",
        "is_grpc",
        "is_plain",
        "is_shared",
        "keep_alive",
        "keep_alive_timeout_s",
        "lines",
        "nominated",
        "reason",
        "secrets",
        "size",
        "status",
        "upgrade",
        "wire",
    )

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.lines = b""
        self.size = 0
        self.wire = b""
        self.is_plain = False
        self.is_shared = True
        self.binds = False
        self.has_date = False
        self.is_grpc = False
        self.grpc_status = -1
        self.body_length = -1
        self.is_bodiless = status < 200 or status in (204, 304)
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.keep_alive_timeout_s = NO_PROMISE
        self.upgrade = b""
        self.nominated: frozenset[bytes] = NO_OPTIONS
        self.secrets: frozenset[bytes] = NO_OPTIONS

    @property
    def fields(self) -> Fields:
        """`lines` as pairs of name and value."""
        return fields_of(self.lines)


# --- names and status lines -----------------------------------------------------------------------------------------

_CR: Final = 13
_DATE: Final = 1
_LENGTH: Final = 2
_CONNECTION: Final = 3
_LOOK: Final = 4  # needs a decision of another kind
_CHALLENGE: Final = 5

_NAMES: Final = Names(
    {
        **dict.fromkeys((*HOP_BY_HOP, b"x-request-id"), _LOOK),
        **dict.fromkeys(CHALLENGES, _CHALLENGE),
        b"content-length": _LENGTH,
        b"connection": _CONNECTION,
        b"date": _DATE,
    }
)


class _Start:
    """A status line: what it says, and as it is sent."""

    __slots__ = ("minor", "reason", "sent", "status")

    def __init__(self, minor: int, status: int, reason: bytes) -> None:
        self.minor = minor
        self.status = status
        self.reason = reason
        self.sent = status_line(status, reason)


_starts: Final[dict[bytes, _Start]] = {}
_OK_LINE: Final = b"HTTP/1.1 200 OK\r\n"  # what most answers begin with
_OK: Final = _Start(1, 200, b"OK")


def _begun(line: bytes) -> _Start:
    """A status line, with its CR LF. Raises HeadError for what is none."""
    known = _starts.get(line)
    if known is not None:
        return known
    match = _status_line(line)
    if match is None:
        raise HeadError(errors.BAD_RESPONSE, "the status line or a field has octets that HTTP does not allow")
    found = _Start(int(match[1]), int(match[2]), match[3] or b"")
    if len(line) <= MAX_NAME:
        if len(_starts) >= MAX_REMEMBERED:
            _starts.clear()
        _starts[line] = found
    return found


@mypyc_attr(free_list_len=1, acyclic=True)
class _Reader(FieldLines):
    """What the lines of a head say that needs a decision. others: lower-case name -> values."""

    __slots__ = ("length", "n_lengths", "options", "others")

    def __init__(self, raw: bytes, at: i64) -> None:
        super().__init__(raw, at, _NAMES, errors.BAD_RESPONSE)
        self.length: i64 = -1
        self.n_lengths: i64 = 0
        self.options = NO_OPTIONS
        self.others = _NOTHING

    def read_into(self, head: ResponseHead) -> None:
        """Split the fields into those that go on (`head.lines`) and those that need a decision (kept here)."""
        while True:
            name = self.next()
            if name is None:
                break
            kind = name.kind
            if kind == _DATE:
                self.keep()
                head.has_date = True
            elif kind == _CHALLENGE:
                head.binds = head.binds or binds(name.lower, self.value())
                if name.lower in HOP_BY_HOP:
                    self.drop()
                else:
                    self.keep()
            elif kind == _LENGTH:
                self.drop()
                self.n_lengths += 1
                self.length = self.number()
            elif kind == _CONNECTION:
                self.drop()
                options = self.options_here()
                self.options = options if self.options is NO_OPTIONS else self.options | options
            else:
                self.drop()
                if self.others is _NOTHING:
                    self.others = {}
                self.others.setdefault(name.lower, []).append(self.value())
        head.lines = self.lines()


# --- reading --------------------------------------------------------------------------------------------------------


def parse_response_head(raw: bytes, *, max_fields: int, is_lenient: bool = False) -> ResponseHead:
    """Parse one response head: `raw` ends with its blank line. Raises HeadError (bad_response and kin).

    is_lenient: what is not strict HTTP is repaired where that is sound (repair.py), and then parsed strictly.
    """
    try:
        return _parse_strictly(raw, max_fields)
    except HeadError as error:
        found = repaired(raw) if is_lenient and error.fault is errors.BAD_RESPONSE else None
        if found is None:
            raise
    head = _parse_strictly(found[0], max_fields)
    head.size = len(raw)
    if not found[1]:
        head.keep_alive = head.is_shared = False
    return head


def _parse_strictly(raw: bytes, max_fields: int) -> ResponseHead:
    head = read_response_head(raw, max_fields=max_fields)
    if head is None or head.size != len(raw):
        raise HeadError(errors.BAD_RESPONSE, "the head does not end with a blank line")
    return head


def read_response_head(raw: bytes, *, max_fields: int) -> ResponseHead | None:
    """The head that `raw` begins with, which must be strict. None, or a HeadError, if not all of it is there."""
    size: i64 = 2
    try:
        if raw.startswith(_OK_LINE):
            start, size = _OK, len(_OK_LINE)
        else:
            while raw[size - 2] != _CR:
                size += 1
            start = _begun(cut(raw, 0, size))
        head = ResponseHead(start.status, start.reason)
        found = _Reader(raw, size)
        found.read_into(head)
    except IndexError:
        return None
    head.size = found.size
    options, minor = found.options, start.minor
    if options is not KEEP_ALIVE or not minor:
        _set_connection(head, options, minor)
    _set_framing(head, found, minor, raw)
    if found.count - max(0, found.n_lengths - 1) > max_fields:  # the same length several times is one field
        raise HeadError(errors.RESPONSE_HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    if found.others:
        _set_others(head, found.others, options, minor)
    head.is_shared = head.keep_alive and not head.binds
    length = head.content_length
    if length is not None and start.status >= 200 and start.status != 204:
        head.is_plain = head.has_date and start.status != 426
        if not head.is_bodiless:
            head.body_length = length
        head.wire = join_five(start.sent, head.lines, length_line(length), b"", b"")
    return head


def response_head_of(status: int, lines: bytes, content_length: int | None) -> ResponseHead:
    """The head of an answer in HTTP/2, whose fields were checked when they were read.

    lines: each `name: value` and CR LF, without framing. The last one of a status without a reason is its usual one.
    """
    length = b"" if content_length is None else length_line(content_length)
    raw = b"%b%b%b\r\n" % (status_line(status, REASONS.get(status, b"")), lines, length)
    head = read_response_head(raw, max_fields=raw.count(b"\n"))
    assert head is not None
    return head


def _set_connection(head: ResponseHead, options: frozenset[bytes], minor: int) -> None:
    """Whether the connection is kept, and what goes because the Connection field names it."""
    head.keep_alive = b"close" not in options if minor else b"keep-alive" in options and b"close" not in options
    nominated = options - _OPTIONS
    if nominated:
        head.nominated = nominated
        head.lines = without(head.lines, nominated)
        head.has_date = head.has_date and b"date" not in nominated


def _set_others(head: ResponseHead, lines: _Lines, options: frozenset[bytes], minor: int) -> None:
    """How long the connection is kept, and what is said of a switch of protocols."""
    if b"keep-alive" in lines:
        for value in lines[b"keep-alive"]:
            timeout = _keep_alive_timeout(value.lower())
            if timeout is not None:
                head.keep_alive_timeout_s = float(timeout[1])
            if head.keep_alive_timeout_s == 0.0 or _no_more_requests(value.lower()):
                head.keep_alive = False  # it closes at once, though it does not say `Connection: close`
    if head.status == 101:
        if b"upgrade" in options and minor:  # HTTP/1.0 has no 1xx (RFC 9110 section 15.2)
            head.upgrade = b", ".join(lines.get(b"upgrade", [])).lower()
    elif head.status == 426:
        head.upgrade = b", ".join(lines.get(b"upgrade", []))


def _set_framing(head: ResponseHead, found: _Reader, minor: int, raw: bytes) -> None:
    """chunked, or one length (RFC 9112 section 6.3); the same one several times is one (RFC 9110 section 8.6)."""
    if found.others and b"transfer-encoding" in found.others:
        codings = found.others[b"transfer-encoding"]
        if found.n_lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise HeadError(errors.BAD_RESPONSE, "Transfer-Encoding is not exactly 'chunked' and alone")
        head.chunked = True
        if minor == 0:  # RFC 9112 section 6.1: process it, and close the connection
            head.keep_alive = False
    elif found.n_lengths:
        length: int | None = found.length
        if found.n_lengths != 1 or found.length < 0:
            values = [
                line.partition(b":")[2]
                for line in raw[: found.size].split(b"\r\n")
                if name_of(line) == b"content-length"
            ]
            length = parse_length(one_length(values))
        if length is None:
            raise HeadError(errors.BAD_RESPONSE, "Content-Length is not one number")
        head.content_length = length
