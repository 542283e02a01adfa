"""Response heads: what a server answers, read line by line as requests are, and written as it goes to the client.

Whatever is not understood is refused. A pool may be `lenient`: then a head that is not strict HTTP is repaired where
that is sound (repair.py), and read again, strictly.
"""

from __future__ import annotations

import re
from typing import Final

from lbproxy import errors
from lbproxy.protocol.connection_auth import CHALLENGES, binds
from lbproxy.protocol.field_lines import (
    MAX_NAME,
    MAX_REMEMBERED,
    NO_OPTIONS,
    WHITE,
    HeadError,
    Line,
    Name,
    colon_of,
    cut,
    fields_of,
    lower_name,
    remember,
    without,
)
from lbproxy.protocol.message import HOP_BY_HOP, KEEP_ALIVE, Fields, connection_options, parse_length
from lbproxy.protocol.repair import one_length, repaired
from lbproxy.protocol.status import status_line

NO_PROMISE: Final = -1.0  # seconds: no `Keep-Alive: timeout`; 0 is one, and means now

_status_line = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_keep_alive_timeout = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,6})").search
_no_more_requests = re.compile(rb"(?:^|[,; \t])max=0+(?![0-9])").search
_Lines = dict[bytes, list[bytes]]  # by lower-case name, the values of the fields that are read

_NO_VALUES: Final[list[bytes]] = []
_NOTHING: Final[_Lines] = {}  # never added to
_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade"))


class ResponseHead:
    """An accepted response head; may be shared.

    kept: end-to-end fields in order, as `name: value`, without framing. content_length: None without one. keep_alive:
    the server will keep the connection. keep_alive_timeout_s: what its Keep-Alive field promises, negative without one.
    is_bodiless: the status alone says so (1xx, 204, 304). body_length: what follows unless the request was HEAD, -1 if
    that is not known. is_plain: has a length and a date, so that `wire` (status line, fields and length) can be sent as
    it is. has_date: whoever forwards an answer without a Date adds one. upgrade: of a 101 what was chosen, of a 426
    what the server asks for. binds: the connection is, or can become, one user's. is_shared: it is kept and not bound,
    so that the next request on it may be anybody's.
    """

    __slots__ = (
        "binds",
        "body_length",
        "chunked",
        "content_length",
        "has_date",
        "is_bodiless",
        "is_plain",
        "is_shared",
        "keep_alive",
        "keep_alive_timeout_s",
        "kept",
        "nominated",
        "reason",
        "status",
        "upgrade",
        "wire",
    )

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.kept: list[str] = []
        self.wire = b""
        self.is_plain = False
        self.is_shared = True
        self.binds = False
        self.has_date = False
        self.body_length = -1
        self.is_bodiless = status < 200 or status in (204, 304)
        self.content_length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.keep_alive_timeout_s = NO_PROMISE
        self.upgrade = b""
        self.nominated: frozenset[bytes] = NO_OPTIONS

    @property
    def fields(self) -> Fields:
        """`kept` as pairs of name and value."""
        return fields_of(self.kept)

    @property
    def lines(self) -> bytes:
        """`kept` as it is sent."""
        return "\r\n".join([*self.kept, ""]).encode("latin-1") if self.kept else b""


# --- names and status lines -----------------------------------------------------------------------------------------

_PASS: Final = 0  # and it is what is sent
_ANEW: Final = 1  # passes, but is written anew
_DATE: Final = 2
_LENGTH: Final = 3
_CONNECTION: Final = 4
_LOOK: Final = 5  # needs a decision of another kind
_CHALLENGE: Final = 6

_KINDS: Final = {
    **dict.fromkeys((*HOP_BY_HOP, b"x-request-id"), _LOOK),
    **dict.fromkeys(CHALLENGES, _CHALLENGE),
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"date": _DATE,
}


class _Start:
    """A status line: what it says, and as it is sent."""

    __slots__ = ("minor", "reason", "sent", "status")

    def __init__(self, minor: int, status: int, reason: bytes) -> None:
        self.minor = minor
        self.status = status
        self.reason = reason
        self.sent = status_line(status, reason)[:-2].decode("latin-1")


_names: Final[dict[str, Name]] = {}  # as sent
_starts: Final[dict[str, _Start]] = {}


def _met(name: str) -> Name:
    """A name that is not in the table. Raises HeadError for what is none."""
    lower = lower_name(name)
    if not lower:
        raise HeadError(errors.BAD_RESPONSE, "a field name is empty or has octets that HTTP does not allow")
    kind = _KINDS.get(lower, _PASS)
    found = Name(kind, lower)
    if len(name) <= MAX_NAME:
        if len(_names) >= MAX_REMEMBERED:
            _names.clear()
        _names[name] = found
    return found


def _begun(line: str) -> _Start:
    """A status line that is not in the table. Raises HeadError for what is none."""
    match = _status_line(line)
    if match is None:
        raise HeadError(errors.BAD_RESPONSE, "the status line or a field has octets that HTTP does not allow")
    found = _Start(int(match[1]), int(match[2]), (match[3] or "").encode("latin-1"))
    if len(line) <= MAX_NAME:
        if len(_starts) >= MAX_REMEMBERED:
            _starts.clear()
        _starts[line] = found
    return found


# --- lines ----------------------------------------------------------------------------------------------------------

_lines: Final[dict[str, Line]] = {}
_AS_IT_IS: Final = Line(_PASS, b"", "", "")


def _read(line: str) -> Line:
    """What a line says that is not remembered. Raises HeadError for what is no field."""
    colon, is_plain = colon_of(line)
    if colon < 0:
        raise HeadError(errors.BAD_RESPONSE, "a line without a colon, or with octets that HTTP does not allow")
    name = line[:colon]
    known = _names.get(name)
    if known is None:
        known = _met(name)
    kind = known.kind
    if kind == _PASS and is_plain:
        found = _AS_IT_IS
    else:
        text = line[colon + 2 :] if is_plain else line[colon + 1 :].strip(WHITE)
        found = Line(kind or _ANEW, known.lower, text, line if is_plain else f"{name}: {text}")
        if kind == _LENGTH:
            length = parse_length(found.value)
            found.number = -1 if length is None else length
        elif kind == _CONNECTION:
            found.options = connection_options([found.value])
    remember(_lines, known, line, found)
    return found


class _Found:
    """What the lines of a head say that needs a decision. others: lower-case name -> values."""

    __slots__ = ("length", "lengths", "options", "others")

    def __init__(self) -> None:
        self.length = -1
        self.lengths = _NO_VALUES
        self.options = NO_OPTIONS
        self.others = _NOTHING

    def add(self, name: bytes, value: bytes) -> None:
        if self.others is _NOTHING:
            self.others = {}
        self.others.setdefault(name, []).append(value)


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
    if not found[1]:
        head.keep_alive = head.is_shared = False
    return head


def _parse_strictly(raw: bytes, max_fields: int) -> ResponseHead:
    lines = cut(raw)
    if lines is None:
        raise HeadError(errors.BAD_RESPONSE, "the head does not end with a blank line")
    start = _starts.get(lines[0])
    if start is None:
        start = _begun(lines[0])
    head = ResponseHead(start.status, start.reason)
    found = _read_lines(head, lines)
    options, minor = found.options, start.minor
    if options is not KEEP_ALIVE or not minor:
        _set_connection(head, options, minor)
    _set_framing(head, found, minor)
    if len(lines) > max_fields + max(1, len(found.lengths)):  # the same length several times is one field
        raise HeadError(errors.RESPONSE_HEADER_TOO_LARGE, f"more than {max_fields} header fields")
    if found.others:
        _set_others(head, found.others, options, minor)
    head.is_shared = head.keep_alive and not head.binds
    length = head.content_length
    if length is not None and start.status >= 200 and start.status != 204:
        head.is_plain = head.has_date and start.status != 426
        if not head.is_bodiless:
            head.body_length = length
        head.wire = "\r\n".join([start.sent, *head.kept, "Content-Length: " + str(length), ""]).encode("latin-1")
    return head


def _read_lines(head: ResponseHead, lines: list[str]) -> _Found:
    """Split the fields into those that go on (`head.kept`) and those that need a decision (returned)."""
    found = _Found()
    kept = head.kept
    for index in range(1, len(lines)):
        line = lines[index]
        one = _lines.get(line)
        if one is None:
            one = _read(line)
        kind = one.kind
        if kind == _PASS:
            kept.append(line)
        elif kind == _DATE:
            kept.append(one.sent)
            head.has_date = True
        elif kind == _LENGTH:
            found.length = one.number
            found.lengths = [*found.lengths, one.value]
        elif kind == _CONNECTION:
            found.options = found.options | one.options if found.options else one.options
        elif kind == _LOOK:
            found.add(one.lower, one.value)
        else:
            if kind == _CHALLENGE:
                head.binds = head.binds or binds(one.lower, one.value)
            if one.lower not in HOP_BY_HOP:
                kept.append(one.sent)
    return found


def _set_connection(head: ResponseHead, options: frozenset[bytes], minor: int) -> None:
    """Whether the connection is kept, and what goes because the Connection field names it."""
    head.keep_alive = b"close" not in options if minor else b"keep-alive" in options and b"close" not in options
    nominated = options - _OPTIONS
    if nominated:
        head.nominated = nominated
        head.kept = without(head.kept, nominated)
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


def _set_framing(head: ResponseHead, found: _Found, minor: int) -> None:
    """chunked, or one length (RFC 9112 section 6.3); the same one several times is one (RFC 9110 section 8.6)."""
    if b"transfer-encoding" in found.others:
        codings = found.others[b"transfer-encoding"]
        if found.lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise HeadError(errors.BAD_RESPONSE, "Transfer-Encoding is not exactly 'chunked' and alone")
        head.chunked = True
        if minor == 0:  # RFC 9112 section 6.1: process it, and close the connection
            head.keep_alive = False
    elif found.lengths:
        length: int | None = found.length
        if len(found.lengths) != 1 or found.length < 0:
            length = parse_length(one_length(found.lengths))
        if length is None:
            raise HeadError(errors.BAD_RESPONSE, "Content-Length is not one number")
        head.content_length = length
